"""A run's state, folded from its journal events. Pure: no I/O, no clock.

    run.created      document, params, policy, service …       run.finished   state, reason
    run.paused / run.resumed                                   run.abort      rollback
    run.rollback     cause, queue (undo steps, in order)
    step.ready       op, command, digest, gate …               step.intent    boot, resumed | retry
    step.outcome     state, exit_code, result, stdout …        step.settled   verdict, how
    step.skipped     reason                                    step.retry
    step.goto        target, resets, skips
    gate.confirmed / gate.approved   digest, text | break_glass
    gate.rejected    reason
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import msgspec

from engine.config import Rule
from engine.fields import Approvals
from engine.journal.events import Event
from engine.procedures.approvals import Answer, Requirement
from engine.procedures.authors import WRITTEN_BY, Authors
from engine.procedures.document import Document
from engine.procedures.run import UNDO, RunProgress, StepRun, undo_spec

# The store's own notes, such as a seal; `engine.rollout.analysis`; `engine.procedures.children`.
ELSEWHERE = ("journal.", "rollout.", "child.")


def begin(event: Event, document: Document) -> RunProgress:
    """The state after `run.created`; `document` is the parsed form of the event's text."""
    data = event.data
    run = RunProgress(
        id=event.run, document=document, text=data["document"], sha256=data["document_sha256"],
        params=data["params"], initiator=event.actor, started=event.at, service=data["service"],
        unisolated=data["unisolated"], review=data["review"],
        steps={s.id: StepRun(id=s.id, spec=s) for s in document.steps}, needs=document.all_needs())
    if data.get("policy") is not None:
        run.rules = [Rule.model_validate(rule) for rule in data["policy"]]
    cause = data.get("cause")
    run.inherited = list(cause.get(WRITTEN_BY, ())) if isinstance(cause, dict) else []
    run.n, run.last_at = event.n, event.at
    return run


def fork(run: RunProgress) -> RunProgress:
    """A copy that may be folded further without touching `run`; steps are shared until written."""
    return replace(run, steps=dict(run.steps))


def apply(run: RunProgress, event: Event) -> None:
    """Fold one more event of this run into its state. A step that changes is replaced by a copy."""
    run.n, run.last_at = event.n, event.at
    if not event.kind.startswith(ELSEWHERE):
        _HANDLERS[event.kind](run, event)


def _step(run: RunProgress, event: Event) -> StepRun:
    assert event.step is not None
    if event.step not in run.steps and event.step.startswith(UNDO):
        of = event.step[len(UNDO):]
        spec = run.document.step(of)
        assert spec.undo is not None
        run.steps[event.step] = StepRun(id=event.step, spec=undo_spec(spec, spec.undo), undo_of=of)
    return _own(run, event.step)


def _own(run: RunProgress, id: str) -> StepRun:
    """The step, as a copy that this fold may write to."""
    run.steps[id] = copy(run.steps[id])
    return run.steps[id]


def _ready(run: RunProgress, event: Event) -> None:
    step, data = _step(run, event), event.data
    gate = data["gate"]
    approvals = gate["approvals"]
    step.state, step.attempt = "waiting", event.attempt or 1
    step.op, step.command, step.digest = data["op"], data["command"], data["digest"]
    written = gate.get("authors")
    step.wanted = Requirement(gate["confirm"], gate["expected"],
                              Approvals.model_validate(approvals) if approvals else None,
                              msgspec.convert(written, Authors) if written else None)
    step.effect = data["effect"]
    step.ready_at, step.started, step.ended = event.at, None, None
    step.confirmation, step.approvals, step.tries = None, [], 0
    step.error = step.reason = step.exit_code = step.result = None
    step.stdout, step.output, step.handled, step.final = "", {}, False, False
    step.rejected = step.decided = False


def _intent(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.attempt = "intent", event.attempt or 1
    step.tries = 1 if event.data.get("resumed") else step.tries + 1
    step.boot, step.started, step.ended = event.data.get("boot"), event.at, None
    step.by = event.data.get("by")
    step.touched, step.touched_state = event.n, "unknown"


def _outcome(run: RunProgress, event: Event) -> None:
    step, data = _step(run, event), event.data
    step.state, step.ended = data["state"], event.at
    if step.touched:
        step.touched, step.touched_state = event.n, step.state
    step.exit_code, step.result = data.get("exit_code"), data.get("result")
    step.stdout, step.error = data.get("stdout", ""), data.get("error")
    step.output = data.get("output", {})
    step.final, step.decided = bool(data.get("final")), bool(data.get("decided"))
    if data.get("answered"):
        step.by = event.actor.user
    _mark_undone(run, step)


def _mark_undone(run: RunProgress, step: StepRun) -> None:
    if step.undo_of is not None and step.state == "done":
        undone = _own(run, step.undo_of)
        undone.state, undone.touched = "undone", 0


def _settled(run: RunProgress, event: Event) -> None:
    step, verdict = _step(run, event), event.data["verdict"]
    step.reason = event.data.get("how")
    if verdict == "done":
        step.state, step.ended, step.error = "done", event.at, None
        step.touched, step.touched_state = event.n, "done"
        _mark_undone(run, step)
    elif verdict == "not-done":
        step.state, step.touched = "planned", 0
    else:
        step.state, step.error, step.ended = "unknown", event.data.get("error"), event.at


def _skipped(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.reason, step.ended = "skipped", event.data.get("reason"), event.at
    step.by = event.actor.user if event.actor.uid >= 0 else None


def _retry(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.state, step.tries, step.handled = "planned", 0, False


def _goto(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.gotos += 1
    step.handled = True
    for id in event.data["resets"]:
        reset = _own(run, id)
        reset.state, reset.tries, reset.handled = "planned", 0, False
    for id in event.data["skips"]:
        passed = _own(run, id)
        passed.state = "skipped"
        passed.reason = f"skipped by {step.id}, which went on to {event.data['target']}"


def _answer(event: Event) -> Answer:
    return Answer(event.actor.user, event.actor.uid, event.at, event.data["digest"],
                  event.data.get("break_glass"))


def _confirmed(run: RunProgress, event: Event) -> None:
    _step(run, event).confirmation = _answer(event)


def _approved(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    step.approvals = [*step.approvals, _answer(event)]


def _rejected(run: RunProgress, event: Event) -> None:
    step = _step(run, event)
    why = f": {event.data['reason']}" if event.data.get("reason") else ""
    step.state, step.ended, step.final = "failed", event.at, True
    step.rejected = True
    step.error, step.by = f"rejected by {event.actor.user}{why}", event.actor.user


def _paused(run: RunProgress, event: Event) -> None:
    run.paused, run.paused_by, run.paused_why = True, event.actor.user, event.data.get("reason")


def _resumed(run: RunProgress, event: Event) -> None:
    run.paused, run.paused_by, run.paused_why = False, None, None


def _abort(run: RunProgress, event: Event) -> None:
    run.abort = "rollback" if event.data.get("rollback") else "plain"
    run.paused = False
    why = event.data.get("reason")
    by_a_person = event.actor.uid >= 0
    run.reason = (f"aborted by {event.actor.user}" + (f": {why}" if why else "") if by_a_person
                  else why or "aborted by the engine")


def _rollback(run: RunProgress, event: Event) -> None:
    run.rollback_cause, run.undo_queue = event.data["cause"], list(event.data["queue"])


def _finished(run: RunProgress, event: Event) -> None:
    run.finished, run.ended = True, event.at
    run.state, run.reason = event.data["state"], event.data.get("reason")
    for id in [s.id for s in run.steps.values() if s.state == "waiting"]:
        _own(run, id).state = "planned"  # nobody is asked any more, and it never ran


_HANDLERS = {
    "step.ready": _ready, "step.intent": _intent, "step.outcome": _outcome,
    "step.settled": _settled, "step.skipped": _skipped, "step.retry": _retry, "step.goto": _goto,
    "gate.confirmed": _confirmed, "gate.approved": _approved, "gate.rejected": _rejected,
    "run.paused": _paused, "run.resumed": _resumed, "run.abort": _abort,
    "run.rollback": _rollback, "run.finished": _finished,
}
