"""The typed model of a procedure document. `check.py` reads a file into it and reports problems.

Durations are seconds (float); the YAML may say `90s`, `5m`, `2h`, `90d` or a number of seconds.
Strings may hold `${{ CEL }}`; they are rendered by `expressions.py` when the step becomes ready.

The model holds what one value can say wrong by itself. What needs two places of the file to be
seen together (an unknown step, a cycle, `retry` on `once` …) is in `rules/`, which can name the line.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from engine.fields import Approvals, Duration, Model, Positive, Text, Typed
from engine.located import Misplaced
from engine.procedures.actions import Effect
from engine.procedures.expansion import expanded
from engine.procedures.rollouts import Rollout

ID = r"^[a-z0-9][a-z0-9-]*$"
MOST_STEPS = 200
OTHERS = ("runbook", "pipeline", "recovery")  # kinds that say their steps one by one


class Contact(Model):
    name: Text
    via: Text


class Param(Model):
    type: Literal["string", "integer", "number", "boolean", "secret"] = "string"
    required: bool = False
    default: Any = None
    pattern: str | None = None
    min: float | None = None
    max: float | None = None
    choices: list[Any] | None = None
    help: str = ""


class Precondition(Model):
    check: Text
    message: Text


class Retry(Model):
    times: int = Field(ge=1, le=20)
    backoff: Duration = 1.0


class Goto(Model):
    goto: str
    max: int = Field(default=1, ge=1, le=100)


Shell = Text | Annotated[list[str], Field(min_length=1)]


def _one_of(given: dict[str, Any]) -> None:
    """Raises ValueError unless exactly one of the keys has a value."""
    said = [key for key, value in given.items() if value is not None]
    names = ", ".join(f"`{key}`" for key in given)
    if not said:
        raise ValueError(f"it does nothing: give one of {names}")
    if len(said) > 1:
        both = " and ".join(f"`{key}`" for key in said)
        raise ValueError(f"it says {both}: give exactly one of {names}")


class Operation(Model):
    """One thing to do: exactly one of an action (`use` + `with`) or a command (`shell`).

    `effect` is for undos: without it an action's own counts, and a command's is `once`."""

    use: Text | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    shell: Shell | None = None
    env: dict[str, str] = {}
    stdin: str | None = None
    timeout: Positive | None = None
    effect: Effect | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Operation:
        _one_of({"use": self.use, "shell": self.shell})
        return self


class Step(Model):
    """One step. Exactly one of `use`, `shell`, `manual`."""

    id: str = Field(pattern=ID)
    title: Text
    use: Text | None = None
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    shell: Shell | None = None
    manual: Text | None = None
    env: dict[str, str] = {}
    stdin: str | None = None
    effect: Effect = "once"
    confirm: Literal["none", "yes"] | Typed = "none"
    approvals: Approvals | None = None
    timeout: Positive = 3600.0
    retry: Retry | None = None
    probe: Operation | None = None
    undo: Operation | None = None
    irreversible: Text | None = None
    undo_on: list[Literal["done", "failed"]] = ["done", "failed"]
    on_failure: Literal["abort", "continue", "ask", "rollback"] | Goto = "abort"
    when: Text | None = None
    otherwise: Text | None = None
    expect: Text | None = None
    needs: list[str] | None = None
    evidence: list[str] = []
    skippable: bool = False
    help: str = ""

    @model_validator(mode="after")
    def _does_one_thing(self) -> Step:
        _one_of({"use": self.use, "shell": self.shell, "manual": self.manual})
        if self.otherwise is not None and self.when is None:
            raise ValueError("`otherwise` says why a step is not needed: give `when` too")
        return self

    @property
    def unneeded(self) -> str:
        """Why the step is left out when its `when` is false, in the document's words where it has some."""
        return self.otherwise or f"not needed: {self.when}"

    @property
    def kind(self) -> Literal["action", "shell", "manual"]:
        if self.use is not None:
            return "action"
        return "manual" if self.manual is not None else "shell"


class Document(Model):
    """A whole procedure. `for_alerts` names the signals for which the console suggests it.

    One of kind `rollout` says `rollout` in place of `steps`; its `steps` are those that it stands for.
    """

    opsdeck: Literal[1]
    id: str = Field(pattern=ID)
    title: Text
    kind: Literal["runbook", "pipeline", "rollout", "recovery"]
    owner: Text
    contacts: list[Contact] = []
    reviewed: dt.date
    review_every: Positive = 90 * 86400.0
    use_when: str = ""
    good_after: str = ""
    for_alerts: list[str] = []
    params: dict[str, Param] = {}
    preconditions: list[Precondition] = []
    rollout: Rollout | None = None
    steps: list[Step] = Field(min_length=1, max_length=MOST_STEPS)

    @model_validator(mode="before")
    @classmethod
    def _written_out(cls, given: Any) -> Any:
        """With the steps that `rollout` stands for; what is wrong in it is reported at its own place."""
        if not isinstance(given, dict):
            return given
        kind = given.get("kind")
        if kind in OTHERS and "rollout" in given and "steps" not in given:
            raise Misplaced(("rollout",), f"it is for procedures of kind rollout, and this is a {kind}")
        if kind in OTHERS or (kind != "rollout" and "rollout" not in given):
            return given
        if "steps" in given:
            raise Misplaced(("steps",), "a rollout says its steps in `rollout: {steps: …}`")
        if "rollout" not in given:
            raise ValueError("a procedure of kind rollout says `rollout:`, the plan")
        try:
            plan = Rollout.model_validate(given["rollout"])
        except ValidationError:  # the field says it, with its line
            return {**given, "steps": [{"id": "plan", "title": "plan", "manual": "plan"}]}
        return {**given, "steps": expanded(plan)}

    @model_validator(mode="after")
    def _plan_is_of_a_rollout(self) -> Document:
        if self.rollout is not None and self.kind != "rollout":
            raise Misplaced(("rollout",), f"it is for procedures of kind rollout, and this is a {self.kind}")
        return self

    def step(self, id: str) -> Step:
        """The step of that id; raises KeyError."""
        for step in self.steps:
            if step.id == id:
                return step
        raise KeyError(id)

    def all_needs(self) -> dict[str, list[str]]:
        """The steps each one waits for: its `needs`, or by default the step before it."""
        before = [[], *([step.id] for step in self.steps)]
        return {step.id: default if step.needs is None else list(step.needs)
                for step, default in zip(self.steps, before, strict=False)}
