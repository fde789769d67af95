"""`opsdeck demo`: a real model service to try everything on, set up before your eyes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from engine.errors import EngineUnreachable, NotPermitted, UsageError
from engine.home import Home

NAME = "demo"
INTERMIXED = True
HELP = "a real model service to try everything on"
EXAMPLE = """examples:
  opsdeck demo                                     set it up, watch that, and stay in the console
  opsdeck demo --no-console                        the same without a screen; ends when it is up
  opsdeck demo fault latency --amount 300          make the challenger 300 ms slower
  opsdeck demo fault timeout --variant champion --amount 20
  opsdeck demo fault clear                         mend it
  opsdeck demo stop                                end every process it started
  opsdeck demo --clean                             say what that removes, ask, and remove its home"""
KINDS = ("latency", "timeout", "out_of_memory", "invalid_input", "model_error", "unavailable", "kill")
DEFAULT_AMOUNT = {"latency": 300.0}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLE
    parser.add_argument("what", nargs="?", choices=("stop", "fault"),
                        help="stop: end it; fault: break it on purpose")
    parser.add_argument("kind", nargs="?", metavar="KIND",
                        help=f"of a fault: {', '.join(KINDS)}, or clear")
    parser.add_argument("--variant", default="challenger", choices=("champion", "challenger"),
                        help="which model server a fault is for (challenger)")
    parser.add_argument("--amount", type=float,
                        help="milliseconds of latency (300), or percent of requests (10)")
    parser.add_argument("--rps", type=float, default=50.0, help="requests a second (50)")
    parser.add_argument("--speed", type=float, default=3600.0,
                        help="seconds of the calendar of 2013 a second (3600: an hour)")
    parser.add_argument("--no-console", action="store_true", help="set it up without a screen")
    parser.add_argument("--clean", action="store_true",
                        help="stop it and remove its home, after you typed demo; refused where more is in it")
    parser.add_argument("--yes", action="store_true", help="with --clean: do not ask")
    parser.add_argument("--everything", action="store_true",
                        help="with --clean: also what the demo did not bring, such as runs of your own")


def run(args: argparse.Namespace) -> int:
    home: Home = args.home
    if home.mode == "system":
        raise NotPermitted("the demo does not go into a system engine's home",
                           hint="give it one of its own: opsdeck demo --home DIRECTORY")
    if args.clean:
        return _clean(home, args)
    if args.yes or args.everything:
        raise UsageError("--yes and --everything go with --clean")
    if args.what == "stop":
        return _stop(home)
    if args.what == "fault":
        return _fault(home, args)
    return _set_up(home, args)


def _set_up(home: Home, args: argparse.Namespace) -> int:
    if not 0 < args.rps <= 1000:
        raise UsageError("--rps takes more than 0 and at most 1000 requests a second")
    if not 0 < args.speed <= 86400:
        raise UsageError("--speed takes more than 0 and at most 86400")
    from engine.api import wire
    from engine.api.light import connect
    from engine.daemon.lifecycle import start
    from engine.demo.configs import prepare
    from engine.home import prepare as prepare_home

    prepare_home(home)
    up = _processes_run(home)
    prepare(home.path, running=up, rps=args.rps, speed=args.speed)
    start(home)
    desk = connect(home)
    going = [r for r in desk.runs(["running", "waiting", "paused"]) if r.procedure == "setup"]
    view = desk.run(going[0].id) if going else desk.start_run(wire.StartRun(procedure="setup"))
    if args.no_console or not (sys.stdin.isatty() and sys.stdout.isatty()):
        from engine.cli.run import follow

        code = follow(desk, view, json=False)
        if code == 0:
            print("the demo is up: `opsdeck` opens the console, `opsdeck demo stop` ends it")
        return code
    from engine.cli.console import open_console

    return open_console(home, run=view.id)


def _fault(home: Home, args: argparse.Namespace) -> int:
    from engine.demo import faults

    _is_demo(home)
    if args.kind == "clear":
        faults.clear(home.path)
        print("the faults are cleared; a server that was killed stays down: "
              "opsdeck run restart-server -p service=flights -p process=…")
        return 0
    if args.kind not in KINDS:
        from engine.located import did_you_mean

        raise UsageError(f"there is no fault {args.kind!r}" if args.kind else "say which fault",
                         hint=did_you_mean(args.kind or "", {*KINDS, "clear"})
                         or f"known: {', '.join(KINDS)}, clear")
    if args.kind == "kill":
        pid = faults.kill(home.path, args.variant, faults.supervised(home.path))
        print(f"killed the {args.variant}'s server, pid {pid}")
        return 0
    amount = DEFAULT_AMOUNT.get(args.kind, 10.0) if args.amount is None else args.amount
    print(f"{args.variant}: " + faults.describe(
        faults.inject(home.path, args.variant, args.kind, amount)))
    if _without_traffic(home, args.variant):
        print(f"{args.variant} has none of the traffic, so nobody will notice: "
              "`opsdeck run clear-faults` gives the challenger its 5 % back")
    return 0


def _without_traffic(home: Home, variant: str) -> bool:
    """Whether the engine, if one runs, sees that a variant gets no requests."""
    from engine.api.light import connect
    from engine.demo.layout import SERVICE

    try:
        services = connect(home).status().services
    except EngineUnreachable:
        return False
    return any(row.weight == 0 for service in services if service.name == SERVICE
               for row in service.variants if row.name == variant)


def _stop(home: Home) -> int:
    """End the runs, the processes and the engine, in this order."""
    _is_demo(home)
    _abort_runs(home)
    ended = _stop_processes(home)
    from engine.daemon.lifecycle import stop

    engine = stop(home)
    names = [*ended, *(["the engine"] if engine else [])]
    print("ended: " + ", ".join(names) if names else "nothing of the demo runs")
    return 0


def _abort_runs(home: Home) -> None:
    from engine.api import wire
    from engine.api.light import connect

    desk = connect(home)
    try:
        for run in desk.runs(["running", "waiting", "paused"]):
            desk.act(run.id, "abort", wire.Act(reason="opsdeck demo stop"))
    except EngineUnreachable:
        return


def _stop_processes(home: Home) -> list[str]:
    import asyncio

    from engine.config_file import load
    from engine.supervision import ProcessSupervisor, processes

    supervisor = ProcessSupervisor(home.path, processes(load(home.config)))

    async def work() -> list[str]:
        return [p.name for p in await supervisor.stop_all()]

    return asyncio.run(work())


def _clean(home: Home, args: argparse.Namespace) -> int:
    from engine.cli.demo_clean import clean

    if not home.config.exists() and not (home.path / "demo").exists():
        print(f"there is no demo in {home.path}")
        return 0
    _is_demo(home)
    return clean(home, args, lambda: _stop(home))


def _is_demo(home: Home) -> None:
    """Raise UsageError unless the home's config is one that the demo wrote."""
    from engine.demo.layout import MARK

    if not home.config.exists():
        raise UsageError(f"there is no demo in {home.path}", hint="`opsdeck demo` sets one up")
    if not home.config.read_text(encoding="utf-8").startswith(MARK):
        raise UsageError("this home is not the demo's", where=str(home.config),
                         hint="name the demo's home with --home")


def _processes_run(home: Home) -> bool:
    from engine.demo.faults import supervised
    from engine.demo.layout import SERVICE, VARIANTS

    pid_of: Any = supervised(home.path)
    return any(pid_of(f"{SERVICE}/{name}") for name in (*VARIANTS, "gateway", "replayer"))
