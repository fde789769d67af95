"""A procedure as far as it can be understood, so that all its problems are found at once.

Where the model refuses a part, that part is left out and the rest is read on: a wrong `timeout` in
one step does not hide an unknown step in another.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from engine.config import Policy
from engine.located import Located, Where
from engine.procedures.actions import Action, Effect, Registry
from engine.procedures.document import MOST_STEPS, Document, Operation, Param, Precondition, Step
from engine.procedures.scanner import Expression, TemplateError, parts

M = TypeVar("M", bound=BaseModel)
Form = Literal["condition", "text", "argument", "script", "secret", "value"]
Role = Literal["precondition", "step", "expect", "probe", "undo"]


@dataclass(frozen=True)
class DraftStep:
    """A step, less the keys in `bad`, which are wrong by themselves."""

    index: int
    step: Step
    bad: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        return self.step.id

    def path(self, *keys: str | int) -> Where:
        return ("steps", self.index, *keys)

    def says(self, key: str) -> bool:
        """Whether the file gives the key, and rightly so."""
        return key in self.step.model_fields_set or (
            key == "with" and "with_" in self.step.model_fields_set)

    @property
    def does_something(self) -> bool:
        """Whether it is known what the step does (one of use, shell, manual)."""
        return not self.bad & {"use", "shell", "manual"}


@dataclass(frozen=True)
class Site:
    """A text with expressions in it: where it is, how it is rendered and in which role."""

    path: Where
    source: str
    form: Form
    role: Role
    step: DraftStep | None = None

    def expressions(self) -> list[Expression]:
        """The expressions in it; none where the template itself cannot be read."""
        if self.form == "condition":
            return [Expression(self.source, 0)]
        try:
            return [part for part in parts(self.source) if isinstance(part, Expression)]
        except TemplateError:
            return []


@dataclass
class Draft:
    """A file and what is understood of it. `document` is None while the model refuses it."""

    located: Located
    registry: Registry
    today: dt.date
    policy: Policy | None = None
    document: Document | None = None
    params: dict[str, Param] = field(default_factory=dict)
    preconditions: list[tuple[int, Precondition]] = field(default_factory=list)
    steps: list[DraftStep] = field(default_factory=list)

    def ids(self) -> list[str]:
        return [step.id for step in self.steps]

    def step(self, id: str) -> DraftStep | None:
        """The first step of that id."""
        return self._by_id.get(id)

    @functools.cached_property
    def _by_id(self) -> dict[str, DraftStep]:
        return {step.id: step for step in reversed(self.steps)}

    @functools.cached_property
    def _before(self) -> dict[int, str]:
        """By a step's index, the id of the step before it."""
        return {after.index: step.id for step, after in itertools.pairwise(self.steps)}

    def needs(self, step: DraftStep) -> list[str]:
        """As `Document.needs`, by the file's order."""
        if step.step.needs is not None:
            return step.step.needs
        before = self._before.get(step.index)
        return [] if before is None else [before]

    def action(self, operation: Step | Operation) -> Action[Any] | None:
        return self.registry.get(operation.use) if operation.use else None

    def effect(self, step: DraftStep) -> Effect:
        """The effect that counts: the document's word, the action's, or `once`."""
        if step.step.kind == "manual":
            return "none"
        if step.says("effect"):
            return step.step.effect
        action = self.action(step.step)
        return action.effect if action else "once"

    def effect_known(self, step: DraftStep) -> bool:
        """Whether `effect` is more than a guess about a step that is wrong in itself."""
        known = step.step.use is None or self.action(step.step) is not None or step.says("effect")
        return known and step.does_something and "effect" not in step.bad

    def operations(self, step: DraftStep) -> Iterator[tuple[Where, Step | Operation, Role]]:
        """What a step may do: itself, its probe and its undo."""
        if step.does_something:
            yield step.path(), step.step, "step"
        if step.step.probe is not None:
            yield step.path("probe"), step.step.probe, "probe"
        if step.step.undo is not None:
            yield step.path("undo"), step.step.undo, "undo"

    def sites(self) -> Iterator[Site]:
        """Every text of the file that is evaluated or rendered."""
        for index, condition in self.preconditions:
            yield Site(("preconditions", index, "check"), condition.check, "condition",
                       "precondition")
            yield Site(("preconditions", index, "message"), condition.message, "text",
                       "precondition")
        plan = self.document.rollout if self.document else None
        for key, text in (("service", plan.service), ("to", plan.to)) if plan else ():
            yield Site(("rollout", key), text, "value", "precondition")
        for step in self.steps:
            spec = step.step
            if spec.when is not None:
                yield Site(step.path("when"), spec.when, "condition", "step", step)
            if spec.otherwise is not None:
                yield Site(step.path("otherwise"), spec.otherwise, "text", "step", step)
            if spec.expect is not None:
                yield Site(step.path("expect"), spec.expect, "condition", "expect", step)
            if spec.manual is not None and step.does_something:
                yield Site(step.path("manual"), spec.manual, "text", "step", step)
            if not isinstance(spec.confirm, str):
                yield Site(step.path("confirm", "typed"), spec.confirm.typed, "text", "step", step)
            for path, operation, role in self.operations(step):
                yield from _of_operation(path, operation, role, step)


def _of_operation(path: Where, operation: Step | Operation, role: Role,
                  step: DraftStep) -> Iterator[Site]:
    if isinstance(operation.shell, str):
        yield Site((*path, "shell"), operation.shell, "script", role, step)
    elif operation.shell is not None:
        for index, argument in enumerate(operation.shell):
            yield Site((*path, "shell", index), argument, "argument", role, step)
    for name, value in operation.env.items():
        yield Site((*path, "env", name), value, "secret", role, step)
    if operation.stdin is not None:
        yield Site((*path, "stdin"), operation.stdin, "secret", role, step)
    yield from _strings((*path, "with"), operation.with_, role, step)


def _strings(path: Where, value: Any, role: Role, step: DraftStep) -> Iterator[Site]:
    if isinstance(value, str):
        yield Site(path, value, "value", role, step)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _strings((*path, key), item, role, step)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings((*path, index), item, role, step)


def draft(located: Located, registry: Registry, today: dt.date,
          policy: Policy | None = None) -> Draft:
    """As much of a located file as can be understood. Never raises."""
    result = Draft(located, registry, today, policy)
    raw = located.value if isinstance(located.value, dict) else {}
    params = raw.get("params")
    for name, value in (params.items() if isinstance(params, dict) else ()):
        param, _ = salvage(Param, value, {})
        if param is not None:
            result.params[name] = param
    for index, value in enumerate(_list(raw, "preconditions")):
        condition, _ = salvage(Precondition, value, {"message": "?"})
        if condition is not None:
            result.preconditions.append((index, condition))
    for index, value in enumerate(_list(raw, "steps")[:MOST_STEPS]):
        step, bad = salvage(Step, _operations_of(value),
                            {"id": f"step-{index + 1}", "title": "?"})
        if step is not None:
            result.steps.append(DraftStep(index, step, frozenset(bad)))
    return result


def _operations_of(raw: Any) -> Any:
    """A step's map with its probe and undo less the keys that are refused."""
    if not isinstance(raw, dict):
        return raw
    data = dict(raw)
    for key in ("probe", "undo"):
        operation, bad = salvage(Operation, raw.get(key), {})
        if operation is not None and bad and not bad & {"use", "shell"}:
            data[key] = operation.model_dump(by_alias=True, exclude_unset=True)
    return data


def _list(raw: dict[str, Any], key: str) -> list[Any]:
    value = raw.get(key)
    return value if isinstance(value, list) else []


def salvage(model: type[M], raw: Any, fill: dict[str, Any]) -> tuple[M | None, set[str]]:
    """The model of a map less the keys it refuses, and those keys; `fill` stands in for needed
    ones. None if nothing can be made of it."""
    bad: set[str] = set()
    if not isinstance(raw, dict):
        return None, bad
    data = dict(raw)
    for _ in range(len(data) + len(fill) + 3):
        try:
            return model.model_validate(data), bad
        except ValidationError as error:
            keys = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
            if not (_repair(data, keys, fill, bad) if keys else _one_operation(data, bad)):
                return None, bad
    return None, bad


def _repair(data: dict[str, Any], keys: set[str], fill: dict[str, Any], bad: set[str]) -> bool:
    """Take out what is refused, put in what is missing; whether anything changed."""
    changed = False
    for key in keys:
        if key in data:
            del data[key]
            changed = True
        elif key in fill:
            data[key] = fill[key]
            changed = True
        bad.add(key)
    return changed


def _one_operation(data: dict[str, Any], bad: set[str]) -> bool:
    """Make a step or operation that does nothing, or several things, do one that is `bad`."""
    given = [key for key in ("use", "shell", "manual") if data.get(key) is not None]
    bad.update(given or ("use", "shell", "manual"))
    if not given:
        data["shell"] = ["true"]
        return True
    for key in given[1:]:
        del data[key]
    return len(given) > 1
