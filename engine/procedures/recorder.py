"""The journal from the event loop: one worker thread makes every call, in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from engine.journal.events import Event, NewEvent
from engine.journal.journal import Journal, RunRow

log = logging.getLogger("opsdeck")
T = TypeVar("T")


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that must not be cut short: a cancellation is raised only once the work has ended.

    A commit goes on in its thread whatever is cancelled; what follows from it has to follow, and
    locks held round it have to stay held until then.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("cancelled, and so nobody was told: %s", error)
        raise


class Recorder:
    """Awaits a blocking journal. The calls raise what the journal raises (JournalError and kin)."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")

    async def call(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def append(self, events: Sequence[NewEvent], row: RunRow | None = None) -> list[Event]:
        """Durable when it returns; all or none."""
        return await self.call(lambda: self.journal.append(events, row=row))

    def rotate(self, older_than_s: float, now: float) -> int:
        """Archive old runs; to be run by `call`. How many events left the database."""
        return self.journal.rotate(older_than_s=older_than_s, now=now)

    def close(self) -> None:
        """Wait for what is under way, then close the journal."""
        self._thread.submit(self.journal.close)
        self._thread.shutdown(wait=True)
