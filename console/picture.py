"""A view as a picture: SVG with every character in its cell, and plain text.

Each word is placed at its own column, so that a font whose glyphs are wider or narrower than a cell
cannot push the rest of the line aside. Blocks, lines and braille are drawn, not written: fonts lack
them or leave seams between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from console.paint import Painter
from console.widgets.plot import DOTS

CELL_W, CELL_H, SIZE = 8.43, 18.0, 14.0  # DejaVu Sans Mono is 0.602 of its size wide
PAD = 12.0
FONT = "'DejaVu Sans Mono', 'Menlo', 'Consolas', monospace"
PAPER, INK = "#16181d", "#c8ccd4"
SIXTEEN = ("#3b4048", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#c8ccd4",
           "#6b717d", "#ef7f88", "#a9d18e", "#f0cf8a", "#7fc1ff", "#d694ea", "#6fcbd6", "#ffffff")


def _eight_bit(number: int) -> str:
    """The colour of an xterm palette entry."""
    if number < 16:
        return SIXTEEN[number]
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return f"#{grey:02x}{grey:02x}{grey:02x}"
    number -= 16
    parts = (number // 36, number // 6 % 6, number % 6)
    return "#" + "".join(f"{0 if p == 0 else 55 + 40 * p:02x}" for p in parts)


class Look:
    """SGR parameters, read."""

    def __init__(self, sgr: str) -> None:
        self.bold = self.dim = self.underline = self.reverse = False
        self.ink = INK
        codes = [int(code) for code in sgr.split(";") if code]
        at = 0
        while at < len(codes):
            code = codes[at]
            if code in (38, 48) and codes[at + 1:at + 2] == [5]:
                if code == 38:
                    self.ink = _eight_bit(codes[at + 2])
                at += 3
                continue
            self.bold |= code == 1
            self.dim |= code == 2
            self.underline |= code == 4
            self.reverse |= code == 7
            if 30 <= code <= 37 or 90 <= code <= 97:
                self.ink = SIXTEEN[code - 30 if code < 40 else code - 82]
            at += 1


def runs(painter: Painter, y: int) -> Iterator[tuple[int, int, str, str]]:
    """Pieces of row `y` as (x, cells, text, sgr): one look each; other than ASCII one by one."""
    chars, looks = painter.chars[y], painter.looks[y]
    x = 0
    while x < painter.width:
        end = x + 1
        while end < painter.width and not chars[end]:
            end += 1
        if chars[x].isascii():
            while end < painter.width and looks[end] == looks[x] and chars[end].isascii() \
                    and chars[end]:
                end += 1
        yield x, end - x, "".join(chars[x:end]), looks[x]
        x = end


def _box(left: float, top: float, width: float, height: float, ink: str) -> str:
    return (f'<rect x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}" '
            f'fill="{ink}"/>')


def _drawn(character: str, left: float, top: float, ink: str) -> str | None:
    """A block, a line or a braille pattern as shapes; None for anything else."""
    code = ord(character[0])
    if 0x2581 <= code <= 0x2588:
        high = CELL_H * (code - 0x2580) / 8
        return _box(left, top + CELL_H - high, CELL_W - 0.6, high, ink)
    if character == "─":
        return _box(left, top + CELL_H / 2, CELL_W, 1, ink)
    if character == "│":
        return _box(left + CELL_W / 2, top, 1, CELL_H, ink)
    if 0x2800 <= code <= 0x28FF:
        dots = [f'<circle cx="{left + CELL_W * (0.28 + 0.5 * x):.2f}" '
                f'cy="{top + CELL_H * (0.125 + 0.25 * y):.2f}" r="1.15" fill="{ink}"/>'
                for x in (0, 1) for y in range(4) if (code - 0x2800) & DOTS[x][y]]
        return "".join(dots)
    return None


def _words(text: str) -> Iterator[tuple[int, str]]:
    """(offset, word) of the words of ASCII text; anything else is one word."""
    if not text.isascii():
        yield 0, text
        return
    at = 0
    for word in text.split(" "):
        if word:
            yield at, word
        at += len(word) + 1


def svg(painter: Painter) -> str:
    """The wanted picture of a painter as an SVG document."""
    width = painter.width * CELL_W + 2 * PAD
    height = painter.height * CELL_H + 2 * PAD
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
           f'width="{width:g}" height="{height:g}" font-family="{FONT}" font-size="{SIZE:g}">',
           f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>']
    for y in range(painter.height):
        for x, cells, text, sgr in runs(painter, y):
            look = Look(sgr)
            left, top, ink = PAD + x * CELL_W, PAD + y * CELL_H, look.ink
            if look.reverse:
                out.append(_box(left, top, cells * CELL_W, CELL_H, ink))
                ink = PAPER
            extra = ' font-weight="bold"' if look.bold else ""
            extra += ' fill-opacity="0.6"' if look.dim else ""
            extra += ' text-decoration="underline"' if look.underline else ""
            for offset, word in _words(text):
                at = left + offset * CELL_W
                out.append(_drawn(word, at, top, ink) or
                           f'<text x="{at:.2f}" y="{top + SIZE - 0.5:.1f}" fill="{ink}"{extra}>'
                           f'{escape(word)}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def save(painter: Painter, stem: Path) -> None:
    """Write `stem`.svg and `stem`.txt. Raises OSError."""
    stem.with_name(stem.name + ".svg").write_text(svg(painter), "utf-8")
    stem.with_name(stem.name + ".txt").write_text("\n".join(painter.text()) + "\n", "utf-8")
