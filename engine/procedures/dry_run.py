"""A dry run: what would happen, without anything that has an effect. Nothing is journaled.

Actions registered as `none` are executed, so that later steps can be rendered from real results;
commands of effect `none` and probes only when asked (`probe`), for their effect is the document's
word alone.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace

from engine.api import wire
from engine.errors import OpsdeckError
from engine.procedures import rendering
from engine.procedures.attempts import Outcome
from engine.procedures.executor import Executor
from engine.procedures.run import RunProgress, StepRun
from engine.procedures.views import run_view


async def dry_run(executor: Executor, run: RunProgress, *, probe: bool) -> wire.RunView:
    """Walk the document's steps in order; each view's `reason` starts with the verdict.

    A step that cannot be rendered yet, because it needs the result of one that would only run for
    real, says so; a command shows the template it will be rendered from.
    """
    scratch = f"dry-run-{uuid.uuid4().hex[:8]}"
    try:
        for step in run.plain_steps():
            await _walk(executor, replace(run, id=scratch), step, probe)
    finally:
        shutil.rmtree(executor.home / "runs" / scratch, ignore_errors=True)
    view = await run_view(executor, run)
    view.id, view.dry_run, view.next, view.state = "dry-run", True, None, "done"
    if any(step.state == "failed" for step in view.steps):
        view.state = "failed"
    for shown in view.steps:
        shown.gate = None
    return view


async def _walk(executor: Executor, run: RunProgress, step: StepRun, probe: bool) -> None:
    missing = [n for n in run.needs[step.id] if run.steps[n].state == "failed"]
    if missing:
        step.reason = f"cannot be checked: {', '.join(missing)} failed"
        return
    try:
        wanted = executor.planner.evaluate_when(run, step)
        rendered = rendering.render(run, step, executor.registry, executor.home)
    except OpsdeckError as error:
        later = [n for n in run.needs[step.id] if run.steps[n].state not in ("done", "skipped")]
        step.reason = f"not known yet: it depends on what comes of {' and '.join(later)}" if later else \
            f"cannot be checked: {error.message}"
        if step.spec.use is not None and later:
            step.command = f"{step.spec.use}, with what is known then"
        return
    step.op, step.command, step.effect = rendered.op, rendered.command, rendered.effect
    if not wanted:
        step.state, step.reason = "skipped", f"checked: {step.spec.unneeded}"
        return
    harmless = rendered.effect == "none" and step.kind != "manual" and (
        step.kind == "action" or probe)
    if harmless:
        step.attempt = 1
        outcome = executor.planner.expected(run, step, await executor.performer.perform(run.id, step))
        _take(step, outcome)
        return
    step.reason = "would run" if step.kind != "manual" else "would run: a person answers"
    foreseen = await _foreseen(executor, run, step)
    if foreseen:
        step.reason += f": {foreseen}"
    if probe and step.spec.probe is not None:
        names = rendering.context(run, executor.home)
        try:
            asked = rendering.render_operation(step.spec.probe, names, executor.registry,
                                               where=step.id, service=run.service)
            verdict = await executor.performer.probe(run.id, step, asked.op)
            step.reason += f"; its probe says {verdict}"
        except OpsdeckError as error:
            step.reason += f"; its probe cannot be checked: {error.message}"


async def _foreseen(executor: Executor, run: RunProgress, step: StepRun) -> str | None:
    """What an action that can tell says its step would come to."""
    op = step.op or {}
    action = executor.registry.get(op.get("use") or "")
    if action is None or action.foresee is None:
        return None
    try:
        args = rendering.parse_args(action, op["with"], step.id)
        return await action.foresee(executor.performer.context(run.id, step), args)
    except OpsdeckError as error:
        return f"what it would come to cannot be told: {error.message}"


def _take(step: StepRun, outcome: Outcome) -> None:
    step.state, step.error, step.exit_code = outcome.state, outcome.error, outcome.exit_code
    step.result, step.stdout, step.output = outcome.result, outcome.stdout, outcome.output
    step.reason = "checked" if outcome.state == "done" else f"checked: {outcome.error}"
