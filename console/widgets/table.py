"""The live table: columns that adapt to the width, a selection kept by name, cell-wise repainting."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from rich.segment import Segment
from textual import events
from textual.geometry import Region
from textual.strip import Strip

from console import format
from console.widgets.lines import Drawn

Cell = tuple[str, str]           # text, and its role
EMPTY: Cell = ("", "text")


class Column(msgspec.Struct, frozen=True):
    """A column: `width` cells at least, up to `grow` when there is room; `priority` 1 goes last."""

    key: str
    title: str
    width: int
    priority: int = 1
    grow: int = 0
    right: bool = False


class Row(msgspec.Struct, frozen=True):
    """One row: its name, a mark at the front, and cells by column key."""

    key: str
    mark: Cell
    cells: dict[str, Cell]


class Placed(msgspec.Struct, frozen=True):
    """A column where it stands: from `x`, `width` cells."""

    column: Column
    x: int
    width: int


def place(columns: Sequence[Column], width: int) -> list[Placed]:
    """The columns that fit in `width` cells, in their order, one blank between two.

    The first always fits, the others enter by priority; what is left then widens those that can
    grow, by priority too. The first cell belongs to the row's mark.
    """
    room = width - 1
    chosen: list[Column] = []
    for column in sorted(columns, key=lambda c: (c is not columns[0], c.priority)):
        need = column.width + (1 if chosen else 0)
        if need <= room:
            chosen.append(column)
            room -= need
    widths = {c.key: c.width for c in chosen}
    for column in sorted(chosen, key=lambda c: c.priority):
        extra = min(room, max(0, column.grow - column.width))
        widths[column.key] += extra
        room -= extra
    placed: list[Placed] = []
    x = 1
    for column in columns:
        if column in chosen:
            placed.append(Placed(column, x, widths[column.key]))
            x += widths[column.key] + 1
    return placed


class Table(Drawn):
    """Rows under a head. The selection is a row's key: re-sorting moves the row, not the choice.

    `choose` names the column that shows the selection, the first by default.
    """

    def __init__(self, columns: Sequence[Column], *, empty: str = "", head: bool = True,
                 choose: str | None = None, id: str | None = None) -> None:
        super().__init__(id=id)
        self.choose = choose or columns[0].key
        self.head = int(head)
        self.columns = list(columns)
        self.empty = empty
        self.rows: list[Row] = []
        self.selected: str | None = None
        self.scrolled = 0
        self.coming: int | None = None
        self.placed: list[Placed] = []
        self._index = 0
        self._drawn: list[tuple[Cell, ...]] = []

    @property
    def page(self) -> int:
        """How many rows are visible; `coming` is the height the view has just asked for."""
        return max(1, (self.coming or self.size.height) - self.head)

    def width_of(self, key: str) -> int:
        """The width a column has now, 0 if it is not shown: what a spark needs to know."""
        return next((p.width for p in self.placed if p.column.key == key), 0)

    def on_resize(self) -> None:
        self.placed = place(self.columns, self.size.width)
        self._drawn = []
        self.set_rows(self.rows)
        self.refresh()

    def fit(self, key: str, cells: int) -> None:
        """Let a column grow to these cells and no further: what it does not need is another's."""
        columns = [msgspec.structs.replace(c, grow=cells) if c.key == key else c for c in self.columns]
        if columns != self.columns:
            self.columns = columns
            self.placed = place(columns, self.size.width)
            self._drawn = []
            self.refresh()

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show these rows in this order; the selection stays on its key if that is still there."""
        self.rows = list(rows)
        keys = [row.key for row in self.rows]
        if self.selected in keys:
            self._index = keys.index(self.selected)
        elif keys:
            self._index = min(self._index, len(keys) - 1)
            self.selected = keys[self._index]
        else:
            self._index, self.selected = 0, None
        self._keep_visible()
        self._repaint()

    def select(self, key: str) -> None:
        self.selected = key
        self.set_rows(self.rows)

    def move(self, by: int) -> None:
        """Move the selection by rows, held at both ends."""
        if self.rows:
            self._index = max(0, min(len(self.rows) - 1, self._index + by))
            self.selected = self.rows[self._index].key
            self._keep_visible()
            self._repaint()

    def on_click(self, event: events.Click) -> None:
        """With `--mouse`: a click selects."""
        at = self.scrolled + event.y - self.head
        if event.y - self.head >= 0 and at < len(self.rows):
            self.deck.touched()
            self.move(at - self._index)
            self.deck.renew()

    def on_mouse_scroll_down(self) -> None:
        self._wheel(3)

    def on_mouse_scroll_up(self) -> None:
        self._wheel(-3)

    def _wheel(self, by: int) -> None:
        self.deck.touched()
        self.move(by)
        self.deck.renew()

    def _keep_visible(self) -> None:
        last = max(0, len(self.rows) - self.page)
        self.scrolled = max(0, min(self.scrolled, last))
        if self._index < self.scrolled:
            self.scrolled = self._index
        elif self._index >= self.scrolled + self.page:
            self.scrolled = self._index - self.page + 1

    def _cells(self, y: int) -> tuple[Cell, ...]:
        """What stands in screen line `y`: the mark, then a cell for each placed column."""
        more = self.deck.glyphs.more
        if y < self.head:
            return ((" ", "head"), *((self._fit(p, p.column.title, more), "head")
                                     for p in self.placed))
        at = self.scrolled + y - self.head
        if at >= len(self.rows):
            text = self.empty if y == self.head and not self.rows else ""
            return ((f" {text}", "dim"),)
        row = self.rows[at]
        chosen = row.key == self.selected
        cells = [row.mark]
        for p in self.placed:
            text, role = row.cells.get(p.column.key, EMPTY)
            if chosen and p.column.key == self.choose:
                role = "select"
            cells.append((self._fit(p, text, more), role))
        return tuple(cells)

    @staticmethod
    def _fit(placed: Placed, text: str, more: str) -> str:
        fit = format.right if placed.column.right else format.left
        return fit(text, placed.width, more)

    def _repaint(self) -> None:
        width, height = self.size
        regions: list[Region] = []
        drawn: list[tuple[Cell, ...]] = []
        for y in range(height):
            now = self._cells(y)
            drawn.append(now)
            before = self._drawn[y] if y < len(self._drawn) else None
            if now == before:
                continue
            if before is None or len(now) != len(before) or len(now) != len(self.placed) + 1:
                regions.append(Region(0, y, width, 1))
                continue
            if now[0] != before[0]:
                regions.append(Region(0, y, 1, 1))
            regions.extend(Region(p.x, y, p.width, 1)
                           for p, one, other in zip(self.placed, now[1:], before[1:], strict=True)
                           if one != other)
        self._drawn = drawn
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        style = self.deck.palette.style
        cells = self._drawn[y] if y < len(self._drawn) else self._cells(y)
        segments: list[Segment] = []
        text, role = cells[0]
        for number, (more, its_role) in enumerate(cells[1:]):
            gap = " " if number else ""
            if its_role == role:
                text += gap + more
            else:
                segments.append(Segment(text, style(role)))
                if gap and its_role == "select":
                    segments.append(Segment(gap, style("text")))
                    gap = ""
                text, role = gap + more, its_role
        segments.append(Segment(text, style(role)))
        return Strip(segments)
