"""The verbs on a run: confirm, approve, reject, answer, settle, retry, skip, pause, resume, abort.

To type one is the explicit act: nothing asks again. What it is bound to is read first and shown
(the command, what it changes, its undo), and its digest goes along: if anything of it has changed
by the time the engine hears the answer, the engine refuses.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import cast

from engine.api import wire
from engine.api.backend import Verb
from engine.api.light import connect
from engine.cli import show
from engine.cli.following import ENDED
from engine.cli.text import STEP_WORDS, coloured, emit, plain, say, stamp
from engine.errors import Conflict, NotFound, UsageError

EXAMPLES = {
    "confirm": "opsdeck confirm 184 drain flights", "approve": "opsdeck approve 184 drain",
    "reject": "opsdeck reject 184 drain --reason 'wrong service'",
    "answer": "opsdeck answer 184 watch 'yes, 212 ms'", "settle": "opsdeck settle 184 drain not-done",
    "retry": "opsdeck retry 184 drain", "skip": "opsdeck skip 184 notify --reason 'called them'",
    "pause": "opsdeck pause 184", "resume": "opsdeck resume 184",
    "abort": "opsdeck abort 184 --rollback"}
WAITS_FOR: dict[str, tuple[str, ...]] = {
    "confirm": ("confirm", "typed"), "approve": ("approval",), "reject": ("approval", "confirm",
                                                                          "typed", "answer"),
    "answer": ("answer",), "settle": ("settle",), "retry": ("failed",), "skip": ()}
TAKES_TEXT = {"confirm": "TEXT", "answer": "TEXT", "settle": "done|not-done"}


def configure(parser: argparse.ArgumentParser) -> None:
    verb = parser.get_default("verb")
    parser.epilog = f"example:\n  {EXAMPLES[verb]}"
    parser.add_argument("run", metavar="RUN")
    if verb in WAITS_FOR:
        shape = f"STEP {TAKES_TEXT[verb]}" if verb in TAKES_TEXT else "STEP"
        parser.add_argument("words", nargs="*", metavar=shape,
                            help="STEP may be left out where only one step waits for this")
        parser.add_argument("--digest", metavar="DIGEST",
                            help="what you saw in `show`; refused if it is something else by now")
    if verb == "approve":
        parser.add_argument("--break-glass", metavar="REASON",
                            help="open the gate alone; pages the owner, and `handover` tells of it "
                                 "for a week, to be reviewed")
    if verb == "abort":
        parser.add_argument("--rollback", action="store_true", help="undo what was done")
    if verb in ("reject", "pause", "resume", "abort", "settle", "retry", "skip"):
        parser.add_argument("--reason", required=verb == "skip", metavar="TEXT",
                            help="why; it is recorded")
    if verb == "resume":
        parser.add_argument("--embedded", action="store_true",
                            help="be the engine in this process, until the run ends or waits")
    parser.add_argument("--json", action="store_true", help="print the run afterwards, as JSON")


def run(args: argparse.Namespace) -> int:
    if args.verb == "resume" and args.embedded:
        return _resume_embedded(args)
    client = connect(args.home)
    act = wire.Act(reason=getattr(args, "reason", None), rollback=getattr(args, "rollback", False))
    verb = cast(Verb, args.verb)
    if verb in WAITS_FOR:
        view = client.run(args.run)
        step, text = target(view, verb, args.words)
        _bind(view, verb, step, act, args.digest)
        if verb in ("confirm", "approve") and step.preview is not None:
            act.seen_state = step.preview.state
        act.text = _text(verb, step, text)
        if args.verb == "approve" and args.break_glass is not None:
            act.break_glass, act.reason = True, args.break_glass
        if not args.json and step.gate is not None:
            say(show.gate_lines(view, step))
    view = client.act(args.run, verb, act)
    if args.json:
        emit(view)
    else:
        say(["", *show.lines(view, colour=coloured())])
    return 0


def target(view: wire.RunView, verb: str, words: Sequence[str]) -> tuple[wire.StepView, str | None]:
    """The step and the text that are meant. A first word that is a step's id is that step.

    Raises NotFound or UsageError where it is not clear.
    """
    steps = {step.id: step for step in view.steps}
    takes = 1 if verb in TAKES_TEXT else 0
    if len(words) > 1 + takes:
        raise UsageError(f"{verb} takes RUN STEP{' TEXT' if takes else ''}, not {len(words)} words "
                         "more", hint="put a text of several words in quotes")
    if words and words[0] in steps:
        return steps[words[0]], words[1] if len(words) > 1 else None
    if len(words) > takes:
        raise NotFound(f"run {view.id} has no step {words[0]!r}",
                       hint=f"steps are {', '.join(steps)}")
    waiting = [s for s in view.steps if s.gate is not None and s.gate.kind in WAITS_FOR[verb]]
    if len(waiting) == 1:
        return waiting[0], words[0] if words else None
    if not waiting:
        raise Conflict(f"no step of run {view.id} waits for `{verb}`", hint=view.next)
    raise UsageError(f"{len(waiting)} steps wait for `{verb}`: name one",
                     hint=", ".join(s.id for s in waiting))


def _bind(view: wire.RunView, verb: Verb, step: wire.StepView, act: wire.Act, digest: str | None) -> None:
    """Bind an answer to what the step waits for now."""
    act.step = step.id
    if step.gate is None:
        if digest is None and verb not in ("confirm", "approve"):
            return  # the engine says what the others are for
        raise Conflict(f"step {step.id} of run {view.id} waits for nothing now: "
                       f"{_stands(view, step)}", hint=view.next)
    if digest is not None and not step.gate.digest.startswith(digest):
        raise Conflict(f"step {step.id} is no longer what you saw: its digest is now "
                       f"{step.gate.digest}", hint=f"look again: opsdeck show {view.id}")
    act.digest = step.gate.digest


def _stands(view: wire.RunView, step: wire.StepView) -> str:
    """How a step stands, in words: "it is done, by oncall1 since 03:11:40Z"."""
    if view.state in ENDED and step.state == "planned":
        return f"the run has ended: {view.state.replace('_', ' ')}"
    word = STEP_WORDS.get(step.state, step.state)
    by = f", by {step.by}" if step.by else ""
    since = f" since {stamp(step.ended, time.time())}" if step.ended else ""
    return f"it is {word}{by}{since}"


def _text(verb: str, step: wire.StepView, given: str | None) -> str | None:
    """The text an answer carries; asked for where a terminal is there."""
    typed = verb == "confirm" and step.gate is not None and step.gate.kind == "typed"
    if given is not None or not (typed or verb in ("answer", "settle")):
        return given
    assert step.gate is not None or verb != "confirm"
    wanted = f"the text {step.gate.expected!r}" if typed and step.gate else "a text"
    if verb == "settle":
        wanted = "done or not-done"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"{verb} wants {wanted} after the step", hint=f"e.g. {EXAMPLES[verb]}")
    prompt = step.gate.prompt if step.gate is not None and verb == "answer" else f"type {wanted}"
    return input(f"{plain(prompt)}: ").strip()


def _resume_embedded(args: argparse.Namespace) -> int:
    from engine.cli.run import follow
    from engine.config_file import load
    from engine.embedded import embedded

    with embedded(args.home, load(args.home.config)) as desk:
        view = desk.run(args.run)
        if view.state == "paused":
            view = desk.act(args.run, "resume", wire.Act(reason=args.reason))
        return follow(desk, view, json=args.json, embedded=True)
