"""The composition root: the only place that chooses adapters and puts the engine together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

import engine
from engine.api import wire
from engine.api.backend import Backend
from engine.asking import Asker
from engine.config import Config
from engine.core import Engine, Parts
from engine.definitions import Definitions
from engine.errors import ActionFailed, JournalError
from engine.home import Home
from engine.journal.emergency import Emergency
from engine.journal.events import ENGINE, SYSTEM, NewEvent
from engine.journal.journal import Verdict
from engine.journal.sqlite import SqliteJournal
from engine.keeper import Keeper
from engine.monitoring.collector import Collector
from engine.monitoring.history import History
from engine.monitoring.outcome_reader import OutcomeReader
from engine.paging import Pager
from engine.pipeline.triggers import watcher as triggering
from engine.pipeline.triggers.beginning import Beginner
from engine.pipeline.triggers.book import Book
from engine.pipeline.triggers.ingest import Listener
from engine.pipeline.triggers.projects import Projects
from engine.pipeline.triggers.watcher import Watcher
from engine.procedures.actions import Context, Registry
from engine.procedures.attempts import Performer
from engine.procedures.children import Children
from engine.procedures.executor import Executor, Live
from engine.procedures.library import Library, directories
from engine.procedures.recorder import Recorder
from engine.procedures.recovery import auto_answers, fold
from engine.procedures.run import StepRun
from engine.procedures.starting import Starter
from engine.procedures.stopping import Stopper
from engine.procedures.verbs import Verbs
from engine.reloading import Reloader
from engine.rollout.controller import Rollouts
from engine.rollout.means import Means
from engine.rollout.traffic.leases import Leases
from engine.rollout.traffic.routers import Routers
from engine.supervision import ProcessSupervisor, processes

log = logging.getLogger("opsdeck")
ROTATE_EVERY_S = 86400.0
KEEP_RUNS_S = 30 * 86400.0
RELEASE = "pipeline.release"


@dataclass(frozen=True)
class EngineApp:
    """An open engine: what the daemon serves, what it must know to tell people from steps, and how it
    hears of each config that replaces another."""

    backend: Backend
    sessions: Callable[[], set[int]]
    follow_config: Callable[[Callable[[Config], None]], None]


def registry() -> Registry:
    """The built-in actions and third parties'."""
    from engine import actions

    found = Registry()
    actions.register(found)
    found.load_entry_points()
    return found


@contextlib.asynccontextmanager
async def open_engine(home: Home, config: Config, *, embedded: bool = False
                      ) -> AsyncIterator[EngineApp]:
    """Recover what was running and keep it going until the block ends; the caller holds the home's
    lock (`engine.journal.lease`). Raises JournalError if the journal cannot be used.
    """
    journal = SqliteJournal.open(home.journal, engine_id=f"{os.getpid()}-{time.time_ns()}",
                                 clock=time.time)
    recorder = Recorder(journal)
    try:
        async with _running(home, config, recorder, embedded=embedded) as app:
            yield app
    finally:
        recorder.close()


@contextlib.asynccontextmanager
async def _running(home: Home, config: Config, recorder: Recorder, *, embedded: bool
                   ) -> AsyncIterator[EngineApp]:
    actions = registry()
    pager = Pager(config, recorder, clock=time.time)
    history = History(home.path / "history.db", keep_s=config.engine.history,
                      interval_s=config.engine.scrape_interval, clock=time.time,
                      on_event=pager.on_event)
    core: Engine | None = None

    def changed(run: str | None = None) -> None:
        if core is not None:
            core.changed(run)
        if run is not None and run in executor.live:
            asker.gate_opened(executor.live[run])

    def ticked() -> None:
        changed()
        rollouts.beat()

    collector = Collector(config, history, clock=time.time, on_event=pager.on_event, on_tick=ticked,
                          on_increments=lambda *beat: rollouts.heard(*beat), firing=await _firing(recorder))
    asker = Asker(config, recorder, clock=time.time, host=socket.gethostname(), home=home.path,
                  evidence=lambda live, step: rollouts.evidence(live))
    outcomes = OutcomeReader(config.services, time.time, tell=log.warning)
    contexts = _Contexts(home, config, collector)
    performer = Performer(home.path, config, actions, contexts.make, system=home.mode == "system")
    executor = Executor(recorder, performer, actions, config, home.path, clock=time.time,
                        on_change=changed)
    emergency = Emergency.open(home.path / "emergency.journal")
    contexts.live = executor.live
    executor.on_caught_up = emergency.clear
    stopper = Stopper(executor, emergency)
    rollouts = Rollouts(Means(
        executor=executor, measured=collector, outcomes=outcomes, router=lambda: contexts.router,
        bins=collector.bins, labelled=contexts.labelled, stop=stopper.stop,
        supervisor=lambda: contexts.supervisor, supervised=contexts.supervised, page=pager.rollout,
        monotonic=time.monotonic, window_s=lambda: config.engine.window,
        stale_after_s=lambda: max(config.engine.stale_after, 3.5 * config.engine.scrape_interval)))
    contexts.rollouts = rollouts
    executor.on_driven = rollouts.adopt
    stopper.on_unrecorded = rollouts.safe_now
    verbs = Verbs(executor, stopper, page=pager.break_glass)
    library = Library(directories(config, home.path), actions, system=home.mode == "system")
    reloader = Reloader(home, config, recorder, clock=time.time)
    starter = Starter(executor, library, mode=home.mode, startable=rollouts.succession.startable)
    children = contexts.children = Children(executor, starter, stopper.stop)

    def recorded(live: Live, events: Sequence[NewEvent]) -> None:
        rollouts.recorded(live, events)
        children.recorded(live, events)

    executor.on_recorded = recorded
    triggers, listener = _triggers(home, reloader, executor, starter, library, pager)
    keeper = Keeper(home, recorder, lambda: reloader.config, executor.live, clock=time.time)
    core = Engine(Parts(home, reloader, executor, starter, verbs, rollouts, library, collector, history,
                        verify=lambda: _verified(home), triggers=triggers, definitions=Definitions(
                            home, recorder, lambda: reloader.config, clock=time.time), keeper=keeper))

    def ended(live: Live) -> None:
        core.ended(live)
        keeper.ended(live)

    executor.on_ended = ended
    await _note(recorder, "engine.started", version=engine.__version__, mode=home.mode,
                embedded=embedded)
    await _catch_up(recorder, emergency)
    await pager.resume()
    await _recover(recorder, executor)
    await children.resume()
    await asker.open(executor.live.values())
    await contexts.resume_leases()
    await core.load_recent()
    watching: dict[str, asyncio.Task[None]] = {}

    def watch(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if name not in watching:
            watching[name] = asyncio.create_task(work(), name=name)
            watching[name].add_done_callback(core.part_ended)

    def collect(config: Config) -> None:
        if config.services:
            watch("collector", collector.run)
        if any(service.outcomes for service in config.services.values()):
            watch("reader of outcomes", outcomes.run)

    watch("rotation", lambda: _rotating(recorder))
    watch("clock", lambda: _ticking(lambda: None if reloader.config.services else changed()))
    if not embedded:  # an engine of one run begins no other
        listener.use(config.pipelines.ingest)
        watch("triggers", triggers.run)
        watch("port for triggers", listener.run)
        watch("keeper", keeper.run)
    collect(config)
    for adopt in (pager.use_config, asker.use_config, contexts.use_config, executor.use_config,
                  collector.use_config, lambda config: listener.use(config.pipelines.ingest),
                  lambda config: outcomes.use_services(config.services), collect,
                  lambda config: library.look_in(directories(config, home.path))):
        reloader.follow(adopt)
    try:
        yield EngineApp(core, performer.sessions, reloader.follow)
    finally:
        core.state = "draining"
        for task in watching.values():
            task.cancel()
        await asyncio.gather(*watching.values(), return_exceptions=True)
        await rollouts.close()
        await children.close()
        await executor.close()
        await asker.close()
        await pager.close()
        await history.close()
        if executor.problem is None:
            if embedded:  # no keeper lives beside its one run
                await keeper.tidy()
            await _note(recorder, "engine.stopped")
        emergency.close()


class _Contexts:
    """Makes what an attempt may reach. One that was made stays as it is, whatever config follows."""

    def __init__(self, home: Home, config: Config, collector: Collector) -> None:
        self._home = home
        self._collector = collector
        self.rollouts: Rollouts | None = None
        self.children: Children | None = None
        self.live: Mapping[str, Live] = {}
        self._leases = Leases(home.path)
        self.use_config(config)

    def use_config(self, config: Config) -> None:
        """Reach the gateways and processes of another config from the next attempt on."""
        self._config = config
        self.router = Routers(config, self._leases)
        self.supervisor = ProcessSupervisor(self._home.path, processes(config))

    async def resume_leases(self) -> None:
        """Have a watchdog for the leases that an engine, or the machine, left behind."""
        try:
            for lease in await asyncio.to_thread(self._leases.resume):
                log.warning("the lease on %s goes on: %.0f s left", lease.service,
                            self._leases.seconds_left(lease))
        except ActionFailed as error:
            log.error("leases are not watched: %s", error)

    def labelled(self, service: str) -> bool:
        """Whether labels come for a service's predictions."""
        return service in self._config.services and self._config.services[service].outcomes is not None

    def supervised(self, service: str, process: str) -> bool:
        """Whether a process of that name is the supervisor's."""
        return service in self._config.services and process in self._config.services[service].processes

    def make(self, run: str, step: StepRun, secrets: Mapping[str, str],
             write: Callable[[str], None]) -> Context:
        return Context(run=run, step=step.id, attempt=step.attempt, router=self.router,
                       supervisor=self.supervisor, signals=self._collector, secrets=secrets,
                       log=write, clock=time.time, sleep=asyncio.sleep,
                       extra={"config": self._config, "rollouts": self.rollouts, "home": self._home,
                              "live": self.live, **({"start": self.children} if _may_start(step) else {})})


def _triggers(home: Home, reloader: Reloader, executor: Executor, starter: Starter, library: Library,
              pager: Pager) -> tuple[Watcher, Listener]:
    """What begins pipelines by itself, and the port on which other programs ask for it."""
    system = home.mode == "system"
    projects = Projects(home.path, lambda: reloader.config.engine.steps_user if system else None)
    book = Book(executor.recorder, executor.clock)
    beginner = Beginner(book, executor.recorder, library, starter.start, executor.live, executor.clock)
    watcher = Watcher(triggering.Parts(
        projects, book, beginner, triggering.looker(projects.home),
        folders=lambda: reloader.config.pipelines.projects, tell=pager.on_event, clock=executor.clock))
    listener = Listener(watcher, executor.clock)
    watcher.port_problem = lambda: listener.problem
    return watcher, listener


def _may_start(step: StepRun) -> bool:
    """Whether a step's action may start runs: no third party's may."""
    return (step.op or {}).get("use") == RELEASE


async def _note(recorder: Recorder, kind: str, **data: Any) -> None:
    await recorder.append([NewEvent(run=ENGINE, kind=kind, at=time.time(), actor=SYSTEM,
                                    data=data)])


def _verified(home: Home) -> Verdict:
    """Recompute the journal through a connection of its own, beside the engine's writes."""
    with contextlib.closing(SqliteJournal.open_readonly(home.journal)) as journal:
        return journal.verify()


async def _ticking(tell: Callable[[], None]) -> None:
    """A beat for whoever watches an engine that has no service to hear of each second."""
    while True:
        await asyncio.sleep(1.0)
        tell()


async def _rotating(recorder: Recorder) -> None:
    """Once a day, move the events of runs that ended long ago into the archive."""
    while True:
        await asyncio.sleep(ROTATE_EVERY_S)
        try:
            moved = await recorder.call(recorder.rotate, KEEP_RUNS_S, time.time())
        except JournalError as error:
            log.warning("the journal was not rotated: %s", error)
        else:
            log.info("%d events went into the archive", moved)


async def _firing(recorder: Recorder) -> list[wire.Alert]:
    """The alerts that fired before this start and have not cleared since."""
    firing: dict[str, wire.Alert] = {}
    for event in reversed(await recorder.call(recorder.journal.tail, 1000, None, ENGINE)):
        if event.kind == "alert.fired":
            alert = msgspec.convert(event.data, wire.Alert)
            firing[alert.id] = alert
        elif event.kind == "alert.cleared":
            firing.pop(event.data["id"], None)
    return list(firing.values())


async def _catch_up(recorder: Recorder, emergency: Emergency) -> None:
    """Move what was recorded beside the journal, while it could not be written, into it."""
    for event in emergency.pending():
        row = await recorder.call(recorder.journal.run, event.run)
        if row is not None and row.ended is None:
            await recorder.append([event])
    emergency.clear()


async def _recover(recorder: Recorder, executor: Executor) -> None:
    """Take up every run that has not ended; one that cannot be read is reported and left alone."""
    for row in await recorder.call(recorder.journal.runs, ["running"], 100_000):
        events = await recorder.call(recorder.journal.read, row.id)
        try:
            live = Live(fold(events), auto_answers(events[0]))
        except (KeyError, ValueError) as error:
            log.exception("run %s cannot be read back", row.id)
            await _note(recorder, "run.unreadable", text=f"run {row.id} cannot be read back: {error}")
            continue
        executor.live[row.id] = live
        executor.drive(live, recovered=True)
