"""The shell round the pure run: it commits what `decide` says, then carries it out.

The one rule: events are committed first, and only then is the state replaced and an effect
started. A commit holds an outcome and the intents that follow from it together, so a step costs one
durable write. A driver task per run waits for outcomes, answers and time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from engine.config import Config
from engine.errors import FenceLost, JournalError
from engine.journal.events import Actor, NewEvent, canonical
from engine.journal.journal import RunRow
from engine.procedures.actions import Registry
from engine.procedures.attempts import Outcome, Performer
from engine.procedures.document import Document
from engine.procedures.folding import begin
from engine.procedures.planning import Planner, provisional
from engine.procedures.recorder import Recorder, to_the_end
from engine.procedures.run import RunProgress, StepRun
from engine.procedures.users import known_users

log = logging.getLogger("opsdeck")
RETRY_JOURNAL = 1.0
T = TypeVar("T")


@dataclass
class Live:
    """A run in this engine: its state, and the tasks that work on it. At `due` its driver looks
    again without being woken."""

    progress: RunProgress
    auto: dict[str, Any]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    jobs: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    driver: asyncio.Task[None] | None = None
    due: float | None = 0.0
    stopping: bool = False
    pending: list[NewEvent] = field(default_factory=list)
    problem: str | None = None
    unrecorded: set[str] = field(default_factory=set)
    emergency: bool = False


class Executor:
    """Executes runs. `on_change(run id)` is called after every change anybody might show."""

    def __init__(self, recorder: Recorder, performer: Performer, registry: Registry, config: Config,
                 home: Path, *, clock: Callable[[], float], on_change: Callable[[str], None]) -> None:
        self.recorder = recorder
        self.performer = performer
        self.registry = registry
        self.config = config
        self.home = home
        self.clock = clock
        self.planner = Planner(registry, config.policy.rules, home, performer.boot, clock, config.people,
                               known_users(config))
        self.live: dict[str, Live] = {}
        self.on_caught_up: Callable[[], None] = lambda: None
        self.on_ended: Callable[[Live], None] = lambda live: None
        self.on_driven: Callable[[Live], None] = lambda live: None
        self.on_recorded: Callable[[Live, Sequence[NewEvent]], None] = lambda live, events: None
        self._on_change = on_change
        self._lost: str | None = None

    def use_config(self, config: Config) -> None:
        """Execute by another config from now on; a run keeps the policy that it began with."""
        self.config = config
        self.performer.use_config(config)
        self.planner = replace(self.planner, rules=config.policy.rules, people=config.people,
                               users=known_users(config))

    @property
    def problem(self) -> str | None:
        """Why this engine may not act any more, if a newer one took its journal."""
        return self._lost

    async def create(self, id: str, document: Document, actor: Actor,
                     data: dict[str, Any]) -> Live:
        """Record `run.created` together with what follows at once, and drive the run."""
        return await to_the_end(self._create(id, document, actor, data))

    async def _create(self, id: str, document: Document, actor: Actor, data: dict[str, Any]) -> Live:
        policy = [rule.model_dump(mode="json") for rule in self.config.policy.rules]
        first = self.planner.event(id, "run.created", actor, policy=policy, **data)
        live = Live(begin(provisional(first, 1), document),
                    {"yes": data["yes"], "confirm": data["confirm"]})
        plan = self.planner.plan(live.progress, live.auto, [])
        await self._append(live, [first, *plan.events], plan.state, row=True)
        self.live[id] = live
        self._launch(live, plan.start)
        self.drive(live)
        return live

    def drive(self, live: Live, *, recovered: bool = False) -> None:
        """Work on a run until it ends; `on_driven` hears of it before anything is done."""
        self.on_driven(live)
        live.driver = self.watched(live, self._drive(live, recovered), "the driver")

    async def _drive(self, live: Live, recovered: bool) -> None:
        from engine.procedures.recovery import settle_all

        if recovered:
            await settle_all(self, live)
        while not self._finished(live):
            live.wake.clear()
            if live.due is not None and self.clock() >= live.due:
                try:
                    async with live.lock:
                        await to_the_end(self._advance(live, []))
                    live.problem = None
                except FenceLost as error:
                    self.lost(str(error))
                    return
                except JournalError as error:
                    live.problem = str(error)
                    live.due = self.clock() + RETRY_JOURNAL
                    self.changed(live)
            if not self._finished(live):
                timeout = None if live.due is None else max(0.0, live.due - self.clock())
                try:
                    async with asyncio.timeout(timeout):  # wait_for forgets a cancel that comes with a wake
                        await live.wake.wait()
                except TimeoutError:
                    live.due = self.clock()  # so much time has passed, wherever the wall clock was set
        self.on_ended(live)
        self.changed(live)

    @staticmethod
    def _finished(live: Live) -> bool:
        return live.progress.finished

    async def commit(self, live: Live, events: Sequence[NewEvent]) -> None:
        """Record what a person did, with what follows from it. The caller holds no lock."""
        async with live.lock:
            await self.advance(live, events)

    async def advance(self, live: Live, events: Sequence[NewEvent]) -> None:
        """As `commit`, for a caller that holds the run's lock.

        A caller that is cancelled meanwhile hears of it only after the commit and all that follows.
        """
        async def whole() -> None:
            await self._advance(live, events)
            live.wake.set()

        await to_the_end(whole())

    async def _advance(self, live: Live, first: Sequence[NewEvent]) -> None:
        """Commit `first` and everything `decide` adds to it, and note when time brings more."""
        if self._lost:
            raise FenceLost(self._lost)
        pending = list(live.pending)
        plan = self.planner.plan(live.progress, live.auto, [*pending, *first])
        if plan.events:
            await self._append(live, plan.events, plan.state)
            del live.pending[:len(pending)]
            if pending and live.emergency:
                live.emergency = False
                self.on_caught_up()
            self._launch(live, plan.start)
            self.changed(live)
        live.due = plan.wake

    async def _append(self, live: Live, events: Sequence[NewEvent], state: RunProgress, *,
                      row: bool = False) -> None:
        """Commit, then replace the state: nothing is believed that is not on the disk."""
        summary = None
        if row or state.finished:
            summary = RunRow(id=state.id, procedure=state.document.id,
                             state=state.state if state.finished else "running",
                             by=state.initiator.user, started=state.started, ended=state.ended,
                             service=state.service)
        await self.recorder.append(events, summary)
        live.progress = state
        self.on_recorded(live, events)

    def _launch(self, live: Live, steps: Sequence[str]) -> None:
        """Start what was committed; an engine that closes leaves that to the next one."""
        for id in steps if not self.performer.closing else ():
            live.tasks[id] = self.watched(live, self._attempt(live, live.progress.steps[id]), id)

    def watched(self, live: Live, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task of a run; should it break, the run says so rather than stand still."""
        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("run %s, %s broke", live.progress.id, name, exc_info=error)
                live.problem = f"{name} broke inside the engine: {error}; its log has the details"
                self.changed(live)

        task = asyncio.create_task(work, name=f"run {live.progress.id}, {name}")
        task.add_done_callback(ended)
        return task

    async def _attempt(self, live: Live, step: StepRun) -> None:
        outcome = Outcome("failed", "it was not started: the run was aborted", final=True)
        if not self.held_back(live, step):
            try:
                outcome = await self.job(live, step, self.performer.perform(live.progress.id, step))
            except asyncio.CancelledError:
                if self.performer.closing:
                    raise  # otherwise its job was cancelled before it began
        await self.record(live, step.id, outcome)

    @staticmethod
    def held_back(live: Live, step: StepRun) -> bool:
        """Whether an abort keeps the step from starting; undoing is what an abort may start."""
        told = live.progress.abort != "no" or any(e.kind == "run.abort" for e in live.pending)
        return live.stopping or (told and step.undo_of is None)

    async def job(self, live: Live, step: StepRun, work: Coroutine[Any, Any, T]) -> T:
        """The part of an attempt that an abort may cut short; recording what it came to is not."""
        task = asyncio.create_task(work)
        live.jobs[step.id] = task
        try:
            return await task
        finally:
            live.jobs.pop(step.id, None)

    async def record(self, live: Live, id: str, outcome: Outcome) -> None:
        """Commit an outcome; until that is done the step shows as unknown."""
        step = live.progress.steps[id]
        outcome = _recordable(self.planner.expected(live.progress, step, outcome))
        recorded = await self.persist(live, self.planner.event(
            live.progress.id, "step.outcome", step=id, attempt=step.attempt, **outcome.data()))
        if recorded:
            live.unrecorded.discard(id)
            if live.tasks.get(id) is asyncio.current_task():
                del live.tasks[id]

    async def persist(self, live: Live, event: NewEvent) -> bool:
        """Commit an event of the engine's own, trying again while the journal cannot be written.

        False if a newer engine has taken the journal.
        """
        while True:
            try:
                await self.commit(live, [event])
            except FenceLost as error:
                self.lost(str(error))
                return False
            except JournalError as error:
                live.problem = f"what happened cannot be recorded: {error}"
                if event.kind == "step.outcome" and event.step is not None:
                    live.unrecorded.add(event.step)
                self.changed(live)
                await asyncio.sleep(RETRY_JOURNAL)
                continue
            live.problem = None
            return True

    def answered(self, run: RunProgress, step: StepRun, text: str) -> Outcome:
        """What a person's answer to a manual step comes to."""
        outcome = Outcome("done", result={"answer": text}, stdout=text, final=True)
        return self.planner.expected(run, step, outcome)

    def changed(self, live: Live) -> None:
        self._on_change(live.progress.id)

    def lost(self, why: str) -> None:
        """A newer engine owns the journal: start nothing more, touch nothing that runs."""
        self._lost = why
        log.error("this engine stops acting: %s", why)

    async def close(self) -> None:
        """Let go of every run without ending what it started: the next engine takes over."""
        self.performer.closing = True
        tasks = [task for live in self.live.values()
                 for task in [live.driver, *live.tasks.values(), *live.jobs.values()]
                 if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _recordable(outcome: Outcome) -> Outcome:
    """The outcome without a result that JSON cannot hold: such a one could never be recorded."""
    try:
        canonical(outcome.data())
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        return replace(outcome, result=None, output={}, stdout="",
                       error=f"what it came to cannot be recorded as JSON ({error}), and is left out")
    return outcome
