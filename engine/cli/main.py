"""The command `opsdeck`: finds the verb, loads that verb alone, and turns errors into sentences.

A verb is a module with NAME, HELP, `configure(parser)` and `run(args) -> int` (the exit code).
`args.home` is the `engine.home.Home` that is meant; `args.verb` is the verb as typed (one module may
serve several; `parser.get_default("verb")` tells `configure`). With INTERMIXED = True, options may stand
between its arguments; `spelled(options)` may write out what a person may leave out. Nothing is
imported here before it is needed: `opsdeck --version` has 80 ms.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse

GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    ("Look", (
        ("status", "engine.cli.status", "the services, their signals and what is wrong"),
        ("runs", "engine.cli.runs", "the runs, newest first"),
        ("show", "engine.cli.show", "one run: its steps, what it waits for, its output"),
        ("library", "engine.cli.library", "the procedures that can be run"),
        ("timeline", "engine.cli.timeline", "everything that happened in a run"),
        ("handover", "engine.cli.handover", "what the next shift must know"),
        ("audit", "engine.cli.audit", "verify the journal, or seal it after a corruption"),
    )),
    ("Act", (
        ("run", "engine.cli.run", "run a procedure"),
        ("confirm", "engine.cli.verbs", "say yes to a step that waits for a confirmation"),
        ("approve", "engine.cli.verbs", "approve a step"),
        ("reject", "engine.cli.verbs", "reject a step: it does not run"),
        ("answer", "engine.cli.verbs", "answer a manual step"),
        ("settle", "engine.cli.verbs", "say whether a step of unknown outcome was done"),
        ("retry", "engine.cli.verbs", "run a failed step again"),
        ("skip", "engine.cli.verbs", "skip a step that may be skipped"),
        ("pause", "engine.cli.verbs", "start no further step for now"),
        ("resume", "engine.cli.verbs", "go on with a paused run"),
        ("abort", "engine.cli.verbs", "stop a run, or stop it and undo"),
    )),
    ("Roll out", (
        ("rollout", "engine.cli.rollout", "roll a new version out, step by step, and look after it"),
        ("judge", "engine.cli.judge", "judge a canary's counts, or recompute a rollout's verdicts"),
    )),
    ("Train", (
        ("triggers", "engine.cli.triggers", "what begins trainings by itself, and why nothing does"),
        ("trigger", "engine.cli.triggers", "begin a training by hand"),
        ("pipeline", "engine.cli.pipeline", "begin a project, or go back to an earlier definition"),
        ("reproduce", "engine.cli.reproduce", "do a training run again, and say what keeps one from it"),
        ("models", "engine.cli.models", "two runs or versions of a model side by side"),
        ("cases", "engine.cli.cases", "the hard cases that a model must bear; make one of a request"),
    )),
    ("Set up", (
        ("engine", "engine.cli.engine_", "start, stop and look at the engine"),
        ("config", "engine.cli.config", "an example, a check, and the values that hold"),
        ("check", "engine.cli.check", "check procedures and projects"),
        ("demo", "engine.cli.demo", "a real model service to try everything on"),
    )),
)
VERBS = {name: (module, help) for _, group in GROUPS for name, module, help in group}

USAGE = """\
usage: opsdeck [--home PATH] [--write | --read-only]    open the console
       opsdeck [--home PATH] VERB …                     one command

"""
FOOT = """
`opsdeck VERB --help` says more, with an example. `opsdeck --version` says which version this is.
The engine is found through --home, $OPSDECK_HOME, /etc/opsdeck, or ~/.local/state/opsdeck.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments in (["--version"], ["-V"]):
        import engine

        print(f"opsdeck {engine.__version__}")
        return 0
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale may lack our glyphs
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _close_output()
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except Exception as error:
        from engine.cli.failure import report

        return report(error, arguments)


def _dispatch(arguments: list[str]) -> int:
    home, rest = _globals(arguments)
    if not rest or rest[0].startswith("-"):
        if rest[:1] in (["--help"], ["-h"]):
            return _help()
        from engine.cli import console

        return console.run(home, rest)
    verb, options = rest[0], rest[1:]
    if verb == "help":
        return _dispatch([options[0], "--help"]) if options else _help()
    if verb not in VERBS:
        _unknown(verb)
    return _run(verb, home, options)


def _globals(arguments: list[str]) -> tuple[str | None, list[str]]:
    """`--home` before the verb, and what is left."""
    home = None
    while arguments and arguments[0].split("=")[0] == "--home":
        name, equals, value = arguments[0].partition("=")
        if equals:
            home, arguments = value, arguments[1:]
        elif len(arguments) > 1:
            home, arguments = arguments[1], arguments[2:]
        else:
            from engine.errors import UsageError

            raise UsageError(f"{name} wants a path")
    return home, arguments


def _run(verb: str, home: str | None, options: list[str]) -> int:
    import argparse
    import importlib

    from engine.home import find

    name, help = VERBS[verb]
    module = importlib.import_module(name)
    parser = argparse.ArgumentParser(
        prog=f"opsdeck {verb}", description=f"{help[0].upper()}{help[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.set_defaults(verb=verb)
    parser.add_argument("--home", metavar="PATH", default=home,
                        help="the engine's home (otherwise $OPSDECK_HOME)")
    module.configure(parser)
    _home_everywhere(parser)
    options = getattr(module, "spelled", list)(options)
    mixed = getattr(module, "INTERMIXED", False)
    args = parser.parse_intermixed_args(options) if mixed else parser.parse_args(options)
    args.home = find(args.home)
    code: int = module.run(args)
    return code


def _home_everywhere(parser: argparse.ArgumentParser) -> None:
    """`--home` may stand after a second word too: `opsdeck engine stop --home PATH`."""
    import argparse

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in dict.fromkeys(action.choices.values()):
                sub.add_argument("--home", metavar="PATH", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def _help() -> int:
    lines = [USAGE]
    for title, verbs in GROUPS:
        lines.append(f"{title}\n")
        lines += [f"  {name:<10} {help}\n" for name, _, help in verbs]
    print("".join([*lines, FOOT]), end="")
    return 0


def _unknown(verb: str) -> NoReturn:
    import difflib

    from engine.errors import UsageError

    near = difflib.get_close_matches(verb, VERBS, 1)
    raise UsageError(f"opsdeck has no verb {verb!r}",
                     hint=f"did you mean `{near[0]}`?" if near else "`opsdeck help` lists them")


def _close_output() -> None:
    """The reader has left (`opsdeck runs | head`): let nothing more be written at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
