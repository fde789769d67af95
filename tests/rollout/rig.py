"""An engine's worth of rollouts over a real journal: beats, requests and faults are the test's to make."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine.actions
from engine.api import wire
from engine.config import Config
from engine.journal.events import ENGINE, SYSTEM, Actor, Event, NewEvent
from engine.monitoring.windows import Increment
from engine.procedures.actions import Context, Registry
from engine.procedures.check import parse
from engine.procedures.executor import Live
from engine.procedures.run import StepRun
from engine.rollout.analysis import Analysis, folded
from engine.rollout.controller import Rollouts
from engine.rollout.means import Means
from engine.rollout.watch import Watch
from tests.procedures.kit import ANN, Caller, Kit, World
from tests.rollout.parts import CHALLENGER, CHAMPION, SERVICE, MemoryRouter, MemorySupervisor, Sight, second

HEAD = """\
opsdeck: 1
id: {id}
title: A rollout
kind: rollout
owner: tests
reviewed: 2026-11-20
rollout:
  service: flights
  to: {to}
"""
SHORT = """
canary: [10, 50, 100]
requests: 50
bake: 0
lease: 30s
"""
GATED = """
canary: [10, {weight: 50, approvals: {min: 1, max_age: 1h}}, 100]
requests: 50
bake: 0
lease: 30s
"""
STANDS = SHORT.replace("requests: 50", "requests: 100000")
SUPERVISED = Config.model_validate({"services": {SERVICE: {"scrape": ["http://localhost:1/metrics"],
    "processes": {name: {"command": ["true"]} for name in (CHAMPION, CHALLENGER)}}}})


@dataclass(frozen=True)
class Flow:
    """A second of so many requests, split as the router says, and what share of each side's fails."""

    requests: int
    canary: float = 0.0
    baseline: float = 0.0


GOOD = Flow(2000)
WORSE = Flow(2000, canary=0.4)
QUIET = Flow(40)  # too little for any verdict


def plan(body: str, *, to: str = CHALLENGER, id: str = "rolling") -> str:
    """A whole document of kind rollout."""
    lines = "".join(f"  {line}\n" for line in body.strip().splitlines())
    return HEAD.format(id=id, to=to) + lines


class World_(World):
    """The actions that come with Opsdeck."""

    def registry(self) -> Registry:
        found = Registry()
        engine.actions.register(found)
        return found


class Rig(Kit):
    """One engine. `outside` is what survives it: the router, the processes, the pages."""

    def __init__(self, home: Path, outside: Outside) -> None:
        self.outside = outside
        super().__init__(home, outside.config, World_(), outside.clock)
        self.rollouts = Rollouts(Means(
            executor=self.executor, measured=outside.sight, outcomes=outside.sight,
            router=lambda: outside.router, bins=lambda service: outside.sight.bins,
            labelled=lambda service: bool(outside.sight.labels), stop=self.stopper.stop, page=self._page,
            supervisor=lambda: outside.supervisor, supervised=lambda service, variant: (
                service in outside.config.services and variant in outside.config.services[service].processes),
            monotonic=lambda: outside.router.monotonic, stale_after_s=lambda: 5.0,
            window_s=lambda: 0.0))
        self.executor.on_driven, self.executor.on_recorded = self.rollouts.adopt, self.rollouts.recorded
        self.executor.on_ended = lambda live: self.executor.live.pop(live.progress.id, None) and None
        self.stopper.on_unrecorded = self.rollouts.safe_now
        self._paging: set[asyncio.Task[None]] = set()

    def _context(self, run: str, step: StepRun, secrets: Any, write: Any) -> Context:
        nothing: Any = None
        return Context(run, step.id, step.attempt, self.outside.router, self.outside.supervisor, nothing,
                       secrets, write, self.outside.clock, lambda s: asyncio.sleep(min(s, 0.01)),
                       {"config": self.outside.config, "rollouts": self.rollouts})

    def _page(self, text: str, live: Live) -> None:
        """As the engine's pager: in the journal, then out."""
        async def told() -> None:
            with contextlib.suppress(Exception):
                await self.recorder.append([NewEvent(ENGINE, "rollout.told", time.time(), SYSTEM, data={
                    "run": live.progress.id, "text": text})])
            self.outside.pages.append(text)

        task = asyncio.create_task(told())
        self._paging.add(task)
        task.add_done_callback(self._paging.discard)

    async def roll(self, body: str = SHORT, *, by: Caller = ANN, to: str = CHALLENGER) -> Live:
        """Start a rollout; its text goes into the journal as the engine would put it there."""
        text = plan(body, to=to)
        document = parse(text, "rolling.yaml", self.executor.registry)
        id = await self.recorder.call(self.journal.new_run_id)
        data = {"procedure": document.id, "title": document.title, "document": text,
                "document_sha256": "0" * 64, "path": "test", "params": {}, "service": SERVICE,
                "unisolated": True, "review": None, "steps": len(document.steps), "yes": False, "confirm": {}}
        return await self.executor.create(id, document, Actor(by.user, by.uid, by.origin), data)

    async def watch(self, live: Live) -> Watch:
        """The watch of a run, once it watches."""
        run = live.progress.id
        await until(lambda: run in self.rollouts._watches)
        return self.rollouts._watches[run]

    def seen(self, flow: Flow) -> list[Increment]:
        """What the collector sees of a second of it, by an honest router."""
        self.outside.carry += flow.requests * self.outside.router.in_force().get(CHALLENGER, 0.0) / 100
        canary = int(self.outside.carry)
        self.outside.carry -= canary
        baseline = flow.requests - canary
        return second((canary, round(flow.canary * canary)), (baseline, round(flow.baseline * baseline)))

    async def beat(self, live: Live, what: Flow | Sequence[Increment] = ()) -> None:
        """One beat of the collector, a second after the last, until the watch has done all it does in it."""
        run = live.progress.id
        self.outside.router.monotonic += 1.0
        await until(lambda: run in self.rollouts._watches or run not in self.rollouts._tasks)
        if run not in self.rollouts._watches:
            return
        watch = self.rollouts._watches[run]
        increments = self.seen(what) if isinstance(what, Flow) else what
        self.rollouts.heard(SERVICE, increments, self.outside.router.monotonic, self.outside.clock())
        self.rollouts.beat()
        beat = self.rollouts._beats.get(run)
        await until(lambda: run not in self.rollouts._tasks or (
            (beat is None or not beat.is_set()) and not watch._queue))
        async with asyncio.timeout(5):
            while run in self.rollouts._tasks and not _idle(watch) and not self.outside.stuck:
                await asyncio.sleep(0.001)

    async def feed(self, live: Live, what: Flow | Sequence[Increment] = GOOD,
                   until: Callable[[], bool] = lambda: False, beats: int = 200) -> None:
        """Beats with the same requests until something holds, or the run has ended."""
        for _ in range(beats):
            if live.progress.finished or until():
                return
            await self.beat(live, what)
            live.wake.set()
            await asyncio.sleep(0.005)
        raise AssertionError(f"not within {beats} beats: {await self.standing(live)}")

    async def standing(self, live: Live) -> str:
        """Where a run stands, for messages."""
        steps = [(step.id, step.state, step.error) for step in live.progress.steps.values()]
        now = self.rollouts.standing(live.progress.id)
        return f"{live.progress.state}, {live.progress.reason}, {steps}, {now}"

    def at(self, live: Live, step: str, state: str = "intent") -> Callable[[], bool]:
        """Whether a step is in that state."""
        return lambda: step in live.progress.steps and live.progress.steps[step].state == state

    def watching(self, live: Live, step: str) -> Callable[[], bool]:
        """Whether a step watches and its stage is the present one, with the weights confirmed."""
        def holds() -> bool:
            watch = self.rollouts._watches.get(live.progress.id)
            return self.at(live, step)() and watch is not None and watch.confirmed
        return holds

    async def over(self, live: Live, within: float = 20.0) -> None:
        """Until the run has ended, with empty beats meanwhile."""
        end = time.monotonic() + within
        while not live.progress.finished:
            if time.monotonic() > end:
                raise AssertionError(f"not within {within} s: {await self.standing(live)}")
            self.outside.skip(0.5)
            live.wake.set()
            await asyncio.sleep(0.01)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while self._paging:
                    await asyncio.sleep(0.005)

    async def events(self, live: Live, *kinds: str) -> list[Event]:
        found = await self.recorder.call(self.journal.read, live.progress.id)
        return [event for event in found if not kinds or event.kind in kinds]

    async def analysis(self, live: Live) -> Analysis:
        """What the journal alone comes to."""
        return folded(await self.events(live))

    async def promote(self, live: Live, by: Caller, *, full: bool = False, shown: str | None = None) -> None:
        await self.rollouts.promote(by, live, full=full, shown=shown, reason=None)

    async def approve(self, live: Live, step: str, by: Caller, digest: str | None = None) -> None:
        await self.verbs.act(by, live, "approve", wire.Act(
            step=step, digest=digest or live.progress.steps[step].digest))

    async def close(self) -> None:
        await self.rollouts.close()
        await super().close()


class Outside:
    """What is there whatever becomes of an engine. `stuck`: a beat need not come to its end now."""

    def __init__(self, config: Config | None = None, router: MemoryRouter | None = None) -> None:
        self.config = config or Config()
        self.router = router or MemoryRouter()
        self.supervisor = MemorySupervisor()
        self.sight = Sight()
        self.pages: list[str] = []
        self.offset = 0.0
        self.stuck = False
        self.carry = 0.0  # of a request, so that shares come out even

    def clock(self) -> float:
        return time.time() + self.offset

    def skip(self, seconds: float) -> None:
        """Let the wall clock go on, or back."""
        self.offset += seconds


def _idle(watch: Watch) -> bool:
    tasks = (watch._keeper._renewing, watch._keeper._warming, watch._recording)
    return all(task is None or task.done() for task in tasks)


async def until(holds: Callable[[], bool], within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end, "it did not come to that in time"
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def rig(home: Path, outside: Outside | None = None) -> AsyncIterator[Rig]:
    opened = Rig(home, outside or Outside())
    try:
        yield opened
    finally:
        await opened.close()
