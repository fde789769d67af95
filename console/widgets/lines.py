"""The base of every widget here: lines of spans, of which only the changed ones are repainted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

if TYPE_CHECKING:
    from console.app import OpsdeckApp

Span = tuple[str, str]           # text, and the role that says how it looks
Line = tuple[Span, ...]
BLANK: Line = ()


def line(*spans: Span | str) -> Line:
    """A line; a bare string has the role `text`."""
    return tuple((span, "text") if isinstance(span, str) else span for span in spans)


class Drawn(Widget):
    """A widget that draws its own lines, and lets go of them when it is taken away.

    Textual keeps the caches of a thousand widgets that are gone (as keys of a memo), each with its
    rendered lines: some 15 MB after a busy night.
    """

    def on_unmount(self) -> None:
        self._styles_cache.clear()

    @property
    def deck(self) -> OpsdeckApp:
        return cast("OpsdeckApp", self.app)


class Box(Drawn):
    """Holds other widgets; the style sheet says how they lie."""


class Lines(Drawn):
    """Shows lines. `show` compares with what is there and repaints only the lines that differ."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        before, self.lines = self.lines, list(lines)
        width = self.size.width
        regions = [Region(0, y, width, 1) for y in range(max(len(before), len(self.lines)))
                   if (before[y] if y < len(before) else BLANK)
                   != (self.lines[y] if y < len(self.lines) else BLANK)]
        if regions:
            self.refresh(*regions)

    def render_line(self, y: int) -> Strip:
        if y >= len(self.lines):
            return Strip([])
        style = self.deck.palette.style
        return Strip([Segment(text, style(role)) for text, role in self.lines[y] if text])
