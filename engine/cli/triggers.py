"""`opsdeck triggers [PROJECT]`: what begins trainings by itself; `opsdeck trigger PROJECT`: one by hand."""

from __future__ import annotations

import argparse
import time

from engine.api import wire
from engine.api.light import connect
from engine.cli.text import coloured, columns, duration, emit, paint, plain, say, stamp
from engine.errors import UsageError

NAME = "triggers"
HELP = "what begins trainings by itself, and why nothing does"
HEADER = ("PROJECT", "MODEL", "RUN", "NOW", "LAST CAUSE", "CAME TO")


def configure(parser: argparse.ArgumentParser) -> None:
    if parser.get_default("verb") == "trigger":
        parser.epilog = ("It builds what the project is now; what was built already is not built again.\n\n"
                         "example:\n  opsdeck trigger flights --reason 'the registry is back'")
        parser.add_argument("project", metavar="PROJECT")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; it is recorded")
        parser.add_argument("--drift", action="store_true",
                            help="the cause is drift, which the project's `triggers:` must allow")
    else:
        parser.epilog = "example:\n  opsdeck triggers flights"
        parser.add_argument("project", nargs="?", metavar="PROJECT", help="one project, in full")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    if "/" in (args.project or ""):
        raise UsageError(f"{args.project} is a folder, and triggers are of projects with a name",
                         hint="name it in opsdeck.yaml (pipelines: projects:), or build it once: "
                              f"opsdeck run train-and-release -p project={args.project}")
    client = connect(args.home)
    if args.verb == "trigger":
        found = client.trigger(args.project, wire.TriggerNow("drift" if args.drift else "hand", args.reason))
        emit(found) if args.json else say([f"heard; `opsdeck triggers {args.project}` says what comes of it"])
        return 0
    if args.project is not None:
        one = client.triggers(args.project)[0]
        emit(one) if args.json else say(in_full(one, colour=coloured()))
        return 0
    projects = client.triggers()
    if args.json:
        emit({"triggers": projects})
        return 0
    say(lines(projects, now=time.time(), colour=coloured()) or [
        "no projects; `pipelines: projects:` of opsdeck.yaml names them"])
    return 0


def lines(projects: list[wire.Trigger], *, now: float, colour: bool) -> list[str]:
    """The projects as a table; [] if there are none."""
    rows = []
    for one in projects:
        last = one.recent[0] if one.recent else None
        state = f"▲ {one.problems[0].source} cannot look" if one.problems else one.why
        rows.append((plain(one.project), plain(one.model), plain(one.run or "-"), plain(state),
                     plain(f"{stamp(last.at, now)} {last.text}" if last else "none yet"),
                     plain(last.said if last else "")))
    return columns(rows, header=HEADER, colour=colour) if rows else []


def in_full(one: wire.Trigger, *, colour: bool) -> list[str]:
    """One project: what is watched, what waits, what cannot look, and the last causes."""
    shown = [plain(f"{one.project}, model {one.model}: {one.why}"),
             plain("begun by " + ("; ".join([*one.watches, "a person"])))]
    if one.commit is not None:
        shown.append(plain(f"built from commit {one.commit[:12]}"))
    if one.waiting is not None:
        shown.append(plain(f"waits since {stamp(one.waiting.at, one.at)}: {one.waiting.text}"))
    for problem in one.problems:
        shown.append(plain(f"▲ {problem.source} cannot look, for {duration(one.at - problem.since)}: "
                           f"{problem.text}"))
    shown += ["", paint("Last causes", "bold", colour)]
    causes = [*one.asked, *one.recent]
    rows = [(stamp(c.at, one.at), c.kind, plain(c.text), plain(c.by), plain(c.said)) for c in causes]
    return shown + (columns(rows, header=("HEARD", "KIND", "CAUSE", "BY", "CAME TO"), colour=colour,
                            indent="  ") if rows else ["  none yet"])
