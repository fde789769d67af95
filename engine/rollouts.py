"""The rollouts of an engine as its API tells them: those that run, and those that ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from engine.api import wire
from engine.errors import NotFound, OpsdeckError
from engine.journal.events import Event
from engine.monitoring.collector import Collector
from engine.procedures.decide import current_state
from engine.procedures.executor import Executor, Live
from engine.procedures.recovery import fold
from engine.procedures.run import RunProgress
from engine.procedures.views import run_view
from engine.rollout.analysis import Analysis, folded
from engine.rollout.controller import Rollouts
from engine.rollout.facts import named
from engine.rollout.progress import Progress
from engine.rollout.view import fleet_row, rollout_view
from engine.waiting import waiting
from engine.words import nearest

log = logging.getLogger("opsdeck")
LOOKED_AT = 500  # runs in which an ended rollout is looked for
SHOWN = 20


class RolloutViews:
    """Views by run and by service. Those of ended runs are kept, since they never change."""

    def __init__(self, executor: Executor, rollouts: Rollouts, collector: Collector) -> None:
        self._executor = executor
        self._rollouts = rollouts
        self._collector = collector
        self._ended: dict[str, wire.Rollout | None] = {}

    def _live(self) -> list[Live]:
        """The rollouts that run, newest first."""
        found = [live for live in self._executor.live.values()
                 if live.progress.document.rollout is not None and not live.progress.finished]
        return sorted(found, key=lambda live: int(live.progress.id), reverse=True)

    def rows(self) -> dict[str, dict[str, Any]]:
        """By service, what the fleet shows of the rollout that runs there."""
        rows: dict[str, dict[str, Any]] = {}
        for live in reversed(self._live()):
            run = live.progress
            service, to = _named(run)
            analysis = self._rollouts.analysis(run.id) or Analysis()
            rows[service] = fleet_row(run, analysis, current_state(run), self._weight(service, to),
                                      waits=bool(waiting([live], frozenset(), 0)))
        return rows

    async def recent(self) -> list[wire.Rollout]:
        """Those that run, then the last ones that ended."""
        found = [await self._of_live(live) for live in self._live()]
        return [*found, *[one async for one in self._over(SHOWN)]]

    async def one(self, name: str, services: Sequence[str]) -> wire.Rollout:
        """By the run's id, or by the service: the one that runs there, else the last. Raises NotFound."""
        for live in self._live():
            if name in (live.progress.id, _named(live.progress)[0]):
                return await self._of_live(live)
        if name.isdigit():
            if await self._executor.recorder.call(self._executor.recorder.journal.run, name) is None:
                raise NotFound(f"there is no run {name}", hint="`opsdeck rollout list` lists the rollouts")
            over = await self._of_ended(name)
            if over is None:
                raise NotFound(f"run {name} is no rollout", hint=f"`opsdeck show {name}` shows it")
            return over
        async for over in self._over(LOOKED_AT):
            if over.service == name:
                return over
        if name not in services:
            raise NotFound(f"there is no service {name}", hint=nearest(name, services))
        raise NotFound(f"{name} has had no rollout", hint=f"`opsdeck rollout start {name} --to VARIANT`")

    async def _over(self, most: int) -> AsyncIterator[wire.Rollout]:
        """The rollouts that ended last, newest first."""
        recorder = self._executor.recorder
        shown = 0
        for row in await recorder.call(recorder.journal.runs, None, LOOKED_AT):
            if row.ended is None or row.id in self._executor.live:
                continue
            over = await self._of_ended(row.id)
            if over is not None:
                yield over
                shown += 1
                if shown >= most:
                    return

    async def _of_live(self, live: Live) -> wire.Rollout:
        run = live.progress
        service, to = _named(run)
        analysis = self._rollouts.analysis(run.id) or Analysis()
        return rollout_view(
            run, analysis, await run_view(self._executor, run, live), now=self._now(run),
            weight=self._weight(service, to), lease_s=self._rollouts.lease_s(run.id),
            latencies=self._rollouts.latencies(run.id),
            watching=not self._rollouts.stale(run.id))

    def _now(self, run: RunProgress) -> Progress | None:
        return self._rollouts.standing(run.id) if not run.going_back else None

    async def _of_ended(self, id: str) -> wire.Rollout | None:
        if id not in self._ended:
            recorder = self._executor.recorder
            events = await recorder.call(recorder.journal.read, id)
            try:
                view = await self._over_view(events)
            except (KeyError, TypeError, ValueError, OpsdeckError) as error:
                log.warning("the rollout of run %s cannot be read back: %r", id, error)
                view = None
            if len(self._ended) >= LOOKED_AT:
                self._ended.clear()
            self._ended[id] = view
        return self._ended[id]

    async def _over_view(self, events: Sequence[Event]) -> wire.Rollout | None:
        if "\nkind: rollout" not in events[0].data.get("document", ""):
            return None
        run = fold(list(events))
        if run.document.rollout is None:
            return None
        # beside the loop: half a second for an hour of ticks
        analysis = await asyncio.to_thread(folded, events)
        return rollout_view(run, analysis, await run_view(self._executor, run), now=None, weight=None,
                            lease_s=None, latencies={}, watching=False)

    def _weight(self, service: str, to: str) -> float | None:
        try:
            said = self._collector.read(service, to)
        except OpsdeckError:
            return None
        weight = None if said.get("stale") else said.get("weight")
        return None if weight is None else float(weight)


def _named(run: RunProgress) -> tuple[str, str]:
    try:
        return named(run)
    except OpsdeckError:
        return run.service or "", ""
