"""`opsdeck judge`: judge a file of counts offline, or recompute what a rollout decided."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from engine.cli import judge_replay

if TYPE_CHECKING:
    from engine.rollout.judge import Judgement

NAME = "judge"
HELP = "judge a canary's counts, or recompute a rollout's verdicts"
EVIDENCE = "e-process"

EXAMPLES = """\
It reads JSON: {"alpha": 0.01, "tolerated_ratio": 1, "ticks": [
  {"canary": {"n": 500, "y": 10}, "baseline": {"n": 4500, "y": 45}}, ...]}
where y of n requests failed in that tick, and "alpha" is how often identical versions may be called
bad, over any number of ticks. "ln_e" is the evidence after each tick; the canary is bad once it reaches
ln(1/alpha), first at tick "decided_at", counted from 1.

With --judge mann-whitney it reads samples of metrics and decides as Spinnaker's Kayenta does;
mann-whitney-strict also sees sparse metrics and changes of spread, and calls identical versions high or
low, metric by metric, with a probability of at most 1 - confidence:
  {"metrics": [{"name": "latency", "direction": "increase", "group": "speed", "critical": false,
                "canary": [12.1, null, ...], "baseline": [11.8, ...]}, ...],
   "weights": {"speed": 60}, "confidence": 0.98, "tolerance": 0.25, "pass": 95, "marginal": 75}
"direction" is where it gets worse (increase, decrease, or either), null is a sample that is missing, and
a metric that is "report_only" is left out of the score. All but name, canary and baseline may be left out.

examples:
  opsdeck judge run counts.json
  opsdeck judge run --json < counts.json
  opsdeck judge run --judge mann-whitney samples.json
  opsdeck judge replay 184                 a rollout's verdicts, recomputed beside the recorded ones
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="judge", required=True, metavar="run|replay")
    running = verbs.add_parser("run", help="judge a file of ticks", epilog=EXAMPLES,
                               formatter_class=argparse.RawDescriptionHelpFormatter)
    running.add_argument("file", nargs="?", default="-", metavar="FILE",
                         help="the counts as JSON (standard input by default)")
    running.add_argument("--judge", dest="by", default=EVIDENCE, metavar="NAME",
                         choices=(EVIDENCE, "mann-whitney", "mann-whitney-strict"),
                         help="e-process (counts, the default), mann-whitney or mann-whitney-strict "
                              "(samples)")
    running.add_argument("--json", action="store_true",
                         help='print {"ln_e": [...], "verdict", "decided_at"}, or {"metrics", "score"}')
    replaying = verbs.add_parser("replay", help="recompute a rollout's verdicts from its run's events",
                                 epilog=judge_replay.EXAMPLES,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    judge_replay.configure(replaying)


def run(args: argparse.Namespace) -> int:
    """Of `run`, returns 0 whatever the verdict is: that is in what it prints."""
    if args.judge == "replay":
        return judge_replay.run(args)
    import dataclasses

    from engine.cli.text import emit, plain, say
    from engine.errors import UsageError
    from engine.rollout.counts import read
    from engine.rollout.judge import judge

    where = "standard input" if args.file == "-" else args.file
    if args.by != EVIDENCE:
        return _samples(args, where)
    counts = read(_text(args.file), where)
    try:
        found = judge(counts.ticks, alpha=counts.alpha, tolerated_ratio=counts.tolerated_ratio)
    except ValueError as error:
        raise UsageError(f"these counts cannot be judged: {error}") from error
    if args.json:
        emit(dataclasses.asdict(found))
    else:
        say([plain(sentence(found, counts.alpha))])
    return 0


def _samples(args: argparse.Namespace, where: str) -> int:
    import dataclasses

    from engine.cli.text import emit, plain, say
    from engine.rollout.mann_whitney import JUDGES
    from engine.rollout.samples import judge, read

    found, score = judge(read(_text(args.file), where), JUDGES[args.by], where)
    if args.json:
        emit({"metrics": [{"name": name, **dataclasses.asdict(one)} for name, one in found.items()],
              "score": dataclasses.asdict(score)})
    else:
        say([*(plain(f"{name}: {one.label}: {one.reason}") for name, one in found.items()),
             plain(f"score {score.summary:.4g} of 100, {score.label}: {score.reason}")])
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
            raise UsageError("judge run reads a file, and standard input is a terminal",
                             hint="opsdeck judge run FILE, or < FILE; --help shows the format")
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
