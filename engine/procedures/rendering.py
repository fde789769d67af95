"""From a step's templates to the exact thing that will run. Pure but for reading the registry.

A rendered operation is JSON-able and goes into the journal; a secret stays a reference in it
(`{"secret": "env:TOKEN"}`) until the attempt itself.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.errors import ActionFailed, OpsdeckError
from engine.procedures import expressions
from engine.procedures.actions import Action, Effect, Registry
from engine.procedures.document import Operation, Step
from engine.procedures.run import RunProgress, StepRun


@dataclass(frozen=True)
class Rendered:
    """`op`: {"use", "with"} or {"shell", "env", "stdin"} or {"manual"}; `command` is it in one line."""

    op: dict[str, Any]
    command: str
    effect: Effect
    action: str
    service: str | None


def context(run: RunProgress, home: Path) -> dict[str, Any]:
    """The names an expression of this run may use."""
    params = {name: expressions.SecretRef(value) if _secret(run, name) and value else value
              for name, value in run.params.items()}
    return {"params": params, "steps": run.context(),
            "run": {"id": run.id, "by": run.initiator.user, "procedure": run.document.id,
                    "home": str(home), "python": sys.executable}}


def _secret(run: RunProgress, name: str) -> bool:
    param = run.document.params.get(name)
    return param is not None and param.type == "secret"


def effect_of(step: Step | Operation, registry: Registry) -> Effect:
    """The document's word where it says one, otherwise the action's, otherwise `once`."""
    if "effect" in step.model_fields_set and step.effect is not None:
        return step.effect
    action = registry.get(step.use) if step.use else None
    return action.effect if action else "once"


def render(run: RunProgress, step: StepRun, registry: Registry, home: Path) -> Rendered:
    """Render one step with what is known now. Raises OpsdeckError naming step and expression."""
    return render_operation(step.spec, context(run, home), registry,
                            where=f"{run.document.id}: step {step.id}", service=run.service)


def render_operation(spec: Step | Operation, names: Mapping[str, Any], registry: Registry, *,
                     where: str, service: str | None) -> Rendered:
    """As `render`, for a probe or an undo too."""
    effect = effect_of(spec, registry)
    if spec.use:
        action = registry.get(spec.use)
        if action is None:
            raise ActionFailed(f"there is no action {spec.use}", where=where)
        args = expressions.render_value(spec.with_, names, where)
        parsed = parse_args(action, args, where)
        named = args.get(action.service) if action.service else None
        op: dict[str, Any] = {"use": spec.use, "with": args}
        secrets = {name: value.reference for name, value in names["params"].items()
                   if isinstance(value, expressions.SecretRef)}
        if secrets:
            op["secrets"] = secrets
        return Rendered(op, _described(action, parsed, where), effect, spec.use, named or service)
    if isinstance(spec, Step) and spec.manual is not None:
        question = expressions.render(spec.manual, names, where)
        return Rendered({"manual": question}, question, "none", "manual", service)
    assert spec.shell is not None
    shell: str | list[str]
    if isinstance(spec.shell, str):
        shell = expressions.render_shell(spec.shell, names, where)
        command = shell.strip()
    else:
        shell = expressions.render_argv(spec.shell, names, where)
        command = shlex.join(shell)
    env = {k: given for k, v in spec.env.items()
           if (given := _secret_or_text(v, names, where)) is not None}
    stdin = None if spec.stdin is None else _secret_or_text(spec.stdin, names, where)
    return Rendered({"shell": shell, "env": env, "stdin": stdin}, command, effect, "shell", service)


def _described(action: Action[Any], parsed: Any, where: str) -> str:
    try:
        return action.describe(parsed)
    except Exception as error:
        raise ActionFailed(f"{action.name} cannot say what it would do ({type(error).__name__}: "
                           f"{error})", where=where) from error


def parse_args(action: Action[Any], args: Mapping[str, Any], where: str) -> Any:
    """The action's typed parameters. Raises ActionFailed with every problem in one sentence."""
    try:
        return action.params.model_validate(args)
    except ValidationError as error:
        text = "; ".join(f"{'.'.join(str(part) for part in e['loc']) or 'with'}: {e['msg']}"
                         for e in error.errors())
        raise ActionFailed(f"{action.name} cannot take these parameters: {text}",
                           where=where) from error


def _secret_or_text(template: str, names: Mapping[str, Any], where: str) -> Any:
    """The text, a secret as its reference, None for an optional parameter that was not given."""
    value = expressions.render_value(template, names, where)
    if value is None:
        return None
    if isinstance(value, expressions.SecretRef):
        return {"secret": value.reference}
    return value if isinstance(value, str) else expressions.render(template, names, where)


def resolve(value: Any) -> tuple[str, str | None]:
    """The text of a rendered `env` or `stdin` value, and the secret in it if it is one."""
    if isinstance(value, dict):
        try:
            text = expressions.resolve_secret(value["secret"], os.environ)
        except OpsdeckError as error:
            raise ActionFailed(error.message, hint=error.hint) from error
        return text, text
    return str(value), None


def secret_values(op: Mapping[str, Any]) -> list[dict[str, str]]:
    """The secret references in a rendered operation, as `resolve` takes them."""
    values = [*(op.get("env") or {}).values(), op.get("stdin")]
    return [v for v in values if isinstance(v, dict)]
