"""`opsdeck check PATH…`: every problem of every procedure and project, with file, line and a hint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.procedures.check import Checked

NAME = "check"
HELP = "check procedures and projects: every problem of every file, with line and hint"

def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "examples:\n  opsdeck check runbooks/\n  opsdeck check projects/flights"
    parser.add_argument("paths", nargs="+", metavar="PATH",
                        help="a procedure, a project (opsdeck.pipeline.yaml or its folder), or a directory "
                             "of them")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def run(args: argparse.Namespace) -> int:
    """Print what is wrong. Exit 2 if anything is an error, else 0."""
    import datetime as dt

    from engine import actions
    from engine.procedures.actions import Registry
    from engine.procedures.check import check_paths

    procedures, projects = sorted_out([Path(path) for path in args.paths])
    registry = Registry()
    if procedures:
        actions.register(registry)
        registry.load_entry_points()
    found = check_paths(procedures, registry, today=dt.datetime.now(dt.UTC).date())
    if projects:
        from engine.pipeline.project import reading

        for path in projects:
            found.problems += reading.problems(path)
    if args.json:
        print(as_json(found, len(projects)))
    else:
        for problem in found.problems:
            print(problem)
        print(summary(found, len(projects)))
        if projects and not found.errors:
            print(unread(projects))
    return 2 if found.errors else 0


def sorted_out(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """What to check as procedures, and the project files. What lies in a project's folder belongs to it:
    its other YAML files are no procedures."""
    from engine.pipeline.project.layout import FILE, is_project
    from engine.procedures.check import procedures_in

    procedures: list[Path] = []
    projects: list[Path] = []
    for path in paths:
        if is_project(path):
            projects.append(path if path.name == FILE else path / FILE)
            continue
        inside = sorted(path.rglob(FILE)) if path.is_dir() else []
        inside = [one for one in inside if not any(part.startswith(".") for part in
                                                   one.relative_to(path).parts)]
        projects += inside
        procedures += [one for one in procedures_in(path)
                       if not any(one.is_relative_to(file.parent) for file in inside)] if inside else [path]
    return procedures, projects


def as_json(found: Checked, projects: int = 0) -> str:
    """{"procedures", "projects", "errors", "warnings",
    "problems": [{file, line, column, level, message, hint}]}"""
    import json

    problems = [{"file": p.file, "line": p.line, "column": p.column, "level": p.level,
                 "message": p.message, "hint": p.hint} for p in found.problems]
    return json.dumps({"procedures": found.files, "projects": projects, "errors": found.errors,
                       "warnings": found.warnings, "problems": problems}, ensure_ascii=False)


def summary(found: Checked, projects: int = 0) -> str:
    """The closing line: "9 procedures and 1 project checked: 2 errors, 1 warning"."""
    counts = [count(found.errors, "error"), count(found.warnings, "warning")]
    said = ", ".join(count for count in counts if not count.startswith("0 ")) or "no problems"
    what = [count(found.files, "procedure")] if found.files or not projects else []
    what += [count(projects, "project")] if projects else []
    return f"{' and '.join(what)} checked: {said}"


def unread(projects: list[Path]) -> str:
    """What a check of a project leaves out, and what does it."""
    import shlex

    named = shlex.quote(str(projects[0].parent.absolute())) if len(projects) == 1 else "PROJECT"
    return ("looked at were the project file and the files and functions it names; the data was not read: "
            f"`opsdeck run train-and-release -p project={named}` does that, before it trains")


def count(number: int, noun: str) -> str:
    """"1 error", "2 errors"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
