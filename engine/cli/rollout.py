"""`opsdeck rollout VERB NAME`: roll a new version out, and look after it. NAME is a service or a run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.api.light import Client

NAME = "rollout"
HELP = "roll a new version out, step by step, and look after it"
PLAN = "start-rollout"
VERBS: Mapping[str, tuple[str, str]] = {
    "start": ("roll a variant of a service out", "flights --to challenger"),
    "status": ("one screen of it; `opsdeck rollout NAME` is the same", "flights"),
    "watch": ("a line for each change until it ends, for logs and pipes", "flights --json"),
    "list": ("those that run, then those that ended last", "--json"),
    "pause": ("stay at this weight; what comes in is analysed on", "flights --reason 'call with the team'"),
    "resume": ("go on", "flights"),
    "promote": ("skip the watching of the present step; never an approval", "flights --yes"),
    "promote-full": ("skip all further watching; never an approval", "flights --confirm flights"),
    "abort": ("give all traffic back, at once", "flights --reason 'errors in the log'"),
    "retry": ("start one that failed or was rolled back again", "flights"),
    "undo": ("roll back after a promotion", "flights"),
}
EXITS = """exit codes:
  0 done · 1 failed · 2 bad usage · 3 waits for a person · 4 outcome unknown
  5 rolled back, also by an abort: that restores the weights from before
  7 engine unreachable · 8 not permitted"""
_FOLLOW = ("start", "retry", "undo")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "\n".join(["examples:", *(f"  opsdeck rollout {verb} {example}"
                                             for verb, (_, example) in VERBS.items())])
    subs = parser.add_subparsers(dest="rollout", required=True, metavar="VERB")
    for verb, (help, example) in VERBS.items():
        ends = f"\n\n{EXITS}" if verb in (*_FOLLOW, "watch") else ""
        sub = subs.add_parser(
            verb, help=help, description=f"{help[0].upper()}{help[1:]}.", allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  opsdeck rollout {verb} {example}{ends}")
        if verb == "start":
            sub.add_argument("name", metavar="SERVICE")
            _start_options(sub)
        elif verb != "list":
            sub.add_argument("name", metavar="NAME", help="the service, or the id of a run")
        if verb in _FOLLOW:
            _follow_options(sub)
        if verb in ("pause", "resume", "promote", "promote-full", "abort"):
            sub.add_argument("--reason", metavar="TEXT", help="why; it is recorded")
        if verb == "promote":
            sub.add_argument("--yes", action="store_true", help="do not ask")
        if verb == "promote-full":
            sub.add_argument("--confirm", metavar="TEXT", help="the service's name, instead of typing it")
        if verb == "watch":
            sub.add_argument("--no-wait", dest="wait", action="store_false",
                             help="exit with 3 once it waits for a person")
        sub.add_argument("--json", action="store_true", help=_json_help(verb))


def _start_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--to", required=True, metavar="VARIANT", help="the variant that takes the traffic")
    sub.add_argument("--plan", default=PLAN, metavar="PROCEDURE", help=f"the plan ({PLAN} by default)")
    sub.add_argument("-p", "--param", metavar="K=V", action="append", default=[],
                     help="a parameter of the plan; may be given several times")


def _follow_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--dry-run", action="store_true", help="run nothing that has an effect")
    sub.add_argument("--yes", action="store_true",
                     help="answer plain confirmations with yes; never typed ones or approvals")
    sub.add_argument("--confirm", metavar="STEP=TEXT", action="append", default=[],
                     help="the text a typed confirmation wants; may be given several times")
    sub.add_argument("--follow", action=argparse.BooleanOptionalAction, default=True,
                     help="stay until it ends or waits for a person (the default)")


def _json_help(verb: str) -> str:
    if verb == "watch":
        return "one JSON object for each change"
    return "print JSON" if verb in ("status", "list") else "print the run as JSON"


def spelled(options: list[str]) -> list[str]:
    """The options with the verb that was left out: `rollout NAME` means `rollout status NAME`.

    Raises UsageError with the nearest verb where the first of several words is none.
    """
    words = [at for at, option in enumerate(options) if not option.startswith("-")
             and (at == 0 or options[at - 1] != "--home")]
    if not words or options[words[0]] in VERBS:
        return options
    at, word = words[0], options[words[0]]
    if len(words) == 1:
        return [*options[:at], "status", *options[at:]]
    import difflib

    near = difflib.get_close_matches(word, VERBS, 1)
    second = options[words[1]]
    hint = (f"did you mean `opsdeck rollout {second} {word}`?" if second in VERBS
            else f"did you mean `{near[0]}`?" if near else f"verbs are {', '.join(VERBS)}")
    raise UsageError(f"opsdeck rollout has no verb {word!r}", hint=hint)


def run(args: argparse.Namespace) -> int:
    from engine.api.light import connect

    client = connect(args.home)
    do: dict[str, Callable[[Client, argparse.Namespace], int]] = {
        "status": _status, "list": _list, "watch": _watch}
    if args.rollout in _FOLLOW:
        from engine.cli import rollout_start

        do |= {"start": rollout_start.start, "retry": rollout_start.retry, "undo": rollout_start.undo}
    elif args.rollout not in do:
        from engine.cli import rollout_acts

        do |= {"pause": rollout_acts.act, "resume": rollout_acts.act, "abort": rollout_acts.abort,
               "promote": rollout_acts.promote, "promote-full": rollout_acts.promote}
    return do[args.rollout](client, args)


def _status(client: Client, args: argparse.Namespace) -> int:
    from engine.cli.rollout_find import find
    from engine.cli.rollout_text import lines
    from engine.cli.text import coloured, emit, say

    found = find(client, args.name)
    if args.json:
        emit(found)
    else:
        say(lines(found, colour=coloured()))
    return 0


def _list(client: Client, args: argparse.Namespace) -> int:
    import time

    from engine.cli.rollout_text import listed
    from engine.cli.text import coloured, emit, say

    found = client.rollouts()
    if args.json:
        emit({"rollouts": found})
        return 0
    say(listed(found, now=time.time(), colour=coloured())
        or ["no rollouts yet; `opsdeck rollout start SERVICE --to VARIANT` begins one"])
    return 0


def _watch(client: Client, args: argparse.Namespace) -> int:
    from engine.cli.rollout_find import awaited
    from engine.cli.rollout_watch import watch

    return watch(client, awaited(client, args.name), json=args.json, wait=args.wait)
