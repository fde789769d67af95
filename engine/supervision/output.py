"""The log files of supervised processes: kept small, and quoted when a start fails."""

from __future__ import annotations

import os
import re
from pathlib import Path

LIMIT = 8 * 1024 * 1024  # bytes
_READ = 65536  # bytes of a log's end that are looked at, and
_QUOTED = 4096  # characters of them that are quoted
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[^\n\t -~\u00a0-\U0010ffff]")


def rotate(log: Path, limit: int = LIMIT) -> int:
    """Put a log over `limit` bytes aside (one generation is kept); the size of what is left."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return 0
    if size <= limit:
        return size
    log.replace(log.with_name(log.name + ".1"))
    return 0


def tail(log: Path, offset: int = 0, lines: int = 15) -> str:
    """The last lines written after `offset`, as a hint for a person: without control characters,
    and of Python's stack traces the exceptions alone, which say what went wrong."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - _READ))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    kept = _without_frames(_CONTROL.sub("", text).splitlines())
    kept = "\n".join(kept[-lines:])[-_QUOTED:].splitlines()
    if not kept:
        return f"It wrote nothing to {log}."
    return "\n  ".join([f"The end of {log}:", *kept])


def _without_frames(lines: list[str]) -> list[str]:
    """The lines that are neither blank nor a frame of a stack trace."""
    kept = []
    inside = False
    for line in lines:
        if line.rstrip().endswith("Traceback (most recent call last):"):
            inside = True
        elif line.strip() and not (inside and line.startswith(" ")):
            inside = False
            kept.append(line)
    return kept
