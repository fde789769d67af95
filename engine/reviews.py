"""Gates that somebody opened alone (break glass), and whose review is due."""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.api import wire
from engine.journal.events import ENGINE, Event
from engine.procedures.recorder import Recorder

DUE_S = 7 * 86400.0  # a review is told until its run has ended for so long
LOOKED_BACK_S = 30 * 86400.0  # what was opened earlier, even of a run that is still to be told, is not found
PAGE = 1000
PAGES = 20


@dataclass
class _Run:
    """What is known of one run: up to its event `n`; `over` once nothing can be added."""

    n: int = 0
    over: bool = False
    found: list[wire.Review] = field(default_factory=list)


class Reviews:
    """Found by the engine's own `glass.broken` events, each of which is looked at once."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._newest = 0
        self._runs: dict[str, _Run] = {}

    async def due(self, now: float) -> list[wire.Review]:
        """Those of runs that run, or ended within the last 7 days, the newest first. Raises JournalError."""
        await self._look(now)
        for id in list(self._runs):
            await self._read(id, now)
        found = [review for run in self._runs.values() for review in run.found]
        return sorted(found, key=lambda review: review.at, reverse=True)

    async def _look(self, now: float) -> None:
        """Note the runs whose glass was broken since the last look."""
        newest, before = self._newest, None
        for _ in range(PAGES):
            events = await self._recorder.call(self._recorder.journal.tail, PAGE, before, ENGINE)
            fresh = [event for event in events
                     if event.seq > self._newest and now - event.at <= LOOKED_BACK_S]
            for event in fresh:
                newest = max(newest, event.seq)
                if event.kind == "glass.broken" and event.data.get("run"):
                    self._runs.setdefault(event.data["run"], _Run())
            if len(fresh) < PAGE:
                break
            before = events[-1].seq
        self._newest = newest  # only now: where a page cannot be read, all are looked at again

    async def _read(self, id: str, now: float) -> None:
        known = self._runs[id]
        row = await self._recorder.call(self._recorder.journal.run, id)
        if row is None or (row.ended is not None and now - row.ended > DUE_S):
            del self._runs[id]
            return
        if known.over:
            return
        for event in await self._recorder.call(self._recorder.journal.read, id, known.n):
            known.n = event.n
            if event.kind == "gate.approved" and event.data.get("break_glass"):
                known.found.append(_review(event, row.procedure, row.service))
        for review in known.found:
            review.ended = row.ended
        known.over = row.ended is not None


def _review(event: Event, procedure: str, service: str | None) -> wire.Review:
    return wire.Review(run=event.run, procedure=procedure, service=service, step=event.step or "",
                       by=event.actor.user, at=event.at, reason=str(event.data["break_glass"]))
