"""An engine that dies at one chosen boundary: round a write of the journal, or a call of the router.

From then on nothing that it does takes effect: it is let go as a SIGKILL would, without a word more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import JournalUnavailable, OpsdeckError
from engine.journal.events import ENGINE
from engine.procedures.executor import Live
from tests.procedures.kit import BOB
from tests.rollout.rig import Outside, Rig


class Dead(Exception):
    """The engine died."""


class Mortal(Rig):
    """A rig that dies at `boundary`: `append:N:before|after`, `shift:N:before|after`, or `none`."""

    def __init__(self, home: Path, outside: Outside, boundary: str = "none") -> None:
        super().__init__(home, outside)
        self._kind, _, rest = boundary.partition(":")
        at, _, self._side = rest.partition(":")
        self._at = int(at or 0)
        self._appends = self._shifts = 0
        self.gone = False
        self.dead = asyncio.Event()
        self._let_go = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._append = self.journal.append
        self.journal.append = self._appended  # type: ignore[method-assign]
        self._beside = self.emergency.record
        self.emergency.record = self._recorded_beside  # type: ignore[method-assign]
        outside.router.edge = self._edge

    def _appended(self, events: Sequence[Any], *, row: Any = None) -> Any:
        """In the journal's own thread."""
        if self.gone:
            self._end_of_thread()
        self._appends += 1
        mine = self._kind == "append" and self._at == self._appends
        if mine and self._side == "before":
            self._die()
        recorded = self._append(events, row=row)
        if mine and self._side == "after":
            self._die()
        return recorded

    def _die(self) -> None:
        self.gone = True
        self._loop.call_soon_threadsafe(self.dead.set)
        self._end_of_thread()

    def _end_of_thread(self) -> None:
        self._let_go.wait(10)
        raise JournalUnavailable("this engine is gone")

    def _recorded_beside(self, event: Any) -> None:
        if self.gone:
            raise JournalUnavailable("this engine is gone")
        self._beside(event)

    async def _edge(self, name: str) -> None:
        if self.gone:
            await asyncio.Event().wait()
        if name.endswith("before"):
            self._shifts += 1
        if self._kind == "shift" and self._at == self._shifts and name.endswith(self._side):
            self.gone = True
            self.dead.set()
            await asyncio.Event().wait()

    def _page(self, text: str, live: Live) -> None:
        if not self.gone:
            super()._page(text, live)

    async def die(self) -> None:
        """What is left of it goes, and takes nothing with it."""
        self.gone = True
        self.performer.closing = True
        for task in [*self._paging, *self.rollouts._tasks.values()]:
            task.cancel()
        self._let_go.set()
        await self.close()

    async def take_over(self) -> list[Live]:
        """As an engine that starts: what was recorded beside the journal first, then all that ran."""
        for event in self.emergency.pending():
            row = self.journal.run(event.run)
            if row is not None and row.ended is None:
                await self.recorder.append([event])
        self.emergency.clear()
        return await self.recover()

    async def told(self) -> Counter[str]:
        """Pages as they are recorded, each by how often."""
        events = await self.recorder.call(self.journal.tail, 1000, None, ENGINE)
        return Counter(event.data["text"] for event in events if event.kind == "rollout.told")

    async def drive(self, live: Live, how: Any) -> None:
        """Beats and answers until the run has ended. Raises Dead when the engine dies first."""
        ended = asyncio.create_task(how(self, live))
        death = asyncio.create_task(self.dead.wait())
        await asyncio.wait({ended, death}, return_when=asyncio.FIRST_COMPLETED)
        died = self.gone
        if died:
            self._let_go.set()
        for task in (ended, death):
            if not task.done():
                task.cancel()
        results = await asyncio.gather(ended, death, return_exceptions=True)
        if died:
            raise Dead
        if isinstance(results[0], BaseException):
            raise results[0]

    async def answered(self, live: Live, step: str) -> None:
        """Bob approves, as often as it takes until the engine says that he did."""
        with contextlib.suppress(OpsdeckError):
            await self.approve(live, step, BOB)
