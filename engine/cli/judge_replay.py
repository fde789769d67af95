"""`opsdeck judge replay RUN`: what a rollout decided, recomputed from its events beside what is recorded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import EngineUnreachable, NotFound, OpsdeckError

if TYPE_CHECKING:
    from engine.home import Home
    from engine.rollout.replay import Decision, Recorded, Replayed

EXAMPLES = """\
It folds the counts of every tick that the run recorded, and prints each verdict that was recorded beside
the one that follows. Under the versions and the platform that made the record the numbers are equal to the
bit; elsewhere to 1e-12, with the same verdict. It exits with 1 where they are not. Without an engine it
reads the home's journal.

examples:
  opsdeck judge replay 184
  opsdeck judge replay 184 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--json", action="store_true",
                        help='print {"run", "made_by", "here", "ticks", "bit_equal", "agrees", "end", '
                             '"decisions"}')


def run(args: argparse.Namespace) -> int:
    """Returns 0 where every verdict is as recorded (to 1e-12), else 1."""
    from engine.cli.text import emit, say

    events = _events(args.home, args.run)
    found = _replayed(events, args.run)
    if args.json:
        emit(_object(args.run, found))
    else:
        say(lines(args.run, found, here()))
    return 0 if found.agrees else 1


def _events(home: Home, run: str) -> Sequence[Recorded]:
    """Of the engine, or where none answers of the home's journal. Raises NotFound."""
    from engine.api.light import connect

    try:
        return connect(home).timeline(run)
    except EngineUnreachable:
        if not home.journal.exists():
            raise
    from engine.journal.sqlite import SqliteJournal

    journal = SqliteJournal.open_readonly(home.journal)
    try:
        events = journal.read(run)
    finally:
        journal.close()
    if not events:
        raise NotFound(f"the journal has no events of run {run}", where=str(home.journal),
                       hint="`opsdeck audit export` has them all")
    return events


def _replayed(events: Sequence[Recorded], run: str) -> Replayed:
    from engine.rollout.replay import replay

    try:
        return replay(events)
    except ValueError as error:
        raise NotFound(f"run {run} cannot be replayed: {error}",
                       hint="`opsdeck rollout list` lists the rollouts") from error
    except (KeyError, TypeError, AssertionError) as error:
        raise OpsdeckError(f"run {run} cannot be replayed: an event of it is not as this version writes it "
                           f"({type(error).__name__}: {error})",
                           hint="`opsdeck audit verify` tells whether the journal is whole") from error


def here() -> dict[str, str]:
    """What recomputes it, in the words of the record."""
    from engine.rollout.maker import made_by

    return made_by()


def lines(run: str, found: Replayed, now: dict[str, str]) -> list[str]:
    from engine.cli.text import plain

    count, made = len(found.decisions), _made(found.made_by)
    head = (f"run {run}: {count} recorded verdict{'' if count == 1 else 's'} over "
            f"{found.analysis.ticks:,} ticks, made by {made}")
    shown = [plain(head)]
    for decision in found.decisions:
        shown += ["", *_decision(decision)]
    if not count:
        shown += ["", f"no verdict was recorded; recomputed it ends {_end(found)[0]}"]
    if not found.bit_equal and found.made_by != now:
        shown += ["", plain(f"it was recomputed by {_made(now)}: the last bits may differ")]
    return shown


def _decision(decision: Decision) -> list[str]:
    from engine.cli.text import columns, plain, stamp

    (said, recorded), (now, computed) = decision.decided, decision.recomputed
    head = (f"{stamp(decision.at)}  tick {decision.ticks:,}: recorded {said}, recomputed {now}: "
            f"{_equality(decision)}")
    rows = [(plain(name), _exact(recorded.get(name)), _exact(computed.get(name)),
             "" if recorded.get(name) == computed.get(name) else "differs")
            for name in dict.fromkeys([*recorded, *computed])]
    return [head, *([f"  {plain(decision.text)}"] if decision.text else []),
            *columns(rows, header=("ln E", "RECORDED", "RECOMPUTED", ""), right=" rr", indent="  ")]


def _equality(decision: Decision) -> str:
    if decision.bit_equal:
        return "equal to the bit"
    return "the same within 1e-12" if decision.agrees else "NOT the same"


def _exact(value: float | None) -> str:
    return "-" if value is None else repr(value)


def _made(by: dict[str, str]) -> str:
    order = {name: at for at, name in enumerate(here())}
    names = sorted(by, key=lambda name: order.get(name, len(order)))
    return ", ".join(f"{name} {by[name][:12] if name == 'lock' else by[name]}" for name in names)


def _end(found: Replayed) -> tuple[str, dict[str, float]]:
    """The verdict and ln E by metric after the last tick."""
    verdict = found.analysis.verdict
    if verdict is None:
        return "undecided", {}
    return verdict.verdict, {**verdict.ln_e, "all": verdict.ln_e_all}


def _object(run: str, found: Replayed) -> dict[str, Any]:
    def side(given: tuple[str, dict[str, float]]) -> dict[str, Any]:
        return {"verdict": given[0], "ln_e": given[1]}

    return {"run": run, "made_by": found.made_by, "here": here(), "ticks": found.analysis.ticks,
            "bit_equal": found.bit_equal, "agrees": found.agrees, "end": side(_end(found)),
            "decisions": [{"at": one.at, "ticks": one.ticks, "text": one.text, "bit_equal": one.bit_equal,
                           "agrees": one.agrees, "recorded": side(one.decided),
                           "recomputed": side(one.recomputed)} for one in found.decisions]}
