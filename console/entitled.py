"""Whose approval a gate wants, why somebody's does not count, and what there is to do then. Pure."""

from __future__ import annotations

from console.state import State
from engine.api import wire


def wanted(gate: wire.Gate, by: str) -> str:
    """`approver, not mlops3 (started it), not bob (wrote it)`; `by` started the run."""
    if not gate.not_initiator:
        return " or ".join(gate.roles) or "anybody"
    authors = [f"{name} (wrote it)" for name in gate.authors if name != by]
    others = [f"{by} (started it)", *authors] if gate.written else [by]
    return ", not ".join([" or ".join(gate.roles) or "somebody else", *others])


def against(run: str, step: str | None, state: State) -> str | None:
    """That the reader's approval does not count, as a sentence with the reason; None where it may."""
    mine = next((w for w in state.waiting if w.run == run and w.step == step and not w.may), None)
    return None if mine is None else discounted(mine)


def discounted(mine: wire.Waiting) -> str:
    return f"Yours does not count: {mine.why}." if mine.why else "Yours does not count."


def breaks_glass(gate: wire.Gate, state: State) -> bool:
    """Whether the policy lets the reader open the gate alone."""
    return state.snapshot is not None and not set(gate.alone).isdisjoint(state.snapshot.engine.roles)


def alone(gate: wire.Gate, state: State) -> str:
    """Who may open it alone, as a sentence."""
    if breaks_glass(gate, state):
        return "A, then b opens it alone, with a reason."
    if not gate.alone:
        return "Nobody may open it alone."
    return f"The role {' or '.join(gate.alone)} may open it alone, with a reason (break glass)."


def refused(gate: wire.Gate, by: str, because: str, state: State) -> str:
    """What to tell somebody whose approval does not count, `because` of this."""
    return f"{because} It wants {wanted(gate, by)}. {alone(gate, state)}"
