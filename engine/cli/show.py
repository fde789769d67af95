"""`opsdeck show RUN`: its steps, what it waits for, what a step printed."""

from __future__ import annotations

import argparse
import sys

from engine.api import wire
from engine.cli.reading import Reader, ask
from engine.cli.text import (
    RUN_GLYPHS,
    STEP_GLYPHS,
    STEP_WORDS,
    Cell,
    coloured,
    columns,
    duration,
    emit,
    paint,
    plain,
    say,
    stamp,
)

ANSWERS = {"confirm": "confirm", "typed": "confirm", "approval": "approve", "answer": "answer",
           "settle": "settle", "failed": "retry"}
NAME = "show"
HELP = "one run: its steps, what it waits for, its output"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck show 184 --output drain"
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--output", metavar="STEP", help="print all that a step printed, and no more")
    parser.add_argument("--attempt", type=int, metavar="N", help="with --output: not the last one")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    if args.output:
        return ask(args.home, lambda reader: _output(reader, args.run, args.output, args.attempt))
    view = ask(args.home, lambda reader: reader.run(args.run))
    if args.json:
        emit(view)
        return 0
    say(lines(view, colour=coloured()))
    return 0


def _output(client: Reader, run: str, step: str, attempt: int | None) -> int:
    offset = 0
    while True:
        chunk = client.output(run, step, attempt, offset)
        sys.stdout.write(plain(chunk.text, keep="\n\t"))
        if chunk.final or chunk.next <= offset:
            return 0
        offset = chunk.next


def lines(view: wire.RunView, *, colour: bool) -> list[str]:
    """A run as text: its head, its steps, and what a person must do."""
    glyph, tone = RUN_GLYPHS[view.state]
    word = view.state.replace("_", " ")
    marks = [m for m, on in (("dry run", view.dry_run), ("unisolated", view.unisolated)) if on]
    on = f" on {plain(view.service)}" if view.service else ""
    head = [f"{paint(f'{glyph} {word}', tone, colour)}  run {plain(view.id)}: "
            f"{plain(view.procedure)}{on}, by {plain(view.by)} since {stamp(view.started, view.at)}"
            f", {duration((view.ended or view.at) - view.started)}"
            f"{''.join(f', {mark}' for mark in marks)}",
            f"  {plain(view.title)}"]
    if view.params:
        head.append("  with " + ", ".join(f"{plain(k)}={plain(v)}" for k, v in view.params.items()))
    if view.review:
        head.append(f"  {plain(view.review)}")
    if view.reason:
        head.append(f"  {plain(view.reason)}")
    steps = columns([_row(n, step, view.at) for n, step in enumerate(view.steps, 1)],
                    right=" r", indent=" ", colour=colour)
    shown = [*head, "", *steps]
    for step in view.steps:
        if step.gate is not None:
            shown += ["", *gate_lines(view, step)]
    if view.next:
        shown += ["", f"next: {plain(view.next)}"]
    return shown


def _row(number: int, step: wire.StepView, now: float) -> list[Cell]:
    glyph, tone = STEP_GLYPHS[step.state]
    took = duration((step.ended or now) - step.started) if step.started is not None else ""
    note = step.error or step.reason or ""
    if step.exit_code not in (None, 0):
        note = f"exit {step.exit_code}" + (f": {note}" if note else "")
    return [(glyph, tone), str(number), plain(step.id), (STEP_WORDS.get(step.state, step.state),
            tone), took, plain(step.by or ""), plain(step.title) + (f": {plain(note)}" if note
                                                                  else "")]


def gate_lines(view: wire.RunView, step: wire.StepView) -> list[str]:
    """What an answer to a step's gate is bound to: all that a person should have seen."""
    gate = step.gate
    assert gate is not None
    undo = step.undo or (f"none: {step.irreversible}" if step.irreversible else "none given")
    rows: list[tuple[str, str]] = [("step", f"{step.id}, attempt {step.attempt}: {step.title}")]
    if step.command and step.kind != "manual":
        rows.append(("this runs", step.command))
    if step.preview is not None:
        rows += [("now", f"{step.preview.now} (read {duration(view.at - step.preview.read_at)} ago)"),
                 ("after", step.preview.after)]
    if step.kind != "manual":
        rows += [("effect", step.effect), ("undo", undo)]
    if any(one.state == "done" and (one.command or "").startswith("pipeline.page") for one in view.steps):
        rows.append(("evidence", f"`opsdeck pipeline evidence {view.id}`"))
    if gate.written:
        rows.append(("authors", gate.written))
    rows += [("waits for", wants(gate, view.at)), ("digest", gate.digest),
             ("answer", f"`{answer_command(gate, view.id, step.id)}`")]
    if gate.kind == "approval" and gate.alone:
        rows.append(("or alone", f"`opsdeck approve {view.id} {step.id} --break-glass REASON`, by "
                                 f"{' or '.join(gate.alone)}; it is paged and reviewed"))
    return [f"  {name:<10} {plain(text)}" for name, text in rows]


def answer_command(gate: wire.Gate, run: str, step: str) -> str:
    """The command that answers what a step waits for; it asks for the text that it wants, if any."""
    return plain(f"opsdeck {ANSWERS[gate.kind]} {run} {step}").rstrip()


def wants(gate: wire.Gate, now: float) -> str:
    """What a gate waits for, in words, and how long it still does."""
    text = {"confirm": "a confirmation", "typed": f"{gate.expected} typed out",
            "answer": f"an answer: {gate.prompt}", "failed": "a decision: retry, skip or abort",
            "settle": "done or not-done: nobody knows whether it took effect",
            "approval": _approvals(gate)}[gate.kind]
    left = f"; expires in {duration(gate.expires - now)}" if gate.expires is not None else ""
    return text + left


def _approvals(gate: wire.Gate) -> str:
    have = f", has {', '.join(gate.approvals)}" if gate.approvals else ""
    others = ", not from who started it" if gate.not_initiator else ""
    if gate.written:
        others += f" or wrote it ({', '.join(gate.authors)})" if gate.authors else " or wrote it"
    return (f"{gate.approvals_needed} approval{'s' if gate.approvals_needed != 1 else ''} of "
            f"{' or '.join(gate.roles) or 'approver'}{others}{have}")
