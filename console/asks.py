"""What a person is asked before anything is done: target, present state, effect, undo, choices. Pure.

There is no default yes: each choice has a key of its own, and leaving (esc, n) does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from console import entitled, format
from console.safety import Rolling, Stated, stated
from engine.api import wire
from engine.api.backend import Verb

Fact = tuple[str, str]           # label, text
ABORTED = "the run was aborted"  # how the engine ends the error of a step that an abort has ended
RELEASE = re.compile(r"pipeline\.release (?P<project>\S+) version (?P<version>\S+) to (?P<service>[^\s,]+)")
EFFECTS = {"none": "changes nothing", "idempotent": "safe to repeat",
           "once": "once only, not safe to repeat"}


class Choice(msgspec.Struct, frozen=True):
    """One answer. `wants` says what must be typed: nothing, `expected` exactly, or any text."""

    key: str
    label: str
    verb: Verb | Literal["start"]
    wants: Literal["nothing", "typed", "text"] = "nothing"
    prompt: str = ""
    expected: str | None = None
    text: str | None = None
    rollback: bool = False
    break_glass: bool = False
    dry_run: bool = False


class Ask(msgspec.Struct, frozen=True):
    """One question. `stated` and, of a rollout, `rolling` must still hold when it is carried out."""

    title: str
    facts: tuple[Fact, ...]
    choices: tuple[Choice, ...]
    run: str = ""
    step: str | None = None
    stated: Stated | None = None
    digest: str | None = None
    world: dict[str, Any] | None = None
    rolling: Rolling | None = None


def undo_text(step: wire.StepView) -> str:
    if step.undo:
        return step.undo
    if step.irreversible:
        return f"none: {step.irreversible}"
    return "nothing to undo" if step.effect == "none" else "none is written for it"


def step_facts(run: wire.RunView, step: wire.StepView, now: float) -> list[Fact]:
    """What a step does: the exact command, the world now and after, effect, undo and reason."""
    facts: list[Fact] = release_facts(run, step)
    if step.kind == "manual":
        facts.append(("You do", step.command or (step.gate.prompt if step.gate else step.title)))
    elif step.command:
        facts.append(("This runs", step.command))
    if step.preview is not None:
        read = format.age(max(0.0, now - step.preview.read_at))
        facts += [("Now", f"{step.preview.now}  (read {read} ago)"), ("After", step.preview.after)]
    facts += [("Effect", EFFECTS[step.effect]), ("Undo", undo_text(step))]
    if step.error:
        facts.append(("Error", step.error))
    said = step.result.get("says") if isinstance(step.result, dict) and step.state == "done" else None
    if isinstance(said, str) and said:
        facts.insert(0, ("Came to", said))
    gate = step.gate
    if gate is not None and gate.kind == "approval":
        given = ", ".join(gate.approvals) or "nobody yet"
        if gate.written:
            facts.append(("Authors", format.sentence(gate.written)))
        facts.append(("Approvals", f"{len(gate.approvals)} of {gate.approvals_needed}: {given}; "
                                   f"wants {entitled.wanted(gate, run.by)}"))
    if gate is not None and gate.expires is not None:
        facts.append(("Expires", f"in {format.duration(gate.expires - now)}"))
    reason = run.params.get("reason")
    why = str(reason) if reason else run.title
    return [*facts, ("Why", why)]


def release_facts(run: wire.RunView, step: wire.StepView) -> list[Fact]:
    """What a release comes to, in words: the model and its version, and what the page of evidence says."""
    found = RELEASE.match(step.command or "")
    if found is None:
        return []
    # A version is of a model; the project that makes it may have another name.
    registered = next((s for s in run.steps if (s.command or "").startswith("pipeline.register")), None)
    told = registered.result if registered is not None and isinstance(registered.result, dict) else {}
    model = str(told.get("name") or found["project"])
    of = f" of project {found['project']}" if model != found["project"] else ""
    facts = [("Releases", f"{model} version {found['version']}{of} to service {found['service']}, in "
                          "production")]
    page = next((s for s in run.steps if (s.command or "").startswith("pipeline.page")), None)
    if page is not None and page.state == "done":
        result = page.result or {}
        said = str(result.get("verdict") or page.stdout.strip().partition("\n")[0] or "it is written")
        against = result.get("against") or []
        many = f"{format.plural(len(against), 'point')} against it: " if against else ""
        facts.append(("Evidence", f"{many}{said} e on the run's screen shows the page."))
    else:
        facts.append(("Evidence", "no page of evidence is written in this run"))
    return facts


def is_rollout(run: wire.RunView) -> bool:
    """Whether a run is a rollout: then there is a screen with its evidence, and an abort rolls back."""
    return any((step.command or "").startswith("rollout.") for step in run.steps)


def target(run: wire.RunView | wire.RunSummary) -> str:
    service = f", service {run.service}" if run.service else ""
    return f"run {run.id}, {run.procedure}{service}, started by {run.by}"


def gate(run: wire.RunView, step: wire.StepView, now: float) -> Ask:
    """The question a waiting step puts."""
    assert step.gate is not None
    choices = _choices(step, step.gate)
    facts = [("Target", target(run)), *step_facts(run, step, now)]
    return Ask(_question(step, step.gate), tuple(facts), choices, run.id, step.id, stated(run, step.id),
               step.gate.digest, step.preview.state if step.preview else None)


def _question(step: wire.StepView, gate: wire.Gate) -> str:
    """The step's name and what is asked about it."""
    what = {"settle": "did it take effect?", "failed": "it failed; what now?",
            "approval": "approve it?"}.get(gate.kind)
    return f"{step.id}: {step.title}" + (f". {what[0].upper()}{what[1:]}" if what else "")


def _choices(step: wire.StepView, gate: wire.Gate) -> tuple[Choice, ...]:
    if gate.kind == "confirm":
        return (Choice("y", "yes, run it", "confirm"),)
    if gate.kind == "typed":
        expected = gate.expected or step.id
        return (Choice("y", f"run it; wants {expected} typed", "confirm", "typed",
                       f"Type {expected} and enter to run it", expected),)
    if gate.kind == "approval":
        return (Choice("y", "approve", "approve"),
                Choice("r", "reject", "reject", "text", "Why is it rejected?"),
                Choice("b", "open it alone (break glass)", "approve", "text",
                       "Why alone? This pages the owner and is reviewed.", break_glass=True))
    if gate.kind == "answer":
        return (Choice("y", "answer", "answer", "text", "Your answer; the journal keeps it"),
                Choice("r", "refuse", "reject", "text", "Why is it refused? The step fails then"))
    if gate.kind == "settle":
        return (Choice("d", "it was done", "settle", text="done"),
                Choice("u", "it was not done", "settle", text="not-done"))
    retry = Choice("r", "run the step again", "retry")
    skip = Choice("s", "skip the step", "skip", "text", "Why is it skipped?")
    return (retry, skip) if step.skippable else (retry,)


def abort(run: wire.RunView, *, rolls_back: bool = False) -> Ask:
    """Abort has its plain form on y, so that x, y is all it takes; of a rollout that rolls back."""
    done = [s for s in run.steps if s.state == "done" and s.effect != "none"]
    undoable = [s for s in done if s.undo]
    current = next((s for s in run.steps if s.state in ("intent", "waiting", "unknown")), None)
    at = f"step {current.id} is {STATE_WORDS[current.state]}" if current else f"it is {run.state}"
    so_far = f"{', '.join(s.id for s in done)} changed something" if done else "nothing was changed"
    facts = [("Target", target(run)), ("Now", f"{at}; {so_far}"),
             ("Effect", run.safe or ("what was done stays done" if done else
                                     "nothing was changed yet, so nothing stays")),
             ("Undo", f"r undoes {', '.join(s.id for s in reversed(undoable))}" if undoable
              else "no step that was done can be undone")]
    if rolls_back or is_rollout(run):
        facts[-1] = ("Undo", "start the rollout anew")
        return Ask(f"Abort run {run.id} and roll back?", tuple(facts),
                   (Choice("y", "abort; the weights from before come back", "abort", rollback=True),),
                   run.id)
    choices = [Choice("y", "abort, undo nothing", "abort")]
    if undoable:
        choices.append(Choice("r", "abort and undo", "abort", rollback=True))
    return Ask(f"Abort run {run.id}?", tuple(facts), tuple(choices), run.id)


STATE_WORDS = {"planned": "planned", "waiting": "waiting", "intent": "running", "done": "done",
               "failed": "failed", "unknown": "of unknown outcome", "skipped": "skipped",
               "undone": "undone"}


def pause(run: wire.RunView) -> Ask:
    if run.state == "paused":
        return Ask(f"Resume run {run.id}?", (("Target", target(run)), ("Now", "paused"),
                   ("Effect", "goes on with its next step"), ("Undo", "p pauses it again")),
                   (Choice("y", "resume", "resume"),), run.id, None, stated(run, None))
    return Ask(f"Pause run {run.id}?", (("Target", target(run)), ("Now", run.state),
               ("Effect", "a step that runs ends; no further step starts"),
               ("Undo", "p resumes it")),
               (Choice("y", "pause", "pause"),), run.id, None, stated(run, None))


def start(procedure: wire.Procedure, params: Mapping[str, Any],
          services: Sequence[wire.Service]) -> Ask:
    """What will start, step by step, with what each step wants first."""
    given = ", ".join(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
                      for name, value in params.items()) or "none"
    service = next((s for s in services if s.name == params.get("service")), None)
    facts: list[Fact] = [("Target", f"{procedure.id} on {service.name}" if service else procedure.id),
                         ("Parameters", given)]
    if service is not None:
        facts.append(("Now", f"{service.name}: p99 {format.ms(service.p99_ms)} ms, errors "
                             f"{format.percent(service.error_ratio)} %, "
                             f"{format.rate(service.rps)} requests a second"))
    for number, step in enumerate(procedure.steps, 1):
        wants = {"none": "", "yes": "; wants a yes", "typed": "; wants a name typed"}[step.confirm]
        wants += f"; wants {format.plural(step.approvals, 'approval')}" if step.approvals else ""
        facts.append((f"Step {number}", f"{step.title} ({EFFECTS[step.effect]}{wants})"))
    acting = [s for s in procedure.steps if s.effect != "none"]
    undo = [s.id for s in acting if s.undo]
    none = [s.id for s in acting if not s.undo]
    parts = ["written for " + ", ".join(undo)] if undo else []
    parts += ["none for " + ", ".join(none)] if none else []
    facts.append(("Undo", "; ".join(parts) or "nothing it does needs one"))
    return Ask(f"Start {procedure.id}? {procedure.title}", tuple(facts),
               (Choice("y", "start it", "start"),
                Choice("d", "dry run: nothing that has an effect runs", "start", dry_run=True)))
