"""The verbs on a rollout that runs: pause, resume, promote, promote-full, and abort, which never asks."""

from __future__ import annotations

import argparse
import sys
from typing import cast

from engine.api import wire
from engine.api.backend import Verb
from engine.api.light import Client
from engine.cli.following import ENDED
from engine.cli.rollout_find import running
from engine.cli.rollout_text import answer, budget, missing, percent, place, sides, verdict, weights, word
from engine.cli.show import wants
from engine.cli.text import emit, plain, say
from engine.errors import Conflict, EngineUnreachable, NotFound, OpsdeckError, UsageError

DECLINED = 3


def act(client: Client, args: argparse.Namespace) -> int:
    """Pause or resume. Raises Conflict where that would change nothing."""
    seen = running(client, args.name, args.rollout)
    if args.rollout == "resume" and seen.state != "paused":
        _not_paused(seen)
    view = client.act(seen.run, cast(Verb, args.rollout), wire.Act(reason=args.reason))
    done = {"pause": f"stays at {percent(seen.weight)}; what comes in is analysed on",
            "resume": f"goes on from {percent(seen.weight)}"}[args.rollout]
    return _tell(args, view, f"the rollout of {seen.service} (run {seen.run}) {done}")


def _not_paused(seen: wire.Rollout) -> None:
    waits = answer(seen)
    if seen.gate is not None and waits:
        raise Conflict(f"the rollout of {seen.service} (run {seen.run}) is not paused: it waits for "
                       f"{wants(seen.gate, seen.at)}", hint=waits)
    if seen.paused_by == "engine":
        raise Conflict(f"nobody paused the rollout of {seen.service} (run {seen.run}): the engine holds it: "
                       f"{missing(seen) or 'its evidence is missing'}",
                       hint="it goes on by itself once that is there")
    raise Conflict(f"the rollout of {seen.service} (run {seen.run}) is not paused: it goes on by itself",
                   hint=f"`opsdeck rollout watch {seen.service}` tells how it goes")


def abort(client: Client, args: argparse.Namespace) -> int:
    """Never asks, and does not need to know more of the rollout than its run."""
    try:
        seen = running(client, args.name, "abort")
        run, back = seen.run, f": back to {weights(seen.safe)}" if seen.safe else ""
    except (NotFound, Conflict, EngineUnreachable):
        raise
    except OpsdeckError:
        # The journal cannot be read, say. The live state tells the run, or the name may be it.
        run, back = _run_of(client, args.name), ""
    view = client.act(run, "abort", wire.Act(reason=args.reason, rollback=True))
    return _tell(args, view, f"aborting run {run}{back}")


def _run_of(client: Client, name: str) -> str:
    for service in client.status().services:
        if service.name == name and service.rollout is not None:
            return str(service.rollout["run"])
    return name


def promote(client: Client, args: argparse.Namespace) -> int:
    """Promote or promote-full, asked for on a terminal; bound to the step that was shown.

    Raises UsageError where nobody can be asked, Conflict where it has moved on meanwhile.
    """
    verb = cast(Verb, args.rollout)
    seen = running(client, args.name, verb)
    given = args.yes if verb == "promote" else _names(args.confirm, seen)
    if not given:
        if not sys.stdin.isatty() or not sys.stdout.isatty() or args.json:
            why = "--json asks nothing" if args.json else "there is no terminal to ask on"
            raise UsageError(
                f"{verb} wants a confirmation, and {why}",
                hint=f"opsdeck rollout {verb} {args.name} "
                     + ("--yes" if verb == "promote" else f"--confirm {seen.service}"))
        say(dialog(seen, verb))
        if not _agreed(seen, verb):
            print("  not promoted: nothing has changed")
            return DECLINED
        _still(seen, client.rollout(seen.run))
    view = client.act(seen.run, verb, wire.Act(step=seen.step, reason=args.reason))
    skipped = "the watching of this step" if verb == "promote" else "all further watching"
    return _tell(args, view, f"the rollout of {seen.service} (run {seen.run}) skips {skipped}")


def _names(text: str | None, seen: wire.Rollout) -> bool:
    if text is None:
        return False
    if text != seen.service:
        raise UsageError(f"promote-full wants --confirm {seen.service}, not {text!r}")
    return True


def dialog(seen: wire.Rollout, verb: str) -> list[str]:
    """What a promotion is about: the target, how it stands, the effect and the undo."""
    effect = ("the rest of the watching of this step is skipped" if verb == "promote" else
              "all further watching is skipped, up to 100 %")
    waits = answer(seen)
    rows = [("target", f"{seen.service}: {sides(seen)}, run {seen.run}"),
            ("now", f"{word(seen)} at {percent(seen.weight)}, {place(seen, seen.step)}"),
            ("verdict", verdict(seen)), ("budget", budget(seen)),
            ("missing", missing(seen)), ("effect", f"{effect}; approvals stay"),
            ("waits", f"{waits} is asked for all the same" if waits else None),
            ("then", seen.after),
            ("undo", f"abort: back to {weights(seen.safe)}" if seen.safe else seen.undo)]
    return [f"\n {verb} {plain(seen.service)}",
            *(f"   {name:<8} {plain(text)}" for name, text in rows if text)]


def _agreed(seen: wire.Rollout, verb: str) -> bool:
    if verb == "promote":
        return _line("   promote it? y/N: ").lower() in ("y", "yes")
    return _line(f"   type {plain(seen.service)} to promote it to 100 %: ") == seen.service


def _line(prompt: str) -> str:
    print(prompt, end="", flush=True)
    return sys.stdin.readline().strip()


def _still(seen: wire.Rollout, now: wire.Rollout) -> None:
    """Raise Conflict where what the dialog stated is no longer so."""
    for name, before, after in (
            ("the state", seen.state, now.state), ("the step", seen.step, now.step),
            ("the weight", percent(seen.weight), percent(now.weight)),
            ("the verdict", seen.verdict, now.verdict)):
        if before != after:
            raise Conflict(f"not promoted: {name} was {before} when you looked, and is {after} now",
                           hint=f"look again: opsdeck rollout status {seen.service}")


def _tell(args: argparse.Namespace, view: wire.RunView, sentence: str) -> int:
    if args.json:
        emit(view)
        return 0
    state = view.state.replace("_", " ")
    then = f"it has ended: {state}" if view.state in ENDED else (
        f"`opsdeck rollout watch {view.id}` tells how it goes")
    say([plain(sentence), f"  {plain(then)}"])
    return 0
