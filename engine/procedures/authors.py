"""Who wrote what a step puts into production, and which of the engine's people that is. Pure.

A step's result may say it under `written_by` (`engine.reproduce.written.Written`), and a run that another
one starts has inherited it. When a gate that wants another person opens, Git's people are matched with users
once, and that stands in the event: what is decided later, and after a restart, rests on it alone.

Git's names can be forged, so this keeps honest people from approving their own work, and tells of strangers.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from engine.journal.events import Actor
from engine.procedures.output import harmless
from engine.reproduce.written import Person, Written

WRITTEN_BY = "written_by"  # the key of a step's result
TOLD = 4  # people in a sentence
SHORT = 60  # characters of a name or an address in a sentence
_FORGE = "@users.noreply.github.com"  # addresses such as 4711+alice@…


class Author(msgspec.Struct, frozen=True):
    """One of Git's people. `users` are the names of users that count as theirs: by the config's map (`by`
    people), or guessed from the e-mail and the name. `known` are those of them that the config tells of."""

    name: str
    email: str
    commits: int = 0
    last: str = ""
    users: tuple[str, ...] = ()
    by: Literal["people", "guess"] = "guess"
    known: tuple[str, ...] = ()


class Authors(msgspec.Struct, frozen=True):
    """Everybody behind a step. `newest`: only the newest commit was looked at, for nobody knows since when;
    `begun_by` whose the `uncommitted` changes are taken for; `missing` why others may have written too."""

    people: tuple[Author, ...] = ()
    newest: bool = False
    uncommitted: int = 0
    begun_by: str | None = None
    missing: tuple[str, ...] = ()

    def of(self, user: str) -> Author | None:
        """The author that a user counts as, if any: one that the map names before one that is guessed."""
        mine = [one for one in self.people if _folded(user) in map(_folded, one.users)]
        return min(mine, key=lambda one: (one.by != "people", -one.commits), default=None)

    @property
    def users(self) -> list[str]:
        """The users that are authors, as far as the config tells of them."""
        return sorted({user for one in self.people for user in one.known})


def resolve(told: Sequence[Any], *, people: Mapping[str, Sequence[str]], known: Collection[str],
            initiator: Actor | None) -> Authors | None:
    """Match what steps have told with users; None where none has told anything.

    `people`: e-mails by user. `known`: the users that the config tells of. `initiator`: who started the run,
    whose the uncommitted changes are taken for; None where that is not known. What cannot be read is told to
    be missing.
    """
    if not told:
        return None
    read, missing = _read(told)
    merged: dict[tuple[str, str], Person] = {}
    for one in (person for written in read for person in written.people):
        before = merged.get((one.name, one.email))
        merged[one.name, one.email] = one if before is None or before.commits < one.commits else before
    found = tuple(_author(one, people, known) for one in merged.values())
    uncommitted = sum(one.uncommitted for one in read)
    return Authors(found, any(one.commit is not None and one.since is None for one in read), uncommitted,
                   initiator.user if uncommitted and initiator is not None and initiator.uid >= 0 else None,
                   tuple(dict.fromkeys([*(one.missing for one in read if one.missing), *missing])))


def _read(told: Sequence[Any]) -> tuple[list[Written], list[str]]:
    read, missing = [], []
    for one in told:
        try:
            read.append(msgspec.convert(one, Written))
        except msgspec.ValidationError:
            missing.append("a step's account of who wrote it cannot be read")
    return read, missing


def _author(person: Person, people: Mapping[str, Sequence[str]], known: Collection[str]) -> Author:
    email = _folded(person.email)
    mapped = tuple(sorted(user for user, mails in people.items() if email and email in map(_folded, mails)))
    if mapped:
        return Author(person.name, person.email, person.commits, person.last, mapped, "people", mapped)
    users = _guesses(person)
    return Author(person.name, person.email, person.commits, person.last, users, "guess",
                  tuple(sorted(user for user in known if _folded(user) in users)))


def _guesses(person: Person) -> tuple[str, ...]:
    """The names, folded, of users that a person without an entry in the map may be."""
    email, name = _folded(person.email), _folded(person.name)
    local = email.rpartition("@")[0] or email
    found = [local, local.partition("+")[0], email, name]
    if email.endswith(_FORGE):
        found = [local.rpartition("+")[2], name]
    return tuple(dict.fromkeys(one for one in found if one))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().strip()


def named(author: Author) -> str:
    """`Alice Adams <alice@example.org>`, harmless on any screen."""
    name, email = _plain(author.name), _plain(author.email)
    return f"{name} <{email}>" if name and email else name or (f"<{email}>" if email else "somebody unnamed")


def here(author: Author) -> str:
    """Who that is in this engine: a user, one that is taken for a user, or nobody."""
    users = " or ".join(map(_plain, author.known))
    if not users:
        return "no user of this engine as far as its config tells"
    return users if author.by == "people" else (
        f"taken for {users} by the e-mail or name, which `people:` in opsdeck.yaml does not map")


def stranger(author: Author) -> str:
    """Who wrote something, and is nobody here."""
    return f"{named(author)}, who is {here(author)}"


def commits(author: Author) -> str:
    """`commit 1a2b3c4d5e6f`, or how many there are and the newest of them."""
    last = _plain(author.last)[:12]
    return f"commit {last}" if author.commits == 1 else f"{author.commits:,} commits, the newest {last}"


def words(authors: Authors) -> str:
    """Who wrote it, as one part of a sentence after another."""
    said = [f"{f'{named(one)} ({here(one)})' if one.known else stranger(one)}, {commits(one)}"
            for one in authors.people[:TOLD]]
    if (more := len(authors.people) - TOLD) > 0:
        said.append(f"and {more} more")
    return "; ".join([*([f"written by {'; '.join(said)}"] if said else []), *notes(authors)])


def notes(authors: Authors) -> list[str]:
    """What is to be known beside the people, each as a part of a sentence."""
    parts = []
    if authors.newest:
        parts.append("only the newest commit counts, as what production was built from is not known"
                     if authors.people else "no commit holds it")
    if authors.uncommitted:
        parts.append(_uncommitted(authors))
    if not parts and not authors.people and not authors.missing:
        parts.append("no commit has changed it since what production was built from")
    return [*parts, *(_plain(one, 2 * SHORT) for one in authors.missing)]


def _uncommitted(authors: Authors) -> str:
    one = authors.uncommitted == 1
    many = "1 uncommitted change" if one else f"{authors.uncommitted:,} uncommitted changes"
    if authors.begun_by is None:
        return f"{many}, which nobody knows whose {'it is' if one else 'they are'}"
    return f"{many}, taken for {_plain(authors.begun_by)}'s, who started the run"


def _plain(text: str, most: int = SHORT) -> str:
    text = " ".join(harmless(text).split())
    return text if len(text) <= most else f"{text[:most - 1]}…"
