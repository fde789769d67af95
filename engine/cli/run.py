"""`opsdeck run`: start a procedure and follow it, with or without a screen, an engine or neither."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from engine.api import wire
from engine.api.backend import OutputChunk, Verb
from engine.cli.following import Follower, exit_code
from engine.errors import NotPermitted, UsageError
from engine.home import Home

NAME = "run"
HELP = "start a procedure and follow it to its end"
EXAMPLE = "opsdeck run rollback-model -p service=flights --confirm drain=flights"
EXITS = """exit codes:
  0 done · 1 failed · 2 bad usage or document · 3 waits for a person · 4 outcome unknown
  5 rolled back · 6 aborted · 7 engine unreachable · 8 not permitted"""


class Desk(Protocol):
    """What a run needs of an engine, on a socket or in this process."""

    def start_run(self, request: wire.StartRun) -> wire.RunView: ...
    def run(self, id: str) -> wire.RunView: ...
    def act(self, id: str, verb: Verb, act: wire.Act) -> wire.RunView: ...
    def follow(self, id: str) -> Iterator[wire.RunView | OutputChunk]: ...


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("procedure", metavar="PROCEDURE",
                        help="an id in the library, or a path (needs admin, or --embedded)")
    parser.add_argument("-p", "--param", metavar="K=V", action="append", default=[],
                        help="a parameter; may be given several times")
    parser.add_argument("--dry-run", action="store_true", help="run nothing that has an effect")
    parser.add_argument("--probe", action="store_true",
                        help="with --dry-run: run checks and probes that are commands, too")
    parser.add_argument("--yes", action="store_true",
                        help="answer plain confirmations with yes; never typed ones or approvals")
    parser.add_argument("--confirm", metavar="STEP=TEXT", action="append", default=[],
                        help="the text a typed confirmation wants; may be given several times")
    parser.add_argument("--embedded", action="store_true",
                        help="be the engine for this run, in this process")
    parser.add_argument("--detach", action="store_true",
                        help="print the run's id at once and leave it to the engine")
    parser.add_argument("--json", action="store_true", help="print the run as JSON when it ends")
    parser.add_argument("--summary", type=Path, metavar="FILE",
                        help="write what came of it as Markdown, for a pull request")
    parser.add_argument("--junit", type=Path, metavar="FILE",
                        help="write its steps and gates as JUnit, for CI")
    parser.epilog = f"example:\n  {EXAMPLE}\n\n{EXITS}"


def run(args: argparse.Namespace) -> int:
    if args.probe and not args.dry_run:
        raise UsageError("--probe goes with --dry-run")
    if args.embedded and args.detach:
        raise UsageError("--embedded and --detach exclude each other",
                         hint="an embedded run ends with this process; start an engine to detach")
    reports = _reports(args)
    request = _request(args)
    with _desk(args) as desk:
        view = desk.start_run(request)
        if args.dry_run:
            return print_dry(view, json=args.json)
        if args.detach:
            print(wire_json({"id": view.id}) if args.json else f"run {view.id} has started; "
                  f"opsdeck show {view.id} tells how it goes")
            return 0
        return follow(desk, view, json=args.json, embedded=args.embedded, reports=reports)


def follow(desk: Desk, view: wire.RunView, *, json: bool, embedded: bool = False,
           reports: Sequence[tuple[Path, str]] = ()) -> int:
    """Follow a run to its end, or to where only a person helps; its exit code. `reports`: files to write
    then, each with what it is."""
    asking = not json and sys.stdin.isatty() and sys.stdout.isatty()
    follower = Follower(desk, asking=asking, quiet=json, embedded=embedded)
    last = follower.follow(view)
    if json:
        print(wire_json(last))
    for path, kind in reports:
        _write(path, kind, last)
    return exit_code(last)


def _reports(args: argparse.Namespace) -> list[tuple[Path, str]]:
    """The files that are wanted. Raises UsageError for one that could not be written once the run is over."""
    wanted = [(path, kind) for path, kind in ((args.summary, "summary"), (args.junit, "junit"))
              if path is not None]
    for path, kind in wanted:
        if args.detach or args.dry_run:
            raise UsageError(f"--{kind} tells how a run went, so it does not go with "
                             f"{'--detach' if args.detach else '--dry-run'}")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise UsageError(f"--{kind} cannot be written there: "
                             f"{'it is a folder' if path.is_dir() else 'there is no such folder'}",
                             where=str(path))
    return wanted


def _write(path: Path, kind: str, view: wire.RunView) -> None:
    from engine.pipeline import summary

    content = summary.markdown(view).encode() if kind == "summary" else summary.gates_junit(view)
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UsageError(f"--{kind} cannot be written: {error.strerror}", where=str(path)) from error


def _request(args: argparse.Namespace) -> wire.StartRun:
    params = pairs(args.param, "-p", "k=v")
    if "/" in (named := params.get("project", "")) or named in (".", ".."):
        from engine.cli.projects import meant
        from engine.pipeline.project.layout import is_project

        if is_project(Path(named).expanduser()):
            params["project"] = meant(named)
    return wire.StartRun(procedure=args.procedure, params=params,
                         dry_run=args.dry_run, probe=args.probe, document=document(args.procedure),
                         yes=args.yes, confirm=pairs(args.confirm, "--confirm", "STEP=TEXT"))


def document(procedure: str) -> str | None:
    """The text of a procedure that is named by its path; None for an id in the library."""
    if "/" not in procedure and not procedure.endswith((".yaml", ".yml")):
        return None
    path = Path(procedure)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"the procedure cannot be read: {why}", where=str(path),
                         hint="give a path to a YAML file, or an id that opsdeck library lists"
                         ) from None


def pairs(given: list[str], option: str, form: str) -> dict[str, str]:
    """The options `K=V` as a dict. Raises UsageError for one without a `=`, or given twice."""
    found: dict[str, str] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} takes {form}, not {item!r}")
        if key in found:
            raise UsageError(f"{option} {key} is given twice")
        found[key] = value
    return found


@contextlib.contextmanager
def _desk(args: argparse.Namespace) -> Iterator[Desk]:
    home: Home = args.home
    if not args.embedded:
        from engine.api.light import connect

        yield connect(home)
        return
    if home.mode == "system":
        raise NotPermitted("a system engine's home is not for embedded runs",
                           hint="name another home with --home or $OPSDECK_HOME")
    from engine.config_file import of_engine
    from engine.embedded import embedded

    with embedded(home, of_engine(home)) as desk:
        yield desk


def wire_json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def print_dry(view: wire.RunView, *, json: bool) -> int:
    """Print what a dry run found; its exit code."""
    if json:
        print(wire_json(view))
        return 1 if view.state == "failed" else 0
    print(f"dry run of {view.procedure}: nothing that has an effect was run\n")
    for number, step in enumerate(view.steps, 1):
        print(f" {number} {step.id}  {step.title}\n     {step.command}\n     {step.reason}")
    return 1 if view.state == "failed" else 0
