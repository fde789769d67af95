"""`opsdeck demo --clean`: what would go with the demo's home, and whether all of it is the demo's."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from engine.errors import Conflict, OpsdeckError, UsageError
from engine.home import Home

DECLINED = 3
TYPED = "demo"
MOST_RUNS = 1_000_000
NAMED = 5  # run numbers that are named of each procedure


def clean(home: Home, args: argparse.Namespace, stop: Callable[[], object]) -> int:
    """Say what goes, ask, `stop` what runs, and remove the home.

    Raises Conflict, with nothing stopped, where the home has something that the demo did not bring and
    `--everything` was not said; UsageError where nobody can be asked.
    """
    from engine.cli.text import plain

    runs = _runs(home)
    others = foreign(home, runs)
    if others and not args.everything:
        raise Conflict("there is more here than the demo brought, and it would go with it:\n"
                       + "\n".join(f"    {plain(one)}" for one in others), where=str(home.path),
                       hint="nothing was removed; `opsdeck demo stop` ends the demo and keeps all of it, "
                            "--everything removes all of it")
    print(f"this ends the demo and removes {plain(str(home.path))} ({_size(home.path)}):")
    for one in (*_brought(runs), *others):
        print(f"  {plain(one)}")
    if not args.yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError("this is asked before anything is removed, and there is no terminal to ask on",
                             hint=f"opsdeck demo --clean {'--everything ' if others else ''}--yes")
        try:
            typed = input(f"Type {TYPED} to remove it: ").strip()
        except EOFError:
            typed = ""
        if typed != TYPED:
            print("nothing was removed")
            return DECLINED
    stop()
    shutil.rmtree(home.path)
    print(f"removed {plain(str(home.path))}")
    return 0


def foreign(home: Home, runs: list[tuple[str, str]] | str) -> list[str]:
    """What the home holds that the demo did not bring, as lines. `runs` as `_runs` has them."""
    from engine.demo.layout import PROJECT, SERVICE
    from engine.procedures.check import procedures_in
    from engine.procedures.library import shipped

    if isinstance(runs, str):
        found = [f"a journal that cannot be read, so that nobody knows whose runs are in it: {runs}"]
    else:
        known = {file.stem for file in procedures_in(shipped())}
        found = [f"{_numbers(ids)} of {name}, which is not one of Opsdeck's own procedures"
                 for name, ids in _by_procedure(runs).items() if name not in known]
    for folder in _folders(home.path / "pipelines"):
        if folder.name != PROJECT:
            found.append(f"what runs of the project {folder.name} have made: models, evidence, definitions")
    for folder in _folders(home.path / "demo" / "projects"):
        if folder.name != PROJECT:
            found.append(f"the folder {folder}")
    own = home.path / "runbooks"
    if own.is_dir() and (written := procedures_in(own)):
        found.append(f"{own} with {', '.join(sorted(file.name for file in written)[:NAMED])}"
                     + (" and others" if written[NAMED:] else ""))
    for folder in _folders(home.path):
        if (folder / ".git").exists() or (folder / "opsdeck.pipeline.yaml").exists():
            found.append(f"the folder {folder}")
    for what, names in _configured(home.config).items():
        if mine := sorted(names - {PROJECT if what == "project" else SERVICE}):
            found.append(f"of {home.config.name} the {what}{'s' if mine[1:] else ''} {', '.join(mine)}")
    return found


def _runs(home: Home) -> list[tuple[str, str]] | str:
    """Number and procedure of every run, oldest first; a sentence where the journal cannot be read."""
    from engine.journal.sqlite import SqliteJournal

    if not home.journal.exists():
        return []
    try:
        journal = SqliteJournal.open_readonly(home.journal)
        try:
            return [(one.id, one.procedure) for one in reversed(journal.runs(None, MOST_RUNS))]
        finally:
            journal.close()
    except OpsdeckError as error:
        return error.message


def _brought(runs: list[tuple[str, str]] | str) -> list[str]:
    lines = ["the demo's models, MLflow's database and registry, its data and its config",
             "its copy of the project flights, with whatever was changed in it"]
    if not isinstance(runs, str) and runs:
        told = Counter(name for _, name in runs)
        lines.append(f"the journal with {len(runs)} run{'s' if runs[1:] else ''}: "
                     + ", ".join(f"{count} {name}" for name, count in told.most_common()))
    return lines


def _by_procedure(runs: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for id, name in runs:
        found.setdefault(name, []).append(id)
    return found


def _numbers(ids: list[str]) -> str:
    more = f" and {len(ids) - NAMED} more" if ids[NAMED:] else ""
    return f"run{'s' if ids[1:] else ''} {', '.join(ids[:NAMED])}{more}"


def _configured(path: Path) -> dict[str, set[str]]:
    from engine.config_file import load

    config = load(path)
    return {"service": set(config.services), "project": set(config.pipelines.projects)}


def _folders(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_dir()) if path.is_dir() else []


def _size(path: Path) -> str:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118  (many files)
            except FileNotFoundError:  # the demo still runs, and turns its logs over
                continue
    return f"{total / 1e6:,.0f} MB"
