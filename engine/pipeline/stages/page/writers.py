"""The part of the page that says who wrote what is released: none of them is to approve it alone."""

from __future__ import annotations

from engine.pipeline.stages.page.blocks import Block, Items, Section, Table, Text, missing
from engine.pipeline.stages.page.found import RunFound
from engine.procedures.authors import WRITTEN_BY, Author, Authors, here, named, notes, resolve, stranger

TITLE = "Who wrote it"
MOST = 20  # people in the table


def section(found: RunFound) -> Section:
    """Git's people with the users that they count as, and what is not known of them."""
    if found.get("register") is None:
        return Section(TITLE, [missing("register", "the authors of the commits")])
    authors = found.authors or _untold(found)
    if authors is None:
        return Section(TITLE, [Text("This run has not recorded who wrote it.", "doubt")])
    blocks: list[Block] = []
    if authors.people:
        rows = [[named(one), _here(found, one), str(one.commits), one.last[:12]]
                for one in authors.people[:MOST]]
        blocks.append(Table(["Author or committer", "Here", "Commits", "The newest"], rows))
    if (more := len(authors.people) - MOST) > 0:
        blocks.append(Text(f"{more} more have written in it."))
    if told := notes(authors):
        blocks.append(Items([f"{note[0].upper()}{note[1:]}." for note in told]))
    return Section(TITLE, blocks)


def knowledge(found: RunFound) -> list[str]:
    """Strangers, and that there may be others: to be known before one approves."""
    authors = found.authors
    if authors is None:
        return []
    said = [f"It was written by {stranger(one)}." for one in authors.people[:MOST] if not one.known]
    return [*said, *(f"{note[0].upper()}{note[1:]}." for note in authors.missing)]


def _untold(found: RunFound) -> Authors | None:
    """What the registration has told, where nobody has said which users these are."""
    told = found.result("register").get(WRITTEN_BY)
    return None if told is None else resolve([told], people={}, known=(), initiator=None)


def _here(found: RunFound, author: Author) -> str:
    return here(author) if found.authors is not None else "–"
