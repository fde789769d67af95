"""Waiting for the processes of an attempt, and ending them all."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from engine.procedures.processes import KILL_GRACE, Attempt, Child

POLL = 0.05
ABORTED = "it was ended because the run was aborted"


async def until_ended(child: Child, left: float, timeout: float,
                      closing: Callable[[], bool]) -> str | None:
    """Wait for the leader, `left` seconds of its `timeout`; end the whole group then or on abort, and say so.

    An engine that closes lets go instead: the cancellation goes on.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(child.pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), left)
        return None
    except TimeoutError:
        why = f"it took longer than its timeout of {timeout:g} s and was ended"
    except asyncio.CancelledError:
        if closing():
            raise
        why = ABORTED
    finally:
        loop.remove_reader(child.pidfd)
    await _end(child, child.pidfd)
    return why


async def until_gone(attempt: Attempt, deadline: float, closing: Callable[[], bool]) -> str | None:
    """As `until_ended`, for what an engine before this one started; `deadline` by the wall clock."""
    loop = asyncio.get_running_loop()
    left = deadline - time.time()
    end = loop.time() + max(0.0, left)
    try:
        while attempt.alive() and attempt.status() is None:
            if loop.time() >= end:
                await _end(attempt, None)
                return "it took longer than its timeout and was ended"
            await asyncio.sleep(POLL)
    except asyncio.CancelledError:
        if closing():
            raise
        await _end(attempt, None)
        return ABORTED
    attempt.signal(signal.SIGKILL)  # what it left in the background ends with it
    return None


async def _end(target: Child | Attempt, pidfd: int | None) -> None:
    """TERM, a short grace, then KILL for everything that still holds the lock."""
    attempt = target.attempt if isinstance(target, Child) else target
    target.signal(signal.SIGTERM)
    loop = asyncio.get_running_loop()
    end = loop.time() + KILL_GRACE
    while attempt.alive() and loop.time() < end:
        await asyncio.sleep(POLL)
    target.signal(signal.SIGKILL)
    end = loop.time() + KILL_GRACE
    while attempt.alive() and loop.time() < end:
        target.signal(signal.SIGKILL)
        await asyncio.sleep(POLL)
