"""Stopping a run: the safe direction, which waits neither for the journal nor for what runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from engine.errors import JournalError
from engine.journal.emergency import Emergency
from engine.journal.events import NewEvent
from engine.procedures.executor import Executor, Live
from engine.procedures.run import UNDO

log = logging.getLogger("opsdeck")
JOURNAL_PATIENCE = 1.0
ABORT_PATIENCE = 6.0


class Stopper:
    """Stops runs. `on_unrecorded(live)` is called for one whose stop the journal could not take, so that
    what must be undone at once can be."""

    def __init__(self, executor: Executor, emergency: Emergency) -> None:
        self._executor = executor
        self._emergency = emergency
        self.on_unrecorded: Callable[[Live], None] = lambda live: None

    async def stop(self, live: Live, event: NewEvent) -> None:
        """Stop what runs first, then record `event` (a `run.abort`), in the journal or beside it. A run that
        is told to go back already keeps the reason why."""
        rollback = bool(event.data.get("rollback"))
        if rollback and _goes_back(live):
            return
        live.stopping = not rollback
        live.pending.append(event)
        for id, job in list(live.jobs.items()):
            undoing = rollback and id.startswith(UNDO)  # that is what a rollback is for
            if not undoing and not job.cancelling():
                job.cancel()
        recording = asyncio.create_task(self._record(live))
        done, _ = await asyncio.wait({recording}, timeout=JOURNAL_PATIENCE)
        if not done or not recording.result():
            self._to_emergency(event)
            live.emergency = True
            live.due = self._executor.clock()
            live.wake.set()
            self.on_unrecorded(live)
        deadline = asyncio.get_running_loop().time() + ABORT_PATIENCE
        while not (live.progress.finished or live.emergency or rollback) and (
                asyncio.get_running_loop().time() < deadline):
            await asyncio.sleep(0.02)

    async def _record(self, live: Live) -> bool:
        try:
            await self._executor.commit(live, [])
        except JournalError:
            return False
        return True

    def _to_emergency(self, event: NewEvent) -> None:
        try:
            self._emergency.record(event)
        except JournalError as error:
            log.critical("abort of run %s by %s is recorded nowhere else: %s", event.run,
                         event.actor.user, error)


def _goes_back(live: Live) -> bool:
    return live.progress.abort == "rollback" or any(
        event.kind == "run.abort" and event.data.get("rollback") for event in live.pending)
