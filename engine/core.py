"""The engine itself: one `Backend` over the journal, the executor and the collector."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import engine
from engine import evidence_pages
from engine.api import wire
from engine.api.backend import AuditVerdict, Caller, Curve, Handover, OutputChunk, Verb
from engine.definitions import Definitions
from engine.errors import NotFound, NotPermitted, OpsdeckError, UsageError
from engine.home import Home
from engine.journal.events import ENGINE, Event
from engine.journal.journal import RunRow, Verdict
from engine.keeper import Keeper
from engine.monitoring.collector import Collector
from engine.monitoring.history import History
from engine.pipeline.triggers.views import view as trigger_view
from engine.pipeline.triggers.watcher import Watcher
from engine.procedures import following
from engine.procedures.executor import Executor, Live
from engine.procedures.library import Library
from engine.procedures.output import harmless
from engine.procedures.recovery import fold
from engine.procedures.run import RunProgress
from engine.procedures.starting import Starter
from engine.procedures.verbs import Verbs, actor_of
from engine.procedures.views import run_view, summary
from engine.reloading import Reloader
from engine.reviews import Reviews
from engine.rollout.controller import Rollouts
from engine.rollouts import RolloutViews
from engine.timeline import wire_event
from engine.waiting import waiting

log = logging.getLogger("opsdeck")
TICK = 0.25
OUTPUT_POLL = 0.15
RECENT = 20
SHIFT = 12 * 3600.0


@dataclass(frozen=True)
class Parts:
    """What the composition root puts together."""

    home: Home
    reloader: Reloader
    executor: Executor
    starter: Starter
    verbs: Verbs
    rollouts: Rollouts
    library: Library
    collector: Collector
    history: History
    verify: Callable[[], Verdict]
    triggers: Watcher
    definitions: Definitions
    keeper: Keeper


class Engine:
    """The `Backend` of `engine.api.backend`; its methods are documented there."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._executor = parts.executor
        self._recorder = parts.executor.recorder
        self._rollouts = RolloutViews(parts.executor, parts.rollouts, parts.collector)
        self._reviews = Reviews(self._recorder)
        self._ended: dict[str, wire.RunSummary] = {}
        self._watchers: set[asyncio.Event] = set()
        self._seq = 0
        self._broken: str | None = None
        self.state: str = "serving"

    def changed(self, run: str | None = None) -> None:
        """Something anybody might show has changed: wake every stream."""
        self._seq += 1
        for watcher in self._watchers:
            watcher.set()

    @contextlib.contextmanager
    def _watching(self) -> Any:
        watcher = asyncio.Event()
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def part_ended(self, task: asyncio.Task[None]) -> None:
        """A part that should live as long as the engine has ended: say so, rather than go blind."""
        if task.cancelled() or self.state != "serving":
            return
        self._broken = f"the {task.get_name()} has ended: {task.exception()}; restart the engine"
        log.error(self._broken, exc_info=task.exception())
        self.changed()

    def info(self, caller: Caller) -> wire.EngineInfo:
        home = self._parts.home
        problem = self._executor.problem or self._broken
        state: Any = "degraded" if problem else self.state
        return wire.EngineInfo(
            pid=os.getpid(), socket=str(home.socket), version=engine.__version__, state=state,
            protocol=wire.PROTOCOL, at=self._executor.clock(), home=str(home.path), mode=home.mode,
            user=caller.user, roles=sorted(caller.roles), problem=problem,
            config_problem=self._parts.reloader.problem, restart=self._parts.reloader.restart)

    def _services(self) -> list[wire.Service]:
        services = self._parts.collector.services()
        counts: dict[str, int] = {}
        for live in self._unfinished():
            service = live.progress.service
            if service is not None and waiting([live], frozenset(), 0):
                counts[service] = counts.get(service, 0) + 1
        rolling = self._rollouts.rows()
        for row in services:
            row.waiting = counts.get(row.name, 0)
            row.rollout = rolling.get(row.name)
        return services

    def _unfinished(self) -> list[Live]:
        return [live for live in self._executor.live.values() if not live.progress.finished]

    def status(self) -> wire.Status:
        return wire.Status(at=self._executor.clock(), services=self._services())

    def snapshot(self, caller: Caller) -> wire.Snapshot:
        running = [summary(live.progress, live) for live in self._unfinished()]
        running.sort(key=lambda r: r.started, reverse=True)
        ended = sorted(self._ended.values(), key=lambda r: r.ended or 0.0, reverse=True)[:RECENT]
        return wire.Snapshot(
            at=self._executor.clock(), seq=self._seq, services=self._services(),
            runs=[*running, *ended],
            waiting=waiting(self._unfinished(), caller.roles, caller.uid, caller.user),
            engine=self.info(caller))

    async def snapshots(self, caller: Caller) -> AsyncIterator[wire.Snapshot]:
        with self._watching() as watcher:
            while True:
                watcher.clear()
                yield self.snapshot(caller)
                await asyncio.sleep(TICK)
                await watcher.wait()

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        services = self._parts.reloader.config.services
        if service not in services:
            raise NotFound(f"there is no service {service}",
                           hint="services: " + ", ".join(sorted(services)))
        return await self._parts.history.read(service, seconds, points)

    async def library(self) -> list[wire.Procedure]:
        return await asyncio.to_thread(self._parts.library.entries)

    async def start_run(self, caller: Caller, request: wire.StartRun) -> wire.RunView:
        view = await self._parts.starter.start(caller, request)
        if not view.dry_run:
            self.changed(view.id)
        return view

    async def runs(self, states: Sequence[str] | None, limit: int) -> list[wire.RunSummary]:
        rows = await self._recorder.call(self._recorder.journal.runs, None, max(limit, 1))
        found = [await self._summary(row) for row in rows]
        return [s for s in found if states is None or s.state in states][:limit]

    async def _summary(self, row: RunRow) -> wire.RunSummary:
        live = self._executor.live.get(row.id)
        if live is not None:
            return summary(live.progress, live)
        if row.id not in self._ended:
            events = await self._recorder.call(self._recorder.journal.read, row.id)
            self._ended[row.id] = _ended_summary(row, events)
        return self._ended[row.id]

    async def _load(self, id: str) -> tuple[RunProgress, Live | None]:
        live = self._executor.live.get(id)
        if live is not None:
            return live.progress, live
        if not id.isdigit() or await self._recorder.call(self._recorder.journal.run, id) is None:
            raise NotFound(f"there is no run {id}", hint="opsdeck runs lists them")
        events = await self._recorder.call(self._recorder.journal.read, id)
        return fold(events), None

    async def run(self, id: str) -> wire.RunView:
        progress, live = await self._load(id)
        return await run_view(self._executor, progress, live)

    async def follow(self, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        offsets: following.Offsets = {}
        shown = (-1, "")
        with self._watching() as watcher:
            while True:
                watcher.clear()
                progress, live = await self._load(id)
                for piece in following.fresh(self._executor.performer, progress, offsets):
                    yield piece
                problem = (live.problem or str(live.emergency)) if live else ""
                if (progress.n, problem) != shown:
                    shown = (progress.n, problem)
                    yield await run_view(self._executor, progress, live)
                if progress.finished:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(watcher.wait(),
                                           OUTPUT_POLL if progress.in_flight else 1.0)

    async def output(self, id: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk:
        progress, wanted = await self._attempt(id, step, attempt)
        return await asyncio.to_thread(following.chunk, self._executor.performer, progress, step, wanted,
                                       max(0, offset), min(max(1, limit), 1 << 20))

    async def curve(self, id: str, step: str, attempt: int | None, offset: int) -> Curve:
        progress, wanted = await self._attempt(id, step, attempt)
        return await asyncio.to_thread(following.curve, self._executor.performer, progress, step, wanted,
                                       max(0, offset))

    async def _attempt(self, id: str, step: str, attempt: int | None) -> tuple[RunProgress, int]:
        progress, _ = await self._load(id)
        if step not in progress.steps:
            raise NotFound(f"run {id} has no step {step}",
                           hint="its steps: " + ", ".join(progress.steps))
        return progress, attempt or progress.steps[step].attempt

    async def page(self, id: str, html: bool = False) -> wire.Page:
        await self._load(id)
        return await asyncio.to_thread(evidence_pages.read, self._parts.home, id, html=html)

    async def timeline(self, id: str) -> list[wire.Event]:
        await self._load(id)
        events = await self._recorder.call(self._recorder.journal.read, id)
        return [wire_event(e) for e in events]

    async def act(self, caller: Caller, id: str, verb: Verb, act: wire.Act) -> wire.RunView:
        live = self._executor.live.get(id)
        if live is None:
            progress, _ = await self._load(id)
            raise OpsdeckError(f"run {id} has ended: {progress.state}",
                               hint=f"opsdeck show {id} tells how it went")
        if verb in ("promote", "promote-full"):
            await self._parts.rollouts.promote(caller, live, full=verb == "promote-full",
                                               shown=act.step, reason=act.reason)
        else:
            await self._parts.verbs.act(caller, live, verb, act)
        return await run_view(self._executor, live.progress, live)

    async def rollouts(self) -> list[wire.Rollout]:
        return await self._rollouts.recent()

    async def rollout(self, name: str) -> wire.Rollout:
        return await self._rollouts.one(name, list(self._parts.reloader.config.services))

    async def triggers(self, project: str | None) -> list[wire.Trigger]:
        watcher = self._parts.triggers
        wanted = sorted(watcher.known.values(), key=lambda one: one.name) if project is None else [
            watcher.one(project)]
        return [trigger_view(one, watcher.book.state, watcher.sight.latest, self._executor.clock(),
                             watcher.busy(one.model)) for one in wanted]

    async def trigger(self, caller: Caller, project: str, now: wire.TriggerNow) -> wire.Trigger:
        if not caller.roles & {"operator", "admin"}:
            raise NotPermitted(f"{caller.user} may not begin a training", hint="wanted: operator")
        reason = " ".join(harmless(now.reason).split())
        text = ("drift" if now.kind == "drift" else "by hand") + (f": {reason}" if reason else "")
        await self._parts.triggers.ask(project, now.kind, text, actor_of(caller))
        return (await self.triggers(project))[0]

    async def definitions(self, project: str) -> wire.Definitions:
        return await self._parts.definitions.told(project)

    async def definition(self, project: str, number: int) -> wire.DefinitionText:
        return await self._parts.definitions.text(project, number)

    async def restore(self, caller: Caller, number: int, wanted: wire.RestoreDefinition) -> wire.Restored:
        if not caller.roles & {"operator", "admin"}:
            raise NotPermitted(f"{caller.user} may not put a definition back", hint="wanted: operator")
        return await self._parts.definitions.restore(actor_of(caller), number, wanted)

    async def clean(self, caller: Caller, wanted: wire.Clean) -> wire.Cleaning:
        if not caller.roles & {"operator", "admin"}:
            raise NotPermitted(f"{caller.user} may not clean up after pipelines", hint="wanted: operator")
        return await self._parts.keeper.clean(actor_of(caller), wanted)

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        found = await self._recorder.call(self._recorder.journal.tail, min(limit, 1000), before)
        return [wire_event(e) for e in found]

    async def verify(self) -> AuditVerdict:
        v = await asyncio.to_thread(self._parts.verify)
        return AuditVerdict(at=self._executor.clock(), events=v.events, chains=v.chains,
                            anchors=v.anchors, archived=v.archived, breaks=v.breaks, seals=v.seals)

    async def seal(self, caller: Caller, reason: str) -> wire.Event:
        if "admin" not in caller.roles:
            raise NotPermitted(f"{caller.user} may not seal the journal", hint="wanted: admin")
        if not reason.strip():
            raise UsageError("sealing wants a reason")
        event = self._executor.planner.event(ENGINE, "journal.sealed", actor_of(caller), reason=reason)
        return wire_event(await self._recorder.call(self._recorder.journal.seal, event))

    async def reload(self, caller: Caller) -> wire.Reloaded:
        if "admin" not in caller.roles:
            raise NotPermitted(f"{caller.user} may not reload the config", hint="wanted: admin")
        try:
            return await self._parts.reloader.reload(
                actor_of(caller), lambda: sorted((r.progress.id for r in self._unfinished()), key=int))
        finally:
            self.changed()

    async def handover(self) -> Handover:
        now = self._executor.clock()
        services = self._services()
        runs = await self.runs(None, 200)
        return Handover(
            at=now, running=[r for r in runs if r.ended is None],
            waiting=waiting(self._unfinished(), frozenset({"admin"}), -1),
            alerts=self._parts.collector.alerts(),
            ended=[r for r in runs if r.ended is not None and now - r.ended <= SHIFT],
            stale=[s.name for s in services if not s.variants or any(v.stale for v in s.variants)],
            reviews=await self._reviews.due(now))

    def ended(self, live: Live) -> None:
        """Keep one line of a run that has ended, and let go of the rest."""
        self._ended[live.progress.id] = summary(live.progress)
        self._executor.live.pop(live.progress.id, None)

    async def load_recent(self) -> None:
        """The summaries of the runs that ended last, for the first snapshot."""
        rows = await self._recorder.call(self._recorder.journal.runs, None, RECENT)
        for row in rows:
            await self._summary(row)


def _ended_summary(row: RunRow, events: Sequence[Event]) -> wire.RunSummary:
    created = events[0].data
    last = next((event.data for event in reversed(events) if event.kind == "run.finished"), {})
    return wire.RunSummary(
        id=row.id, procedure=row.procedure, title=created["title"], state=row.state,  # type: ignore[arg-type]
        by=row.by, started=row.started, ended=row.ended, service=row.service,
        steps_done=last.get("steps_done", 0), steps_total=created["steps"], reason=last.get("reason"))

