"""The Markdown of a page of evidence as lines for a terminal. Pure.

Read is what `engine.pipeline.stages.page` writes: headings, paragraphs, bullets, tables, emphasis of whole
lines, code between fences, and backslashes that take markup its meaning. Anything else is shown as it stands.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import msgspec
from rich.cells import cell_len

from console import format
from console.glyphs import Glyphs
from console.widgets.lines import BLANK, Line, line

GAP = 2
TALLEST = 8     # lines of one cell; what does not fit ends in …
NARROWEST = 10  # cells of a column of text
WORD = 24       # cells of a word that a column keeps whole
ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")
RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
MARKS = {"✔": ("done", "ok"), "✖": ("failed", "bad"), "✘": ("failed", "bad"), "?": ("unknown", "warn")}
VERDICTS = {"passed": ("done", "ok"), "failed": ("failed", "bad"), "not passed": ("failed", "bad"),
            "refused": ("failed", "bad"), "known to fail": ("unknown", "warn"),
            "fails, and is new": ("unknown", "warn")}


class Column(msgspec.Struct, frozen=True):
    """`right`: numbers, which are never broken."""

    right: bool
    least: int
    full: int


def lines(text: str, width: int, glyphs: Glyphs) -> tuple[list[Line], list[int]]:
    """The lines of `text` at `width` cells, none of them wider, and where its headings stand among them.

    Control characters do nothing.
    """
    found: list[Line] = []
    heads: list[int] = []
    for kind, rows in _blocks(text):
        if found and (kind in ("head", "table", "code") or found[-1] != BLANK):
            found.append(BLANK)
        if kind == "head":
            heads.append(len(found))
        found += _block(kind, rows, width, glyphs)
    return found, heads


def _blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each block's kind (head, table, list, code, text) and its lines."""
    rows: list[str] = []
    kind = fence = ""
    for row in visible(text).split("\n"):
        bare = row.strip()
        now = "" if not bare else "table" if bare.startswith("|") else "list" if bare.startswith("- ") else \
            "head" if re.match(r"#{1,6} ", bare) else "text"
        if fence:
            if bare == fence:
                yield "code", rows
                rows, fence, kind = [], "", ""
            else:
                rows.append(row)
            continue
        if (opens := re.match(r"(`{3,})\w*$", bare)) is not None:
            now = ""
        if now != kind or now == "head":
            if rows:
                yield kind, rows
            rows, kind = [], now
        if opens is not None:
            fence = opens[1]
        elif now:
            rows.append(bare)
    if rows:
        yield ("code" if fence else kind), rows


def visible(text: str) -> str:
    """Without what would move a cursor or turn the direction of writing; a tab is a space."""
    return "".join(c if c == "\n" else " " if c == "\t" else
                   c if c.isascii() and c.isprintable() else
                   "\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") else c
                   for c in text.replace("\r\n", "\n"))


def plain(text: str) -> str:
    """Without the backslashes that keep markup from being any."""
    return ESCAPED.sub(r"\1", text)


def _block(kind: str, rows: list[str], width: int, glyphs: Glyphs) -> list[Line]:
    if kind == "head":
        return [_head(rows[0], width, glyphs)]
    if kind == "table":
        return _table(rows, width, glyphs)
    if kind == "code":
        return [line(" ", (piece, "dim")) for row in rows for piece in format.fold(row, width - 2)]
    if kind == "list":
        return [line((f" {glyphs.dot if number == 0 else ' '} ", "dim"), (piece, "text"))
                for row in rows for number, piece in enumerate(format.wrap(plain(row[2:]), width - 4))]
    return _text(" ".join(rows), width, glyphs)


def _head(row: str, width: int, glyphs: Glyphs) -> Line:
    marks, _, title = row.partition(" ")
    if len(marks) == 1:
        return line((" " + format.clip(plain(title), width - 2), "strong"))
    title = format.clip(plain(title), width - 6)
    return line((glyphs.rule * 2 + " ", "dim"), (title, "strong"),
                (" " + glyphs.rule * max(0, width - 4 - cell_len(title)), "dim"))


def _text(row: str, width: int, glyphs: Glyphs) -> list[Line]:
    """A paragraph: its mark, and how the whole of it is emphasised."""
    loud = re.fullmatch(r"\*\*(.+)\*\*", row)
    quiet = None if loud else re.fullmatch(r"\*(.+[^\\])\*", row)
    text, role = plain((loud or quiet or (row, row))[1]), "strong" if loud else "dim" if quiet else "text"
    mark, space, rest = text.partition(" ")
    if not space or mark not in MARKS:
        return [line((" " + piece, role)) for piece in format.wrap(text, width - 2)]
    state, tone = MARKS[mark]
    glyph = glyphs.steps[state]
    body = tone if tone != "ok" and role != "dim" else role
    return [line((f" {glyph} " if number == 0 else " " * (2 + cell_len(glyph)), tone), (piece, body))
            for number, piece in enumerate(format.wrap(rest, width - 3 - cell_len(glyph)))]


def _cells(row: str) -> list[str]:
    """The cells of a row; a `|` after a backslash is none's end."""
    cells, cell, at = [], "", 1
    while at < len(row):
        if row[at] == "\\" and at + 1 < len(row):
            cell, at = cell + row[at:at + 2], at + 2
            continue
        if row[at] == "|":
            cells.append(cell)
            cell = ""
        else:
            cell += row[at]
        at += 1
    if cell.strip():
        cells.append(cell)
    return [plain(found.strip()) for found in cells]


def _table(rows: list[str], width: int, glyphs: Glyphs) -> list[Line]:
    if len(rows) < 2 or not RULE.fullmatch(rows[1]):
        return [found for row in rows for found in _text(row, width, glyphs)]
    head, count = _cells(rows[0]), len(_cells(rows[0]))
    right = [cell.strip().endswith(":") for cell in rows[1].strip("|").split("|")]
    right = (right + [False] * count)[:count]
    body = [([_verdict(cell, glyphs)[0] for cell in _cells(row)] + [""] * count)[:count] for row in rows[2:]]
    columns = [_column(head[at], [row[at] for row in body], right[at]) for at in range(count)]
    widths = _widths(columns, width - 2 - GAP * (count - 1))
    if widths is None:
        return _records(head, body, width, glyphs)
    drawn = _row(head, columns, widths, glyphs, "dim")
    drawn.append(line((" " + glyphs.rule * min(width - 2, sum(widths) + GAP * (count - 1)), "dim")))
    for row in body:
        drawn += _row(row, columns, widths, glyphs)
    return drawn


def _verdict(cell: str, glyphs: Glyphs) -> tuple[str, str]:
    """A cell that says how something went, with its glyph; its role."""
    for word, (state, role) in VERDICTS.items():
        if cell in (word, f"{glyphs.steps[state]} {word}"):
            return f"{glyphs.steps[state]} {word}", role
    return cell, "text"


def _column(head: str, cells: Sequence[str], right: bool) -> Column:
    widest = max(map(cell_len, cells), default=1)
    named = max((cell_len(word) for word in head.split()), default=1)
    if right or widest <= NARROWEST:
        return Column(right, max(widest, named), max(widest, cell_len(head)))
    words = (cell_len(word) for cell in cells for word in cell.split(" "))
    least = max(NARROWEST, named, *(size for size in words if size <= WORD), 0)
    return Column(right, min(max(widest, named), least), max(widest, cell_len(head)))


def _widths(columns: Sequence[Column], room: int) -> list[int] | None:
    """What each column gets: the least it bears, then an even share of the rest. None where that is too
    much."""
    widths = [column.least for column in columns]
    left = room - sum(widths)
    if left < 0:
        return None
    wanting = sorted(range(len(columns)), key=lambda at: columns[at].full - columns[at].least)
    for place, at in enumerate(wanting):
        more = min(columns[at].full - columns[at].least, left // (len(wanting) - place))
        widths[at] += more
        left -= more
    return widths


def _row(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], glyphs: Glyphs,
         role: str | None = None) -> list[Line]:
    pieces = [_cut(format.wrap(cell, size), size, glyphs)
              for cell, size in zip(cells, widths, strict=True)]
    drawn: list[Line] = []
    for number in range(max(map(len, pieces), default=0)):
        spans = [(" ", "text")]
        for at, column in enumerate(columns):
            piece = pieces[at][number] if number < len(pieces[at]) else ""
            fit = format.right if column.right else format.left
            last = at == len(columns) - 1 and not column.right
            spans.append((piece if last else fit(piece, widths[at]) + (
                " " * GAP if at < len(columns) - 1 else ""), role or _verdict(cells[at], glyphs)[1]))
        drawn.append(tuple(spans))
    return drawn


def _cut(pieces: list[str], width: int, glyphs: Glyphs) -> list[str]:
    """At most `TALLEST` lines, the last of them cut between two words."""
    if len(pieces) <= TALLEST:
        return pieces
    last = pieces[TALLEST - 1]
    while last and cell_len(last) + 2 > width:
        last = last.rpartition(" ")[0]
    return [*pieces[:TALLEST - 1], f"{last} {glyphs.more}".strip()]


def _records(head: Sequence[str], body: Sequence[Sequence[str]], width: int, glyphs: Glyphs) -> list[Line]:
    """A table that is wider than the terminal: each row's cells below one another, with their names."""
    label = min(width // 3, max(map(cell_len, head), default=1))
    drawn: list[Line] = []
    for row in body:
        drawn += [BLANK] if drawn else []
        for at, (name, cell) in enumerate(zip(head, row, strict=True)):
            for number, piece in enumerate(format.wrap(cell, width - label - 4)):
                drawn.append(line((f" {format.left(name if number == 0 else '', label)}  ", "dim"),
                                  (piece, "strong" if at == 0 else _verdict(cell, glyphs)[1])))
    return drawn
