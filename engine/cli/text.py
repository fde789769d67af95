"""How commands print: aligned columns, a glyph and a word for each state, durations, UTC.

Colour only on a terminal and without NO_COLOR; whatever comes from outside is printed without
control characters.
"""

from __future__ import annotations

import os
import re
import sys
import time
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal, TextIO

Tone = Literal["bad", "warn", "good", "dim", "bold", "plain"]
_CODES = {"bad": "31", "warn": "33", "good": "32", "dim": "2", "bold": "1"}

RUN_GLYPHS: dict[str, tuple[str, Tone]] = {
    "running": ("▶", "plain"), "waiting": ("◆", "warn"), "paused": ("‖", "warn"),
    "done": ("✔", "good"), "failed": ("✘", "bad"), "rolled_back": ("↶", "warn"),
    "aborted": ("■", "warn")}
STEP_GLYPHS: dict[str, tuple[str, Tone]] = {
    "planned": ("·", "dim"), "waiting": ("◆", "warn"), "intent": ("▶", "plain"),
    "done": ("✔", "good"), "failed": ("✘", "bad"), "unknown": ("?", "bad"),
    "skipped": ("-", "dim"), "undone": ("↶", "warn")}
STEP_WORDS = {"intent": "running"}


def coloured(stream: TextIO | None = None) -> bool:
    """Whether to use colour on a stream (standard output): a terminal that wants it."""
    stream = sys.stdout if stream is None else stream
    return (stream.isatty() and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") not in (None, "", "dumb"))


def paint(text: str, tone: Tone, colour: bool) -> str:
    code = _CODES.get(tone)
    return f"\x1b[{code}m{text}\x1b[0m" if colour and code else text


def plain(text: object, keep: str = "") -> str:
    """Text without control, format and bidirectional characters (but those in `keep`).

    Lines are folded into one, unless line breaks are kept.
    """
    folded = str(text) if "\n" in keep else re.sub(r"\s*\n\s*", " ", str(text))
    return "".join(c if c in keep or unicodedata.category(c)[0] != "C" else "�" for c in folded)


def width(text: str) -> int:
    """Columns that a text takes on a terminal: wide characters take two, combining ones none."""
    return sum(0 if unicodedata.combining(c) else
               2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


Cell = str | tuple[str, Tone]


def columns(rows: Sequence[Sequence[Cell]], *, header: Sequence[str] = (), right: str = "",
            indent: str = "", colour: bool = False) -> list[str]:
    """Rows as aligned lines. `right` has an `r` for each column that is aligned right."""
    table: list[list[tuple[str, Tone]]] = [[(h, "dim") for h in header]] if header else []
    table += [[(c, "plain") if isinstance(c, str) else c for c in row] for row in rows]
    count = max((len(row) for row in table), default=0)
    widths = [max((width(row[i][0]) for row in table if i < len(row)), default=0)
              for i in range(count)]
    lines = []
    for row in table:
        parts = []
        for i, (text, tone) in enumerate(row):
            space = " " * (widths[i] - width(text))
            shown = paint(text, tone, colour)
            last = i == len(row) - 1
            parts.append(space + shown if right[i:i + 1] == "r" else
                         shown if last else shown + space)
        lines.append((indent + "  ".join(parts)).rstrip())
    return lines


def number(value: float | None, digits: int = 0) -> str:
    """A number, or `-` where it is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"


def latency(value: float | None) -> str:
    """Milliseconds with what precision they deserve."""
    return number(value, 0 if value is None or value >= 10 else 1)


def duration(seconds: float | None) -> str:
    """The largest two units: `3 d 4 h`, `2 min 5 s`, `12 s`, `0.4 s`."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def stamp(at: float | None, now: float | None = None) -> str:
    """A time in UTC: `03:14:07Z` on the day of `now`, else `2026-11-24 03:14:07Z`."""
    if at is None:
        return "-"
    today = now is not None and time.gmtime(at)[:3] == time.gmtime(now)[:3]
    return time.strftime("%H:%M:%SZ" if today else "%Y-%m-%d %H:%M:%SZ", time.gmtime(at))


def emit(value: Any) -> None:
    """Print a value of the wire as one line of JSON."""
    import msgspec

    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def say(lines: Sequence[str]) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
