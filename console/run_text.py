"""What the Run screen says of a run: its steps, the step in focus, and the next human action. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from console import asks, entitled, format, safety
from console.glyphs import Glyphs
from console.state import State
from console.widgets.lines import Line, line
from console.widgets.table import Column, Row
from engine.api import wire

LABEL = 10
OPEN = ("running", "waiting", "paused")
COLUMNS = (
    Column("number", "", 2, 1, right=True),
    Column("id", "STEP", 9, 2, grow=12),
    Column("title", "TITLE", 28, 3, grow=44),
    Column("took", "TOOK", 8, 5, grow=12, right=True),
    Column("note", "NOTE", 21, 4, grow=60),
)
WAITS = {"confirm": "waits for: yes", "typed": "waits for: typed name", "answer": "waits for: answer",
         "settle": "outcome unknown", "failed": "failed: again or skip"}
STEP_ROLES = {"done": "ok", "failed": "bad", "aborted": "warn", "unknown": "bad", "waiting": "ask",
              "intent": "now", "planned": "dim", "skipped": "dim", "undone": "dim"}


def aborted(run: wire.RunView, step: wire.StepView) -> bool:
    """Whether a step counts as failed only because its run was aborted: that is no fault of its own."""
    return step.state == "failed" and run.state in ("aborted", "rolled_back") \
        and (step.error or "").endswith(asks.ABORTED)


def current(run: wire.RunView) -> wire.StepView | None:
    """The step a person should look at: what waits, what runs, what failed, else the last that ended."""
    for wanted in (lambda s: s.gate is not None, lambda s: s.state == "unknown",
                   lambda s: s.state == "intent", lambda s: s.state == "waiting",
                   lambda s: s.state == "failed"):
        if found := next((s for s in run.steps if wanted(s)), None):
            return found
    ended = [s for s in run.steps if s.state in ("done", "undone")]
    return ended[-1] if ended else (run.steps[0] if run.steps else None)


def note(step: wire.StepView, now: float, *, stale: bool = False) -> str:
    """The last column: what the step waits for, what it did, or what it will want.

    Of a step that ran when the engine was last heard, `stale` data says no more than that.
    """
    gate = step.gate
    if gate is not None:
        if gate.kind == "approval":
            return f"waits: approval {len(gate.approvals)}/{gate.approvals_needed}"
        return WAITS[gate.kind]
    if step.error:
        return step.error
    if step.state == "intent" and stale:
        return "ran when last heard"
    if step.state == "intent":
        return f"runs for {format.duration(now - step.started)}" if step.started else "runs"
    if step.reason:
        return step.reason
    if step.state == "planned":
        return "manual" if step.kind == "manual" else ""
    said = step.result.get("says") if isinstance(step.result, dict) else None
    if isinstance(said, str) and said:
        return said
    last = step.stdout.rstrip().rsplit("\n", 1)[-1]
    return last or (f"exit code {step.exit_code}" if step.exit_code else "")


def rows(run: wire.RunView, glyphs: Glyphs, now: float, *, stale: bool = False) -> list[Row]:
    result: list[Row] = []
    for number, step in enumerate(run.steps, 1):
        state = "aborted" if aborted(run, step) else step.state
        role = STEP_ROLES[state]
        seconds = None if step.started is None or step.ended is None else step.ended - step.started
        took = "" if seconds is None else format.duration(seconds)
        if seconds is not None and len(took) > 8:
            took = format.age(seconds)
        title = f"undo {step.undo_of}: {step.title}" if step.undo_of else step.title
        plain = "dim" if step.state in ("planned", "skipped") else "text"
        tries = f" ({step.attempt})" if step.attempt > 1 else ""
        result.append(Row(step.id, (glyphs.steps[state], role), {
            "number": (str(number), plain), "id": (step.id, plain), "title": (title + tries, plain),
            "took": (took, "dim"),
            "note": (state if state == "aborted" else note(step, now, stale=stale),
                     role if role in ("ask", "bad", "now", "warn") else "dim")}))
    return result


def panel(run: wire.RunView, step: wire.StepView, now: float, width: int, room: int,
          spare: int = 0) -> list[Line]:
    """The step in focus in at most `room` lines; what does not fit of the command is said to be there.

    With `spare` lines, more than `room`, each text is as long as they allow.
    """
    for longest in (100, 8, 4, 3):
        whole = _panel(run, step, now, width, longest)
        if len(whole) <= spare:
            return whole
    return _panel(run, step, now, width, 1)[:max(0, room)]


def _panel(run: wire.RunView, step: wire.StepView, now: float, width: int, longest: int) -> list[Line]:
    facts = dict(asks.step_facts(run, step, now))
    if aborted(run, step):
        facts["Ended"] = facts.pop("Error")
    undo, effect = facts.pop("Undo"), facts.pop("Effect")
    both = f"{undo} · {effect}"
    lines: list[Line] = []
    for label, text in [*facts.items(), ("Undo", both)]:
        pieces = format.wrap(text, max(20, width - LABEL - 3))
        most = max(longest, 2 if label in ("This runs", "Undo", "Error", "Ended", "You do") else 1)
        for number, piece in enumerate(pieces[:most]):
            cut = number == most - 1 and len(pieces) > most
            role = "strong" if label == "This runs" else "text"
            lines.append(line((f" {format.left(label if number == 0 else '', LABEL)} ", "dim"),
                              (format.clip(piece + " …", width - LABEL - 3) if cut else piece, role)))
    return lines


def next_action(run: wire.RunView | None, step: wire.StepView | None, state: State) -> tuple[str, str]:
    """The one sentence that says what a person must do now, and its role."""
    if run is None:
        return state.link.reason or "Reading the run.", "dim"
    if run.state not in OPEN:
        return _ended(run), "text" if run.state == "done" else "bad"
    gate = step.gate if step is not None else None
    if state.stale and state.age is not None:
        return _old(gate, state), "warn"
    if gate is not None and step is not None:
        return _gate(run, step, gate, state)
    if run.state == "paused":
        return guard("Paused: no further step starts. p resumes it.", "resume", state)
    running = next((s for s in run.steps if s.state == "intent"), None)
    if running is not None:
        for_s = format.duration(state.now - running.started) if running.started else "a moment"
        return (f"Step {running.id} runs for {for_s}. Nothing to do now; esc leaves it running, "
                "x aborts."), "text"
    return run.next or "Nothing to do now; the engine goes on by itself.", "text"


def _old(gate: wire.Gate | None, state: State) -> str:
    """How old what is shown is, and what that leaves to do."""
    text = f"What is shown is {format.age(state.age)} old; the console is reconnecting."
    if state.read_only:
        return text
    wait = " Nothing is answered on it." if gate is not None else ""
    return f"{text}{wait} {safety.abort_works(state)}"


def _ended(run: wire.RunView) -> str:
    took = format.duration((run.ended or run.at) - run.started)
    words = {"done": "Done", "failed": "Failed", "rolled_back": "Failed and rolled back",
             "aborted": "Aborted"}
    dry = " It was a dry run: nothing that has an effect ran." if run.dry_run else ""
    reason = f": {run.reason.rstrip('.')}" if run.reason else ""
    return f"{words[run.state]} after {took}{reason}. Nothing waits for you.{dry}"


def _gate(run: wire.RunView, step: wire.StepView, gate: wire.Gate, state: State) -> tuple[str, str]:
    if gate.kind == "approval":
        missing = gate.approvals_needed - len(gate.approvals)
        text = f"Step {step.id} needs {format.plural(missing, 'more approval')}."
        if because := entitled.against(run.id, step.id, state):
            return f"{text} {entitled.refused(gate, run.by, because, state)}", "text"
        return guard(f"{text} Press A (or enter), read, then y approves or r rejects.", "approve",
                      state)
    texts = {
        "confirm": ("confirm", f"Press enter, read, then y runs step {step.id}."),
        "typed": ("confirm", f"Press enter, then type {gate.expected} to run step {step.id}."),
        "answer": ("answer", "Do what it says, then press enter: y says what you see, r refuses."),
        "settle": ("settle", f"Whether {step.id} took effect is not known. Press enter, then d (done) "
                             "or u (not done)."),
        "failed": ("retry", f"Step {step.id} failed. Press enter, then r runs it again"
                            + (" or s skips it." if step.skippable else "."))}
    verb, text = texts[gate.kind]
    return guard(text, verb, state)


def guard(text: str, verb: str, state: State) -> tuple[str, str]:
    """The sentence, or what stands in its way at the moment."""
    refused = safety.refusal(verb, state)
    if refused is None:
        return text, "ask"
    if not state.read_only and not state.write:
        return f"{text} The console is read-only: press w first.", "ask"
    return f"{refused}", "warn"


def heights(total: int, steps: int, panel: int, action: int) -> tuple[int, int, int]:
    """Lines for steps, panel and output out of `total` body lines; the action is never cut.

    One line is a rule. Output keeps four, its title among them, where it can; steps give way before
    the panel does.
    """
    room = total - action - 1
    panel_h = min(panel, max(2, room - 4 - min(steps, 3)))
    steps_h = min(steps, max(1, room - panel_h - 4))
    return steps_h, panel_h, max(0, room - panel_h - steps_h)


def event_lines(events: Sequence[wire.Event], now: float, width: int) -> list[str]:
    """The timeline, oldest first: when, who, at which step (and attempt, from the second), what."""
    steps = [_at_step(event) for event in events]
    room = min(12, max(map(len, steps), default=0))
    return [format.clip(f"{format.stamp(e.at, now)}  {format.left(e.by, 8)} "
                        + (f"{format.left(step, room)} " if room else "") + e.text, width)
            for e, step in zip(events, steps, strict=True)]


def _at_step(event: wire.Event) -> str:
    attempt = f" ({event.attempt})" if event.attempt and event.attempt > 1 else ""
    return f"{event.step}{attempt}" if event.step else ""
