"""Whether an act may be done now, and whether what was stated still holds. Pure.

Abort is the safe direction: only `--read-only` refuses it. Everything else wants write mode, fresh
data, a screen that shows what would happen, and a world that is still as the dialog said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from console import format
from console.state import State
from engine.api import wire

SENTENCE_READ_ONLY = "This console was opened with --read-only, which cannot be left. Nothing was done."


ROLES: Mapping[str, tuple[str, ...]] = {  # one of them
    "approve": ("approver",), "reject": ("approver", "operator"), "promote": ("approver",),
    "promote-full": ("approver",), "confirm": ("operator",), "answer": ("operator",),
    "settle": ("operator",), "retry": ("operator",), "skip": ("operator",), "pause": ("operator",),
    "resume": ("operator",), "start": ("operator",)}


def unentitled(verb: str, state: State) -> str | None:
    """The role that `verb` wants and this person does not have, as a sentence; None where that is unknown.

    The engine decides; this keeps the console from asking for what it would refuse. Abort is left to it.
    """
    wanted = ROLES.get(verb)
    if state.snapshot is None or wanted is None or not set(wanted).isdisjoint(state.snapshot.engine.roles):
        return None
    has = ", ".join(sorted(state.snapshot.engine.roles)) or "none"
    return f"You may not {verb} here: that wants the role {' or '.join(wanted)}, and you have {has}."


def refusal(verb: str, state: State) -> str | None:
    """Why `verb` may not be done now, as a sentence; None if it may."""
    if state.read_only:
        return SENTENCE_READ_ONLY
    if verb == "abort":
        return None
    return unentitled(verb, state) or hindered(verb, state)


def hindered(verb: str, state: State) -> str | None:
    """What stands in the way of anybody at the moment."""
    if state.read_only:
        return SENTENCE_READ_ONLY
    if not state.write:
        return "The console is read-only. Press w for write mode, then do it again."
    if state.too_small:
        return "The terminal is too small to show what would happen. Make it 80×24 or larger."
    if state.stale:
        age = state.age
        old = "There is no data yet" if age is None else \
            f"The engine is away and the data is {format.age(age)} old" if state.away else \
            f"The data is {format.age(age)} old"
        return f"{old}, so nothing is {_participle(verb)} on it. {abort_works(state)}"
    return None


def abort_works(state: State) -> str:
    """What x, then y comes to at the moment, where everything else is refused."""
    return "x, then y sends the abort as soon as an engine answers." if state.away else \
        "Abort still works (x, then y)."


def _participle(verb: str) -> str:
    return {"confirm": "confirmed", "approve": "approved", "reject": "rejected",
            "answer": "answered", "settle": "settled", "retry": "retried", "skip": "skipped",
            "pause": "paused", "resume": "resumed", "start": "started", "promote": "promoted",
            "promote-full": "promoted"}.get(verb, "done")


class Stated(msgspec.Struct, frozen=True):
    """What a dialog said of a run and one of its steps."""

    run_state: str
    document: str
    step: str | None = None
    step_state: str | None = None
    attempt: int | None = None
    command: str | None = None
    kind: str | None = None
    digest: str | None = None
    world: dict[str, Any] | None = None


def stated(run: wire.RunView, step_id: str | None) -> Stated:
    step = next((s for s in run.steps if s.id == step_id), None)
    if step is None:
        return Stated(run.state, run.document_sha256)
    gate, preview = step.gate, step.preview
    return Stated(run.state, run.document_sha256, step.id, step.state, step.attempt, step.command,
                  gate.kind if gate else None, gate.digest if gate else None,
                  preview.state if preview else None)


def changed(before: Stated, run: wire.RunView) -> str | None:
    """What is not as the dialog said any more, as a sentence; None if all still holds.

    A run's revision counts every event, also those of steps beside this one, so it is not compared:
    the digest binds document, parameters, command, step and attempt.
    """
    now = stated(run, before.step)
    if now == before:
        return None
    if before.document != now.document:
        return "The run is pinned to another document than was shown."
    if before.step is not None and now.step is None:
        return f"Step {before.step} is not in the run any more."
    if before.step_state != now.step_state or before.attempt != now.attempt:
        return f"Step {before.step} was {before.step_state} and is now {now.step_state}."
    if before.digest != now.digest or before.command != now.command or before.kind != now.kind:
        return f"What step {before.step} would do is not what was shown."
    if before.world != now.world:
        return f"The world changed: it was {_world(before.world)}, it is {_world(now.world)}."
    return f"The run was {before.run_state} and is now {now.run_state}."


def _world(state: dict[str, Any] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted((state or {}).items())) or "unknown"


class Rolling(msgspec.Struct, frozen=True):
    """What a dialog said of a rollout. Counts and evidence grow each second and void nothing."""

    state: str
    step: str | None
    weight: float | None
    verdict: str


def rolling(rollout: wire.Rollout) -> Rolling:
    return Rolling(rollout.state, rollout.step, rollout.weight, rollout.verdict)


def moved(before: Rolling, rollout: wire.Rollout) -> str | None:
    """What of a rollout is not as the dialog said any more, as a sentence; None if all still holds."""
    now = rolling(rollout)
    if now.verdict != before.verdict:
        return f"The verdict was {before.verdict} and is now {now.verdict}: {rollout.sentence.rstrip('.')}."
    if now.state != before.state:
        return f"The rollout was {before.state} and is now {now.state.replace('_', ' ')}."
    if now.weight != before.weight:
        return f"The canary got {_share(before.weight)} and gets {_share(now.weight)} now."
    if now.step != before.step:
        return f"The rollout was at step {before.step} and is now at {now.step}."
    return None


def _share(weight: float | None) -> str:
    return "an unknown share" if weight is None else f"{weight:g} %"


def unwatched(verb: str, rollout: wire.Rollout) -> str | None:
    """Why a rollout may not be taken further now, as a sentence; None if it may, and for any other verb."""
    if verb not in ("approve", "confirm", "promote", "promote-full"):
        return None
    if not rollout.watching:
        why = "Nobody watches this rollout at the moment"
    elif rollout.weight is None:
        why = "The router does not say what the canary gets"
    else:
        return None
    return f"{why}, so nothing is {_participle(verb)} on it. Abort still works (x, then y)."
