"""The state of one run, folded from its journal events. Pure: no I/O, no clock.

    run.created      document, params, policy, service …       run.finished   state, reason
    run.paused / run.resumed                                   run.abort      rollback
    run.rollback     cause, queue (undo steps, in order)
    step.ready       op, command, digest, gate …               step.intent    boot, resumed | retry
    step.outcome     state, exit_code, result, stdout …        step.settled   verdict, how
    step.skipped     reason                                    step.retry
    step.goto        target, resets, skips
    gate.confirmed / gate.approved   digest, text | break_glass
    gate.rejected    reason

What to do next, given a state, is `decide.py`.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from engine.config import Rule
from engine.fields import Approvals
from engine.journal.events import Actor, Event
from engine.procedures.actions import Effect
from engine.procedures.approvals import Answer, Requirement
from engine.procedures.document import Document, Goto, Operation, Step

StepState = Literal["planned", "waiting", "intent", "done", "failed", "unknown", "skipped", "undone"]
RunState = Literal["running", "waiting", "paused", "done", "failed", "rolled_back", "aborted"]
TERMINAL: frozenset[str] = frozenset({"done", "failed", "rolled_back", "aborted"})
UNDO = "undo:"


@dataclass
class StepRun:
    """One step of a run, or the undo of one (`undo_of`). Times are epoch seconds."""

    id: str
    spec: Step
    undo_of: str | None = None
    state: StepState = "planned"
    attempt: int = 0
    tries: int = 0
    op: dict[str, Any] | None = None
    command: str | None = None
    digest: str = ""
    wanted: Requirement = field(default_factory=Requirement)
    ready_at: float | None = None
    confirmation: Answer | None = None
    approvals: list[Answer] = field(default_factory=list)
    boot: str | None = None
    started: float | None = None
    ended: float | None = None
    by: str | None = None
    exit_code: int | None = None
    result: Any = None
    stdout: str = ""
    error: str | None = None
    reason: str | None = None
    output: dict[str, Any] = field(default_factory=dict)
    touched: int = 0  # the event after which it may have had an effect, 0 if it has none now
    touched_state: StepState = "planned"
    gotos: int = 0
    handled: bool = False
    final: bool = False
    rejected: bool = False
    effect: Effect = "once"

    @property
    def kind(self) -> Literal["action", "shell", "manual"]:
        return self.spec.kind

    @property
    def policy(self) -> str | Goto:
        """What a failure leads to; a rejection is never passed over."""
        if self.rejected and self.spec.on_failure == "continue":
            return "abort"
        return self.spec.on_failure

    @property
    def retry_at(self) -> float | None:
        """When a failed step is tried again by itself, backing off exponentially; None if not."""
        retry = self.spec.retry
        if self.state != "failed" or retry is None or self.final or self.tries > retry.times:
            return None
        return (self.ended or 0.0) + retry.backoff * 2.0 ** (self.tries - 1)

    @property
    def passed_over(self) -> bool:
        """Whether the run goes on although this step failed."""
        return self.state == "failed" and (
            self.handled or (self.policy == "continue" and self.retry_at is None))

    @property
    def satisfied(self) -> bool:
        """Whether steps that need this one may go on."""
        return self.state in ("done", "skipped") or self.passed_over

    @property
    def expires(self) -> float | None:
        """When the unanswered approval gate closes."""
        rule = self.wanted.approvals
        return None if rule is None or self.ready_at is None else self.ready_at + rule.expires


@dataclass
class RunProgress:
    """Everything known of a run. `n` is the number of events folded: the run's revision; `rules` the
    policy it began with, None if it recorded none."""

    id: str
    document: Document
    text: str
    sha256: str
    params: dict[str, Any]
    initiator: Actor
    started: float
    service: str | None
    unisolated: bool
    review: str | None
    steps: dict[str, StepRun]
    needs: dict[str, list[str]]
    rules: list[Rule] | None = None
    ended: float | None = None
    state: RunState = "running"
    reason: str | None = None
    paused: bool = False
    abort: Literal["no", "plain", "rollback"] = "no"
    rollback_cause: str | None = None
    undo_queue: list[str] | None = None
    finished: bool = False
    n: int = 0
    last_at: float = 0.0

    @property
    def in_flight(self) -> list[StepRun]:
        return [s for s in self.steps.values() if s.state == "intent"]

    @property
    def rolling_back(self) -> bool:
        return self.undo_queue is not None

    @property
    def going_back(self) -> bool:
        """Whether it undoes, or is told to as soon as nothing is in flight: no plain step starts."""
        return self.rolling_back or self.abort != "no"

    def plain_steps(self) -> list[StepRun]:
        """The document's steps, in its order, without undos."""
        return [self.steps[s.id] for s in self.document.steps]

    def context(self) -> dict[str, Any]:
        """`steps` for expressions: what each step that has begun left behind."""
        return {s.id: {"state": s.state, "result": s.result, "exit_code": s.exit_code,
                       "stdout": s.stdout, "json": s.output.get("json")}
                for s in self.steps.values() if s.undo_of is None and s.state != "planned"}


def begin(event: Event, document: Document) -> RunProgress:
    """The state after `run.created`; `document` is the parsed form of the event's text."""
    data = event.data
    run = RunProgress(
        id=event.run, document=document, text=data["document"], sha256=data["document_sha256"],
        params=data["params"], initiator=event.actor, started=event.at, service=data["service"],
        unisolated=data["unisolated"], review=data["review"],
        steps={s.id: StepRun(id=s.id, spec=s) for s in document.steps}, needs=document.all_needs())
    if data.get("policy") is not None:
        run.rules = [Rule.model_validate(rule) for rule in data["policy"]]
    run.n, run.last_at = event.n, event.at
    return run


def fork(run: RunProgress) -> RunProgress:
    """A copy that may be folded further without touching `run`; steps are shared until written."""
    return replace(run, steps=dict(run.steps))


def apply(run: RunProgress, event: Event) -> None:
    """Fold one more event of this run into its state. A step that changes is replaced by a copy."""
    run.n, run.last_at = event.n, event.at
    if not event.kind.startswith("journal."):  # the store's own notes, such as a seal
        _HANDLERS[event.kind](run, event)


def undo_spec(step: Step, undo: Operation) -> Step:
    """An undo as a step like any other, ungated: undoing is the safe direction."""
    fields: dict[str, Any] = {
        "id": step.id, "title": f"Undo: {step.title}", "use": undo.use, "with": undo.with_,
        "shell": undo.shell, "env": undo.env, "stdin": undo.stdin,
        "timeout": undo.timeout or step.timeout}
    if undo.effect is not None:
        fields["effect"] = undo.effect
    return Step.model_validate(fields)


def _step(run: RunProgress, event: Event) -> StepRun:
    assert event.step is not None
    if event.step not in run.steps and event.step.startswith(UNDO):
        of = event.step[len(UNDO):]
        spec = run.document.step(of)
        assert spec.undo is not None
        run.steps[event.step] = StepRun(id=event.step, spec=undo_spec(spec, spec.undo), undo_of=of)
    return _own(run, event.step)


def _own(run: RunProgress, id: str) -> StepRun:
    """The step, as a copy that this fold may write to."""
    run.steps[id] = copy(run.steps[id])
    return run.steps[id]


def _ready(run: RunProgress, event: Event) -> None:
    step, data = _step(run, event), event.data
    gate = data["gate"]
    approvals = gate["approvals"]
    step.state, step.attempt = "waiting", event.attempt or 1
    step.op, step.command, step.digest = data["op"], data["command"], data["digest"]
    step.wanted = Requirement(gate["confirm"], gate["expected"],
                              Approvals.model_validate(approvals) if approvals else None)
    step.effect = data["effect"]
    step.ready_at, step.started, step.ended = event.at, None, None
    step.confirmation, step.approvals, step.tries = None, [], 0
    step.error = step.reason = step.exit_code = step.result = None
    step.stdout, step.output, step.handled, step.final = "", {}, False, False
    step.rejected = False


def _intent(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.attempt = "intent", event.attempt or 1
    step.tries = 1 if event.data.get("resumed") else step.tries + 1
    step.boot, step.started, step.ended = event.data.get("boot"), event.at, None
    step.by = event.data.get("by")
    step.touched, step.touched_state = event.n, "unknown"


def _outcome(run: RunProgress, event: Event) -> None:
    step, data = _step(run, event), event.data
    step.state, step.ended = data["state"], event.at
    if step.touched:
        step.touched, step.touched_state = event.n, step.state
    step.exit_code, step.result = data.get("exit_code"), data.get("result")
    step.stdout, step.error = data.get("stdout", ""), data.get("error")
    step.output = data.get("output", {})
    step.final = bool(data.get("final"))
    if data.get("answered"):
        step.by = event.actor.user
    _mark_undone(run, step)


def _mark_undone(run: RunProgress, step: StepRun) -> None:
    if step.undo_of is not None and step.state == "done":
        undone = _own(run, step.undo_of)
        undone.state, undone.touched = "undone", 0


def _settled(run: RunProgress, event: Event) -> None:
    step, verdict = _step(run, event), event.data["verdict"]
    step.reason = event.data.get("how")
    if verdict == "done":
        step.state, step.ended, step.error = "done", event.at, None
        step.touched, step.touched_state = event.n, "done"
        _mark_undone(run, step)
    elif verdict == "not-done":
        step.state, step.touched = "planned", 0
    else:
        step.state, step.error, step.ended = "unknown", event.data.get("error"), event.at


def _skipped(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.reason, step.ended = "skipped", event.data.get("reason"), event.at
    step.by = event.actor.user if event.actor.uid >= 0 else None


def _retry(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.tries, step.handled = "planned", 0, False


def _goto(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.gotos += 1
    step.handled = True
    for id in event.data["resets"]:
        reset = _own(run, id)
        reset.state, reset.tries, reset.handled = "planned", 0, False
    for id in event.data["skips"]:
        passed = _own(run, id)
        passed.state = "skipped"
        passed.reason = f"skipped by {step.id}, which went on to {event.data['target']}"


def _answer(event: Event) -> Answer:
    return Answer(event.actor.user, event.actor.uid, event.at, event.data["digest"],
                  event.data.get("break_glass"))


def _confirmed(run: RunProgress, event: Event) -> None:
    _step(run, event).confirmation = _answer(event)


def _approved(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.approvals = [*step.approvals, _answer(event)]


def _rejected(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    why = f": {event.data['reason']}" if event.data.get("reason") else ""
    step.state, step.ended, step.final = "failed", event.at, True
    step.rejected = True
    step.error, step.by = f"rejected by {event.actor.user}{why}", event.actor.user


def _paused(run: RunProgress, event: Event) -> None:
    run.paused = True


def _resumed(run: RunProgress, event: Event) -> None:
    run.paused = False


def _abort(run: RunProgress, event: Event) -> None:
    run.abort = "rollback" if event.data.get("rollback") else "plain"
    run.paused = False
    run.reason = f"aborted by {event.actor.user}"


def _rollback(run: RunProgress, event: Event) -> None:
    run.rollback_cause, run.undo_queue = event.data["cause"], list(event.data["queue"])


def _finished(run: RunProgress, event: Event) -> None:
    run.finished, run.ended = True, event.at
    run.state, run.reason = event.data["state"], event.data.get("reason")
    for id in [s.id for s in run.steps.values() if s.state == "waiting"]:
        _own(run, id).state = "planned"  # nobody is asked any more, and it never ran


_HANDLERS = {
    "step.ready": _ready, "step.intent": _intent, "step.outcome": _outcome,
    "step.settled": _settled, "step.skipped": _skipped, "step.retry": _retry, "step.goto": _goto,
    "gate.confirmed": _confirmed, "gate.approved": _approved, "gate.rejected": _rejected,
    "run.paused": _paused, "run.resumed": _resumed, "run.abort": _abort,
    "run.rollback": _rollback, "run.finished": _finished,
}
