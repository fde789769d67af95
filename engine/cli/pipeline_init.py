"""`opsdeck pipeline init [FOLDER]`: a commented project that passes its own check."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = ("It asks nothing and overwrites nothing. The project trains on a small table that it\n"
                     "makes itself; put your data and your training in its place.\n\n"
                     "example:\n  opsdeck pipeline init flights && opsdeck check flights")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER",
                        help="where to; it is made if it is not there (here by default)")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Raises Conflict where a file of a project is there already; then nothing is written."""
    from engine.cli.text import emit, say
    from engine.pipeline.project import starter

    written = starter.write(args.folder)
    if args.json:
        emit({"folder": str(args.folder.absolute()), "files": [str(one) for one in written]})
        return 0
    say([*(f"{args.folder / one}" for one in written), "",
         f"`opsdeck check {args.folder}` reads it; its comments say what goes where."])
    return 0
