"""Actions: that they exist, take what they are given, and are not called weaker than they are."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from engine.config import Rule
from engine.fields import Typed
from engine.located import Problem, Where, did_you_mean, problems_of
from engine.procedures.actions import STRICTNESS, Action
from engine.procedures.document import Operation, Step
from engine.procedures.draft import Draft, DraftStep, Role
from engine.procedures.scanner import has_template
from engine.procedures.trial import Trial

_CONFIRM = ("none", "yes", "typed")


def problems(draft: Draft) -> Iterator[Problem]:
    trial = Trial(draft)
    for step in draft.steps:
        for path, operation, role in draft.operations(step):
            yield from _operation(draft, trial if trial.runs(step) else None, path, operation,
                                  role)
        yield from _policy(draft, trial, step)


def _operation(draft: Draft, trial: Trial | None, path: Where, operation: Step | Operation,
               role: Role) -> Iterator[Problem]:
    located = draft.located
    declared = operation.effect if "effect" in operation.model_fields_set else None
    if role == "probe" and declared not in (None, "none"):
        yield located.problem((*path, "effect"), "a probe only looks: it has no effect")
    if operation.use is None:
        return
    action = draft.action(operation)
    if action is None:
        yield located.problem((*path, "use"), f"there is no action `{operation.use}`",
                              did_you_mean(operation.use, draft.registry.names()))
        return
    if role == "probe" and action.effect != "none":
        yield located.problem((*path, "use"), f"a probe only looks, and {action.name} acts",
                              "use an action without effect, or a command that only reads")
    if declared is not None and STRICTNESS[declared] < STRICTNESS[action.effect]:
        yield located.problem((*path, "effect"), f"{action.name} is `{action.effect}`; a procedure "
                              f"may only be stricter, not `{declared}`",
                              f"say `effect: {action.effect}`, or leave it out")
    yield from _with(draft, trial, path, operation, action)


def _with(draft: Draft, trial: Trial | None, path: Where, operation: Step | Operation,
          action: Action[Any]) -> Iterator[Problem]:
    """The parameters, with what is known ahead in place of templates."""
    data = _filled(trial, operation.with_) if trial is not None else operation.with_
    prefix = (*path, "with")
    try:
        action.params.model_validate(data)
    except ValidationError as error:
        def unknown(at: Where, kind: str) -> bool:
            value: Any = data
            for part in at:
                value = value[part]
            whole = isinstance(value, dict | list) and kind in ("missing", "extra_forbidden")
            return not whole and has_template(value)

        found = problems_of(error, draft.located, action.params, prefix, ignore=unknown)
        if draft.located.at(prefix) is None:
            found = [draft.located.problem((*path, "use"), f"{action.name}: {p.message}", p.hint)
                     for p in found]
        yield from found
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # A third party's validator that trips over a template is no mistake of the procedure.
        if not has_template(data):
            yield draft.located.problem(prefix, f"{action.name} cannot take these parameters: "
                                        f"{error}")


def _filled(trial: Trial, value: Any) -> Any:
    if isinstance(value, str):
        known = trial.template(value) if has_template(value) else None
        return known.value if known is not None else value
    if isinstance(value, dict):
        return {key: _filled(trial, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(trial, item) for item in value]
    return value


def _policy(draft: Draft, trial: Trial, step: DraftStep) -> Iterator[Problem]:
    """Where the site's policy asks for more than the step does."""
    if draft.policy is None or not step.does_something:
        return
    spec = step.step
    name = spec.use or ("manual" if spec.kind == "manual" else "shell")
    action = draft.action(spec)
    service = spec.with_.get(action.service) if action and action.service else None
    for rule in draft.policy.rules:
        if fnmatch.fnmatchcase(name, rule.action) and _concerns(rule, service, trial):
            yield from _weaker(draft, step, rule, name)


def _concerns(rule: Rule, service: Any, trial: Trial) -> bool:
    if rule.service == "*":
        return True
    known = trial.template(service) if isinstance(service, str) else None
    return known is not None and fnmatch.fnmatchcase(str(known.value), rule.service)


def _weaker(draft: Draft, step: DraftStep, rule: Rule, name: str) -> Iterator[Problem]:
    spec = step.step
    asked, given = (_CONFIRM.index("typed" if isinstance(c, Typed) else c)
                    for c in (rule.confirm, spec.confirm))
    hint = "the engine will ask for it all the same"
    if asked > given and spec.kind != "manual":
        yield draft.located.problem(step.path("confirm") if step.says("confirm") else
                                    step.path("id"),
                                    f"the policy asks for `confirm: {_CONFIRM[asked]}` for {name}",
                                    hint, "warning")
    wanted = rule.approvals.min if rule.approvals else 0
    if wanted > (spec.approvals.min if spec.approvals else 0):
        yield draft.located.problem(step.path("approvals") if step.says("approvals") else
                                    step.path("id"),
                                    f"the policy asks for approvals for {name}: {wanted}",
                                    hint, "warning")
