"""The state of one run and of its steps. Pure: no I/O, no clock.

How it is folded from the run's events is `folding.py`; what to do next, given a state, is `decide.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from engine.config import Rule
from engine.journal.events import Actor
from engine.procedures.actions import Effect
from engine.procedures.approvals import Answer, Requirement
from engine.procedures.authors import WRITTEN_BY
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
    decided: bool = False
    effect: Effect = "once"

    @property
    def kind(self) -> Literal["action", "shell", "manual"]:
        return self.spec.kind

    @property
    def policy(self) -> str | Goto:
        """What a failure leads to. A rejection is never passed over; of what is decided nobody is asked."""
        if self.rejected and self.spec.on_failure in ("continue", "ask"):
            return "abort"
        if self.decided and self.spec.on_failure == "ask":
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
    policy it began with, None if it recorded none; `inherited` what the run that began it has told of who
    wrote what is put into production."""

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
    inherited: list[Any] = field(default_factory=list)
    ended: float | None = None
    state: RunState = "running"
    reason: str | None = None
    paused: bool = False
    paused_by: str | None = None
    paused_why: str | None = None
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

    @property
    def written_by(self) -> list[Any]:
        """What is told of who wrote it, by the run that began this one and by steps that are done."""
        told = [step.result[WRITTEN_BY] for step in self.steps.values() if step.state == "done"
                and isinstance(step.result, dict) and step.result.get(WRITTEN_BY) is not None]
        return [*self.inherited, *told]

    def plain_steps(self) -> list[StepRun]:
        """The document's steps, in its order, without undos."""
        return [self.steps[s.id] for s in self.document.steps]

    def context(self) -> dict[str, Any]:
        """`steps` for expressions: what each step that has begun left behind."""
        return {s.id: {"state": s.state, "result": s.result, "exit_code": s.exit_code,
                       "stdout": s.stdout, "json": s.output.get("json"), "by": s.by}
                for s in self.steps.values() if s.undo_of is None and s.state != "planned"}


def undo_spec(step: Step, undo: Operation) -> Step:
    """An undo as a step like any other, ungated: undoing is the safe direction."""
    fields: dict[str, Any] = {
        "id": step.id, "title": f"Undo: {step.title}", "use": undo.use, "with": undo.with_,
        "shell": undo.shell, "env": undo.env, "stdin": undo.stdin,
        "timeout": undo.timeout or step.timeout}
    if undo.effect is not None:
        fields["effect"] = undo.effect
    return Step.model_validate(fields)
