"""What begins a rollout: `start`, `retry` with the last one's parameters, `undo` after a promotion."""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

from engine.api import wire
from engine.api.light import Client
from engine.cli.rollout_find import find, service
from engine.cli.rollout_text import ending, variant
from engine.cli.run import document, follow, pairs, print_dry
from engine.cli.text import emit, plain
from engine.errors import Conflict, UsageError

UNDO = "rollback-after-promotion"


def start(client: Client, args: argparse.Namespace) -> int:
    given = pairs(args.param, "-p", "k=v")
    for name, instead in (("service", "SERVICE"), ("to", "--to")):
        if name in given:
            raise UsageError(f"-p {name}= is what {instead} says already: leave it out")
    text = document(args.plan)
    service(client, args.name)
    _is_a_plan(client, args.plan, text)
    return _begin(client, args, args.plan, {"service": args.name, "to": args.to, **given}, text)


def _is_a_plan(client: Client, plan: str, text: str | None) -> None:
    """Raises UsageError for a procedure of another kind, which would only complain of its parameters."""
    kind: str | None
    if text is None:
        library = client.library()
        kind = next((one.kind for one in library if one.id == plan), None)
    else:
        said = re.search(r"^kind:\s*['\"]?(\w+)", text, re.MULTILINE)
        library, kind = [], said.group(1) if said else None
    if kind in (None, "rollout"):  # the engine says what is wrong with one that it does not know
        return
    plans = [one.id for one in library if one.kind == "rollout"]
    raise UsageError(f"{plan} is no plan of a rollout: it is a {kind}",
                     hint=f"plans are {', '.join(plans)}" if plans else "a plan says `kind: rollout`")


def retry(client: Client, args: argparse.Namespace) -> int:
    """Raises Conflict unless the last rollout has ended, and not as `done`."""
    last = find(client, args.name)
    _has_ended(last, "retry")
    if last.state == "done":
        raise Conflict(f"the rollout of {last.service} (run {last.run}) is done: there is nothing to retry",
                       hint=f"`opsdeck rollout undo {last.service}` goes back, `opsdeck rollout start "
                            f"{last.service} --to VARIANT` begins another one")
    params = client.run(last.run).params
    _say(args, f"retrying run {last.run} of {last.service}, {ending(last)}",
         f"  it starts {last.procedure} with {_told(params)}")
    return _begin(client, args, last.procedure, params)


def undo(client: Client, args: argparse.Namespace) -> int:
    """Raises Conflict unless the last rollout is done."""
    last = find(client, args.name)
    _has_ended(last, "undo")
    if last.state != "done":
        raise Conflict(f"the rollout of {last.service} (run {last.run}) promoted nothing: {ending(last)}",
                       hint="`opsdeck status` shows who has the traffic, `opsdeck rollout retry "
                            f"{last.service}` starts it again")
    params = {"service": last.service, "to": last.champion}
    _say(args, f"undoing run {last.run} of {last.service}: from "
               f"{variant(last.challenger, last.challenger_version)} back to "
               f"{variant(last.champion, last.champion_version)}",
         f"  it starts {UNDO} with {_told(params)}")
    return _begin(client, args, UNDO, params)


def _has_ended(last: wire.Rollout, verb: str) -> None:
    if last.ended is None:
        raise Conflict(f"there is nothing to {verb} yet: the rollout of {last.service} (run {last.run}) "
                       "still runs",
                       hint=f"`opsdeck rollout abort {last.service}` takes it back, `opsdeck rollout watch "
                            f"{last.service}` tells how it goes")


def _begin(client: Client, args: argparse.Namespace, procedure: str, params: dict[str, Any],
           text: str | None = None) -> int:
    view = client.start_run(wire.StartRun(
        procedure=procedure, params=params, dry_run=args.dry_run, document=text, yes=args.yes,
        confirm=pairs(args.confirm, "--confirm", "STEP=TEXT")))
    if args.dry_run:
        return print_dry(view, json=args.json)
    if args.follow:
        return follow(client, view, json=args.json)
    if args.json:
        emit(view)
    else:
        print(f"rollout of {plain(params['service'])} has started: run {view.id}\n"
              f"  `opsdeck rollout watch {view.id}` tells how it goes")
    return 0


def _told(params: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _say(args: argparse.Namespace, *sentences: str) -> None:
    """With --json they go where they are in nobody's way."""
    for sentence in sentences:
        print(plain(sentence), file=sys.stderr if args.json else sys.stdout, flush=True)
