"""An engine process with made-up data on a real socket: `python -m tests.console.fake_engine HOME`.

The daemon, its routes and its streams are the real ones; only what they serve is invented. `--hz`
says how often the fleet changes (0: never), `--calm` that nothing but the clock does, `--rollouts` that
some run, wait and have ended.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from console import fake_runs
from console.fake_world import World
from engine.api import wire
from engine.api.backend import AuditVerdict, Caller, Curve, Handover, OutputChunk, Verb
from engine.config import Config
from engine.daemon.run import serve
from engine.errors import NotFound
from engine.home import Home, find
from tests.daemon.rollouts import by_name, newest_first


class FakeBackend:
    """A `Backend` over a `World`. It ticks at `hz`."""

    def __init__(self, world: World, hz: float) -> None:
        self.world = world
        self.hz = hz
        self.changed = asyncio.Event()

    async def tick(self) -> None:
        while self.hz:
            await asyncio.sleep(1 / self.hz)
            self.world.advance(1 / self.hz)
            self.wake()

    def wake(self) -> None:
        old, self.changed = self.changed, asyncio.Event()
        old.set()

    def info(self, caller: Caller) -> wire.EngineInfo:
        return self.world.info()

    def status(self) -> wire.Status:
        return wire.Status(self.world.at, self.world.snapshot().services)

    def snapshot(self, caller: Caller) -> wire.Snapshot:
        return self.world.snapshot()

    async def snapshots(self, caller: Caller) -> AsyncIterator[wire.Snapshot]:
        while True:
            changed = self.changed
            yield self.world.snapshot()
            await changed.wait()

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        return self.world.history(service, seconds, points)

    async def library(self) -> list[wire.Procedure]:
        return self.world.procedures

    async def start_run(self, caller: Caller, request: wire.StartRun) -> wire.RunView:
        raise NotFound("the made-up engine starts nothing")

    async def runs(self, states: Sequence[str] | None, limit: int) -> list[wire.RunSummary]:
        return [fake_runs.summary(r) for r in self.world.runs.values()][:limit]

    async def run(self, id: str) -> wire.RunView:
        if id not in self.world.runs:
            raise NotFound(f"there is no run {id}")
        return copy.deepcopy(self.world.runs[id])

    async def follow(self, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        shown = -1
        while True:
            changed, view = self.changed, await self.run(id)
            if view.revision != shown:
                shown = view.revision
                yield view
                for step in view.steps:
                    if step.stdout:
                        yield OutputChunk(id, step.id, step.attempt, 0, len(step.stdout.encode()),
                                          step.stdout, step.state != "intent")
            if view.ended is not None:
                return
            await changed.wait()

    async def output(self, id: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk:
        return OutputChunk(id, step, attempt or 1, offset, offset, "", True)

    async def curve(self, id: str, step: str, attempt: int | None, offset: int) -> Curve:
        return Curve(id, step, attempt or 1, 0, [], True)

    async def page(self, id: str) -> wire.Page:
        if id not in self.world.pages:
            raise NotFound(f"run {id} has no page of evidence, or not yet")
        return self.world.pages[id]

    async def timeline(self, id: str) -> list[wire.Event]:
        return [e for e in reversed(self.world.events(60, None)) if e.run == id]

    async def act(self, caller: Caller, id: str, verb: Verb, act: wire.Act) -> wire.RunView:
        view = self.world.act(id, verb, act)
        self.wake()
        return view

    async def rollouts(self) -> list[wire.Rollout]:
        return newest_first(self.world.rollouts.values())

    async def rollout(self, name: str) -> wire.Rollout:
        return copy.deepcopy(by_name(self.world.rollouts.values(), name))

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        return self.world.events(limit, before)

    async def verify(self) -> AuditVerdict:
        return AuditVerdict(self.world.at, 412, 14, 1, 0, [], [])

    async def seal(self, caller: Caller, reason: str) -> wire.Event:
        raise NotFound("there is nothing to seal")

    async def reload(self, caller: Caller) -> wire.Reloaded:
        return wire.Reloaded(self.world.at, "the config is as it was", [], [])

    async def handover(self) -> Handover:
        return Handover(self.world.at, [], self.world.waiting(), [], [], [])


class App:
    """What `engine.daemon.run` needs of an opened engine."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend

    def sessions(self) -> list[int]:
        return []

    def follow_config(self, adopt: Callable[[Config], None]) -> None:
        """Its config never changes."""


def opener(hz: float, calm: bool, rollouts: bool) -> Any:
    @asynccontextmanager
    async def open_engine(_home: Home, _config: Config) -> AsyncIterator[App]:
        world = World(busy=not calm)
        if rollouts:
            world.roll_out()
        backend = FakeBackend(world, hz)
        ticking = asyncio.create_task(backend.tick())
        yield App(backend)
        ticking.cancel()

    return open_engine


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--hz", type=float, default=1.0)
    parser.add_argument("--calm", action="store_true")
    parser.add_argument("--rollouts", action="store_true")
    args = parser.parse_args()
    asyncio.run(serve(find(args.home), Config(), opener(args.hz, args.calm, args.rollouts),
                      ready=lambda: print("ready", flush=True)))


if __name__ == "__main__":
    main()
