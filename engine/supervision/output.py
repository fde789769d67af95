"""The log files of supervised processes: kept small, and quoted when a start fails."""

from __future__ import annotations

import os
import re
from pathlib import Path

LIMIT = 8 * 1024 * 1024  # bytes
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
    """The last lines written after `offset`, control characters removed, as a hint for a person."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(offset, end - 4096))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        text = ""
    kept = [line for line in _CONTROL.sub("", text).splitlines() if line.strip()][-lines:]
    if not kept:
        return f"It wrote nothing to {log}."
    return "\n  ".join([f"The end of {log}:", *kept])
