"""A view as a picture: SVG with every character in its cell, and plain text.

Each run of characters is placed at its own column and told its exact length, so that a font whose
glyphs are wider or narrower than a cell cannot push the rest of the line aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path

from console.paint import Painter

CELL_W, CELL_H, SIZE = 8.4, 18.0, 14.0
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
    """Pieces of row `y` as (x, cells, text, sgr): one look each, and other than ASCII one by one."""
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
            if not text.strip() and not look.reverse:
                continue
            left, top, length = PAD + x * CELL_W, PAD + y * CELL_H, cells * CELL_W
            ink = look.ink
            if look.reverse:
                out.append(f'<rect x="{left:.1f}" y="{top:g}" width="{length:.1f}" '
                           f'height="{CELL_H:g}" fill="{ink}"/>')
                ink = PAPER
            extra = ' font-weight="bold"' if look.bold else ""
            extra += ' fill-opacity="0.6"' if look.dim else ""
            extra += ' text-decoration="underline"' if look.underline else ""
            if text.strip():
                out.append(f'<text x="{left:.1f}" y="{top + SIZE - 0.5:.1f}" fill="{ink}"'
                           f' textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
                           f'{extra} xml:space="preserve">{escape(text)}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"


def save(painter: Painter, stem: Path) -> None:
    """Write `stem`.svg and `stem`.txt. Raises OSError."""
    stem.with_name(stem.name + ".svg").write_text(svg(painter), "utf-8")
    stem.with_name(stem.name + ".txt").write_text("\n".join(painter.text()) + "\n", "utf-8")
