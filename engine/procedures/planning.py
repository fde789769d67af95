"""From decisions to events: what a commit will hold, worked out on a copy of the run's state.

A plan folds what has happened and everything that `decide` makes of it, until nothing more is to be
done; the executor commits the events, and only then takes the copy for the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from engine.config import Rule
from engine.errors import OpsdeckError
from engine.journal.events import SYSTEM, Actor, Event, NewEvent
from engine.procedures import decide as d
from engine.procedures import expressions, rendering
from engine.procedures.actions import Registry
from engine.procedures.approvals import Requirement, binding, requirement
from engine.procedures.attempts import Outcome
from engine.procedures.authors import Authors, resolve
from engine.procedures.folding import apply, fork
from engine.procedures.run import UNDO, RunProgress, StepRun, undo_spec

ROUNDS = 100


@dataclass(frozen=True)
class Plan:
    """`state` after `events`; `start` names the steps whose intents are among them, and `wake` is when
    time alone makes something more possible (None: only people and outcomes can)."""

    state: RunProgress
    events: list[NewEvent]
    start: list[str]
    wake: float | None


@dataclass(frozen=True)
class Planner:
    """Plans for the runs of one engine. `boot` identifies the boot of the machine, for intents;
    `rules` are the policy for what has not begun (and of old runs that recorded none). `people` are the
    e-mails of users, and `users` those that the config tells of, to know an author by."""

    registry: Registry
    rules: Sequence[Rule]
    home: Path
    boot: str
    clock: Callable[[], float]
    people: Mapping[str, Sequence[str]] = field(default_factory=dict)
    users: frozenset[str] = frozenset()

    def event(self, run: str, kind: str, actor: Actor = SYSTEM, *, step: str | None = None,
              attempt: int | None = None, **data: Any) -> NewEvent:
        return NewEvent(run=run, kind=kind, at=self.clock(), actor=actor, step=step,
                        attempt=attempt, data=data)

    def plan(self, progress: RunProgress, auto: Mapping[str, Any],
             first: Sequence[NewEvent]) -> Plan:
        """Fold `first` and all that follows. `auto` holds the confirmations given with the start."""
        trial = fork(progress)
        events: list[NewEvent] = []

        def fold(event: NewEvent) -> None:
            events.append(event)
            apply(trial, provisional(event, trial.n + 1))

        for event in first:
            fold(event)
        wake: float | None = None
        for _ in range(ROUNDS):
            decisions = d.decide(trial, self.clock(), self.evaluate_when)
            acts = [x for x in decisions if not isinstance(x, d.Wake)]
            if not acts:
                wake = min((x.at for x in decisions if isinstance(x, d.Wake)), default=None)
                break
            for decision in acts:
                for event in self._events(auto, trial, decision):
                    fold(event)
        else:
            wake = self.clock()  # more than one commit should hold: go on in the next
        started = [e.step for e in events if e.kind == "step.intent" and e.step is not None]
        return Plan(trial, events, [s for s in started if trial.steps[s].state == "intent"], wake)

    def evaluate_when(self, run: RunProgress, step: StepRun) -> bool:
        """Whether the step is wanted; raises OpsdeckError where its `when` cannot tell."""
        if step.spec.when is None:
            return True
        where = f"{run.document.id}: step {step.id}"
        value = expressions.evaluate(step.spec.when, rendering.context(run, self.home), where)
        if not isinstance(value, bool):
            raise OpsdeckError(f"`when` must be true or false, and is {value!r}", where=where)
        return value

    def _events(self, auto: Mapping[str, Any], run: RunProgress, decision: d.Decision) -> list[NewEvent]:
        match decision:
            case d.Ready(step):
                return self._ready(auto, run, step)
            case d.Begin(step, retry):
                return [self._intent(run, run.steps[step], run.steps[step].attempt + retry,
                                     retry=retry)]
            case d.Skip(step, reason):
                return [self.event(run.id, "step.skipped", step=step, reason=self._why(run, step, reason))]
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

    def _why(self, run: RunProgress, step: str, reason: str) -> str:
        """Why a step is left out, in words that may speak of other steps; as written where they cannot."""
        try:
            return expressions.render(reason, rendering.context(run, self.home), step)
        except OpsdeckError:
            return reason

    def _failed(self, run: RunProgress, step: str, error: str) -> NewEvent:
        attempt = run.steps[step].attempt if step in run.steps else 0
        return self.event(run.id, "step.outcome", step=step, attempt=attempt or 1,
                          state="failed", error=error, final=True)

    def _ready(self, auto: Mapping[str, Any], run: RunProgress, id: str) -> list[NewEvent]:
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
        digest = binding(run=run.id, document_sha256=run.sha256, params=run.params, command=rendered.command,
                         step=id, attempt=attempt, requirement=gate)
        ready = self.event(run.id, "step.ready", step=id, attempt=attempt, op=rendered.op,
                           command=rendered.command, digest=digest, effect=rendered.effect,
                           gate=gate)
        if step.kind == "manual":
            return [ready]
        if wanted.nothing:
            return [ready, self._intent(run, step, attempt)]
        given = self._given(auto, step, wanted)
        if given is None:
            return [ready]
        return [ready, self.event(run.id, "gate.confirmed", run.initiator, step=id,
                                  attempt=attempt, digest=digest, via=given)]

    def _wanted(self, run: RunProgress, step: StepRun, rendered: rendering.Rendered) -> Requirement:
        if step.undo_of is not None:
            return Requirement()
        wanted = requirement(step.spec, action=rendered.action, service=rendered.service,
                             rules=self.rules if run.rules is None else run.rules)
        if wanted.approvals is not None and wanted.approvals.not_initiator:
            wanted = replace(wanted, authors=self.authors(run))
        if wanted.expected is None:
            return wanted
        names = rendering.context(run, self.home)
        names["service"] = rendered.service or ""
        where = f"{run.document.id}: step {step.id}"
        return replace(wanted, expected=expressions.render(wanted.expected, names, where))

    def authors(self, run: RunProgress) -> Authors | None:
        """Who wrote what the run puts into production, by the config of now; None where nothing is told."""
        return resolve(run.written_by, people=self.people, known=self.users, initiator=run.initiator)

    def _given(self, auto: Mapping[str, Any], step: StepRun, wanted: Requirement) -> str | None:
        """The confirmation that was given with the start of the run, if it fits this gate."""
        if wanted.confirm == "yes" and auto["yes"]:
            return "--yes"
        if wanted.confirm == "typed" and auto["confirm"].get(step.id) == wanted.expected:
            return "--confirm"
        return None

    def _intent(self, run: RunProgress, step: StepRun, attempt: int, *,
                retry: bool = False) -> NewEvent:
        who = step.confirmation.user if step.confirmation else run.initiator.user
        data: dict[str, Any] = {"boot": self.boot, "by": who}
        if retry:
            data["retry"] = True
        return self.event(run.id, "step.intent", step=step.id, attempt=attempt, **data)

    def expected(self, run: RunProgress, step: StepRun, outcome: Outcome) -> Outcome:
        """The outcome, failed where it is done and not as the step's `expect` wants it."""
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


def provisional(event: NewEvent, n: int) -> Event:
    """An event as it will be once recorded, for folding; `seq` and the hashes are the journal's."""
    return Event(seq=0, run=event.run, n=n, at=event.at, kind=event.kind, actor=event.actor,
                 step=event.step, attempt=event.attempt, data=event.data, prev="", hash="")


def _gate(wanted: Requirement) -> dict[str, Any]:
    authors = {"authors": msgspec.to_builtins(wanted.authors)} if wanted.authors is not None else {}
    return {"confirm": wanted.confirm, "expected": wanted.expected,
            "approvals": wanted.approvals.model_dump() if wanted.approvals else None, **authors}


def _undo_step(run: RunProgress, id: str) -> StepRun:
    """The undo `id` before it is ready: not yet part of the run's steps."""
    spec = run.document.step(id.removeprefix(UNDO))
    assert spec.undo is not None
    return StepRun(id=id, spec=undo_spec(spec, spec.undo), undo_of=spec.id)
