"""The curves a step draws while it runs, such as its loss: what was heard of them, and as lines. Pure."""

from __future__ import annotations

from rich.cells import cell_len

from console import format
from console.glyphs import Glyphs
from console.widgets.lines import Line, line
from console.widgets.plot import Curve as Drawn
from console.widgets.plot import plot
from engine.api.backend import Curve

KEPT = 4000  # points of one curve
SHOWN = 3    # curves; a step that draws more is named
ROLES = (("p99", "#"), ("p95", "+"), ("p50", "."))
PLOT = 8     # lines
AMPLE = 16   # lines of the output from which a plot has room beside the text


class Heard:
    """The points of one attempt by curve, in the order they came. `next` is the byte to go on from."""

    def __init__(self) -> None:
        self.next = 0
        self.final = False
        self.points: dict[str, list[tuple[float, float]]] = {}

    def feed(self, curve: Curve) -> bool:
        """Add what is new. Whether that is anything."""
        if curve.next < self.next:  # the attempt's file is another one: what was heard is no more
            self.points = {}
        self.next, self.final = curve.next, curve.final
        for point in curve.points:
            kept = self.points.setdefault(point.name, [])
            kept.append((point.step, point.value))
            if len(kept) > KEPT:
                del kept[1::2]  # keep the whole of it, at half the detail
        return bool(curve.points)


def lines(heard: Heard, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """A plot where `height` lines of output leave room for one, else a line a curve; [] without points."""
    names = [name for name, points in heard.points.items() if points][:SHOWN]
    if not names:
        return []
    said = [_said(name, heard.points[name], width, glyphs, ROLES[at][0]) for at, name in enumerate(names)]
    if height < AMPLE or width < 40:
        return said
    known = [value for name in names for _, value in heard.points[name]]
    low, high = min(known), max(known)
    if high <= low:
        return said
    margin = (high - low) * 0.05
    curves = [Drawn(ROLES[at][0], _spread(heard.points[name], width), ROLES[at][1])
              for at, name in enumerate(names)]
    return [*plot(curves, width, PLOT, high + margin, limit=None, braille=glyphs.braille, axis=glyphs.axis,
                  bottom=low - margin), *said]


def _said(name: str, points: list[tuple[float, float]], width: int, glyphs: Glyphs, role: str) -> Line:
    """`loss  0.4023 at step 58, from 0.6931` and its course where there is room."""
    step, value = points[-1]
    text = f"{format.clip(name, 16)}  {value:.4g} at step {step:g}, from {points[0][1]:.4g}"
    room = min(32, width - cell_len(text) - 2)
    spans = [(text, role)]
    if room >= 8:
        values = [v for v in _spread(points, room) if v is not None]
        low, high = min(values), max(values)
        if high > low:
            spans.append(("  " + format.spark([v - low for v in values], glyphs.spark, high - low), "spark"))
    return line(*spans)


def _spread(points: list[tuple[float, float]], columns: int) -> list[float | None]:
    """At most one value a column, the last in each: by the order in which they came."""
    if len(points) <= columns:
        return [value for _, value in points]
    return [points[(at + 1) * len(points) // columns - 1][1] for at in range(columns)]
