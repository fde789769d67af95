"""The shell round the pure run: it commits what `decide` says, then carries it out.

The one rule: events are committed first, and only then is the state replaced and an effect
started. A commit holds an outcome and the intents that follow from it together, so a step costs one
durable write. A driver task per run waits for outcomes, answers and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from engine.config import Config
from engine.errors import FenceLost, JournalError, OpsdeckError
from engine.journal.events import SYSTEM, Actor, Event, NewEvent
from engine.journal.journal import RunRow
from engine.procedures import decide as d
from engine.procedures import expressions, rendering
from engine.procedures.actions import Registry
from engine.procedures.approvals import Requirement, binding, requirement
from engine.procedures.attempts import Outcome, Performer
from engine.procedures.document import Document
from engine.procedures.recorder import Recorder
from engine.procedures.run import RunProgress, StepRun, apply, begin, fork

log = logging.getLogger("opsdeck")
RETRY_JOURNAL = 1.0
ROUNDS = 100
T = TypeVar("T")


@dataclass
class Live:
    """A run in this engine: its state, and the tasks that work on it."""

    progress: RunProgress
    auto: dict[str, Any]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    jobs: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    driver: asyncio.Task[None] | None = None
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
        self.live: dict[str, Live] = {}
        self.on_caught_up: Callable[[], None] = lambda: None
        self.on_ended: Callable[[Live], None] = lambda live: None
        self._on_change = on_change
        self._lost: str | None = None

    @property
    def problem(self) -> str | None:
        """Why this engine may not act any more, if a newer one took its journal."""
        return self._lost

    def event(self, run: str, kind: str, actor: Actor = SYSTEM, *, step: str | None = None,
              attempt: int | None = None, **data: Any) -> NewEvent:
        return NewEvent(run=run, kind=kind, at=self.clock(), actor=actor, step=step,
                        attempt=attempt, data=data)

    async def create(self, id: str, document: Document, actor: Actor,
                     data: dict[str, Any]) -> Live:
        """Record `run.created` together with what follows at once, and drive the run."""
        first = self.event(id, "run.created", actor, **data)
        progress = begin(_provisional(first, 1), document)
        live = Live(progress, {"yes": data["yes"], "confirm": data["confirm"]})
        trial, events, started = self._plan(live, progress, [])
        await self._append(live, [first, *events], trial, row=True)
        self.live[id] = live
        self._launch(live, started)
        self.drive(live)
        return live

    def drive(self, live: Live, *, recovered: bool = False) -> None:
        live.driver = asyncio.create_task(self._drive(live, recovered),
                                          name=f"run {live.progress.id}")

    async def _drive(self, live: Live, recovered: bool) -> None:
        from engine.procedures.recovery import settle_all

        if recovered:
            await settle_all(self, live)
        while not self._finished(live):
            live.wake.clear()
            next_at = None
            try:
                async with live.lock:
                    next_at = await self._advance(live, [])
                live.problem = None
            except FenceLost as error:
                self.lost(str(error))
                return
            except JournalError as error:
                live.problem = str(error)
                next_at = self.clock() + RETRY_JOURNAL
                self.changed(live)
            timeout = None if next_at is None else max(0.0, next_at - self.clock())
            if not self._finished(live):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(live.wake.wait(), timeout)
        self.on_ended(live)
        self.changed(live)

    @staticmethod
    def _finished(live: Live) -> bool:
        return live.progress.finished

    async def commit(self, live: Live, events: Sequence[NewEvent]) -> None:
        """Record what a person did, with what follows from it. The caller holds no lock."""
        async with live.lock:
            await self._advance(live, events)
        live.wake.set()

    async def advance(self, live: Live, events: Sequence[NewEvent]) -> None:
        """As `commit`, for a caller that holds the run's lock."""
        await self._advance(live, events)
        live.wake.set()

    async def _advance(self, live: Live, first: Sequence[NewEvent]) -> float | None:
        """Commit `first` and everything `decide` adds to it; the time of the next thing to do."""
        if self._lost:
            raise FenceLost(self._lost)
        pending = list(live.pending)
        trial, events, started = self._plan(live, live.progress, [*pending, *first])
        if events:
            await self._append(live, events, trial)
            del live.pending[:len(pending)]
            if pending and live.emergency:
                live.emergency = False
                self.on_caught_up()
            self._launch(live, started)
            self.changed(live)
        return self._next_wake(live)

    def _plan(self, live: Live, progress: RunProgress, first: Sequence[NewEvent]
              ) -> tuple[RunProgress, list[NewEvent], list[str]]:
        """Fold `first` and all that follows into a copy of the state: (copy, events, steps to start)."""
        trial = fork(progress)
        events: list[NewEvent] = []

        def fold(event: NewEvent) -> None:
            events.append(event)
            apply(trial, _provisional(event, trial.n + 1))

        for event in first:
            fold(event)
        for _ in range(ROUNDS):
            decisions = [x for x in d.decide(trial, self.clock(), self.evaluate_when)
                         if not isinstance(x, d.Wake)]
            if not decisions:
                break
            for decision in decisions:
                for event in self._events(live, trial, decision):
                    fold(event)
        started = [e.step for e in events if e.kind == "step.intent" and e.step is not None]
        return trial, events, [s for s in started if trial.steps[s].state == "intent"]

    def _next_wake(self, live: Live) -> float | None:
        times = [x.at for x in d.decide(live.progress, self.clock(), self.evaluate_when)
                 if isinstance(x, d.Wake)]
        return min(times) if times else None

    def evaluate_when(self, run: RunProgress, step: StepRun) -> bool:
        if step.spec.when is None:
            return True
        where = f"{run.document.id}: step {step.id}"
        value = expressions.evaluate(step.spec.when, rendering.context(run, self.home), where)
        if not isinstance(value, bool):
            raise OpsdeckError(f"`when` must be true or false, and is {value!r}", where=where)
        return value

    def _events(self, live: Live, run: RunProgress, decision: d.Decision) -> list[NewEvent]:
        match decision:
            case d.Ready(step):
                return self._ready(live, run, step)
            case d.Begin(step, retry):
                return [self._intent(run, run.steps[step], run.steps[step].attempt + retry,
                                     retry=retry)]
            case d.Skip(step, reason):
                return [self.event(run.id, "step.skipped", step=step, reason=reason)]
            case d.Fail(step, error):
                return [self._failed(run, step, error)]
            case d.Jump(step, target, resets, skips):
                return [self.event(run.id, "step.goto", step=step, target=target,
                                   resets=list(resets), skips=list(skips))]
            case d.Rollback(cause, queue):
                return [self.event(run.id, "run.rollback", cause=cause, queue=list(queue))]
            case d.Finish(state, reason):
                done = sum(s.satisfied or s.state == "undone" for s in run.plain_steps())
                return [self.event(run.id, "run.finished", state=state, reason=reason,
                                   steps_done=done)]
            case _:
                return []

    def _failed(self, run: RunProgress, step: str, error: str) -> NewEvent:
        attempt = run.steps[step].attempt if step in run.steps else 0
        return self.event(run.id, "step.outcome", step=step, attempt=attempt or 1,
                          state="failed", error=error, final=True)

    def _ready(self, live: Live, run: RunProgress, id: str) -> list[NewEvent]:
        """The step's rendered command and its gate; with the intent if there is no gate."""
        step = run.steps.get(id) or _undo_step(run, id)
        attempt = step.attempt + 1
        try:
            rendered = rendering.render(run, step, self.registry, self.home)
            wanted = self._wanted(run, step, rendered)
        except OpsdeckError as error:
            blank = self.event(run.id, "step.ready", step=id, attempt=attempt, op={},
                               command=None, digest="", effect="once",
                               gate=_gate(Requirement()))
            return [blank, self.event(run.id, "step.outcome", step=id, attempt=attempt,
                                      state="failed", error=str(error), final=True)]
        gate = _gate(wanted)
        digest = binding(document_sha256=run.sha256, params=run.params, command=rendered.command,
                         step=id, attempt=attempt, requirement=gate)
        ready = self.event(run.id, "step.ready", step=id, attempt=attempt, op=rendered.op,
                           command=rendered.command, digest=digest, effect=rendered.effect,
                           gate=gate)
        if step.kind == "manual":
            return [ready]
        if wanted.nothing:
            return [ready, self._intent(run, step, attempt)]
        given = self._given(live, run, step, wanted)
        if given is None:
            return [ready]
        return [ready, self.event(run.id, "gate.confirmed", run.initiator, step=id,
                                  attempt=attempt, digest=digest, via=given)]

    def _wanted(self, run: RunProgress, step: StepRun, rendered: rendering.Rendered) -> Requirement:
        if step.undo_of is not None:
            return Requirement()
        wanted = requirement(step.spec, action=rendered.action, service=rendered.service,
                             rules=self.config.policy.rules)
        if wanted.expected is None:
            return wanted
        names = rendering.context(run, self.home)
        names["service"] = rendered.service or ""
        where = f"{run.document.id}: step {step.id}"
        return replace(wanted, expected=expressions.render(wanted.expected, names, where))

    def _given(self, live: Live, run: RunProgress, step: StepRun,
               wanted: Requirement) -> str | None:
        """The confirmation that was given with the start of the run, if it fits this gate."""
        if wanted.confirm == "yes" and live.auto["yes"]:
            return "--yes"
        if wanted.confirm == "typed" and live.auto["confirm"].get(step.id) == wanted.expected:
            return "--confirm"
        return None

    def _intent(self, run: RunProgress, step: StepRun, attempt: int, *,
                retry: bool = False) -> NewEvent:
        who = step.confirmation.user if step.confirmation else run.initiator.user
        data: dict[str, Any] = {"boot": self.performer.boot, "by": who}
        if retry:
            data["retry"] = True
        return self.event(run.id, "step.intent", step=step.id, attempt=attempt, **data)

    async def _append(self, live: Live, events: Sequence[NewEvent], trial: RunProgress, *,
                      row: bool = False) -> None:
        """Commit, then replace the state: nothing is believed that is not on the disk."""
        summary = None
        if row or trial.finished:
            summary = RunRow(id=trial.id, procedure=trial.document.id,
                             state=trial.state if trial.finished else "running",
                             by=trial.initiator.user, started=trial.started, ended=trial.ended,
                             service=trial.service)
        await self.recorder.append(events, summary)
        live.progress = trial

    def _launch(self, live: Live, steps: Sequence[str]) -> None:
        for id in steps:
            live.tasks[id] = asyncio.create_task(
                self._attempt(live, live.progress.steps[id]), name=f"{live.progress.id}/{id}")

    async def _attempt(self, live: Live, step: StepRun) -> None:
        if live.stopping:
            outcome = Outcome("failed", "it was not started: the run was aborted", final=True)
        else:
            outcome = await self.job(live, step, self.performer.perform(live.progress.id, step))
        await self.record(live, step.id, outcome)

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
        outcome = self.expected(live.progress, step, outcome)
        recorded = await self.persist(live, self.event(
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

    def expected(self, run: RunProgress, step: StepRun, outcome: Outcome) -> Outcome:
        if outcome.state != "done" or step.spec.expect is None:
            return outcome
        where = f"{run.document.id}: step {step.id}"
        names = rendering.context(run, self.home) | {
            "result": outcome.result, "exit_code": outcome.exit_code, "stdout": outcome.stdout,
            "json": outcome.output.get("json")}
        try:
            good = expressions.evaluate(step.spec.expect, names, where)
        except OpsdeckError as error:
            return replace(outcome, state="failed", error=str(error))
        if good is True:
            return outcome
        return replace(outcome, state="failed", error=f"expected {step.spec.expect}, which is not so")

    def answered(self, run: RunProgress, step: StepRun, text: str) -> Outcome:
        """What a person's answer to a manual step comes to."""
        outcome = Outcome("done", result={"answer": text}, stdout=text, final=True)
        return self.expected(run, step, outcome)

    def changed(self, live: Live) -> None:
        self._on_change(live.progress.id)

    def lost(self, why: str) -> None:
        """A newer engine owns the journal: start nothing more, touch nothing that runs."""
        self._lost = why
        log.error("this engine stops acting: %s", why)

    async def close(self) -> None:
        """Let go of every run without ending what it started: the next engine takes over."""
        self.performer.closing = True
        tasks = [t for live in self.live.values()
                 for t in [live.driver, *live.tasks.values(), *live.jobs.values()] if t is not None and not t.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _provisional(event: NewEvent, n: int) -> Event:
    """An event as it will be once recorded, for folding; `seq` and the hashes are the journal's."""
    return Event(seq=0, run=event.run, n=n, at=event.at, kind=event.kind, actor=event.actor,
                 step=event.step, attempt=event.attempt, data=event.data, prev="", hash="")


def _gate(wanted: Requirement) -> dict[str, Any]:
    return {"confirm": wanted.confirm, "expected": wanted.expected,
            "approvals": wanted.approvals.model_dump() if wanted.approvals else None}


def _undo_step(run: RunProgress, id: str) -> StepRun:
    """The undo `id` before it is ready: not yet part of the run's steps."""
    from engine.procedures.run import UNDO, undo_spec

    spec = run.document.step(id.removeprefix(UNDO))
    assert spec.undo is not None
    return StepRun(id=id, spec=undo_spec(spec, spec.undo), undo_of=spec.id)
