"""Who wrote a project's code since a commit, as Git has it.

Git's names are what whoever committed has set: they are taken as they are, whatever a `.mailmap` in the
repository or replaced commits would make of them. Only commits that changed something under the project's
folder count.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import ActionFailed
from engine.reproduce import git
from engine.reproduce.parts import Code
from engine.reproduce.written import LONGEST, MOST_PEOPLE, Person, Written

MOST_COMMITS = 5000  # that are looked at
_FIELDS = 5  # of a commit, see `_FORMAT`
_FORMAT = "%H%x00" + "%x00".join(f"%<({LONGEST},trunc){field}" for field in ("%an", "%ae", "%cn", "%ce"))
# A repository's settings must neither start a program, such as one that verifies signatures, nor fetch, nor
# have other authors than the commits' own; a path is no pattern.
_VARIABLES = {"GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1", "GIT_GRAFT_FILE": "/dev/null",
              "GIT_LITERAL_PATHSPECS": "1"}
_PLAIN = ("--no-show-signature", "--no-mailmap", "--no-color", "--no-notes", "--no-decorate",
          "--encoding=UTF-8", "-z")


def written(folder: Path, code: Code, since: str | None) -> Written:
    """The people behind `code`, the state of the project in `folder`. `since`: the commit that production was
    built from, None where that is not known. Blocking.

    Raises ActionFailed or UsageError where Git does not answer.
    """
    top = git.toplevel(folder) if code.commit is not None else None
    if top is None or code.commit is None:
        return Written(missing="the project is in no Git repository, so nobody knows who wrote it")
    base = since if since is not None and _is_commit(since) and git.has_commit(top, since) else None
    span = [f"--max-count={MOST_COMMITS + 1}", f"{base}..{code.commit}"] if base else [
        "--max-count=1", code.commit]
    path = ["--", code.folder] if code.folder else ["--"]
    told = git.git(top, "log", *_PLAIN, f"--format={_FORMAT}", *span, *path, variables=_VARIABLES).stdout
    commits = _commits(told, top)
    people, more = _people(commits[:MOST_COMMITS])
    return Written(code.commit, base, min(len(commits), MOST_COMMITS), people, len(code.changed),
                   _missing(top, len(commits), more, base))


def _commits(told: bytes, top: Path) -> list[tuple[str, set[tuple[str, str]]]]:
    """Each commit with its people, the newest first."""
    parts = told.removesuffix(b"\0").split(b"\0") if told else []
    ids, *columns = ([part.decode("utf-8", "replace").strip() for part in parts[at::_FIELDS]]
                     for at in range(_FIELDS))
    if len(parts) % _FIELDS or not all(map(_is_commit, ids)):
        raise ActionFailed("Git's account of the commits cannot be read.", where=str(top),
                           hint="Try it by hand: git log")
    # Git cuts by columns on a screen, of which some characters take none.
    author, address, committer, other = ([text[:LONGEST] for text in column] for column in columns)
    return [(id, {(author[at], address[at]), (committer[at], other[at])}) for at, id in enumerate(ids)]


def _people(commits: list[tuple[str, set[tuple[str, str]]]]) -> tuple[list[Person], int]:
    """Those with the most commits first, and how many more there are."""
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for id, people in commits:
        for one in people:
            count, last = found.get(one, (0, id))
            found[one] = (count + 1, last)
    ordered = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))
    told = [Person(name, email, count, last) for (name, email), (count, last) in ordered[:MOST_PEOPLE]]
    return told, max(0, len(ordered) - MOST_PEOPLE)


def _missing(top: Path, commits: int, more: int, base: str | None) -> str | None:
    if commits > MOST_COMMITS:
        return f"there are more than {MOST_COMMITS:,} commits, and only the newest were looked at"
    if more:
        return f"{more:,} more people have written in it than are told"
    shallow = git.git(top, "rev-parse", "--is-shallow-repository").stdout.strip() == b"true"
    if shallow and base is not None:
        return "the clone is shallow, so that older commits may be missing"
    return None


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and set(text) <= set("0123456789abcdef")
