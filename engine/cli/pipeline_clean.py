"""`opsdeck pipeline clean [PROJECT]`: what nothing refers to any more goes, and why the rest stays."""

from __future__ import annotations

import argparse

from engine.api import wire
from engine.api.light import connect
from engine.cli.text import emit, plain, say
from engine.words import megabytes

NAMED = 8  # pieces of a kind that are named
WORDS = {"run": "runs", "output": "outputs of stages", "failure": "failures", "environment": "environments"}
EXAMPLES = """\
Kept is what opsdeck.yaml says (pipelines: keep: {runs: 20, for: 30d}), what the models that the registry
calls champion, previous and candidate were made of, and whatever a run that has not ended refers to. The
engine does the same by itself when a pipeline's run has ended.

examples:
  opsdeck pipeline clean --dry-run
  opsdeck pipeline clean flights
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("project", nargs="?", metavar="PROJECT", help="its name; left out: all of them")
    parser.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    done = connect(args.home).clean(wire.Clean(args.project, args.dry_run))
    if args.json:
        emit(done)
    else:
        say([line for one in done.projects for line in lines(one, dry=done.dry_run)]
            or ["no pipeline has left anything here yet"])
    return 0


def lines(one: wire.Cleaned, *, dry: bool) -> list[str]:
    verb = "would go" if dry else "gone"
    told = [f"{plain(one.project)}: {megabytes(one.bytes)} {verb}" if one.gone else
            f"{plain(one.project)}: nothing {'would go' if dry else 'to remove'}"]
    for what, pieces in ((verb, one.gone), ("in use", one.used)):
        for kind, words in WORDS.items():
            names = [plain(piece.name) for piece in pieces if piece.kind == kind]
            if names:
                more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
                told.append(f"  {what:<8}  {len(names)} {words}: {', '.join(names[:NAMED])}{more}")
    for kept in one.stays:
        size = "" if kept.bytes is None else f", {megabytes(kept.bytes)}"
        many = f"{kept.pieces} {'piece' if kept.pieces == 1 else 'pieces'}"
        told.append(f"  stays     {many} {plain(kept.why)}{size}")
    if one.problem is not None:
        told.append(f"  {plain(one.problem)}")
    return told
