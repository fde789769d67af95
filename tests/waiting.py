"""Waiting for what is true in a moment, on a machine of any speed; nothing sleeps for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Long enough for a machine that has much else to do: only a test that fails ever waits for it.
WITHIN = 40.0


def until(holds: Callable[[], T], what: str = "", within: float = WITHIN) -> T:
    """What `holds` answers as soon as that is true; the test fails when it is not so `within` seconds."""
    end = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < end, what or "what the test waits for did not come"
        time.sleep(0.01)
    return found


async def soon(holds: Callable[[], T], what: str = "", within: float = WITHIN) -> T:
    """As `until`, while the event loop goes on."""
    end = time.monotonic() + within
    while not (found := holds()):
        assert time.monotonic() < end, what or "what the test waits for did not come"
        await asyncio.sleep(0.01)
    return found


def lives(pid: int) -> bool:
    """Whether a process runs: one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
