"""`opsdeck timeline RUN --format md|json`: everything that happened in a run, for a report."""

from __future__ import annotations

import argparse

from engine.api import wire
from engine.cli.reading import ask
from engine.cli.text import emit, plain, say, stamp

NAME = "timeline"
HELP = "everything that happened in a run"
TICK = "rollout.tick"  # one for each second of a rollout


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck timeline 184 --format md > postmortem.md"
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--format", choices=("md", "json"), default="md")
    parser.add_argument("--json", action="store_true", help="the same as --format json")
    parser.add_argument("--ticks", action="store_true",
                        help="a rollout's counts of each second too; JSON always has them")


def run(args: argparse.Namespace) -> int:
    view, events = ask(args.home, lambda reader: (reader.run(args.run), reader.timeline(args.run)))
    if args.json or args.format == "json":
        emit({"run": args.run, "events": events})
        return 0
    say(markdown(view, events, ticks=args.ticks))
    return 0


def markdown(view: wire.RunView, events: list[wire.Event], *, ticks: bool = False) -> list[str]:
    """A run and its events as a Markdown section; the hashes bind each line to the journal.

    Without `ticks` a rollout's counts of each second are left out, and how many they are is said.
    """
    shown = [event for event in events if ticks or event.kind != TICK]
    left = len(events) - len(shown)
    are = "row is" if left == 1 else "rows are"
    note = ["", f"{left:,} `{TICK}` {are} left out; `--ticks` shows them."] if left else []
    ended = f", ended {stamp(view.ended)}" if view.ended is not None else ""
    return [f"# Run {_cell(view.id)}: {_cell(view.title)}", "",
            f"`{_cell(view.procedure)}` by {_cell(view.by)}, {view.state.replace('_', ' ')}, "
            f"started {stamp(view.started)}{ended}. Document sha256 `{view.document_sha256}`.", "",
            "| Time (UTC) | Who | Step | What | Hash |", "|---|---|---|---|---|",
            *(f"| {stamp(e.at)} | {_cell(e.by)} | {_step(e)} | {_cell(e.text)} | `{e.hash[:12]}` |"
              for e in shown), *note]


def _step(event: wire.Event) -> str:
    if event.step is None:
        return ""
    attempt = f" ({event.attempt})" if event.attempt and event.attempt > 1 else ""
    return _cell(event.step) + attempt


def _cell(text: str) -> str:
    """Text that neither ends a table's cell nor becomes a link, an image or HTML."""
    shown = plain(text.replace("\n", " "))
    for char in "\\|<>[]`*_":
        shown = shown.replace(char, f"\\{char}")
    return shown
