"""Numbers, times and text as the screens write them. Pure: no clock, no terminal.

Durations take the largest two units, times are UTC with a Z, and a value that is not known is "-",
never zero.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
UNKNOWN = "-"
COMMAND = re.compile(r"opsdeck(?: [a-z]+)?(?: \d+)?|systemctl \S+ \S+")


def ms(value: float | None) -> str:
    """Milliseconds without the unit: one decimal below ten, whole numbers above."""
    if value is None:
        return UNKNOWN
    if value < 9.95:
        return f"{value:.1f}"
    return f"{value:.0f}"


def rate(value: float | None) -> str:
    """A rate per second: two decimals below one, one below a hundred, whole above."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def percent(ratio: float | None) -> str:
    """A ratio of 0..1 as a percentage without the sign, three significant places at most."""
    if ratio is None:
        return UNKNOWN
    value = ratio * 100
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def plain(value: float | None) -> str:
    """A number as a person would write it: no trailing zeros."""
    if value is None:
        return UNKNOWN
    return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"


def duration(seconds: float | None) -> str:
    """The largest two units: `41 s`, `3 min 20 s`, `1 h 12 min`, `2 d 3 h`; tenths below ten seconds."""
    if seconds is None:
        return UNKNOWN
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds != int(seconds) else f"{seconds:.0f} s"
    rest = round(seconds)
    parts: list[str] = []
    for size, unit in UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if part)


def age(seconds: float | None) -> str:
    """An age that does not change each second once it is old: whole seconds, minutes, then hours."""
    if seconds is None:
        return "unknown"
    for size, unit in UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def clock(at: float | None) -> str:
    """`03:14:07Z`."""
    if at is None:
        return UNKNOWN
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%H:%M:%SZ")


def minute(at: float) -> str:
    """`03:14Z`."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%H:%MZ")


def stamp(at: float | None, now: float) -> str:
    """The time alone on the day of `now`, else with its date: `24 Nov 03:14Z`."""
    if at is None:
        return UNKNOWN
    then = dt.datetime.fromtimestamp(at, dt.UTC)
    if then.date() == dt.datetime.fromtimestamp(now, dt.UTC).date():
        return clock(at)
    return f"{then.day} {then.strftime('%b %H:%MZ')}"


def full_stamp(at: float | None) -> str:
    """`2026-11-24 03:14:07Z`."""
    if at is None:
        return UNKNOWN
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def size(count: int) -> str:
    """Bytes in decimal units: `812 B`, `64.5 kB`, `1.2 MB`."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one}" if count == 1 else f"{count} {many or one + 's'}"


def sentence(text: str) -> str:
    """`text` with a capital and a full stop. A command in front stays as it is typed, in backquotes."""
    text = text.rstrip(".")
    if command := COMMAND.match(text):
        return f"`{command[0]}`{text[command.end():]}."
    return f"{text[:1].upper()}{text[1:]}."


def clip(text: str, width: int, more: str = "…") -> str:
    """`text` in at most `width` cells, the cut marked by `more`."""
    if (len(text) if text.isascii() else cell_len(text)) <= width:
        return text
    if width <= 0:
        return ""
    return set_cell_size(text, width - 1).rstrip() + more


def left(text: str, width: int, more: str = "…") -> str:
    """`text` clipped and padded on the right to exactly `width` cells."""
    text = clip(text, width, more)
    return text.ljust(width) if text.isascii() else text + " " * (width - cell_len(text))


def right(text: str, width: int, more: str = "…") -> str:
    """`text` clipped and padded on the left to exactly `width` cells."""
    text = clip(text, width, more)
    return text.rjust(width) if text.isascii() else " " * (width - cell_len(text)) + text


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at spaces where there are any; at least one line."""
    if width < 1:
        return [text]
    lines: list[str] = []
    for paragraph in text.split("\n"):
        current = ""
        for word in paragraph.split(" "):
            candidate = f"{current} {word}" if current else word
            if cell_len(candidate) <= width:
                current = candidate
                continue
            if current:
                lines.append(current)
            while cell_len(word) > width:
                head = set_cell_size(word, width).rstrip()
                lines.append(head)
                word = word[len(head):]
            current = word
        lines.append(current)
    return lines


def fold(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, cut anywhere: output is shown as it is, not re-flowed."""
    if len(text) <= width and text.isascii():
        return [text]
    pieces: list[str] = []
    while cell_len(text) > width > 0:
        head = set_cell_size(text, width)
        taken = len(head)
        while taken > 1 and cell_len(text[:taken]) > width:
            taken -= 1
        pieces.append(text[:taken])
        text = text[taken:]
    return [*pieces, text]


def nice_ceiling(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten: a scale that stands still while values wobble."""
    if value <= 0:
        return 1.0
    power = 1.0
    while power * 10 <= value:
        power *= 10
    while power > value:
        power /= 10
    for factor in (1, 2, 5, 10):
        if value <= factor * power:
            return factor * power
    return 10 * power


def spark(values: Sequence[float | None], levels: str, ceiling: float | None) -> str:
    """One character a value: `levels` from zero to `ceiling` (full at or above it), a space where unknown.

    Without a ceiling the scale is the next round number above the largest value.
    """
    known = [value for value in values if value is not None]
    top = ceiling if ceiling else nice_ceiling(max(known, default=0.0))
    last = len(levels) - 1
    return "".join(" " if value is None else levels[max(0, min(last, int(value / top * last + 0.5)))]
                   for value in values)


def buckets(values: Sequence[float | None], end: float, step: float, count: int,
            phase: float = 0.0) -> list[float | None]:
    """The largest value in each of `count` equal buckets, oldest first.

    `values` end at `end` and lie `step` seconds apart. Bucket edges lie at fixed times (multiples of
    the bucket's length, moved by `phase` of it), so that only the newest bucket changes between two
    edges and a spark does not flicker from second to second.
    """
    if not values or count < 1:
        return [None] * max(count, 0)
    length = step * len(values) / count
    newest = int((end / length) + phase)
    result: list[float | None] = [None] * count
    for index, value in enumerate(values):
        if value is None:
            continue
        at = end - (len(values) - 1 - index) * step
        place = count - 1 - (newest - int(at / length + phase))
        if 0 <= place < count:
            before = result[place]
            result[place] = value if before is None or value > before else before
    return result
