"""Who wrote a project's code, in the form in which a stage tells it and the journal keeps it. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec

MOST_PEOPLE = 40  # that are told: those with the most commits
LONGEST = 120  # characters of a name or an address
Count = Annotated[int, msgspec.Meta(ge=0)]
Short = Annotated[str, msgspec.Meta(max_length=LONGEST)]


class Person(msgspec.Struct, frozen=True):
    """An author or committer: name and e-mail as in their commits, how many, and the newest of them."""

    name: Short
    email: Short
    commits: Count = 0
    last: Short = ""


class Written(msgspec.Struct, frozen=True):
    """Who wrote what was built from `commit`: the people of the commits after `since`, or where that is null
    of the newest commit alone. `uncommitted` counts the changes that no commit has; `missing` says, in a
    sentence, why not everybody is known."""

    commit: Short | None = None
    since: Short | None = None
    commits: Count = 0
    people: Annotated[list[Person], msgspec.Meta(max_length=MOST_PEOPLE)] = []
    uncommitted: Count = 0
    missing: Short | None = None
