"""The lines around every view: the header above, messages and the key hints below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

from console import format
from console.glyphs import Glyphs
from console.state import State
from console.widgets.lines import Line, Lines, Span, line


def waits(pages: int, parts: Sequence[tuple[int, str]], room: int, *, least: bool = False) -> str:
    """`1 page, 2 wait for you: 1 approval, 1 question`, as much of it as fits in `room` cells.

    An alert that pages waits for nobody's answer, so it is counted apart. With `least` also as
    little as the pages alone; "" when nothing fits.
    """
    total = sum(count for count, _ in parts)
    paged = format.plural(pages, "page") if pages else ""
    if not total:
        return paged if len(paged) <= room else ""
    short = f"{total} waits for you" if total == 1 else f"{total} wait for you"
    if paged:
        short = f"{paged}, {short}"
    for kept in range(len(parts), 0, -1):
        named = ", ".join(f"{count} {word}" for count, word in parts[:kept])
        rest = sum(count for count, _ in parts[kept:])
        text = f"{short}: {named}" + (f", {rest} more" if rest else "")
        if len(text) <= room:
            return text
    brief = short.removesuffix(" for you")
    texts = [short, brief, paged or str(total)] if least else [short]
    return next((text for text in texts if len(text) <= room), "")


def link_spans(state: State, glyphs: Glyphs) -> list[Span]:
    """Live, stale or away, with the time of the data and its age: always a glyph and a word."""
    snapshot, age = state.snapshot, state.age
    if snapshot is None:
        word = "connecting" if state.link.state != "lost" else "engine away"
        return [(f"{glyphs.stale} {word}", "warn" if state.link.state == "lost" else "dim")]
    at = format.clock(snapshot.at)
    if state.link.state == "live" and not state.stale:
        return [(glyphs.well, "ok"), (f" live {at}", "text")]
    old = format.age(age)
    if state.link.state == "live":
        return [(f"{glyphs.stale} stale, data {old} old", "warn")]
    return [(f"{glyphs.stale} reconnecting, data {old} old", "warn")]


def header_line(crumbs: Sequence[str], state: State, glyphs: Glyphs, width: int) -> Line:
    """Where you are, what waits for you, how fresh the data is, and whether you can act."""
    mode: Span = (" WRITE ", "write") if state.write else (" read-only ", "dim")
    right = [*link_spans(state, glyphs), (" ", "text"), mode]
    right_width = sum(cell_len(text) for text, _ in right)
    room = width - right_width - 2
    where, waiting = _where(("opsdeck", *crumbs), state.pages, state.waits_for_me(), room, glyphs)
    left: list[Span] = [(" ", "text"), (where, "title")]
    if waiting:
        left += [("   ", "text"), (waiting, "ask")]
    gap = width - right_width - sum(cell_len(text) for text, _ in left)
    return line(*left, (" " * max(1, gap), "text"), *right)


def hints_line(hints: Sequence[tuple[str, str]], width: int) -> Line:
    """`enter service  r runbook …` as far as it fits; the last pair (`? keys`) always does."""
    spans: list[Span] = [(" ", "text")]
    used = 1
    *others, last = hints
    tail = cell_len(last[0]) + cell_len(last[1]) + 1
    for key, word in others:
        need = cell_len(key) + cell_len(word) + 3
        if used + need + tail <= width:
            spans += [(key, "accent"), (f" {word}  ", "dim")]
            used += need
    return line(*spans, (last[0], "accent"), (f" {last[1]}", "dim"))


def _where(crumbs: Sequence[str], pages: int, parts: Sequence[tuple[int, str]], room: int,
           glyphs: Glyphs) -> tuple[str, str]:
    """The path, and what waits, in `room` cells: the path gives way so that the waiting shows."""
    for start in range(len(crumbs)):
        where = f" {glyphs.arrow} ".join(crumbs[start:])
        waiting = waits(pages, parts, room - cell_len(where) - 3)
        if waiting or (not parts and not pages and cell_len(where) <= room):
            return where, waiting
    least = waits(pages, parts, 16, least=True)
    return format.clip(crumbs[-1], max(8, room - cell_len(least) - 3), glyphs.more), least


class Bar(Lines):
    """One line: the header, or the hints."""


class Notice(Lines):
    """A sentence from the console or the engine; it stays until the reader puts it away."""

    text: str = ""

    def say(self, text: str, role: str, *, dismissable: bool = True) -> None:
        self.text = text
        if not text:
            self.display = False
            return
        if dismissable:
            text += "  (esc puts this away)"
        rows = format.wrap(text, self.app.size.width - 2)[:5]
        self.styles.height = len(rows)
        self.display = True
        self.show([line((" " + row, role)) for row in rows])
