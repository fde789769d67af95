"""Faults of the demo's model servers: a file that a server reads while it runs, or its death.

    python -m engine.demo.faults inject --home H --variant challenger --kind latency --amount 300
    python -m engine.demo.faults clear  --home H [--variant challenger]
    python -m engine.demo.faults kill   --home H --variant champion

The file is `{"latency_ms", "latency_ratio", "errors": {type: ratio}}`. What was injected before
stays: latency and errors of several types add up, and a kind injected again takes its new amount.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

from engine.demo.command import guarded
from engine.demo.layout import SERVICE, VARIANTS, Layout, read_json, write_atomically
from engine.errors import ActionFailed, UsageError

ErrorKind = Literal["timeout", "out_of_memory", "invalid_input", "model_error", "unavailable"]
Kind = Literal["latency", "timeout", "out_of_memory", "invalid_input", "model_error", "unavailable",
               "kill"]
ERRORS: tuple[str, ...] = get_args(ErrorKind)
KINDS: tuple[str, ...] = get_args(Kind)
LONGEST_MS = 60_000


def inject(home: Path, variant: str, kind: str, amount: float) -> dict[str, Any]:
    """Make a variant's server slow or wrong; returns the faults now in force.

    `amount` is the added latency of every request in milliseconds for `latency`, and otherwise the
    share of requests that get that error, in percent; 0 takes the fault away. Raises UsageError.
    """
    path = _path(home, variant)
    faults = read(home, variant)
    if kind == "latency":
        if not 0 <= amount <= LONGEST_MS:
            raise UsageError(f"A latency of {amount:g} ms is not between 0 and {LONGEST_MS:,} ms.")
        faults["latency_ms"], faults["latency_ratio"] = float(amount), 1.0 if amount else 0.0
    elif kind in ERRORS:
        if not 0 <= amount <= 100:
            raise UsageError(f"{amount:g} % is not a share of requests; give 0 to 100.")
        errors = {**faults["errors"], kind: amount / 100}
        total = sum(errors.values())
        if total > 1 + 1e-9:
            raise UsageError(f"With it {total:.0%} of the requests would fail; at most all can.",
                             where=variant, hint="Clear the faults that are there first.")
        faults["errors"] = {name: ratio for name, ratio in errors.items() if ratio > 0}
    else:
        others = "; a server is killed by the command kill" if kind == "kill" else ""
        raise UsageError(f"{kind} cannot be injected{others}.",
                         hint=f"Known: latency, {', '.join(ERRORS)}.")
    write_atomically(path, json.dumps(faults) + "\n")
    return faults


def clear(home: Path, variant: str | None = None) -> None:
    """Take every fault of one variant away, or of all. Does not start a server that was killed."""
    for name in (variant,) if variant else VARIANTS:
        _path(home, name).unlink(missing_ok=True)


def read(home: Path, variant: str) -> dict[str, Any]:
    """The faults in force, all keys present. Raises UsageError if the file is not JSON."""
    path = _path(home, variant)
    if not path.exists():
        return {"latency_ms": 0.0, "latency_ratio": 0.0, "errors": {}}
    found = read_json(path, "The file of faults", "Remove it; then there are none.")
    return {"latency_ms": float(found.get("latency_ms", 0.0)),
            "latency_ratio": float(found.get("latency_ratio", 0.0)),
            "errors": dict(found.get("errors", {}))}


def kill(home: Path, variant: str, pid_of: Callable[[str], int | None]) -> int:
    """SIGKILL a variant's server; returns its pid.

    `pid_of` gives the pid of a supervised process by "service/process", None if it does not run.
    Raises ActionFailed if it does not run or belongs to another user.
    """
    _path(home, variant)
    name = f"{SERVICE}/{variant}"
    pid = pid_of(name)
    if pid is None:
        raise ActionFailed(f"{name} does not run, so it cannot be killed.", where=str(home),
                           hint="Start it: the action service.start, or the runbook setup.")
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError as error:
        raise ActionFailed(f"{name} (pid {pid}) has just ended by itself.") from error
    except PermissionError as error:
        raise ActionFailed(f"{name} (pid {pid}) belongs to another user.",
                           hint="Run this as that user.") from error
    return pid


def supervised(home: Path) -> Callable[[str], int | None]:
    """`pid_of` by the supervisor's records in the home: a recycled pid is nobody's."""
    from engine.supervision import record

    def pid_of(name: str) -> int | None:
        found = record.read(home / "run" / f"{name.replace('/', '-')}.json")
        return found.pid if found is not None and found.alive() else None

    return pid_of


def describe(faults: dict[str, Any]) -> str:
    """The faults in words, such as "300 ms slower, 5 % timeout"."""
    parts = [f"{faults['latency_ms']:g} ms slower"] if faults["latency_ratio"] else []
    parts += [f"{100 * ratio:g} % {kind}" for kind, ratio in faults["errors"].items()]
    return ", ".join(parts) or "no faults"


def _path(home: Path, variant: str) -> Path:
    if variant not in VARIANTS:
        raise UsageError(f"There is no variant {variant}.", hint=f"Known: {', '.join(VARIANTS)}.")
    return Layout(home).faults(variant)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m engine.demo.faults")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("inject", "clear", "kill", "show", "killed"):
        one = verbs.add_parser(verb)
        one.add_argument("--home", type=Path, required=True)
        one.add_argument("--variant", choices=VARIANTS, required=verb not in ("clear", "show"))
        if verb == "inject":
            one.add_argument("--kind", choices=("latency", *ERRORS), required=True)
            one.add_argument("--amount", type=float, required=True,
                             help="milliseconds for latency, else percent of the requests")
    return parser.parse_args()


def main() -> None:
    args = _arguments()
    if args.verb == "inject":
        faults = inject(args.home, args.variant, args.kind, args.amount)
        print(f"{args.variant}: {describe(faults)}")
    elif args.verb == "clear":
        clear(args.home, args.variant)
        print(f"{args.variant or 'both variants'}: no faults")
    elif args.verb == "kill":
        print(f"{args.variant}: killed pid {kill(args.home, args.variant, supervised(args.home))}")
    elif args.verb == "show":
        for variant in (args.variant,) if args.variant else VARIANTS:
            print(f"{variant}: {describe(read(args.home, variant))}")
    elif supervised(args.home)(f"{SERVICE}/{args.variant}") is not None:
        print(f"{args.variant} runs")
        sys.exit(1)
    else:
        print(f"{args.variant} does not run")


if __name__ == "__main__":
    guarded(main)
