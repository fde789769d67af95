"""`opsdeck judge run`: judge a file of counts, offline and without an engine."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.rollout.judge import Judgement

NAME = "judge"
HELP = "judge a canary's counts beside the baseline's"

EXAMPLES = """\
It reads JSON: {"alpha": 0.01, "tolerated_ratio": 1, "ticks": [
  {"canary": {"n": 500, "y": 10}, "baseline": {"n": 4500, "y": 45}}, ...]}
where y of n requests failed in that tick, and "alpha" is how often identical versions may be called
bad, over any number of ticks. "ln_e" is the evidence after each tick; the canary is bad once it reaches
ln(1/alpha), first at tick "decided_at", counted from 1.

examples:
  opsdeck judge run counts.json
  opsdeck judge run --json < counts.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="judge", required=True, metavar="run")
    running = verbs.add_parser("run", help="judge a file of ticks", epilog=EXAMPLES,
                               formatter_class=argparse.RawDescriptionHelpFormatter)
    running.add_argument("file", nargs="?", default="-", metavar="FILE",
                         help="the counts as JSON (standard input by default)")
    running.add_argument("--json", action="store_true",
                         help='print {"ln_e": [...], "verdict", "decided_at"}')


def run(args: argparse.Namespace) -> int:
    """Returns 0 whatever the verdict is: that is in what it prints."""
    import dataclasses

    from engine.cli.text import emit, plain, say
    from engine.errors import UsageError
    from engine.rollout.counts import read
    from engine.rollout.judge import judge

    counts = read(_text(args.file), "standard input" if args.file == "-" else args.file)
    try:
        found = judge(counts.ticks, alpha=counts.alpha, tolerated_ratio=counts.tolerated_ratio)
    except ValueError as error:
        raise UsageError(f"these counts cannot be judged: {error}") from error
    if args.json:
        emit(dataclasses.asdict(found))
    else:
        say([plain(sentence(found, counts.alpha))])
    return 0


def sentence(found: Judgement, alpha: float) -> str:
    """The verdict as a colleague would say it."""
    import math

    needed = f"{-math.log(alpha):.2f} (alpha {alpha:g})"
    if found.decided_at is not None:
        reached = found.ln_e[found.decided_at - 1]
        return (f"bad: ln E reached {reached:.2f} of {needed} at tick {found.decided_at:,} "
                f"of {len(found.ln_e):,}")
    if not found.ln_e:
        return "undecided: there are no ticks"
    return (f"undecided: ln E is {found.ln_e[-1]:.2f} after {len(found.ln_e):,} ticks, at most "
            f"{max(found.ln_e):.2f}; it is bad at {needed}")


def _text(file: str) -> bytes:
    import sys
    from pathlib import Path

    from engine.errors import UsageError

    if file == "-":
        if sys.stdin.isatty():
            raise UsageError("judge run reads counts, and standard input is a terminal",
                             hint="opsdeck judge run FILE, or < FILE; --help shows the format")
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
