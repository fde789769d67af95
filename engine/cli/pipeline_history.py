"""`opsdeck pipeline history PROJECT`: the definitions that runs have used, the last used first."""

from __future__ import annotations

import argparse

from engine.api import wire
from engine.api.light import connect
from engine.cli.projects import meant
from engine.cli.text import coloured, columns, emit, paint, plain, say, stamp

HEADER = ("", "VERSION", "FILE", "PROCEDURE", "LAST", "BY", "RUNS", "HOW")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ("examples:\n  opsdeck pipeline history flights\n"
                     "  opsdeck pipeline history flights --show 3     # its text, and how it differs")
    parser.add_argument("project", metavar="PROJECT", help="as opsdeck.yaml names it, or its folder")
    parser.add_argument("--show", type=int, metavar="VERSION",
                        help="the text of one version, and its difference from the file in the folder")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    client, project = connect(args.home), meant(args.project)
    if args.show is not None:
        one = client.definition(project, args.show)
        emit(one) if args.json else say(shown(one))
        return 0
    found = client.definitions(project)
    emit(found) if args.json else say(lines(found, colour=coloured()))
    return 0


def lines(found: wire.Definitions, *, colour: bool) -> list[str]:
    if not found.definitions:
        return [f"no run of {found.project} has used a definition yet"]
    rows = [("▶" if one.present else "", str(one.number), one.sha256[:12], plain(one.procedure or "-"),
             stamp(one.last, found.at), plain(one.by), str(one.runs), plain(_how(one)))
            for one in found.definitions]
    told = columns(rows, header=HEADER, colour=colour)
    if found.unused:
        told.append(paint(f"{found.path} has changes that no run has used", "warn", colour))
    return told


def _how(one: wire.Definition) -> str:
    if one.how == "rollback":
        return f"put back: {one.reason}"
    return "kept before another took its place" if one.how == "saved" else f"used by run {one.run}"


def shown(one: wire.DefinitionText) -> list[str]:
    """The text, then what is otherwise in the folder now."""
    import difflib

    difference = list(difflib.unified_diff(one.file.splitlines(), one.present.splitlines(),
                                           f"version {one.number}", "in the folder", lineterm=""))
    after = ["", *difference] if difference else ["", "The file in the folder is this very text."]
    return [plain(row) for row in [*one.file.splitlines(), *after]]
