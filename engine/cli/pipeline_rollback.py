"""`opsdeck pipeline rollback PROJECT VERSION --reason TEXT`: an earlier definition is put back, recorded."""

from __future__ import annotations

import argparse

from engine.api import wire
from engine.api.light import connect
from engine.cli.projects import meant
from engine.cli.text import emit, plain, say


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ("example:\n"
                     "  opsdeck pipeline rollback flights 3 --reason 'the new gates refuse every model'")
    parser.add_argument("project", metavar="PROJECT", help="as opsdeck.yaml names it, or its folder")
    parser.add_argument("version", type=int, metavar="VERSION",
                        help="as `opsdeck pipeline history` numbers them")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; the journal keeps it")
    parser.add_argument("--force", action="store_true",
                        help="also where the file has changes that no run has used, which are kept")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    client = connect(args.home)
    wanted = wire.RestoreDefinition(meant(args.project), args.reason, args.force)
    done = client.restore(args.version, wanted)
    if args.json:
        emit(done)
        return 0
    said = [plain(done.text)]
    if done.saved is not None:
        said.append(f"what was there is kept as version {done.saved}")
    if done.problems:
        said += ["it has problems now:", *(f"  {plain(one)}" for one in done.problems)]
    say(said)
    return 0
