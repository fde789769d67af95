"""`opsdeck library [ID]`: the procedures that can be run, or one of them."""

from __future__ import annotations

import argparse

from engine.api import wire
from engine.api.light import connect
from engine.cli.text import coloured, columns, emit, plain, say
from engine.errors import NotFound

NAME = "library"
HELP = "the procedures that can be run"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "example:\n  opsdeck library rollback-model"
    parser.add_argument("id", nargs="?", metavar="ID", help="tell of this one what it does")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    found = connect(args.home).library()
    if args.id is not None:
        found = [procedure for procedure in found if procedure.id == args.id]
        if not found:
            raise NotFound(f"the library has no procedure {args.id!r}",
                           hint="`opsdeck library` lists them")
    if args.json:
        emit({"procedures": found} if args.id is None else found[0])
        return 0
    say(one(found[0]) if args.id is not None else table(found))
    return 0


def table(procedures: list[wire.Procedure]) -> list[str]:
    rows = [[plain(p.id), p.kind, plain(p.owner), plain(p.title),
             plain(p.problem or p.review or "")] for p in procedures]
    header = ("PROCEDURE", "KIND", "OWNER", "TITLE", "NOTE")
    return columns(rows, header=header, colour=coloured()) or ["the library is empty"]


def one(procedure: wire.Procedure) -> list[str]:
    """What it is for, what it wants, what it does."""
    shown = [f"{plain(procedure.id)}: {plain(procedure.title)}",
             f"  {procedure.kind} of {plain(procedure.owner)}, reviewed {plain(procedure.reviewed)}"]
    shown += [f"  {plain(text)}" for text in (procedure.problem, procedure.review) if text]
    for name, text in (("use it when", procedure.use_when), ("good after", procedure.good_after)):
        if text:
            shown.append(f"  {name}: {plain(text)}")
    shown += [f"  call {plain(c.get('name', ''))}: {plain(c.get('via', ''))}"
              for c in procedure.contacts]
    if procedure.params:
        shown += ["", *columns([[plain(p.name), p.type, _default(p), plain(p.help)]
                                for p in procedure.params],
                               header=("PARAMETER", "TYPE", "DEFAULT", ""), indent="  ")]
    return [*shown, "", *columns(
        [[str(n), plain(s.id), plain(s.title), plain(s.command)]
         for n, s in enumerate(procedure.steps, 1)],
        header=("", "STEP", "TITLE", "COMMAND"), right="r", indent="  ")]


def _default(param: wire.Param) -> str:
    return "required" if param.required else "-" if param.default is None else plain(param.default)
