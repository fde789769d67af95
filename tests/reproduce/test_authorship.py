"""Who wrote a project since a commit is what the commits say, whatever a repository would make of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from engine.errors import ActionFailed
from engine.reproduce import authorship, git
from engine.reproduce.written import LONGEST, MOST_PEOPLE, Written
from tests.reproduce.repository import Repository


@pytest.fixture
def repo(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "repo")
    made.write("project/a.py", "first\n")
    made.commit()
    return made


def head(repo: Repository) -> str:
    return repo.git("rev-parse", "HEAD").strip()


def by(repo: Repository, name: str, email: str, path: str = "project/a.py") -> str:
    """A commit that an author has written and the tester committed."""
    repo.write(path, f"{name} {email}\n")
    repo.git("add", "-A")
    repo.git("commit", "-qm", "more", f"--author={name} <{email}>")
    return head(repo)


def signed(repo: Repository) -> str:
    """The newest commit once more, with a signature that a program would have to verify."""
    text = repo.git("cat-file", "commit", "HEAD").replace(
        "\n\n", "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n x\n -----END PGP SIGNATURE-----\n\n", 1)
    id = subprocess.run(["git", "hash-object", "-t", "commit", "-w", "--stdin"], cwd=repo.folder, input=text,
                        text=True, check=True, capture_output=True).stdout.strip()
    repo.git("update-ref", "HEAD", id)
    return id


def told(repo: Repository, since: str | None, folder: str = "project") -> Written:
    return authorship.written(repo.folder / folder, git.code(repo.folder / folder), since)


def people(written: Written) -> dict[str, tuple[str, int, str]]:
    return {one.name: (one.email, one.commits, one.last) for one in written.people}


def test_authors_and_committers_since_a_commit_are_told_with_their_newest(repo: Repository) -> None:
    first = head(repo)
    by(repo, "Alice", "alice@example.org")
    newer = by(repo, "Bob", "bob@example.org")
    newest = by(repo, "Alice", "alice@example.org")
    found = told(repo, first)
    assert (found.commit, found.since, found.commits) == (newest, first, 3)
    assert people(found) == {"Alice": ("alice@example.org", 2, newest), "Bob": ("bob@example.org", 1, newer),
                             "Tester": ("tester@example.org", 3, newest)}
    assert found.uncommitted == 0 and found.missing is None


def test_nothing_is_told_of_what_production_has_and_of_what_is_beside_the_project(repo: Repository) -> None:
    first = head(repo)
    assert told(repo, first).people == []
    by(repo, "Eve", "eve@example.org", path="elsewhere/b.py")
    assert told(repo, first).people == []
    assert set(people(told(repo, first, folder="."))) == {"Eve", "Tester"}


@pytest.mark.parametrize("since", [None, "0" * 40, "--output=x", "main"])
def test_where_it_is_not_known_since_when_the_newest_commit_of_the_project_counts(
        repo: Repository, since: str | None) -> None:
    by(repo, "Alice", "alice@example.org")
    newest = by(repo, "Bob", "bob@example.org")
    by(repo, "Eve", "eve@example.org", path="elsewhere/b.py")
    found = told(repo, since)
    assert found.since is None and set(people(found)) == {"Bob", "Tester"}
    assert people(found)["Bob"][2] == newest
    assert not (repo.folder / "project" / "x").exists()


def test_both_sides_of_a_merge_are_told(repo: Repository) -> None:
    first = head(repo)
    repo.git("switch", "-qc", "side")
    by(repo, "Side", "side@example.org", path="project/b.py")
    repo.git("switch", "-q", "main")
    by(repo, "Main", "main@example.org")
    repo.git("merge", "-q", "--no-edit", "side")
    assert {"Side", "Main"} <= set(people(told(repo, first)))


def test_uncommitted_changes_are_counted_and_a_folder_in_no_repository_is_said(
        repo: Repository, tmp_path: Path) -> None:
    repo.write("project/a.py", "changed\n")
    repo.write("project/new.py", "new\n")
    assert told(repo, head(repo)).uncommitted == 2
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "in no Git repository" in (authorship.written(bare, git.code(bare), None).missing or "")


def test_neither_settings_of_the_repository_nor_its_files_change_who_it_was(repo: Repository) -> None:
    """No program that it names is started either."""
    first = head(repo)
    by(repo, "Alice", "alice@example.org")
    repo.write(".mailmap", "Nobody <nobody@x> Alice <alice@example.org>\n")
    by(repo, "Alice", "alice@example.org", path="project/b.py")
    newest = signed(repo)
    marker = repo.folder.parent / "started"
    program = repo.folder.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch {marker}\n")
    program.chmod(0o755)
    for name, value in (("log.showSignature", "true"), ("gpg.program", str(program)), ("log.mailmap", "true"),
                        ("core.fsmonitor", str(program)), ("core.pager", str(program)),
                        ("i18n.logOutputEncoding", "UTF-16"), ("core.hooksPath", str(repo.folder.parent)),
                        ("log.follow", "true"), ("format.pretty", "raw"), ("color.ui", "always")):
        repo.git("config", name, value)
    forged = repo.git("commit-tree", "-p", first, "-m", "as if", f"{newest}^{{tree}}").strip()
    repo.git("replace", newest, forged)
    (repo.folder / ".git" / "info" / "grafts").write_text(f"{newest} {first}\n")
    assert people(told(repo, first))["Alice"] == ("alice@example.org", 2, newest)
    assert not marker.exists()


def test_names_of_any_length_and_kind_are_taken_and_cut(repo: Repository) -> None:
    first = head(repo)
    by(repo, "\u00c4" * 500, "x" * 400)
    by(repo, "a\u0300" + "\u0301" * 3000, "--exec=x\x1b[31m@y")
    found = told(repo, first)
    assert len(found.people) == 3
    assert all(len(one.name) <= LONGEST and len(one.email) <= LONGEST for one in found.people)
    assert any(one.email == "--exec=x\x1b[31m@y" for one in found.people)


def test_more_people_and_commits_than_are_told_are_said(
        repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    first = head(repo)
    stream = "".join(
        f"commit refs/heads/main\nauthor P{n} <p{n}@x> {n} +0000\ncommitter P{n} <p{n}@x> {n} +0000\n"
        f"data 1\nm{'' if n else f'from {first}' + chr(10)}M 644 inline project/a.py\ndata 3\n{n:03}\n"
        for n in range(MOST_PEOPLE + 7))
    subprocess.run(["git", "fast-import", "--quiet", "--force"], cwd=repo.folder, input=stream, text=True,
                   check=True)
    repo.git("reset", "-q", "--hard")
    found = told(repo, first)
    assert len(found.people) == MOST_PEOPLE
    assert found.missing == "7 more people have written in it than are told"
    monkeypatch.setattr(authorship, "MOST_COMMITS", 5)
    found = told(repo, first)
    assert (found.commits, len(found.people)) == (5, 5)
    assert found.missing == "there are more than 5 commits, and only the newest were looked at"


def test_a_shallow_clone_is_said_to_miss_older_commits(repo: Repository, tmp_path: Path) -> None:
    by(repo, "Alice", "alice@example.org")
    since = by(repo, "Bob", "bob@example.org")
    by(repo, "Cat", "cat@example.org")
    repo.git("clone", "-q", "--depth", "2", f"file://{repo.folder}", str(tmp_path / "shallow"))
    folder = tmp_path / "shallow" / "project"
    found = authorship.written(folder, git.code(folder), since)
    assert "Cat" in people(found) and "shallow" in (found.missing or "")


def test_a_repository_that_is_damaged_is_an_error_and_not_nobody(repo: Repository) -> None:
    code = git.code(repo.folder / "project")
    shutil.rmtree(repo.folder / ".git" / "objects")
    (repo.folder / ".git" / "objects").mkdir()
    with pytest.raises(ActionFailed, match="Git failed"):
        authorship.written(repo.folder / "project", code, None)
