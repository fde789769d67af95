"""Small plots in braille, two by four dots a cell, or in plain letters where that is all there is. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from console import format
from console.widgets.lines import Line, Span

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # [column][row from the top]
GUTTER = 6


class Curve(msgspec.Struct, frozen=True):
    """One line of a plot: evenly spaced values, None where unknown; `letter` draws it in ASCII."""

    role: str
    values: Sequence[float | None]
    letter: str


class Canvas:
    """`width` by `height` cells of dots, each cell with the role of what was drawn last in it."""

    def __init__(self, width: int, height: int, *, braille: bool) -> None:
        self.width, self.height, self.braille = width, height, braille
        self.columns = width * (2 if braille else 1)
        self.rows = height * (4 if braille else 1)
        self._bits = [[0] * width for _ in range(height)]
        self._text = [[" "] * width for _ in range(height)]
        self._roles = [["text"] * width for _ in range(height)]

    def dot(self, x: int, y: int, role: str, letter: str) -> None:
        """Set the dot `x` from the left and `y` from the bottom; outside is ignored."""
        if not (0 <= x < self.columns and 0 <= y < self.rows):
            return
        top = self.rows - 1 - y
        column, row = (x // 2, top // 4) if self.braille else (x, top)
        self._bits[row][column] |= DOTS[x % 2][top % 4]
        self._text[row][column] = letter
        self._roles[row][column] = role

    def draw(self, curve: Curve, top: float) -> None:
        """Draw a curve over the whole width, zero at the bottom and `top` at the top, joined up."""
        count = len(curve.values)
        before: tuple[int, int] | None = None
        for index, value in enumerate(curve.values):
            if value is None:
                before = None
                continue
            x = round(index * (self.columns - 1) / max(1, count - 1))
            y = max(0, min(self.rows - 1, round(value / top * (self.rows - 1))))
            if before is None:
                self.dot(x, y, curve.role, curve.letter)
            else:
                self._join(before, (x, y), curve)
            before = (x, y)

    def _join(self, one: tuple[int, int], other: tuple[int, int], curve: Curve) -> None:
        steps = max(abs(other[0] - one[0]), abs(other[1] - one[1]), 1)
        for step in range(steps + 1):
            self.dot(one[0] + round((other[0] - one[0]) * step / steps),
                     one[1] + round((other[1] - one[1]) * step / steps), curve.role, curve.letter)

    def level(self, value: float, top: float) -> None:
        """A dotted line across, behind the curves: a limit."""
        y = round(value / top * (self.rows - 1))
        for x in range(0, self.columns, 4 if self.braille else 3):
            self.dot(x, y, "dim", ".")

    def rows_of(self, row: int) -> list[Span]:
        """The spans of one row of cells, neighbours of one role joined."""
        spans: list[Span] = []
        for bits, text, role in zip(self._bits[row], self._text[row], self._roles[row], strict=True):
            cell = chr(0x2800 + bits) if self.braille and bits else text if bits else " "
            if spans and spans[-1][1] == role:
                spans[-1] = (spans[-1][0] + cell, role)
            else:
                spans.append((cell, role))
        return spans


def plot(curves: Sequence[Curve], width: int, height: int, top: float, *, limit: float | None,
         braille: bool, axis: str, at_limit: str = "", also: float | None = None,
         bottom: float = 0.0) -> list[Line]:
    """`height` lines of `width` cells: an axis with the top, the middle and the bottom, and the curves.

    With `at_limit` the axis names the limit by it, where it lies, in the place of top and middle; `also`
    is a second level, dotted without a name.
    """
    inner = max(1, width - GUTTER - 1)
    canvas = Canvas(inner, height, braille=braille)
    if limit is not None and limit <= top:
        canvas.level(limit, top)
    if also is not None and also <= top:
        canvas.level(also, top)
    for curve in curves:
        canvas.draw(_above(curve, bottom), top - bottom)
    labels = {0: format.plain(_short(top)), height - 1: format.plain(_short(bottom))}
    if at_limit and limit is not None and limit <= top:
        level = round(limit / top * (canvas.rows - 1))
        labels = {(canvas.rows - 1 - level) // (4 if braille else 1): at_limit, height - 1: "0"}
    elif height > 4:
        middle = top - (top - bottom) * ((height - 1) // 2) / (height - 1)
        labels[(height - 1) // 2] = format.plain(_short(middle))
    return [((format.right(labels.get(row, "")[:GUTTER], GUTTER), "dim"), (axis, "dim"),
             *canvas.rows_of(row)) for row in range(height)]


def _above(curve: Curve, bottom: float) -> Curve:
    if not bottom:
        return curve
    return Curve(curve.role, [None if v is None else v - bottom for v in curve.values], curve.letter)


def _short(value: float) -> float:
    """With as many digits as the gutter holds."""
    return float(f"{value:.3g}")


def ceiling(curves: Sequence[Curve], limit: float | None) -> float:
    """A round top for curves and limit alike; the limit counts only while values come near it."""
    largest = max((v for c in curves for v in c.values if v is not None), default=0.0)
    if limit is not None and largest > limit / 3:
        largest = max(largest, limit * 1.05)
    return format.nice_ceiling(largest)
