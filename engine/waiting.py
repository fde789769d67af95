"""What waits for people over all runs, and whether it waits for the one who asks. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from engine.api import wire
from engine.procedures.approvals import confirmed, counting
from engine.procedures.decide import waiting_steps
from engine.procedures.executor import Live
from engine.procedures.run import RunProgress, StepRun
from engine.procedures.views import next_sentence


def waiting(lives: Iterable[Live], roles: frozenset[str], uid: int) -> list[wire.Waiting]:
    """Oldest first. `may` is what the roles and the gate's own rules say of the caller."""
    found = []
    for live in lives:
        run = live.progress
        for step in waiting_steps(run):
            kind = gate_kind(run, step)
            found.append(wire.Waiting(
                run=run.id, procedure=run.document.id, step=step.id, service=run.service, kind=kind,
                prompt=_prompt(run, step), since=step.ready_at or step.ended or run.started,
                may=_may(run, step, kind, roles, uid), expires=step.expires))
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
    if rule is not None and len(counting(step.approvals, rule=rule, digest=step.digest,
                                         initiator_uid=run.initiator.uid,
                                         now=run.last_at)) < rule.min:
        return "approval"
    return "answer"


def _prompt(run: RunProgress, step: StepRun) -> str:
    waiting = waiting_steps(run)
    if waiting and waiting[0] is step:
        return next_sentence(run) or step.spec.title
    return step.spec.title


def _may(run: RunProgress, step: StepRun, kind: wire.GateKind, roles: frozenset[str],
         uid: int) -> bool:
    rule = step.wanted.approvals
    if kind == "approval" and rule is not None:
        if rule.not_initiator and uid == run.initiator.uid:
            return False
        return bool(roles & set(rule.roles)) and all(a.uid != uid for a in step.approvals)
    return bool(roles & {"operator", "admin"})
