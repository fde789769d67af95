"""`opsdeck check PATH…`: every problem of every procedure, with file, line and a hint."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.procedures.check import Checked

NAME = "check"
HELP = "check procedures: every problem of every file, with line and hint"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck check runbooks/"
    parser.add_argument("paths", nargs="+", metavar="PATH",
                        help="a procedure, or a directory of procedures")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what is wrong. Exit 2 if anything is an error, else 0."""
    import datetime as dt
    from pathlib import Path

    from engine import actions
    from engine.procedures.actions import Registry
    from engine.procedures.check import check_paths

    registry = Registry()
    actions.register(registry)
    registry.load_entry_points()
    found = check_paths([Path(path) for path in args.paths], registry,
                        today=dt.datetime.now(dt.UTC).date())
    if args.json:
        print(as_json(found))
    else:
        for problem in found.problems:
            print(problem)
        print(summary(found))
    return 2 if found.errors else 0


def as_json(found: Checked) -> str:
    """{"procedures", "errors", "warnings", "problems": [{file, line, column, level, message, hint}]}"""
    import json

    problems = [{"file": p.file, "line": p.line, "column": p.column, "level": p.level,
                 "message": p.message, "hint": p.hint} for p in found.problems]
    return json.dumps({"procedures": found.files, "errors": found.errors,
                       "warnings": found.warnings, "problems": problems}, ensure_ascii=False)


def summary(found: Checked) -> str:
    """The closing line: "9 procedures checked: 2 errors, 1 warning"."""
    counts = [count(found.errors, "error"), count(found.warnings, "warning")]
    said = ", ".join(count for count in counts if not count.startswith("0 ")) or "no problems"
    return f"{count(found.files, 'procedure')} checked: {said}"


def count(number: int, noun: str) -> str:
    """"1 error", "2 errors"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
