"""The curve that a process draws while it runs: lines of JSON {"name", "step", "value"}, read warily."""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from typing import Any

from engine.procedures import carried
from engine.procedures.output import harmless

POINTS = 2000
WINDOW = 1 << 19  # bytes: more than so many points of the usual length
NAME = 64  # characters


def read(path: Path, offset: int, points: int = POINTS) -> tuple[list[dict[str, Any]], int]:
    """At most the last `points` that were written after `offset` (bytes), and the offset to go on from.

    What is no point is left out: other JSON, a number that is not finite, half a line at the end, which is
    read when it is whole. Blocks; a file that is not there or not a plain one has none.
    """
    try:
        size = path.lstat().st_size
        start = max(offset, size - WINDOW) if 0 <= offset <= size else max(0, size - WINDOW)
        data = carried.regular(path, WINDOW, start)
    except OSError:
        return [], 0
    if data is None:
        return [], 0
    end = data.rfind(b"\n") + 1
    found: deque[dict[str, Any]] = deque(maxlen=points)
    lines = data[:end].split(b"\n")
    for line in lines[1:] if start != offset and start else lines:
        point = _point(line)
        if point is not None:
            found.append(point)
    return list(found), start + end


def _point(line: bytes) -> dict[str, Any] | None:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        return None
    name = harmless(given["name"]).replace("\n", " ").replace("\t", " ").strip()[:NAME]
    step, value = _number(given.get("step")), _number(given.get("value"))
    if not name or step is None or value is None or not _text(name):
        return None
    return {"name": name, "step": step, "value": value}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
