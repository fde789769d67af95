"""What reaches the terminal: only the cells that differ from what it already shows.

Textual's compositor repaints from the start of a widget to the end of a changed region and colours
each piece anew. Over a slow link that is most of the traffic, so the console keeps two pictures: the
one wanted and the one the terminal has. Compositions change the first; `flush` writes the shortest
way from the second to the first. A terminal that is behind gets no frame at all, and the next flush
takes it straight to the newest picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from rich.cells import get_character_cell_size
from rich.color import ColorSystem, ColorType
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip

from console import format
from console.glyphs import ASCII_FOR

Row = list[str]
GAP = 3    # unchanged cells written through: fewer bytes than moving the cursor over them
ERASE = 4  # blanks at the end of a line from which erasing is shorter than writing


@lru_cache(maxsize=512)
def sgr(style: Style | None, system: ColorSystem | None) -> str:
    """The SGR parameters of a style, "" for the terminal's default. `system` None drops all colour."""
    if style is None:
        return ""
    codes = [code for on, code in (
        (style.bold, "1"), (style.dim, "2"), (style.italic, "3"), (style.underline, "4"),
        (style.reverse, "7"), (style.strike, "9")) if on]
    if system is not None:
        for color, foreground in ((style.color, True), (style.bgcolor, False)):
            if color is not None and color.type is not ColorType.DEFAULT:
                codes.extend(color.downgrade(system).get_ansi_codes(foreground=foreground))
    return ";".join(codes)


@lru_cache(maxsize=512)
def shows_on_blanks(look: str) -> bool:
    """Whether a blank looks different in it: reversed, underlined, struck through or with a paper."""
    codes = iter(look.split(";"))
    for code in codes:
        if code == "38":  # 38;5;N or 38;2;R;G;B: what follows is a number of a colour
            for _ in range(1 if next(codes) == "5" else 3):
                next(codes)
        elif code in ("4", "7", "9") or (code.isdigit() and 40 <= int(code) <= 49):
            return True
    return False


class Painter:
    """Two pictures of `width` by `height` cells: a character (or "" behind a wide one) and its SGR.

    `system` is what colours the terminal has, None for none; `ascii_only` replaces every other
    character, wherever it comes from.
    """

    def __init__(self, system: ColorSystem | None, *, ascii_only: bool = False) -> None:
        self.system = system
        self.ascii_only = ascii_only
        self.width = self.height = 0
        self.chars: list[Row] = []
        self.looks: list[Row] = []
        self._shown_chars: list[Row] = []
        self._shown_looks: list[Row] = []
        self._dirty: set[int] = set()
        self._clear = True

    def resize(self, width: int, height: int) -> None:
        if (width, height) != (self.width, self.height):
            self.width, self.height = width, height
            self.chars = [[" "] * width for _ in range(height)]
            self.looks = [[""] * width for _ in range(height)]
            self.forget()

    def forget(self) -> None:
        """The terminal's picture is unknown: the next flush clears it and paints all."""
        self._shown_chars = [[" "] * self.width for _ in range(self.height)]
        self._shown_looks = [[""] * self.width for _ in range(self.height)]
        self._dirty = set(range(self.height))
        self._clear = True

    def full(self, rows: Sequence[Iterable[Strip]]) -> None:
        """Take a whole composition: for each row its strips from the left."""
        for y, strips in enumerate(rows[:self.height]):
            x = 0
            for strip in strips:
                x = self._place(y, x, strip)

    def partial(self, chops: Sequence[Mapping[int, Strip | None]],
                spans: Iterable[tuple[int, int, int]]) -> None:
        """Take what was composed within `spans` (y, from column x1 to before x2).

        Of such a row the pieces outside its spans were not composed, and hold blanks.
        """
        for y, x1, x2 in spans:
            if y >= self.height:
                continue
            for x, strip in chops[y].items():
                if strip is None:
                    continue
                begin, end = max(x, x1), min(x + strip.cell_length, x2)
                if begin < end:
                    self._place(y, begin, strip.crop(begin - x, end - x))

    def _place(self, y: int, x: int, strip: Strip) -> int:
        chars, looks, width = self.chars[y], self.looks[y], self.width
        for text, style, control in strip:
            if control or not text:
                continue
            look = sgr(style, self.system)
            if text.isascii() and text.isprintable():
                end = min(x + len(text), width)
                if end > x:
                    chars[x:end] = text[:end - x]
                    if shows_on_blanks(look):
                        looks[x:end] = [look] * (end - x)
                    else:
                        looks[x:end] = ["" if c == " " else look for c in text[:end - x]]
                x += len(text)
                continue
            for character in text:
                cells = get_character_cell_size(character)
                if self.ascii_only and not character.isascii():
                    character = ASCII_FOR.get(character, "?")
                if cells == 0:
                    if not self.ascii_only and 0 < x <= width and character.isprintable():
                        chars[x - 1] += character
                    continue
                if x + cells > width:
                    x += cells
                    continue
                chars[x] = character if character.isprintable() else "?"
                looks[x] = look
                if cells == 2:
                    chars[x + 1] = " " if self.ascii_only else ""
                    looks[x + 1] = look
                x += cells
        self._dirty.add(y)
        return x

    def sentence(self, text: str) -> None:
        """Replace the whole picture by one sentence, broken between words."""
        rows = format.wrap(text, self.width)
        for y in range(self.height):
            piece = format.left(rows[y] if y < len(rows) else "", self.width)
            self._place(y, 0, Strip([Segment(piece)]))

    def flush(self) -> str:
        """The bytes (as text) that bring the terminal to the wanted picture; "" if it shows it."""
        out: list[str] = []
        if self._clear:
            out.append("\x1b[m\x1b[H\x1b[2J")
            self._clear = False
        look = ""
        for y in sorted(self._dirty):
            look = self._row(y, out, look)
        self._dirty.clear()
        if look:
            out.append("\x1b[m")
        return "".join(out)

    def _row(self, y: int, out: list[str], look: str) -> str:
        chars, looks = self.chars[y], self.looks[y]
        old_chars, old_looks = self._shown_chars[y], self._shown_looks[y]
        if chars == old_chars and looks == old_looks:
            return look
        width = self.width
        blank_from = width
        while blank_from and chars[blank_from - 1] == " " and not looks[blank_from - 1]:
            blank_from -= 1
        x, cursor = 0, -1
        while x < width:
            if chars[x] == old_chars[x] and looks[x] == old_looks[x]:
                x += 1
                continue
            start = x
            while start and not chars[start]:
                start -= 1
            end = self._run_end(x, chars, looks, old_chars, old_looks)
            erase = False
            if end > blank_from and width - max(blank_from, start) >= ERASE:
                erase, end = True, max(blank_from, start)
            out.append(_move(cursor, start, y))
            for at in range(start, end):
                if looks[at] != look and not (
                        chars[at] == " " and not looks[at] and not shows_on_blanks(look)):
                    look = looks[at]
                    out.append(f"\x1b[0;{look}m" if look else "\x1b[m")
                out.append(chars[at])
            cursor = end if end < width else -1
            if erase:
                if look:
                    look = ""
                    out.append("\x1b[m")
                out.append("\x1b[K")
                break
            x = end
        self._shown_chars[y] = chars.copy()
        self._shown_looks[y] = looks.copy()
        return look

    def _run_end(self, start: int, chars: Row, looks: Row, old_chars: Row, old_looks: Row) -> int:
        last = at = start
        while at < self.width and at - last <= GAP:
            if chars[at] != old_chars[at] or looks[at] != old_looks[at]:
                last = at
            elif looks[at] != looks[last]:
                break
            at += 1
        end = last + 1
        while end < self.width and not chars[end]:
            end += 1
        return end

    def text(self) -> list[str]:
        """The wanted picture as lines of text, blanks at the end removed."""
        return ["".join(row).rstrip() for row in self.chars]


def _move(cursor: int, x: int, y: int) -> str:
    if cursor == x:
        return ""
    if cursor < 0 or x < cursor:
        return f"\x1b[{y + 1};{x + 1}H" if x else f"\x1b[{y + 1}H"
    return f"\x1b[{x - cursor}C" if x - cursor > 1 else "\x1b[C"


def color_system(environ: Mapping[str, str], theme: str) -> ColorSystem | None:
    """What colours the terminal takes, from TERM and COLORTERM; None in the monochrome theme."""
    if theme == "mono":
        return None
    term = environ.get("TERM", "")
    if term == "dumb":
        return None
    if "256color" in term or environ.get("COLORTERM", "") in ("truecolor", "24bit"):
        return ColorSystem.EIGHT_BIT
    return ColorSystem.STANDARD

