"""`opsdeck handover`: what runs, what waits, what fires, for the next shift."""

from __future__ import annotations

import argparse

from engine.api.backend import Handover
from engine.api.light import connect
from engine.cli import runs
from engine.cli.text import coloured, duration, emit, paint, plain, say, stamp

NAME = "handover"
HELP = "what the next shift must know"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck handover | mail -s 'On call, early shift' ml-oncall"
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    found = connect(args.home).handover()
    if args.json:
        emit(found)
        return 0
    say(lines(found, colour=coloured()))
    return 0


def lines(found: Handover, *, colour: bool) -> list[str]:
    """The handover as text, what is most urgent first."""
    shown = [f"Handover at {stamp(found.at)}"]

    def section(title: str, body: list[str], empty: str) -> None:
        shown.extend(["", paint(title, "bold", colour), *(body or [f"  {empty}"])])

    section("Fires", [plain(
        f"  {'▲' if a.level == 'page' else '△'} {a.level}  {a.service}: {a.title}"
        + (f"; try runbook {a.runbooks[0]}" if a.runbooks else "")) for a in found.alerts],
        "nothing")
    section("Waits for a person", [plain(
        f"  ◆ run {w.run} {_what(w.procedure, w.service)}, step {w.step}: {w.prompt}, for "
        f"{duration(found.at - w.since)}"
        + (f", expires in {duration(w.expires - found.at)}" if w.expires is not None else ""))
        for w in found.waiting], "nothing")
    if found.reviews:
        section("Wants a review: gates that one person opened alone (break glass)", [
            plain(f"  ! run {r.run} {_what(r.procedure, r.service)}, step {r.step}: opened by {r.by} at "
                  f"{stamp(r.at, found.at)}: {r.reason}; see `opsdeck timeline {r.run}`")
            for r in found.reviews], "")
    section("Runs", runs.lines(found.running, now=found.at, colour=colour, indent="  "), "nothing")
    section("Ended in the last 12 hours",
            runs.lines(found.ended, now=found.at, colour=colour, indent="  "), "nothing")
    if found.stale:
        section("Not known now (stale)", [f"  ○ {plain(name)}" for name in found.stale], "")
    return shown


def _what(procedure: str, service: str | None) -> str:
    return f"{procedure} of {service}" if service else procedure
