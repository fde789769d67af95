"""The journal from the event loop: one worker thread makes every call, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.journal.events import Event, NewEvent
from engine.journal.journal import Journal, RunRow

T = TypeVar("T")


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
