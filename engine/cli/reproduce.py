"""`opsdeck reproduce lint PROJECT` and `opsdeck reproduce verify A B`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.reproduce.linting.finding import Finding
    from engine.reproduce.verify import Comparison

NAME = "reproduce"
HELP = "what would keep a training run from being done again, and whether two runs are one"
EXAMPLES = """\
lint reads the files of a project and runs nothing; a line is excused by a comment on it, which may say why:
  started = time.time()  # opsdeck: reproducible: only names the log file
verify compares two manifests: checksums, final loss and metrics, and names the first field that differs and
whether that explains it. Both exit with 1 for findings or a difference.

examples:
  opsdeck reproduce lint .
  opsdeck reproduce verify first/manifest.json second/manifest.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="what", required=True, metavar="lint|verify")
    lint = verbs.add_parser("lint", help="unpinned, unseeded, absolute, unversioned: each with file and line")
    lint.add_argument("project", type=Path, metavar="PROJECT", help="its folder, or one file")
    verify = verbs.add_parser("verify", help="compare what two runs gave and what they were made from")
    verify.add_argument("a", type=Path, metavar="A", help="a manifest")
    verify.add_argument("b", type=Path, metavar="B", help="another")
    for one in (lint, verify):
        one.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """0 where nothing was found or nothing differs, else 1. Raises UsageError for what cannot be read."""
    return _lint(args) if args.what == "lint" else _verify(args)


def _lint(args: argparse.Namespace) -> int:
    from engine.cli.check import count
    from engine.reproduce.lint import lint

    found = lint(args.project)
    if args.json:
        _print_json({"findings": [_finding(one) for one in found]})
    else:
        for one in found:
            print(one)
        files = len({one.path for one in found})
        print(f"{count(len(found), 'finding')} in {count(files, 'file')}" if found else
              "nothing found that would keep it from being done again")
    return 1 if found else 0


def _verify(args: argparse.Namespace) -> int:
    from engine.reproduce.manifest import read
    from engine.reproduce.verify import verify

    a, b = (read(_bytes(path), str(path)) for path in (args.a, args.b))
    found = verify(a, b)
    if args.json:
        _print_json(_comparison(found))
    else:
        print(found.sentence)
        for result in found.results:
            print(f"  {result.key}: {_shown(result.a)} and {_shown(result.b)}, {result.status}")
    return 0 if found.reproduced else 1


def _shown(value: str | float | None) -> str:
    if value is None:
        return "none"
    return value[:12] if isinstance(value, str) else repr(value)


def _bytes(path: Path) -> bytes:
    from engine.errors import UsageError

    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"the manifest cannot be read: {error.strerror}", where=str(path)) from error


def _finding(one: Finding) -> dict[str, Any]:
    return {"rule": one.rule, "file": one.path, "line": one.line, "text": one.text, "why": one.why,
            "hint": one.hint, "more": one.more}


def _comparison(found: Comparison) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(found), "reproduced": found.reproduced}


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False, default=str))
