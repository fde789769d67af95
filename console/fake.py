"""The fake source: a made-up world that ticks, for tests, pictures and measurements."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable

from console import fake_runs
from console.fake_world import World
from console.source import Clock, Link, Tick
from engine.api import wire
from engine.api.backend import Curve, OutputChunk, Verb
from engine.errors import EngineUnreachable, NotFound


class FakeSource:
    """Serves a `World`. With `interval` None it ticks only when `push` is called.

    `link` may be set to make the engine go away: calls then raise EngineUnreachable. Every act is
    kept in `acts` as (run, verb, body).
    """

    def __init__(self, world: World | None = None, *, interval: float | None = None,
                 clock: Clock = time.monotonic) -> None:
        self.world = world or World()
        self.interval = interval
        self._clock = clock
        self.link = Link("live")
        self.heard: float | None = clock()
        self.acts: list[tuple[str, str, wire.Act]] = []
        self.started: list[wire.StartRun] = []
        self.before_run: Callable[[wire.RunView], None] | None = None
        self.before_rollout: Callable[[wire.Rollout], None] | None = None
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def clock(self) -> Clock:
        return self._clock

    def push(self) -> None:
        """Let every reader see the world as it is now."""
        if self.link.state == "live":
            self.heard = self._clock()
        old, self._changed = self._changed, asyncio.Event()
        old.set()

    async def _next(self) -> None:
        if self.interval is None:
            await self._changed.wait()
            return
        await asyncio.sleep(self.interval)
        self.world.advance(self.interval)
        self.heard = self._clock()

    async def ticks(self) -> AsyncIterator[Tick]:
        while not self._closed:
            yield Tick(self.world.snapshot(), self.heard, self.link)
            await self._next()

    async def follow(self, run: str) -> AsyncIterator[wire.RunView | OutputChunk | Link]:
        while not self._closed:
            view = self._find(run)
            yield copy.deepcopy(view)
            for step in view.steps:
                if step.stdout:
                    end = len(step.stdout.encode())
                    yield OutputChunk(run, step.id, step.attempt, 0, end, step.stdout,
                                      step.state != "intent")
            await self._changed.wait()

    def _find(self, run: str) -> wire.RunView:
        self._reach()
        view = self.world.runs.get(run)
        if view is None:
            raise NotFound(f"there is no run {run}", hint="see `:runs`")
        return view

    def _reach(self) -> None:
        if self.link.state != "live":
            raise EngineUnreachable("the engine does not answer", hint="the console keeps trying")

    async def library(self) -> list[wire.Procedure]:
        return self.world.procedures

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        return self.world.history(service, seconds, points)

    async def runs(self, limit: int) -> list[wire.RunSummary]:
        return [fake_runs.summary(run) for run in self.world.runs.values()][:limit]

    async def run(self, run: str) -> wire.RunView:
        view = self._find(run)
        if self.before_run is not None:
            self.before_run(view)
        return copy.deepcopy(view)

    async def output(self, run: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk:
        found = next((s for s in self._find(run).steps if s.id == step), None)
        data = found.stdout.encode() if found else b""
        piece = data[offset:offset + limit]
        return OutputChunk(run, step, attempt or 1, offset, offset + len(piece),
                           piece.decode("utf-8", "replace"), offset + len(piece) >= len(data))

    async def curve(self, run: str, step: str, attempt: int | None, offset: int) -> Curve:
        points = self.world.curves.get((run, step), [])
        found = next((s for s in self._find(run).steps if s.id == step), None)
        return Curve(run, step, attempt or 1, len(points), points[offset:],
                     found is None or found.state != "intent")

    async def page(self, run: str) -> wire.Page:
        self._find(run)
        if run not in self.world.pages:
            raise NotFound(f"run {run} has no page of evidence",
                           hint="a pipeline's run writes one in its step page, after staging")
        return self.world.pages[run]

    async def rollouts(self) -> list[wire.Rollout]:
        self._reach()
        return copy.deepcopy(list(self.world.rollouts.values()))

    async def rollout(self, name: str) -> wire.Rollout:
        self._reach()
        found = self.world.rollout(name)
        if self.before_rollout is not None:
            self.before_rollout(found)
        return copy.deepcopy(found)

    async def timeline(self, run: str) -> list[wire.Event]:
        return [event for event in reversed(self.world.events(60, None)) if event.run == run]

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        return self.world.events(limit, before)

    async def start(self, request: wire.StartRun) -> wire.RunView:
        self.started.append(request)
        known = next((p for p in self.world.procedures if p.id == request.procedure), None)
        if known is None:
            raise NotFound(f"there is no procedure {request.procedure}")
        id = str(max(int(run) for run in self.world.runs) + 1)
        view = fake_runs.run(id, known.id, known.title, "running",
                             [fake_runs.step(s.id, s.title, command=s.command, effect=s.effect)
                              for s in known.steps], self.world.at, params=dict(request.params),
                             service=request.params.get("service"), dry_run=request.dry_run)
        self.world.runs = {id: view, **self.world.runs}
        self.push()
        return copy.deepcopy(view)

    async def act(self, run: str, verb: Verb, act: wire.Act) -> wire.RunView:
        self._find(run)
        self.acts.append((run, verb, act))
        view = self.world.act(run, verb, act)
        self.push()
        return copy.deepcopy(view)

    async def close(self) -> None:
        self._closed = True
        self.push()
