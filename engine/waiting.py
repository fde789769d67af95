"""What waits for people over all runs, and whether it waits for the one who asks. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from engine.api import wire
from engine.procedures.approvals import confirmed, counting, objection
from engine.procedures.decide import waiting_steps
from engine.procedures.executor import Live
from engine.procedures.run import RunProgress, StepRun
from engine.procedures.views import next_sentence


def waiting(lives: Iterable[Live], roles: frozenset[str], uid: int, user: str = "") -> list[wire.Waiting]:
    """Oldest first. `may` is what the roles and the gate's own rules say of the caller."""
    found = []
    for live in lives:
        run = live.progress
        for step in waiting_steps(run):
            kind = gate_kind(run, step)
            against = _against(run, step, kind, roles, uid, user)
            found.append(wire.Waiting(
                run=run.id, procedure=run.document.id, step=step.id, service=run.service, kind=kind,
                prompt=_prompt(run, step), since=step.ready_at or step.ended or run.started,
                may=against is None, expires=step.expires, why=against or ""))
    return sorted(found, key=lambda w: w.since)


def gate_kind(run: RunProgress, step: StepRun) -> wire.GateKind:
    """The part of the gate that is open now."""
    if step.state == "unknown":
        return "settle"
    if step.state == "failed":
        return "failed"
    if not confirmed(step.wanted, step.confirmation, step.digest, run.last_at):
        return "typed" if step.wanted.confirm == "typed" else "confirm"
    rule = step.wanted.approvals
    if rule is not None and len(counting(step.approvals, wanted=step.wanted, digest=step.digest,
                                         initiator_uid=run.initiator.uid,
                                         now=run.last_at)) < rule.min:
        return "approval"
    return "answer"


def _prompt(run: RunProgress, step: StepRun) -> str:
    waiting = waiting_steps(run)
    if waiting and waiting[0] is step:
        return next_sentence(run) or step.spec.title
    return step.spec.title


def _against(run: RunProgress, step: StepRun, kind: wire.GateKind, roles: frozenset[str], uid: int,
             user: str) -> str | None:
    """Why it does not wait for the caller; None if it does."""
    if kind != "approval":
        return None if roles & {"operator", "admin"} else "that wants the role operator"
    if any(answer.uid == uid for answer in step.approvals):
        return "you have approved it already, and the same person counts once"
    return objection(step.wanted, user=user, uid=uid, roles=roles, initiator_uid=run.initiator.uid,
                     you=True)
