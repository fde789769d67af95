"""A run as people and programs see it: the wire's RunView, and the sentence for what comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from engine.api import wire
from engine.config import Config
from engine.errors import OpsdeckError
from engine.procedures import rendering
from engine.procedures.actions import Preview, Registry
from engine.procedures.approvals import confirmed, counting
from engine.procedures.authors import words
from engine.procedures.decide import current_state, waiting_steps
from engine.procedures.executor import Executor, Live
from engine.procedures.output import harmless
from engine.procedures.run import RunProgress, StepRun

PREVIEW_PATIENCE = 1.5


async def preview_state(executor: Executor, run: RunProgress, step: StepRun) -> Preview | None:
    """What the world is now and will be, for a step that waits; None where the action cannot tell.

    Raises OpsdeckError when it cannot be read.
    """
    op = step.op or {}
    action = executor.registry.get(op["use"]) if "use" in op else None
    if action is None or action.preview is None:
        return None
    context = executor.performer.context(run.id, step)
    args = rendering.parse_args(action, op["with"], step.id)
    return await asyncio.wait_for(action.preview(context, args), PREVIEW_PATIENCE)


async def run_view(executor: Executor, run: RunProgress, live: Live | None = None) -> wire.RunView:
    """The whole run; reads the world once for each action that waits for a person."""
    previews: dict[str, wire.Preview] = {}
    for step in waiting_steps(run):
        shown = await _preview(executor, run, step)
        if shown is not None:
            previews[step.id] = shown
    return recorded_view(executor, run, live, previews)


class Known(Protocol):
    """What showing a run needs beside its record: an executor is one."""

    @property
    def registry(self) -> Registry: ...
    @property
    def home(self) -> Path: ...
    @property
    def config(self) -> Config: ...
    @property
    def clock(self) -> Callable[[], float]: ...


def recorded_view(executor: Known, run: RunProgress, live: Live | None = None,
                  previews: Mapping[str, wire.Preview] | None = None) -> wire.RunView:
    """The whole run as it is recorded, without a look at the world. `previews` by step."""
    previews = previews or {}
    unrecorded = live.unrecorded if live else set()
    steps = [_step(executor, run, s, previews.get(s.id), s.id in unrecorded)
             for s in run.steps.values()]
    state = current_state(run)
    nexts = [n for n in [live.problem if live else None, next_sentence(run)] if n]
    if live is not None and live.emergency:
        state = "aborted"
        nexts.insert(0, "aborted; the journal cannot be written, so it is recorded in the "
                        "emergency journal until it can")
    return wire.RunView(
        id=run.id, procedure=run.document.id, state=state, steps=steps, title=run.document.title,
        by=run.initiator.user, started=run.started, ended=run.ended, at=executor.clock(),
        params=run.params, service=run.service, revision=run.n, unisolated=run.unisolated,
        review=run.review, next="; ".join(nexts) or None, document_sha256=run.sha256,
        reason=run.reason)


async def _preview(executor: Executor, run: RunProgress, step: StepRun) -> wire.Preview | None:
    if step.state != "waiting":
        return None
    try:
        seen = await preview_state(executor, run, step)
    except Exception as error:  # a third party's: the run is shown all the same
        text = (error.message if isinstance(error, OpsdeckError) else "no answer in time"
                if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}")
        return wire.Preview(now=f"cannot be read: {text}", after="", read_at=executor.clock())
    if seen is None:
        return None
    return wire.Preview(now=seen.now, after=seen.after, read_at=executor.clock(), state=seen.state)


def summary(run: RunProgress, live: Live | None = None) -> wire.RunSummary:
    """One line of the list of runs."""
    steps = run.plain_steps()
    current = [s.id for s in run.steps.values() if s.state in ("intent", "waiting", "unknown")]
    state = "aborted" if live is not None and live.emergency else current_state(run)
    return wire.RunSummary(
        id=run.id, procedure=run.document.id, title=run.document.title, state=state,
        by=run.initiator.user, started=run.started, ended=run.ended, service=run.service,
        steps_done=sum(s.satisfied or s.state == "undone" for s in steps), steps_total=len(steps),
        next=next_sentence(run), step=current[0] if current else None, reason=run.reason)


def _step(executor: Known, run: RunProgress, step: StepRun, preview: wire.Preview | None,
          unrecorded: bool) -> wire.StepView:
    spec = step.spec
    state, error = step.state, step.error
    if unrecorded and state == "intent":
        state, error = "unknown", "it ended, and its outcome cannot be recorded yet"
    command = step.command if step.command is not None else template(step)
    return wire.StepView(
        id=step.id, title=spec.title, state=state, attempt=step.attempt, exit_code=step.exit_code,
        stdout=harmless(step.stdout), result=step.result, by=step.by, started=step.started,
        ended=step.ended, kind=step.kind, command=harmless(command),
        effect=step.effect if step.op else rendering.effect_of(spec, executor.registry),
        undo=_undo(executor, run, step), irreversible=spec.irreversible,
        error=None if error is None else harmless(error), gate=_gate(executor, run, step),
        preview=preview, skippable=spec.skippable, output_bytes=step.output.get("bytes", 0),
        output_file=step.output.get("file"), reason=step.reason, undo_of=step.undo_of)


def template(step: StepRun) -> str:
    """What a step that is not ready yet will be rendered from."""
    spec = step.spec
    if spec.use:
        return f"{spec.use} " + " ".join(f"{k}={v}" for k, v in spec.with_.items())
    if spec.manual is not None:
        return spec.manual
    return spec.shell if isinstance(spec.shell, str) else " ".join(spec.shell or [])


def _undo(executor: Known, run: RunProgress, step: StepRun) -> str | None:
    undo = step.spec.undo
    if undo is None and run.document.rollout is not None and step.undo_of is None:
        return "an abort goes back to the weights from before the rollout"
    if undo is None:
        return None
    try:
        names = rendering.context(run, executor.home)
        return rendering.render_operation(undo, names, executor.registry, where=step.id,
                                          service=run.service).command
    except OpsdeckError:
        if undo.use:
            return f"{undo.use} " + " ".join(f"{k}={v}" for k, v in undo.with_.items())
        return undo.shell if isinstance(undo.shell, str) else " ".join(undo.shell or [])


def _gate(executor: Known, run: RunProgress, step: StepRun) -> wire.Gate | None:
    """What the step waits for now; the confirmation comes before approvals, answers last."""
    if step not in waiting_steps(run):
        return None
    if step.state == "unknown":
        return wire.Gate("settle", step.digest, "Did it take effect? done or not-done",
                         since=step.ended)
    if step.state == "failed":
        verbs = "retry, skip or abort" if step.spec.skippable or step.undo_of else "retry or abort"
        return wire.Gate("failed", step.digest, f"It failed: {verbs}", since=step.ended)
    wanted, now = step.wanted, executor.clock()
    rule = wanted.approvals
    approvals: list[str] = []
    if rule is not None:
        approvals = [a.user for a in counting(
            step.approvals, wanted=wanted, digest=step.digest, now=now,
            initiator_uid=run.initiator.uid)]
    fields: dict[str, Any] = {"digest": step.digest, "since": step.ready_at,
                              "approvals": approvals, "expires": step.expires}
    if rule is not None:
        fields |= {"approvals_needed": rule.min, "roles": rule.roles,
                   "not_initiator": rule.not_initiator, "alone": list(executor.config.policy.break_glass)}
    if wanted.authors is not None:
        fields |= {"written": words(wanted.authors), "authors": wanted.authors.users}
    if not confirmed(wanted, step.confirmation, step.digest, now):
        if wanted.confirm == "typed":
            return wire.Gate(kind="typed", prompt=f"Type {wanted.expected} to run it",
                             expected=wanted.expected, **fields)
        return wire.Gate(kind="confirm", prompt="Run it?", **fields)
    if rule is not None and len(approvals) < rule.min:
        left = rule.min - len(approvals)
        people = "person" if left == 1 else "people"
        who = f"{left} {people} with the role {' or '.join(rule.roles)}"
        other = ", not the one who started it" if rule.not_initiator else ""
        other += ", nor one who wrote it" if wanted.authors is not None else ""
        return wire.Gate(kind="approval", prompt=f"Wants the approval of {who}{other}", **fields)
    return wire.Gate(kind="answer", prompt=step.command or "", **fields)


def next_sentence(run: RunProgress) -> str | None:
    """What a person must do next, in one sentence; None when nobody must do anything."""
    waiting = waiting_steps(run)
    if run.finished:
        return None
    if run.paused:
        by = f" by {run.paused_by}" if run.paused_by else ""
        why = f" ({run.paused_why})" if run.paused_why else ""
        return f"paused{by}{why}: resume it to go on"
    if not waiting:
        return None
    step = waiting[0]
    more = f" (and {len(waiting) - 1} more)" if len(waiting) > 1 else ""
    if step.state == "unknown":
        return f"say whether {step.id} took effect: done or not-done{more}"
    if step.state == "failed":
        return f"{step.id} failed: retry it or abort{more}"
    asked = not confirmed(step.wanted, step.confirmation, step.digest, run.last_at)
    if step.wanted.confirm == "typed" and asked:
        return f"type {step.wanted.expected} to run {step.id}{more}"
    if step.wanted.confirm == "yes" and asked:
        return f"confirm step {step.id}{more}"
    if step.wanted.approvals is not None and step.kind != "manual":
        return f"approve step {step.id}{more}"
    if step.wanted.approvals is not None and len(step.approvals) < step.wanted.approvals.min:
        return f"approve step {step.id}{more}"
    return f"answer step {step.id}: {step.command}{more}"
