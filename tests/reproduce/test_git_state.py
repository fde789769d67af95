"""The Git state of a project: one digest for one set of contents, whatever Git's settings are."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from engine.errors import ActionFailed, UsageError
from engine.reproduce import git
from tests.reproduce.repository import Repository


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "a project")
    made.commit(train__py="print(1)\n", __gitignore="*.log\n")
    return made


def dirty(project: Repository) -> str | None:
    found = git.state(project.folder)
    assert found is not None
    return found.dirty


def test_a_clean_project_is_its_commit(project: Repository) -> None:
    found = git.state(project.folder)
    assert found is not None
    assert found.commit == project.git("rev-parse", "HEAD").strip()
    assert (found.dirty, found.changed, found.folder, found.remote) == (None, [], "", None)


def test_a_folder_outside_git_has_no_state(tmp_path: Path) -> None:
    assert git.state(tmp_path) is None and git.tracked(tmp_path) == frozenset()


def test_a_project_below_the_root_knows_its_place(project: Repository) -> None:
    project.commit(**{"models/.flights/x__py": "1"})
    found = git.state(project.folder / "models" / ".flights")
    assert found is not None and found.folder == "models/.flights"


def test_credentials_never_enter_the_remote(project: Repository) -> None:
    project.git("remote", "add", "origin", "https://me:secret@git.example/flights.git")
    found = git.state(project.folder)
    assert found is not None and found.remote == "https://git.example/flights.git"


def test_every_kind_of_change_makes_it_dirty_in_its_own_way(project: Repository) -> None:
    seen = {dirty(project)}
    file = project.folder / "train.py"
    for change in (lambda: file.write_text("print(2)\n"), lambda: file.write_text("print(3)\n"),
                   lambda: file.chmod(0o755), lambda: project.write("new name.py", "x"),
                   lambda: project.write("new name.py", "y"), lambda: project.write("é\t\n.py", "y"),
                   lambda: (project.folder / "link").symlink_to("train.py"),
                   lambda: ((project.folder / "link").unlink(), (project.folder / "link").symlink_to("x")),
                   lambda: file.unlink()):
        change()
        now = dirty(project)
        assert now is not None and now not in seen
        seen.add(now)


def test_staging_a_change_does_not_make_another_of_it(project: Repository) -> None:
    project.write("train.py", "print(2)\n")
    project.write("new.py", "x")
    before = dirty(project)
    project.git("add", "-A")
    assert dirty(project) == before is not None


def test_ignored_files_do_not_count(project: Repository) -> None:
    project.write("run.log", "x")
    assert dirty(project) is None


def test_a_change_taken_back_is_none(project: Repository) -> None:
    project.write("train.py", "print(2)\n")
    assert dirty(project)
    project.write("train.py", "print(1)\n")
    assert dirty(project) is None


def test_settings_of_the_user_change_nothing(project: Repository, monkeypatch: pytest.MonkeyPatch,
                                             tmp_path: Path) -> None:
    project.write("train.py", "print(2)\n")
    project.write("deep/er/new.py", "x")
    before, patch = dirty(project), git.patch(project.folder)
    settings = tmp_path / "gitconfig"
    settings.write_text("[diff]\n noprefix = true\n external = /bin/false\n"
                        "[status]\n showUntrackedFiles = no\n relativePaths = false\n"
                        "[core]\n fsmonitor = /bin/false\n[color]\n ui = always\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(settings.read_text())
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert (dirty(project), git.patch(project.folder)) == (before, patch)


def test_a_change_inside_a_submodule_is_a_change(project: Repository, tmp_path: Path) -> None:
    Repository(tmp_path / "library").commit(lib__py="1\n")
    project.git("submodule", "-q", "add", str(tmp_path / "library"), "library")
    project.commit()
    assert dirty(project) is None
    project.write("library/lib.py", "2\n")
    first = dirty(project)
    project.write("library/lib.py", "3\n")
    assert first is not None and dirty(project) not in (None, first)


def test_the_patch_makes_the_changes_anew_on_the_commit(project: Repository, tmp_path: Path) -> None:
    project.write("train.py", "print(2)\n")
    project.write("new.py", "x")
    (project.folder / "bytes.bin").write_bytes(bytes(range(256)))
    project.git("add", "new.py")
    index, objects = project.git("ls-files", "-s"), project.git("count-objects", "-v")
    patch = git.patch(project.folder)
    assert (project.git("ls-files", "-s"), project.git("count-objects", "-v")) == (index, objects)
    project.git("worktree", "add", "-q", "--detach", str(tmp_path / "again"), "HEAD")
    subprocess.run(["git", "apply", "--binary", "-"], input=patch, cwd=tmp_path / "again", check=True)
    again = git.state(tmp_path / "again")
    assert again is not None and again.dirty == dirty(project)
    assert (tmp_path / "again" / "bytes.bin").read_bytes() == bytes(range(256))


def test_a_clean_project_has_an_empty_patch(project: Repository) -> None:
    assert git.patch(project.folder) == b""


def test_a_patch_that_would_be_huge_is_refused_before_it_is_made(project: Repository) -> None:
    with (project.folder / "data.bin").open("wb") as file:
        file.truncate(2 << 20)
    with pytest.raises(ActionFailed, match="more than 1 MiB") as refused:
        git.patch(project.folder, limit=1 << 20)
    assert ".gitignore" in str(refused.value.hint)


def test_a_repository_without_a_commit_is_told_to_commit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no commit yet"):
        git.state(Repository(tmp_path / "r").folder)


def test_without_git_the_version_is_not_guessed(project: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError, match="Git is not installed"):
        git.state(project.folder)


def test_contents_and_commits_are_looked_up(project: Repository) -> None:
    head = project.git("rev-parse", "HEAD").strip()
    assert git.has_commit(project.folder, head) and not git.has_commit(project.folder, "0" * 40)
    assert git.content(project.folder, head, "train.py") == b"print(1)\n"
    assert git.content(project.folder, head, "other.py") is None
    assert git.tracked(project.folder) == {"train.py", ".gitignore"}


def test_a_repository_of_another_user_is_explained(project: Repository) -> None:
    if os.geteuid() != 0:
        pytest.fail("this test changes an owner, so it needs root")
    os.chown(project.folder, 12345, 12345)
    os.chown(project.folder / ".git", 12345, 12345)
    with pytest.raises(UsageError, match="does not read this repository") as refused:
        git.state(project.folder)
    hint = str(refused.value.hint)
    assert hint.startswith("A clone that belongs to root is safe") and hint.endswith(str(project.folder))
