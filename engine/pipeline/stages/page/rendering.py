"""A page as Markdown and as HTML. What comes from a project is text in both: markup in it does nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from engine.pipeline.reports import escaped, visible
from engine.pipeline.stages.page.blocks import Block, Items, Lines, Page, Plot, Table, Text

TEMPLATE = "page.html.j2"
LONG = 40  # characters of a cell that is a sentence
MARKS = {"good": "✔ ", "bad": "✘ ", "doubt": "? ", "plain": ""}


def markdown(page: Page) -> str:
    """GitHub's Markdown; the plots are in the HTML alone, their numbers stand in the tables."""
    parts = [f"# {escaped(page.title)}", f"**{MARKS[page.tone]}{escaped(page.verdict)}**"]
    if page.against:
        parts += ["What speaks against it:", _items(page.against)]
    if page.known:
        parts += ["To be known:", _items(page.known)]
    for section in page.sections:
        parts.append(f"## {escaped(section.title)}")
        parts += [_block(block) for block in section.blocks]
    return "\n\n".join(part for part in parts if part) + "\n"


def html(page: Page) -> str:
    """One file that needs no other: styles and plots are in it, scripts and fetches are forbidden in it."""
    import jinja2
    import markupsafe

    made = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True,
                              undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["plain"] = visible
    made.globals["kind"] = lambda block: type(block).__name__.lower()
    made.globals["kept"] = lambda *cell: markupsafe.Markup(_kept(*cell))
    return made.get_template(TEMPLATE).render(page=page, marks=MARKS)


def _kept(table: Table, at: int, text: str = "") -> str:
    """The class of a cell: of a number or of what is kept whole, or of a sentence, which wants some width."""
    if at >= len(table.head) - table.numbers:
        return ' class="n"'
    return ' class="w"' if at in table.whole else ' class="l"' if len(text) > LONG else ""


def _block(block: Block) -> str:
    if isinstance(block, Text):
        return MARKS[block.tone] + escaped(block.text)
    if isinstance(block, Items):
        return _items(block.items)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Lines):
        return _fenced(block.lines)
    return f"*{escaped(block.says)}*" if isinstance(block, Plot) else ""


def _items(items: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(item)}" for item in items)


def _table(table: Table) -> str:
    plain = len(table.head) - table.numbers
    head = "| " + " | ".join(escaped(name) or " " for name in table.head) + " |"
    rule = "|" + "|".join("---" if at < plain else "---:" for at in range(len(table.head))) + "|"
    return "\n".join([head, rule, *("| " + " | ".join(escaped(cell) or " " for cell in row) + " |"
                                    for row in table.rows)])


def _fenced(lines: Sequence[str]) -> str:
    """A code block whose fence is longer than any run of backticks in it."""
    shown = [visible(line).replace("\n", " ") for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}text", *shown, fence])
