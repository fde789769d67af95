"""`opsdeck engine serve | start | stop | status | unit`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from engine.errors import EngineUnreachable, OpsdeckError
from engine.home import Home

NAME = "engine"
HELP = "start, stop and look at the engine"
EXAMPLE = "example:\n  opsdeck engine start && opsdeck engine status --json"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLE
    verbs = parser.add_subparsers(dest="what", metavar="serve|start|stop|status|reload|unit",
                                  required=True)
    serve = verbs.add_parser("serve", help="be the engine, in this process, until SIGTERM")
    serve.add_argument("--detached", action="store_true", help=argparse.SUPPRESS)
    serve.add_argument("--report", type=int, help=argparse.SUPPRESS)
    start = verbs.add_parser("start", help="start it apart from this terminal; returns when it "
                                           "answers")
    start.add_argument("--json", action="store_true")
    start.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    stop = verbs.add_parser("stop", help="end it; runs go on when it is started again")
    stop.add_argument("--force", action="store_true", help="kill it if it has not ended in time")
    stop.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    status = verbs.add_parser("status", help="whether it runs; exit 7 if it does not")
    status.add_argument("--json", action="store_true")
    reload = verbs.add_parser("reload", help="read its config again; runs go on, and a config with "
                                             "problems changes nothing (admin)")
    reload.add_argument("--json", action="store_true")
    verbs.add_parser("unit", help="print the systemd unit of a system engine")


def run(args: argparse.Namespace) -> int:
    if args.what == "serve":
        return _serve(args.home, detached=args.detached, descriptor=args.report)
    if args.what == "start":
        return _start(args.home, args.timeout, json=args.json)
    if args.what == "stop":
        return _stop(args.home, args.timeout, force=args.force)
    if args.what == "reload":
        return _reload(args.home, json=args.json)
    return _status(args.home, json=args.json) if args.what == "status" else _unit()


def _serve(home: Home, *, detached: bool, descriptor: int | None) -> int:
    if detached and os.fork():
        os._exit(0)  # now init's child, in the session that who started us made for it
    try:
        _be_the_engine(home, detached=detached, descriptor=descriptor)
    except Exception as error:
        if descriptor is None:
            raise
        return _tell(error, descriptor)
    return 0


def _be_the_engine(home: Home, *, detached: bool, descriptor: int | None) -> None:
    import asyncio

    from engine.app import open_engine
    from engine.config_file import of_engine
    from engine.daemon import lifecycle, logs, run
    from engine.home import prepare

    os.umask(0o077)
    prepare(home)
    config = of_engine(home)
    logs.write_to(home, in_front=not detached)

    def ready() -> None:
        if descriptor is not None:
            lifecycle.report(descriptor)

    asyncio.run(run.serve(home, config, open_engine, ready=ready))


def _tell(error: Exception, descriptor: int) -> int:
    """Give the reason to who started us; nobody sees our standard error. Not once we serve."""
    import traceback

    from engine.daemon.lifecycle import report

    if not isinstance(error, OpsdeckError):
        traceback.print_exception(error)  # standard error is the home's log here
        error = OpsdeckError(f"the engine met an error of its own ({type(error).__name__})",
                             hint="its log tells the rest")
    try:
        report(descriptor, error)
    except OSError:  # closed: it has reported before that it serves
        print(f"engine ended: {error}", file=sys.stderr)
    return error.exit_code


def _start(home: Home, timeout: float, *, json: bool) -> int:
    from engine.cli.text import emit
    from engine.daemon.lifecycle import start

    started = start(home, timeout=timeout)
    if json:
        emit({"pid": started.info.pid, "socket": started.info.socket,
              "version": started.info.version, "state": started.info.state,
              "already": started.already})
        return 0
    word = "already runs" if started.already else "runs"
    print(f"the engine {word}: pid {started.info.pid}, socket {started.info.socket}")
    return 0


def _stop(home: Home, timeout: float, *, force: bool) -> int:
    from engine.daemon.lifecycle import stop

    pid = stop(home, timeout=timeout, force=force)
    print("no engine runs in this home" if pid is None else f"the engine (pid {pid}) has ended")
    return 0


def _status(home: Home, *, json: bool) -> int:
    from engine.cli.text import emit, plain
    from engine.daemon.lifecycle import status

    found = status(home)
    if json:
        emit(found)
    elif found["state"] == "stopped":
        print(f"no engine runs in {home.path}\n  start one with `opsdeck engine start`")
    else:
        version = f", version {found['version']}" if found["version"] else ""
        print(f"the engine is {found['state']}: pid {found['pid']}, socket {found['socket']}"
              f"{version}")
        for line in (found.get("problem"), found.get("config_problem")):
            if line:
                print(plain(f"  {line}"))
        if restart := found.get("restart"):
            print(plain(f"  written in the config, and needs a restart: {', '.join(restart)}"))
    return 0 if found["version"] else EngineUnreachable.exit_code


def _reload(home: Home, *, json: bool) -> int:
    from engine.api.light import connect
    from engine.cli.text import emit, plain, say

    done = connect(home).reload()
    if json:
        emit(done)
    else:
        say([plain(line) for line in done.text.split("; ")])
    return 0


def _unit() -> int:
    import shutil

    import engine.daemon

    unit = Path(engine.daemon.__path__[0], "opsdeck.service").read_text()
    command = shutil.which("opsdeck") or str(Path(sys.argv[0]).resolve())
    print(unit.replace("@opsdeck@", command), end="")
    return 0
