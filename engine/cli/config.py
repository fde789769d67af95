"""`opsdeck config example | check | show`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from engine.home import Home

if TYPE_CHECKING:
    from engine.config import Config
    from engine.located import Problem

NAME = "config"
HELP = "an example of opsdeck.yaml, a check of one, and the values that hold"
EXAMPLE = "example:\n  opsdeck config example > opsdeck.yaml && opsdeck config check opsdeck.yaml"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    verbs = parser.add_subparsers(dest="what", metavar="example|check|show|schema", required=True)
    verbs.add_parser("example", help="print a commented, complete, valid opsdeck.yaml")
    check = verbs.add_parser("check", help="every problem of a config at once; exit 2 if any")
    check.add_argument("path", nargs="?", type=Path, help="the file (this home's by default)")
    check.add_argument("--json", action="store_true")
    show = verbs.add_parser("show", help="which values hold, and where each comes from")
    show.add_argument("--json", action="store_true")
    verbs.add_parser("schema", help="print its JSON Schema")


def run(args: argparse.Namespace) -> int:
    from engine import config_file

    if args.what == "example":
        print(config_file.EXAMPLE.read_text(), end="")
        return 0
    if args.what == "schema":
        print(config_file.SCHEMA.read_text(), end="")
        return 0
    if args.what == "check":
        return _check(args.path or args.home.config, args.home, json=args.json)
    return _show(args.home, json=args.json)


def _check(path: Path, home: Home, *, json: bool) -> int:
    from engine import config_file
    from engine.cli.text import emit, plain

    config, problems = config_file.check(path)
    if home.mode == "system" and path == home.config and path.exists():
        problems += config_file.distrust(path)
    warnings = _doubts(path, config, home) if config is not None and not problems else []
    if json:
        emit({"path": str(path), "problems": [
            {"file": p.file, "line": p.line, "column": p.column, "level": p.level,
             "message": p.message, "hint": p.hint} for p in [*problems, *warnings]]})
        return 2 if problems else 0
    if problems:
        raise config_file.refusal(path, problems)
    for warning in warnings:
        print(plain(warning, keep="\n"))
    count = len(warnings)
    print(f"{path} is good" + (f", but for {count} warning{'s' if count > 1 else ''}" if count else ""))
    return 0


def _doubts(path: Path, config: Config, home: Home) -> list[Problem]:
    from engine import actions, config_doubts
    from engine.located import load
    from engine.procedures.actions import Registry
    from engine.procedures.check import procedures_in
    from engine.procedures.library import directories

    if not path.exists():
        return []
    registry = Registry()
    actions.register(registry)
    registry.load_entry_points()
    ids = {file.stem for place in directories(config, home.path) if place.is_dir()
           for file in procedures_in(place)}
    return config_doubts.doubts(config, load(path), actions=[*registry.names(), "shell", "manual"],
                                procedures=ids, system=home.mode == "system")


def _show(home: Home, *, json: bool) -> int:
    import msgspec

    from engine import config_file
    from engine.cli.text import coloured, columns, emit, plain, say

    settings = config_file.settings(home.config, config_file.load(home.config))
    if json:
        emit({"path": str(home.config), "exists": home.config.exists(), "settings": [
            {"key": s.key, "value": s.value, "source": s.source} for s in settings]})
        return 0
    colour = coloured()
    say(columns([[s.key, (plain(s.source), "dim"), plain(msgspec.json.encode(s.value).decode())]
                 for s in settings], header=["KEY", "FROM", "VALUE"], colour=colour))
    return 0
