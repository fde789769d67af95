"""A small engine without journal or executor: the daemon, its API and the commands run on it.

It keeps the promises of `engine.api.backend.Backend` that a client can see: digests bind answers,
`follow` ends with the run, snapshots coalesce, unknown things raise NotFound.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec

import engine
from engine.api import wire
from engine.api.backend import AuditVerdict, Caller, Curve, Handover, OutputChunk, Point, Verb
from engine.config import Config
from engine.errors import Conflict, JournalUnavailable, NotFound
from engine.home import Home
from tests.daemon.rollouts import PLANS, begun, by_name, newest_first

GATES: dict[str, wire.GateKind] = {"ask": "confirm", "type": "typed", "vote": "approval",
                                   "say": "answer", "lost": "settle", "broken": "failed"}
ENDED = ("done", "failed", "rolled_back", "aborted")


def service(name: str = "flights", *, p99: float | None = 212.0, page: bool = True) -> wire.Service:
    champion = wire.Variant("champion", "7", 95.0, 45.8, 11.0, 38.0, 38.0, {}, False)
    canary = wire.Variant("challenger", "8", 5.0, 2.4, 12.0, 90.0, p99, {"timeout": 0.05}, False)
    alert = wire.Alert(f"{name}/p99_ms", name, "page", "p99_ms", "p99 212 ms > 150", 1000.0,
                       ["high-latency"])
    return wire.Service(name, 0.4, [alert] if page else [], None, None, 0, [champion, canary],
                        rps=48.2, p50_ms=11.0, p95_ms=38.0, p99_ms=p99, error_ratio=0.021,
                        limits={"p99_ms": 150.0})


@dataclass
class MemoryBackend:
    """`seen` records who did what. `broken`: what every call for events raises."""

    home: Home
    services: list[wire.Service] = field(default_factory=lambda: [service()])
    views: dict[str, wire.RunView] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, Caller, Any]] = field(default_factory=list)
    broken: Exception | None = None
    rolling: dict[str, wire.Rollout] = field(default_factory=dict)
    seq: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def info(self, caller: Caller) -> wire.EngineInfo:
        return wire.EngineInfo(os.getpid(), str(self.home.socket), engine.__version__, "serving",
                               wire.PROTOCOL, time.time(), str(self.home.path), self.home.mode,
                               caller.user, sorted(caller.roles))

    def status(self) -> wire.Status:
        return wire.Status(time.time(), self.services)

    def snapshot(self, caller: Caller) -> wire.Snapshot:
        return wire.Snapshot(time.time(), self.seq, self.services, self._summaries(), [],
                             self.info(caller))

    async def snapshots(self, caller: Caller) -> AsyncIterator[wire.Snapshot]:
        while True:
            seen = self.seq
            yield self.snapshot(caller)
            async with self.changed:
                await self.changed.wait_for(lambda seen=seen: self.seq != seen)

    async def notify(self) -> None:
        async with self.changed:
            self.seq += 1
            self.changed.notify_all()

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        if service == "boom":
            raise RuntimeError("secret detail of the inside")
        if service not in {s.name for s in self.services}:
            raise NotFound(f"no service is called {service!r}")
        return wire.Series(service, time.time() - seconds, seconds / points, time.time(),
                           {"champion/rps": [None] * points})

    async def library(self) -> list[wire.Procedure]:
        step = wire.StepOutline("look", "Look at it", "shell", "true", "none", "none", 0, None)
        return [wire.Procedure(name, f"Try {name}", "runbook", "ml-platform", [], "2026-11-20",
                               None, "", "", [], [], [step], "0" * 64) for name in GATES]

    async def start_run(self, caller: Caller, request: wire.StartRun) -> wire.RunView:
        self.seen.append(("start", caller, request))
        if request.procedure in PLANS:
            view, self.rolling[view.id] = begun(str(len(self.views) + 1), caller.user, request)
            self.views[view.id] = view
            await self.notify()
            return view
        if request.procedure not in GATES and request.document is None:
            raise NotFound(f"the library has no procedure {request.procedure!r}")
        kind = GATES.get(request.procedure, "confirm")
        run = str(len(self.views) + 1)
        preview = wire.Preview("champion 95 %", "champion 100 %", time.time(), {"champion": 95})
        gate = wire.Gate(kind, f"{int(run):08x}cafe0001", "Is it well?",
                         expected="flights" if kind == "typed" else None, roles=["approver"],
                         approvals_needed=1)
        steps = [
            wire.StepView("look", "Read the weights", "done", 1, 0, "champion=95\n", {"w": 95},
                          caller.user, time.time(), time.time(), command="trafficctl get"),
            wire.StepView("drain", "Send all traffic to the champion",
                          "unknown" if kind == "settle" else
                          "failed" if kind == "failed" else "waiting", 1, None, "", None, None,
                          None, None, command="trafficctl set champion=100", undo="trafficctl undo",
                          gate=gate, preview=preview, skippable=True)]
        self.views[run] = wire.RunView(
            run, request.procedure, "waiting", steps, f"Try {request.procedure}", caller.user,
            time.time(), None, time.time(), request.params, "flights", 1, False, None,
            "step drain waits for you", "0" * 64, dry_run=request.dry_run)
        await self.notify()
        return self.views[run]

    def _summaries(self) -> list[wire.RunSummary]:
        return [wire.RunSummary(v.id, v.procedure, v.title, v.state, v.by, v.started, v.ended,
                                v.service, 1, 2, v.next) for v in reversed(self.views.values())]

    async def runs(self, states: Sequence[str] | None, limit: int) -> list[wire.RunSummary]:
        return [r for r in self._summaries() if states is None or r.state in states][:limit]

    async def run(self, id: str) -> wire.RunView:
        if id not in self.views:
            raise NotFound(f"there is no run {id}", hint="`opsdeck runs` lists them")
        return self.views[id]

    async def follow(self, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        yield await self.run(id)
        offset = 0
        while True:
            text = self.outputs.get(id, "")
            while offset < len(text):
                piece = text[offset:offset + 4096]
                yield OutputChunk(id, "drain", 1, offset, offset + len(piece), piece, False)
                offset += len(piece)
                await asyncio.sleep(0)
            if self.views[id].state in ENDED:
                return
            seen = self.seq
            async with self.changed:
                await self.changed.wait_for(lambda seen=seen: self.seq != seen)
            yield self.views[id]

    async def print(self, id: str, text: str) -> None:
        self.outputs[id] = self.outputs.get(id, "") + text
        await self.notify()

    async def output(self, id: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk:
        await self.run(id)
        text = self.outputs.get(id, "")
        piece = text[offset:offset + limit]
        return OutputChunk(id, step, attempt or 1, offset, offset + len(piece), piece,
                           offset + len(piece) >= len(text))

    async def page(self, id: str) -> wire.Page:
        raise NotFound(f"run {id} has no page of evidence")

    async def curve(self, id: str, step: str, attempt: int | None, offset: int) -> Curve:
        await self.run(id)
        points = [Point("loss", 1.0, 0.5), Point("loss", 2.0, 0.25)]
        return Curve(id, step, attempt or 1, len(points), points[offset:], False)

    async def timeline(self, id: str) -> list[wire.Event]:
        view = await self.run(id)
        return [wire.Event(1, view.started, "run.started", view.by, "socket pid 1", id, None, None,
                           "started | by <b>hand</b>", "ab" * 32)]

    async def act(self, caller: Caller, id: str, verb: Verb, act: wire.Act) -> wire.RunView:
        view = await self.run(id)
        self.seen.append((verb, caller, act))
        if verb == "abort":
            return await self._now(view, "rolled_back" if act.rollback else "aborted", "failed")
        if view.state in ENDED:
            raise Conflict(f"run {id} has ended: it is {view.state}")
        if verb in ("pause", "resume"):
            return await self._now(view, "paused" if verb == "pause" else "waiting", None)
        if verb in ("promote", "promote-full"):
            return await self._now(view, "running" if verb == "promote" else "done", None)
        step = next((s for s in view.steps if s.id == act.step), None)
        if step is None or step.gate is None:
            raise Conflict(f"step {act.step} waits for nothing")
        if act.digest is not None and act.digest != step.gate.digest:
            raise Conflict("the step has changed since you looked at it",
                           where=f"run {id}, step {act.step}", hint="look again")
        if verb == "confirm" and step.gate.expected not in (None, act.text):
            raise Conflict(f"type {step.gate.expected!r}")
        return await self._now(view, "failed" if verb == "reject" else "done", "done")

    async def _now(self, view: wire.RunView, state: wire.RunState,
                   step: wire.StepState | None) -> wire.RunView:
        steps = [msgspec.structs.replace(s, state=step, gate=None) if step and s.gate else s
                 for s in view.steps]
        ended = time.time() if state in ENDED else None
        self.views[view.id] = msgspec.structs.replace(
            view, state=state, steps=steps, ended=ended, revision=view.revision + 1, next=None)
        if view.id in self.rolling:
            self.rolling[view.id] = msgspec.structs.replace(
                self.rolling[view.id], state=state, ended=ended, at=time.time(),
                weight={"done": 100.0, "aborted": 0.0, "rolled_back": 0.0}.get(state, 5.0))
        await self.notify()
        return self.views[view.id]

    async def rollouts(self) -> list[wire.Rollout]:
        return newest_first(self.rolling.values())

    async def rollout(self, name: str) -> wire.Rollout:
        return by_name(self.rolling.values(), name)

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        if self.broken is not None:
            raise self.broken
        return []

    async def verify(self) -> AuditVerdict:
        return AuditVerdict(time.time(), 12, 2, 1, 0, [], [])

    async def seal(self, caller: Caller, reason: str) -> wire.Event:
        self.seen.append(("seal", caller, reason))
        return wire.Event(13, time.time(), "journal.sealed", caller.user, caller.origin, None, None,
                          None, reason, "cd" * 32)

    async def reload(self, caller: Caller) -> wire.Reloaded:
        self.seen.append(("reload", caller, None))
        return wire.Reloaded(time.time(), "the config was reloaded: roles.viewer changed",
                             ["roles.viewer"], [])

    async def handover(self) -> Handover:
        waiting = [wire.Waiting(v.id, v.procedure, "drain", v.service, "confirm", "Is it well?",
                                v.started, True) for v in self.views.values()
                   if v.state == "waiting"]
        return Handover(time.time(), [], waiting, [a for s in self.services for a in s.alerts],
                        [], ["fraud"])


@dataclass(frozen=True)
class MemoryApp:
    backend: MemoryBackend
    running: set[int] = field(default_factory=set)

    def sessions(self) -> set[int]:
        return self.running

    def follow_config(self, adopt: Callable[[Config], None]) -> None:
        return None


@asynccontextmanager
async def open_memory(home: Home, config: Config) -> AsyncIterator[MemoryApp]:
    """The factory that `engine.daemon.run.serve` takes."""
    (home.path / "opened").write_text(str(os.getpid()))
    yield MemoryApp(MemoryBackend(home))
    (home.path / "closed").write_text(str(os.getpid()))


__all__ = ["JournalUnavailable", "MemoryApp", "MemoryBackend", "open_memory", "service"]
