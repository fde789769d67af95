"""`opsdeck runs`: the runs, newest first."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from engine.api import wire
from engine.cli.reading import ask
from engine.cli.text import (
    RUN_GLYPHS,
    Cell,
    coloured,
    columns,
    duration,
    emit,
    plain,
    say,
    stamp,
)

NAME = "runs"
HELP = "the runs, newest first"
STATES = ("running", "waiting", "paused", "done", "failed", "rolled_back", "aborted")
HEADER = ("", "RUN", "PROCEDURE", "SERVICE", "STATE", "STEPS", "BY", "STARTED", "TOOK",
          "NEXT OR REASON")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck runs --state waiting --state running"
    parser.add_argument("--state", action="append", choices=STATES, metavar="STATE",
                        help=f"only these; may be given several times: {', '.join(STATES)}")
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    found = ask(args.home, lambda reader: reader.runs(args.state, args.limit))
    if args.json:
        emit({"runs": found})
        return 0
    none = (f"no run is {' or '.join(state.replace('_', ' ') for state in args.state)}" if args.state
            else "no runs yet; `opsdeck library` lists what can be run")
    say(lines(found, now=time.time(), colour=coloured()) or [none])
    return 0


def lines(runs: Sequence[wire.RunSummary], *, now: float, colour: bool,
          indent: str = "") -> list[str]:
    """Runs as a table; [] if there are none."""
    rows = [_row(run, now) for run in runs]
    return columns(rows, header=HEADER, right=" r   r  r", indent=indent, colour=colour) if rows else []


def _row(run: wire.RunSummary, now: float) -> list[Cell]:
    glyph, tone = RUN_GLYPHS[run.state]
    word = run.state.replace("_", " ") + (" (dry)" if run.dry_run else "")
    took = (run.ended or now) - run.started
    return [(glyph, tone), plain(run.id), plain(run.procedure), plain(run.service or "-"), (word, tone),
            f"{run.steps_done}/{run.steps_total}", plain(run.by), stamp(run.started, now),
            duration(took), plain((run.next or run.reason or "").partition("\n")[0])]
