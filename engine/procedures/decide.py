"""What a run does next, given its state and the time. Pure: the executor carries it out.

`decide` names every act that is possible now; a person's answers, outcomes and the passing of time
make new ones possible. `current_state` is the word for the run that people see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.errors import OpsdeckError
from engine.procedures.approvals import satisfied
from engine.procedures.document import Goto
from engine.procedures.run import UNDO, RunProgress, RunState, StepRun

When = Callable[[RunProgress, StepRun], bool]


@dataclass(frozen=True)
class Ready:
    """Render the step and open its gate (or start it at once if it has none)."""

    step: str


@dataclass(frozen=True)
class Begin:
    """Commit the intent and start: the gate is satisfied, or a retry is due."""

    step: str
    retry: bool = False


@dataclass(frozen=True)
class Skip:
    step: str
    reason: str


@dataclass(frozen=True)
class Fail:
    """The step fails without having run (its `when` cannot be evaluated, its gate expired)."""

    step: str
    error: str


@dataclass(frozen=True)
class Jump:
    step: str
    target: str
    resets: tuple[str, ...]
    skips: tuple[str, ...]


@dataclass(frozen=True)
class Rollback:
    cause: str
    queue: tuple[str, ...]


@dataclass(frozen=True)
class Finish:
    state: RunState
    reason: str | None


@dataclass(frozen=True)
class Wake:
    """Nothing to do before `at`."""

    at: float


Decision = Ready | Begin | Skip | Fail | Jump | Rollback | Finish | Wake


def decide(run: RunProgress, now: float, when: When) -> list[Decision]:
    """The acts possible now, in the document's order. `when` evaluates a step's `when` expression
    (True without one) and may raise an OpsdeckError, which fails the step."""
    if run.finished:
        return []
    if run.rolling_back:
        return _undo(run, now)
    if run.abort != "no":
        return _aborting(run)
    decisions: list[Decision] = []
    for step in run.plain_steps():
        if step.state == "failed" and not step.passed_over and step.policy != "ask":
            if step.retry_at is None:
                return [] if run.in_flight or _unsettled(run) else [_failing(run, step)]
            decisions.extend(_retry(run, step, now))
        elif step.state == "failed" and step.retry_at is not None:
            decisions.extend(_retry(run, step, now))
    if run.paused:
        return []
    for step in run.plain_steps():
        if step.state == "planned" and _may_start(run, step):
            decisions.append(_start(run, step, when))
        elif step.state == "waiting":
            decisions.extend(_gate(run, step, now))
    if all(s.satisfied for s in run.plain_steps()):
        return [Finish("done", None)]
    return decisions


def current_state(run: RunProgress) -> RunState:
    """`waiting` when nothing is in flight and a person must do something; `paused` when told so."""
    if run.finished:
        return run.state
    if run.paused:
        return "paused"
    if run.in_flight:
        return "running"
    return "waiting" if waiting_steps(run) else "running"


def waiting_steps(run: RunProgress) -> list[StepRun]:
    """The steps that wait for a person, in order."""
    if run.finished or run.abort == "plain":
        return []
    return [step for step in run.steps.values() if _waits(run, step)]


def _unsettled(run: RunProgress) -> bool:
    """Whether a person must say first what became of a step."""
    return any(step.state == "unknown" for step in run.plain_steps())


def _waits(run: RunProgress, step: StepRun) -> bool:
    if run.going_back:  # then only undoing can wait for anybody
        return step.undo_of is not None and (step.state == "unknown" or asks(run, step))
    if step.state == "unknown":
        return True
    if step.state == "waiting":
        return step.kind == "manual" or not step.wanted.nothing
    return asks(run, step)


def asks(run: RunProgress, step: StepRun) -> bool:
    """Whether a failed step waits for a person's retry, skip or abort."""
    if step.state != "failed" or step.passed_over or step.retry_at is not None:
        return False
    return step.undo_of is not None or (step.policy == "ask" and not run.rolling_back)


def _may_start(run: RunProgress, step: StepRun) -> bool:
    return all(run.steps[id].satisfied for id in run.needs[step.id])


def _start(run: RunProgress, step: StepRun, when: When) -> Decision:
    try:
        wanted = when(run, step)
    except OpsdeckError as error:
        return Fail(step.id, str(error))
    return Ready(step.id) if wanted else Skip(step.id, step.spec.unneeded)


def _gate(run: RunProgress, step: StepRun, now: float) -> list[Decision]:
    if step.kind == "manual" and step.wanted.nothing:
        return []
    if satisfied(step.wanted, confirmation=step.confirmation, approvals=step.approvals,
                 initiator_uid=run.initiator.uid, digest=step.digest, now=now):
        return [] if step.kind == "manual" else [Begin(step.id)]
    if step.expires is None:
        return []
    if now >= step.expires:
        return [Fail(step.id, "nobody approved it in time")]
    return [Wake(step.expires)]


def _retry(run: RunProgress, step: StepRun, now: float) -> list[Decision]:
    at = step.retry_at
    assert at is not None
    set_back = now < (step.ended or 0.0)  # the wall clock: the end that it counts from has not come yet
    return [Begin(step.id, retry=True)] if now >= at or set_back else [Wake(at)]


def _failing(run: RunProgress, step: StepRun) -> Decision:
    if step.policy == "rollback":
        return Rollback(step.id, undo_order(run, step.id))
    if isinstance(step.policy, Goto) and step.gotos < step.policy.max:
        return _jump(run, step, step.policy.goto)
    return Finish("failed", f"{step.id} failed: {step.error}" if step.error
                  else f"{step.id} failed")


def _jump(run: RunProgress, step: StepRun, target: str) -> Jump:
    order = [s.id for s in run.document.steps]
    here, there = order.index(step.id), order.index(target)
    if there <= here:
        return Jump(step.id, target, tuple(order[there:here + 1]), ())
    between = [id for id in order[here + 1:there] if run.steps[id].state == "planned"]
    return Jump(step.id, target, (), tuple(between))


def undo_order(run: RunProgress, cause: str | None = None) -> tuple[str, ...]:
    """The undo steps of a rollback: the one that failed first, then all that may have had an effect,
    the newest first, a step that was to be run again included. Only steps that have an undo and
    whose `undo_on` names what they came to."""
    steps = [s for s in run.plain_steps() if s.spec.undo is not None and s.touched
             and (s.touched_state == "unknown" or s.touched_state in s.spec.undo_on)]
    steps.sort(key=lambda s: (s.id == cause, s.touched), reverse=True)
    return tuple(UNDO + s.id for s in steps)


def _undo(run: RunProgress, now: float) -> list[Decision]:
    assert run.undo_queue is not None
    if run.abort == "plain":
        return [] if run.in_flight else [Finish("aborted", run.reason)]
    for id in run.undo_queue:
        step = run.steps.get(id)
        if step is None or step.state == "planned":
            return [Ready(id)]
        if step.state == "waiting":
            return [Begin(id)]
        if not step.satisfied:
            return []
    cause = run.rollback_cause
    reason = run.reason if run.abort == "rollback" else (
        f"{cause} failed: {run.steps[cause].error}" if cause in run.steps else None)
    return [Finish("rolled_back", reason)]


def _aborting(run: RunProgress) -> list[Decision]:
    if run.in_flight:
        return []
    if run.abort == "rollback":
        return [Rollback("abort", undo_order(run))]
    return [Finish("aborted", run.reason)]
