"""A branch of a real repository: what is new, laid out as it is, and nothing of it run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.errors import ActionFailed, NotFound, UsageError
from engine.pipeline.triggers import git as triggers_git
from engine.pipeline.triggers.git import Mirror, shown
from tests.pipeline.triggers.triggered import committed, git
from tests.waiting import lives, until


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")
    committed(folder, "first", train="print(1)", docs="read me")
    return folder


async def test_a_new_commit_is_taken_and_laid_out_while_the_one_before_stays(
        origin: Path, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "home", str(origin), "main")
    first = await mirror.head()
    taken = await mirror.take(first, None, [])
    assert (taken.id, taken.summary, taken.changed) == (first, "first", True)
    before = await mirror.folder(first)
    second = committed(origin, "second", train="print(2)")
    assert await mirror.head() == second
    assert (await mirror.take(second, first, [])).changed
    after = await mirror.folder(second)
    assert (before / "train.py").read_text() == "print(1)"
    assert (after / "train.py").read_text() == "print(2)"
    assert git(after, "rev-parse", "HEAD") == second
    assert git(after, "status", "--porcelain") == ""


async def test_only_changes_under_the_given_paths_count(origin: Path, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "home", str(origin), "main")
    first = await mirror.head()
    await mirror.take(first, None, ["train.py"])
    docs = committed(origin, "words", docs="more")
    assert not (await mirror.take(docs, first, ["train.py"])).changed
    code = committed(origin, "code", train="print(3)")
    assert (await mirror.take(code, docs, ["train.py"])).changed


async def test_a_force_push_is_compared_with_what_was_there_and_the_old_commit_is_kept(
        origin: Path, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "home", str(origin), "main")
    first = await mirror.head()
    await mirror.take(first, None, [])
    git(origin, "checkout", "--quiet", "--orphan", "other")
    rewritten = committed(origin, "rewritten", train="print(9)")
    git(origin, "branch", "--force", "main", "other")
    assert await mirror.head() == rewritten
    assert (await mirror.take(rewritten, first, ["train.py"])).changed
    git(origin, "reflog", "expire", "--expire=now", "--all")
    git(origin, "gc", "--quiet", "--prune=now")
    assert (await mirror.folder(first) / "train.py").read_text() == "print(1)"


async def test_a_deleted_branch_and_a_missing_repository_are_said_to_be_so(
        origin: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no branch gone in"):
        await Mirror(tmp_path / "home", str(origin), "gone").head()
    with pytest.raises(ActionFailed, match="cannot be read"):
        await Mirror(tmp_path / "home", str(tmp_path / "nowhere"), "main").head()
    with pytest.raises(ActionFailed, match="cannot be read"):
        await Mirror(tmp_path / "home", "http://127.0.0.1:9/x.git", "main").head()


async def test_a_repository_that_does_not_answer_is_not_waited_for(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers_git, "LOOK_WITHIN", 1.5)
    slow = tmp_path / "ssh"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nsleep 600\n")
    slow.chmod(0o700)
    environ = {**os.environ, "GIT_SSH_COMMAND": str(slow)}
    mirror = Mirror(tmp_path / "home", "ssh://host/x.git", "main", environ)
    with pytest.raises(ActionFailed, match="did not answer within"):
        await mirror.head()
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not lives(pid), "what git had started ends with it", within=20.0)


async def test_nothing_that_a_repository_brings_is_run(origin: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for name in ("post-checkout", "reference-transaction", "post-index-change", "post-merge"):
        hook = origin / ".git/hooks" / name
        hook.parent.mkdir(exist_ok=True)
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o700)
    git(origin, "config", "filter.evil.smudge", f"touch {ran}; cat")
    git(origin, "config", "uploadpack.packObjectsHook", f"touch {ran}; exec \"$@\" #")
    git(origin, "config", "core.fsmonitor", f"touch {ran}")
    (origin / ".gitattributes").write_text("*.py filter=evil\n")
    (origin / ".gitmodules").write_text('[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch\n')
    ran.unlink(missing_ok=True)
    head = committed(origin, "traps", train="print(4)")
    ran.unlink(missing_ok=True)
    mirror = Mirror(tmp_path / "home", str(origin), "main")
    await mirror.take(await mirror.head(), None, [])
    assert (await mirror.folder(head) / "train.py").read_text() == "print(4)"
    assert not ran.exists()


@pytest.mark.parametrize("address", ["--upload-pack=touch /tmp/x", "ext::sh -c touch% /tmp/x", "a\nb"])
async def test_an_address_that_would_run_something_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, ActionFailed)):
        await Mirror(tmp_path / "home", address, "main").head()


async def test_a_branch_that_is_an_option_is_refused(tmp_path: Path) -> None:
    for branch in ("--all", "a b", "x..y", "x:y"):
        with pytest.raises(UsageError, match="is not a branch's name"):
            Mirror(tmp_path / "home", "/srv/x.git", branch)


async def test_credentials_of_an_address_are_not_shown(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "home", "http://ann:hunter2@127.0.0.1:9/x.git", "main")
    with pytest.raises(ActionFailed) as told:
        await mirror.head()
    assert "hunter2" not in str(told.value)
    assert shown("see https://a:b@host/x and ssh://git@host/y") == "see https://host/x and ssh://host/y"


async def test_a_folder_that_was_half_made_is_made_again_and_old_ones_go(
        origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers_git, "KEPT_FOLDERS", 1)
    mirror = Mirror(tmp_path / "home", str(origin), "main")
    first = await mirror.head()
    await mirror.take(first, None, [])
    folder = await mirror.folder(first)
    (tmp_path / "home/commits" / f"{first}.ready").unlink()
    (folder / "train.py").unlink()
    assert (await mirror.folder(first) / "train.py").exists()
    ids = [first]
    for n in range(3):
        ids.append(committed(origin, f"c{n}", train=f"print({n}0)"))
        await mirror.take(ids[-1], None, [])
        os.utime(tmp_path / "home/commits" / f"{ids[-2]}.ready", (n, n))
        await mirror.folder(ids[-1])
    await mirror.forget({first})
    assert {path.name for path in (tmp_path / "home/commits").iterdir() if path.is_dir()} == {first, ids[-1]}
