"""`opsdeck` without a verb: the console, on an engine that is started first if it may be."""

from __future__ import annotations

import argparse
import sys

from engine.errors import EngineUnreachable, UsageError
from engine.home import Home, find

GROUP = "opsdeck.console"


def run(named: str | None, options: list[str]) -> int:
    """Open the console. A single-user engine that does not run is started; a system's never is."""
    args = _parse(named, options)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the console wants a terminal",
                         hint="`opsdeck status`, `opsdeck runs` and `opsdeck run` do without one")
    home = find(args.home)
    _ensure_engine(home)
    return open_console(home, write=args.write, read_only=args.read_only, theme=args.theme,
                        ascii=args.ascii, mouse=args.mouse, run=args.run)


def open_console(home: Home, *, write: bool = False, read_only: bool = False,
                 theme: str | None = None, ascii: bool = False, mouse: bool = False,
                 run: str | None = None) -> int:
    """The console of an engine that runs, at a run if one is named."""
    import importlib.metadata

    for entry in importlib.metadata.entry_points(group=GROUP):
        code: int = entry.load()(home=home, write=write, read_only=read_only, theme=theme,
                                 ascii=ascii, mouse=mouse, open_run=run)
        return code
    raise UsageError("no console is installed", hint="install the distribution `opsdeck` whole")


def _parse(named: str | None, options: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="opsdeck", allow_abbrev=False,
                                     description="Open the console.",
                                     epilog="`opsdeck help` lists the commands.")
    parser.add_argument("--home", metavar="PATH", default=named,
                        help="the engine's home (otherwise $OPSDECK_HOME)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--write", action="store_true", help="open in write mode")
    mode.add_argument("--read-only", action="store_true",
                      help="open in read-only mode, which cannot be left")
    parser.add_argument("--run", metavar="RUN", help="open at this run")
    parser.add_argument("--theme", metavar="NAME", help="the colours")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII only")
    parser.add_argument("--mouse", action="store_true", help="listen to the mouse")
    return parser.parse_args(options)


def _ensure_engine(home: Home) -> None:
    """Start the engine of a single user's home. A system's is left to systemd: the console waits."""
    from engine.daemon.sockets import answers

    if answers(home.socket):
        return
    if home.mode == "system":
        raise EngineUnreachable(f"the system's engine does not answer at {home.socket}",
                                hint="systemctl start opsdeck")
    from engine.daemon.lifecycle import start

    print(f"starting the engine in {home.path} …", file=sys.stderr, flush=True)
    start(home)
