"""What the Rollout screen says: where it stands, what speaks against it, and the next human action. Pure."""

from __future__ import annotations

import msgspec
from rich.cells import cell_len

from console import entitled, evidence, format, safety
from console.glyphs import Glyphs
from console.rollout_asks import difference, said, weights
from console.rollout_path import WITHIN, path
from console.run_text import OPEN, guard
from console.state import State
from console.widgets.lines import BLANK, Line, Span, line
from engine.api import wire

LABEL = evidence.LABEL
WORDS = {"rolled_back": "rolled back", "done": "promoted", "waiting": "waits"}
ROLES = {"running": "now", "waiting": "ask", "paused": "warn", "done": "ok", "failed": "bad",
         "rolled_back": "bad", "aborted": "warn"}
VERDICTS = {"bad": "bad", "good": "ok", "undecided": "text"}
LEAST_ROWS = 3
PLOT = 9          # lines from which a plot of the nearest metrics is worth its place


def going_back(rollout: wire.Rollout, state: State) -> bool:
    """Whether it is on its way back: the verdict says so, or the fleet does, or it was aborted from here."""
    if rollout.ended is not None:
        return False
    if rollout.run in state.aborted:
        return True
    row = next((s.rollout for s in state.services if (s.rollout or {}).get("run") == rollout.run), None)
    return rollout.verdict == "bad" or (row or {}).get("state") == "rolling_back"


def state_of(rollout: wire.Rollout, glyphs: Glyphs, *, back: bool = False) -> tuple[str, str, str]:
    """Glyph, word and role of a rollout's state; that it goes `back` shows before the run has ended."""
    if back:
        return glyphs.runs["rolled_back"], "rolling back", "bad"
    if rollout.ended is None and rollout.paused_by and rollout.gate is None:
        return glyphs.runs["paused"], "paused", "warn"
    return (glyphs.runs[rollout.state], WORDS.get(rollout.state, rollout.state), ROLES[rollout.state])


def number(rollout: wire.Rollout) -> int | None:
    """Which step it is at, from 1."""
    return next((n for n, s in enumerate(rollout.steps, 1) if s.id == rollout.step), None)


def share(weight: float | None) -> str:
    return "? %" if weight is None else f"{weight:g} %"


def lease_left(rollout: wire.Rollout, now: float) -> float | None:
    """Seconds until the router goes back by itself, counted on from when the rollout was read."""
    return None if rollout.lease_s is None else max(0.0, rollout.lease_s - max(0.0, now - rollout.at))


def status(rollout: wire.Rollout, glyphs: Glyphs, now: float, width: int, *, fresh: bool = True,
           back: bool = False, away: bool = False) -> Line:
    """State, live weight and step on the left; on the right whether it is watched, and the lease.

    Of what is not `fresh` nobody knows whether it is watched now; `away`: for no engine answers.
    """
    mark, word, role = state_of(rollout, glyphs, back=back)
    at = number(rollout)
    step = f", step {at} of {len(rollout.steps)}" if at and rollout.ended is None else ""
    got = "gets" if (fresh and rollout.watching) or rollout.ended is not None else "got"
    live = f"canary {got} {share(rollout.weight)}" if rollout.weight is not None else _left(rollout)
    if not fresh and rollout.ended is None:
        word = f"was {word}" if word != "waits" else "waited"
    left = lease_left(rollout, now)
    if rollout.ended is not None:
        right: list[Span] = [(f"ended {format.stamp(rollout.ended, now)}, "
                              f"{format.age(max(0.0, now - rollout.ended))} ago ", "dim")]
    elif not fresh:
        right = [(f"{glyphs.stale} {'away' if away else 'stale'}: watching not known ", "warn")]
    elif rollout.watching:
        lease = f", lease {format.age(left)}" if left is not None else ""
        right = [("watching: on", "ok"), (f"{lease} ", "dim")]
    else:
        lease = "" if left is None else f", lease ends in {format.age(left)}" if left > 0 else \
            ", lease has ended"
        right = [(f"{glyphs.ticket} watching: OFF{lease} ", "warn")]
    room = width - sum(cell_len(text) for text, _ in right) - cell_len(word) - 4
    spans: list[Span] = [(f" {mark} {word}", role), (format.clip(f"   {live}{step}", room), "strong")]
    gap = width - sum(cell_len(text) for text, _ in (*spans, *right))
    return (*spans, (" " * max(1, gap), "text"), *right)


def _left(rollout: wire.Rollout) -> str:
    """Where the traffic is, as far as that is known without the router."""
    if rollout.ended is None:
        return "the router does not answer"
    if rollout.state == "done":
        return f"{rollout.challenger} has all traffic"
    some = {name: weight for name, weight in rollout.safe.items() if weight}
    return f"back to {weights(some)}" if rollout.state == "rolled_back" and rollout.safe else ""


def step_line(rollout: wire.Rollout, now: float, width: int) -> Line:
    """What the present step does, since when, and how much it has seen."""
    step = next((s for s in rollout.steps if s.id == rollout.step), None)
    if step is None or rollout.ended is not None:
        took = format.duration((rollout.ended or now) - rollout.started)
        text = f"{rollout.procedure}, run {rollout.run}, by {rollout.by}: took {took}"
        return line((f" {format.clip(text, width - 2)}", "dim"))
    here = "" if rollout.step_since is None else f"{format.age(max(0.0, now - rollout.step_since))} here, "
    facts = f"  {here}{rollout.step_requests:,} canary requests"
    name = f"{step.id}: {step.title}"
    return line((f" {format.clip(name, max(12, width - len(facts) - 2))}", "text"), (facts, "dim"))


def facts(rollout: wire.Rollout, glyphs: Glyphs, now: float, width: int, longest: int) -> list[Line]:
    """Verdict, what is missing, and the gate, each in at most `longest` lines."""
    found: list[tuple[str, str, str]] = []
    mark = {"bad": f"{glyphs.steps['failed']} ", "good": f"{glyphs.steps['done']} "}.get(rollout.verdict, "")
    found.append(("Verdict", f"{mark}{said(rollout)}", VERDICTS[rollout.verdict]))
    if rollout.missing and rollout.ended is None:
        long = f"; about {format.duration(rollout.wait_s)} at this rate" if rollout.wait_s is not None else \
            "; how long that takes is not known"
        found.append(("Missing", rollout.missing + long, "warn" if rollout.paused_by else "text"))
    if rollout.gate is not None and rollout.ended is None:
        found.append(("Gate", gate_text(rollout, rollout.gate, now), "ask"))
    if not rollout.concurrent:
        found.append(("Careful", f"{glyphs.ticket} not concurrent: no error guarantee", "warn"))
    return _labelled(found, width, longest)


def more_facts(rollout: wire.Rollout, width: int) -> list[Line]:
    """What happens next and how it is undone: shown where there is room."""
    goes_on = rollout.ended is None and rollout.verdict != "bad"
    found = [(label, text, "text") for label, text in (
        ("Next", rollout.after if goes_on else None), ("Undo", rollout.undo),
        ("Differs", difference(rollout, 2))) if text]
    return _labelled(found, width, 2)


def _labelled(found: list[tuple[str, str, str]], width: int, longest: int) -> list[Line]:
    lines: list[Line] = []
    for label, text, role in found:
        pieces = format.wrap(text, max(20, width - LABEL - 3))
        for n, piece in enumerate(pieces[:longest]):
            cut = n == longest - 1 and len(pieces) > longest
            lines.append(line((f" {format.left(label if n == 0 else '', LABEL)} ", "dim"),
                              (format.clip(piece + " …", width - LABEL - 3) if cut else piece, role)))
    return lines


def gate_text(rollout: wire.Rollout, gate: wire.Gate, now: float) -> str:
    """Who is wanted, since when, and until when."""
    parts = []
    if gate.kind == "approval":
        who = entitled.wanted(gate, rollout.by)
        parts.append(f"{len(gate.approvals)} of {format.plural(gate.approvals_needed, 'approval')} ({who})")
    else:
        parts.append(gate.prompt)
    if gate.since is not None:
        parts.append(f"waits {format.age(now - gate.since)}")
    if gate.expires is not None:
        left = gate.expires - now
        parts.append(f"expires in {format.age(left)}" if left > 0 else "has expired")
    return f"{rollout.gate_step}: {', '.join(parts)}"


def next_action(rollout: wire.Rollout | None, state: State, old: str | None = None) -> tuple[str, str]:
    """The one sentence that says what a person must do now, and its role.

    `old`: why what is shown is not fresh, when it is not.
    """
    if rollout is None:
        return state.link.reason or "Reading the rollout.", "dim"
    if rollout.state not in OPEN:
        return _ended(rollout, starts=safety.unentitled("start", state) is None)
    if state.stale or old:
        doing = "; the console is reconnecting" if state.away else ""
        age = f"What is shown is {format.age(state.age)} old{doing}." if state.stale else old
        return f"{age} Nothing is approved or promoted on it. {safety.abort_works(state)}", "warn"
    if going_back(rollout, state):
        return f"It is rolling back to {weights(rollout.safe)}. Nothing to do but to watch it.", "bad"
    if not rollout.watching:
        return (f"Nobody watches it: nothing is approved or promoted until it is watched again. "
                f"{_by_itself(rollout, state)}; x aborts now."), "warn"
    if rollout.gate is not None:
        return _gate(rollout, rollout.gate, state)
    if rollout.state == "paused":
        by = f" by {rollout.paused_by}" if rollout.paused_by not in (None, "engine") else ""
        if wanted := safety.unentitled("resume", state):
            return f"Paused{by}. {wanted} x aborts.", "text"
        return guard(f"Paused{by}. p resumes it, x aborts.", "resume", state)
    if rollout.state == "running" and state.skips(rollout):
        what = "All further watching" if (rollout.run, None) == state.skipped else \
            f"The watching of {rollout.step}"
        return f"{what} is skipped; it goes on at the engine's next look.", "text"
    if rollout.paused_by == "engine":
        return ("The engine holds it, for the evidence is missing. It goes on by itself once that is there; "
                "x aborts."), "warn"
    if rollout.next:
        return format.sentence(rollout.next), "ask"
    after = f" Next: {rollout.after}." if rollout.after else ""
    return f"Nothing to do now; it goes on by itself.{after}", "text"


def _by_itself(rollout: wire.Rollout, state: State) -> str:
    """What the router does without anybody, as far as that is known."""
    left, service = lease_left(rollout, state.now), state.service(rollout.service)
    silent = service is not None and all(v.stale for v in service.variants)
    when = " after its lease" if left is None else f" in {format.age(left)}" if left > 0 else \
        ": its lease has ended"
    if rollout.weight is None or silent:
        return f"The router does not answer either; where it runs, it goes back by itself{when}"
    return f"The router goes back by itself{when}"


def _gate(rollout: wire.Rollout, gate: wire.Gate, state: State) -> tuple[str, str]:
    if gate.kind != "approval":
        return guard(f"Step {rollout.gate_step} waits: press A, read, then answer.", gate.kind, state)
    missing = gate.approvals_needed - len(gate.approvals)
    weight = next((s.weight for s in rollout.steps if s.id == rollout.gate_step), None)
    what = "" if weight is None else f" ({weight:g} % of the traffic)"
    text = f"Step {rollout.gate_step}{what} needs {format.plural(missing, 'more approval')}."
    if because := entitled.against(rollout.run, rollout.gate_step, state):
        return f"{text} {entitled.refused(gate, rollout.by, because, state)} x aborts.", "text"
    return guard(f"{text} Press A, read, then y approves or r rejects.", "approve", state)


def _ended(rollout: wire.Rollout, *, starts: bool) -> tuple[str, str]:
    """How it ended; `starts`: whether the reader may start what comes next."""
    why = (rollout.reason or "").rstrip(".")
    reason = f": {why}" if why and not (rollout.verdict == "bad" and why in rollout.sentence) else ""
    champion = f"{rollout.champion} {rollout.champion_version or ''}".strip()
    if rollout.state == "done":
        return (f"Promoted: {rollout.challenger} {rollout.challenger_version or ''}".rstrip()
                + " has all traffic." + f" u starts the way back to {champion}." * starts), "text"
    words = {"rolled_back": "Rolled back", "failed": "Failed", "aborted": "Aborted"}[rollout.state]
    left = rollout.weight is not None and rollout.weight > rollout.safe.get(rollout.challenger, 0.0) + WITHIN
    now = "" if rollout.weight is None else f"; the canary gets {share(rollout.weight)}"
    keys = "R tries again, enter shows its steps." if starts else "enter shows its steps."
    return f"{words}{reason}{now}. {keys}", "bad" if left else "text"


def differences(rollout: wire.Rollout, width: int, room: int, page: int) -> tuple[list[Line], int]:
    """How the versions' manifests differ, a page of `room` lines of it; and how many pages there are."""
    if not rollout.diff:
        return [line((" The manifests of both versions say the same, or there are none.", "dim"))], 1
    key = min(max(len(k) for k, _, _ in rollout.diff), width // 3)
    half = (width - key - 8) // 2
    old, new = (f"{name} {version or ''}" for name, version in (
        (rollout.champion, rollout.champion_version), (rollout.challenger, rollout.challenger_version)))
    head = f" {format.left('MANIFEST', key)}  {format.left(old.upper(), half)}  {new.upper()}"
    lines = [line((head, "head"))]
    each = max(1, room - 1)
    pages = -(-len(rollout.diff) // each)
    page = max(0, min(page, pages - 1))
    for name, before, after in rollout.diff[page * each:(page + 1) * each]:
        lines.append(line((f" {format.left(name, key)}  ", "text"), (f"{format.left(before, half)}  ", "dim"),
                          (format.clip(after, half), "strong")))
    return lines, pages


def screen(rollout: wire.Rollout, state: State, glyphs: Glyphs, width: int, height: int,
           old: str | None = None) -> list[Line]:
    """All of it in `height` lines. The next action is whole at the bottom; metrics give way first."""
    now = state.now
    if state.skips(rollout):  # what was missing for this watching holds nothing up any more
        rollout = msgspec.structs.replace(rollout, missing=None, paused_by=None)
    text, role = next_action(rollout, state, old)
    action = [line((f" {row}", role)) for row in format.wrap(text, width - 2)]
    fresh = not state.stale and old is None
    back = going_back(rollout, state)
    top = [status(rollout, glyphs, now, width, fresh=fresh, back=back, away=state.away),
           path(rollout, glyphs, width, back=back, fresh=fresh and rollout.watching),
           step_line(rollout, now, width)]
    middle = [evidence.not_worse(rollout, glyphs, width), evidence.budget(rollout, glyphs, width)]
    told = facts(rollout, glyphs, now, width, 3)
    fixed = len(top) + 2 + len(middle) + len(action)
    if fixed + len(told) + LEAST_ROWS > height:
        told = facts(rollout, glyphs, now, width, 1)
    if fixed + len(told) + LEAST_ROWS > height:
        top = top[:2]
    room = max(1, height - len(top) - 2 - len(middle) - len(told) - len(action))
    metrics, hidden = evidence.kept(rollout, room)
    rows = [evidence.head(width), *(evidence.row(m, width, glyphs) for m in metrics)]
    if hidden:
        rows.append(line((f"   {hidden}; e shows all", "dim")))
    if rollout.threshold:
        rows.append(evidence.together(rollout, width, glyphs))
    return _spread(rollout, [top, rows, middle, told], more_facts(rollout, width), action, width, height,
                   glyphs)


def _spread(rollout: wire.Rollout, groups: list[list[Line]], more: list[Line], action: list[Line],
            width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """The groups with what room is left: facts, blank lines, and a plot of the nearest metrics."""
    spare = height - sum(len(g) for g in groups) - len(action)
    rule = line((glyphs.rule * width, "dim"))
    if spare >= 1:
        action, spare = [rule, *action], spare - 1
    if more and spare >= len(more):
        groups[3] = [*groups[3], *more]
        spare -= len(more)
    blanks = [False] * len(groups)
    for place in (1, 2, 3):
        if spare >= 1:
            blanks[place], spare = True, spare - 1
    plots: list[Line] = []
    if spare >= PLOT:
        columns = 2 if width >= evidence.WIDE else 1
        plots = [BLANK, *evidence.pictures(evidence.nearest(rollout)[:columns], rollout, width,
                                           min(spare - 1, 24), columns, glyphs)]
    lines: list[Line] = []
    for place, group in enumerate(groups):
        lines += [BLANK, *group] if blanks[place] else group
        if place == 1:
            lines += plots
    lines += [BLANK] * max(0, height - len(lines) - len(action))
    return [*lines[:height - len(action)], *action]


def refused(verb: str, rollout: wire.Rollout | None, state: State) -> str | None:
    """Why `verb` is not offered now: the console's own reasons, then the rollout's."""
    return safety.refusal(verb, state) or (safety.unwatched(verb, rollout) if rollout else None)
