"""Each step by itself: what its keys say together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import get_args

from engine.config import Role
from engine.located import Problem, Where, did_you_mean
from engine.procedures.document import Operation, Step
from engine.procedures.draft import Draft, DraftStep

EVIDENCE = ("stdout", "result", "exit_code", "json")
ROLES = get_args(Role)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NOT_FOR_MANUAL = ("with", "env", "stdin", "timeout", "retry", "probe", "undo", "irreversible",
                   "undo_on", "confirm")


def problems(draft: Draft) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for step in draft.steps:
        if step.id in seen and "id" not in step.bad:
            first = draft.located.line_of(("steps", seen[step.id], "id"))
            yield draft.located.problem(step.path("id"), f"there are two steps `{step.id}`",
                                        f"the other one is in line {first}")
        seen.setdefault(step.id, step.index)
        yield from _keys(draft, step)
        yield from _undoing(draft, step)
        yield from _people(draft, step)
        yield from _evidence(draft, step)
        for path, operation, _ in draft.operations(step):
            yield from _environment(draft, path, operation)


def _keys(draft: Draft, step: DraftStep) -> Iterator[Problem]:
    spec, located = step.step, draft.located
    if not step.does_something:
        return
    if spec.kind == "manual":
        for key in _NOT_FOR_MANUAL:
            if step.says(key):
                yield located.problem(step.path(key), f"`{key}` has no meaning in a manual step",
                                      "a person answers it; remove the key")
        if step.says("effect") and spec.effect != "none":
            yield located.problem(step.path("effect"), "a manual step has no effect of its own",
                                  "say `effect: none`, or leave it out")
        return
    if spec.retry is not None and draft.effect(step) == "once" and draft.effect_known(step):
        yield located.problem(step.path("retry"), "`retry` would repeat a step that may run once "
                              "only", "say `effect: idempotent` if repeating it is harmless")
    for path, operation, _ in draft.operations(step):
        yield from _operation_keys(draft, path, operation)


def _operation_keys(draft: Draft, path: Where, operation: Step | Operation) -> Iterator[Problem]:
    if operation.use is None and operation.with_:
        yield draft.located.problem((*path, "with"), "`with` is for actions; a command has its "
                                    "arguments in `shell`")
    if operation.use is not None and operation.stdin is not None:
        yield draft.located.problem((*path, "stdin"), "`stdin` is for commands, an action has none")
    if isinstance(operation.shell, list) and not operation.shell[0].strip():
        yield draft.located.problem((*path, "shell", 0), "the command has no name")
    if isinstance(operation.shell, str) and not operation.shell.strip():
        yield draft.located.problem((*path, "shell"), "the script is empty")


def _undoing(draft: Draft, step: DraftStep) -> Iterator[Problem]:
    spec, located = step.step, draft.located
    if spec.kind == "manual" or not step.does_something:
        return
    if spec.undo is not None and spec.irreversible is not None:
        yield located.problem(step.path("irreversible"), "the step has an `undo`, so it cannot be "
                              "`irreversible`", "remove one of them")
    if (draft.effect(step) != "none" and draft.effect_known(step) and spec.undo is None
            and spec.irreversible is None and not step.bad & {"undo", "irreversible"}):
        hint = "give `undo:`, or `irreversible:` with the reason"
        if spec.use is None:
            hint += "; `effect: none` if it only reads"
        yield located.problem(step.path("id"), f"step `{step.id}` changes something and says "
                              "nothing of how to undo it", hint, "warning")
    if spec.undo is not None and draft.effect(step) == "none":
        yield located.problem(step.path("undo"), "the step has no effect, so there is nothing to "
                              "undo", None, "warning")
    if step.says("undo_on") and (spec.undo is None or not spec.undo_on):
        yield located.problem(step.path("undo_on"), "`undo_on` has no meaning here",
                              "give an `undo`, and `done`, `failed` or both")


def _people(draft: Draft, step: DraftStep) -> Iterator[Problem]:
    approvals = step.step.approvals
    if approvals is None:
        return
    path = step.path("approvals", "roles")
    if not approvals.roles:
        yield draft.located.problem(path, "no role may approve it", "name a role, e.g. approver")
    for index, role in enumerate(approvals.roles):
        if role not in ROLES:
            yield draft.located.problem((*path, index), f"there is no role `{role}`",
                                        did_you_mean(role, ROLES))


def _evidence(draft: Draft, step: DraftStep) -> Iterator[Problem]:
    for index, name in enumerate(step.step.evidence):
        if name not in EVIDENCE:
            yield draft.located.problem(step.path("evidence", index),
                                        f"`{name}` cannot be evidence",
                                        did_you_mean(name, EVIDENCE))


def _environment(draft: Draft, path: Where, operation: Step | Operation) -> Iterator[Problem]:
    for name in operation.env:
        if not _VARIABLE.match(name):
            yield draft.located.problem((*path, "env", name),
                                        f"`{name}` cannot be the name of a variable",
                                        "use letters, digits and `_`, a letter first")
