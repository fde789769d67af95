"""Which rollout of a service may run: whether one can begin, that a newer one supersedes an older safely,
and whether a variant may be gone back to without analysis."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from engine.errors import ActionFailed, OpsdeckError
from engine.journal.events import SYSTEM, NewEvent
from engine.procedures.executor import Executor, Live
from engine.procedures.rollouts import Rollout
from engine.procedures.run import RunProgress
from engine.rollout.facts import named, rollable
from engine.rollout.traffic.router import Router, read_traffic
from engine.words import span

SUPERSEDE_S = 90.0
POLL_S = 0.1


class Succession:
    """The order of the rollouts of one engine's services. `stop` ends a run for a reason, `version` tells
    which version a variant of a service is now, as far as that is known."""

    def __init__(self, executor: Executor, router: Callable[[], Router],
                 stop: Callable[[Live, NewEvent], Awaitable[None]],
                 version: Callable[[str, str], str | None]) -> None:
        self._executor = executor
        self._router = router
        self._stop = stop
        self._version = version

    async def startable(self, run: RunProgress) -> None:
        """Raises OpsdeckError where a rollout could not even begin, before it is one."""
        plan = run.document.rollout
        if plan is None:
            return
        service, to = named(run)
        weights = (await read_traffic(self._router(), service)).weights
        rollable(service, to, weights)
        await self.within_window(plan, service, to, self._executor.clock())

    async def within_window(self, plan: Rollout, service: str, variant: str, now: float) -> None:
        """For a plan with a `window`: raises ActionFailed unless a rollout took all traffic from that
        variant so recently that it may be gone back to without analysis."""
        if not plan.window:
            return
        left, then = await self._left(service, variant)
        hint = f"Roll it out with analysis: opsdeck rollout start {service} --to {variant}"
        if left is None or now - left > plan.window:
            since = "never had it" if left is None else f"had it last {span(now - left)} ago"
            raise ActionFailed(
                f"{variant} is not inside the rollback window of {span(plan.window)}: it {since}.", hint=hint)
        version = self._version(service, variant)
        if replaced(then, version):
            raise ActionFailed(f"{variant} is version {version} now and had the traffic as version {then}, "
                               "so it is not what was there before.", hint=hint)

    async def _left(self, service: str, variant: str) -> tuple[float | None, str | None]:
        """When a rollout last took all the traffic from a variant, None if none did, and which version that
        was."""
        recorder = self._executor.recorder
        rows = await recorder.call(recorder.journal.runs, ["done"], 1000)
        for row in rows:
            if row.service == service and row.ended is not None:
                events = await recorder.call(recorder.journal.read, row.id)
                for event in events:
                    if event.kind == "rollout.began" and event.data.get("champion") == variant:
                        return row.ended, event.data.get("versions", {}).get(variant)
        return None, None

    async def alone(self, run: str, service: str) -> None:
        """End every older rollout of the service, and wait until its traffic is where it was.

        Raises ActionFailed when a newer one is there, or an older one does not end.
        """
        if any(int(live.progress.id) > int(run) for live in self.of(service)):
            raise ActionFailed(f"a newer rollout of {service} has begun")
        await self.end_all(service, f"superseded by run {run}", before=int(run))

    async def end_all(self, service: str, reason: str, before: float = math.inf) -> list[str]:
        """End the rollouts of a service, or those older than one, and wait until they have; the runs ended.

        Raises ActionFailed when one does not end.
        """
        ended: list[str] = []
        waited = 0.0
        while others := [live for live in self.of(service) if int(live.progress.id) < before]:
            for live in others:
                if live.progress.id not in ended:
                    ended.append(live.progress.id)
                if not ending(live):
                    await self._stop(live, self._executor.planner.event(
                        live.progress.id, "run.abort", SYSTEM, rollback=True, reason=reason))
            if waited >= SUPERSEDE_S:
                names = ", ".join(live.progress.id for live in others)
                raise ActionFailed(f"run {names}, a rollout of {service}, does not end",
                                   hint=f"look at it: opsdeck show {names}")
            await asyncio.sleep(POLL_S)
            waited += POLL_S
        return ended

    def of(self, service: str) -> list[Live]:
        """The rollouts of a service that run."""
        return [live for live in self._executor.live.values()
                if not live.progress.finished and _is_of(live, service)]


def replaced(before: str | None, now: str | None) -> bool:
    """Whether a variant is known to be another version than before."""
    return before is not None and now is not None and before != now


def ending(live: Live) -> bool:
    """Whether a run goes back, or is told to before the journal knows."""
    return live.progress.going_back or any(event.kind == "run.abort" for event in live.pending)


def _is_of(live: Live, service: str) -> bool:
    if live.progress.document.rollout is None:
        return False
    try:
        return named(live.progress)[0] == service
    except OpsdeckError:
        return False
