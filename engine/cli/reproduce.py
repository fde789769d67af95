"""`opsdeck reproduce RUN`, `opsdeck reproduce lint PROJECT` and `opsdeck reproduce verify A B`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.reproduce.linting.finding import Finding
    from engine.reproduce.verify import Comparison

NAME = "reproduce"
HELP = "do a training run again, find what would keep it from that, and compare two"
EXAMPLES = """\
RUN rebuilds code, environment and data of a pipeline's run from its manifest, trains again and compares. It
says what each step does; 0: the same came out, 1: something else, 2: it cannot be rebuilt, and why.
With --in the worktree and what was made are kept there; `git worktree remove` gives it up.
lint reads the files of a project and runs nothing; a line is excused by a comment on it, which may say why:
  started = time.time()  # opsdeck: reproducible: only names the log file
verify compares two manifests: checksums, final loss and metrics, and names the first field that differs and
whether that explains it. Both exit with 1 for findings or a difference.

examples:
  opsdeck reproduce 214
  opsdeck reproduce 214 --in /var/tmp/again --json
  opsdeck reproduce --manifest manifest-214.json --project projects/flights
  opsdeck reproduce lint .
  opsdeck reproduce verify first/manifest.json second/manifest.json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="what", required=True, metavar="RUN|lint|verify")
    again = verbs.add_parser("run", help="rebuild a run from its manifest, train again, and compare")
    again.add_argument("name", nargs="?", metavar="RUN", help="a run of the engine's pipelines")
    again.add_argument("--in", type=Path, dest="folder", metavar="DIR", help="rebuild there, and keep it")
    again.add_argument("--manifest", type=Path, metavar="FILE", help="this one, as from MLflow")
    again.add_argument("--project", type=Path, metavar="DIR", help="its folder, in a clone of its repository")
    again.add_argument("--patch", type=Path, metavar="FILE", help="of what was not committed")
    lint = verbs.add_parser("lint", help="unpinned, unseeded, absolute, unversioned: each with file and line")
    lint.add_argument("project", type=Path, metavar="PROJECT", help="its folder, or one file")
    verify = verbs.add_parser("verify", help="compare what two runs gave and what they were made from")
    verify.add_argument("a", type=Path, metavar="A", help="a manifest")
    verify.add_argument("b", type=Path, metavar="B", help="another")
    for one in (again, lint, verify):
        one.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """0 where nothing was found or nothing differs, else 1; 2 for a run that cannot be rebuilt. Raises
    UsageError for what cannot be read."""
    return {"run": _again, "lint": _lint, "verify": _verify}[args.what](args)


def spelled(options: list[str]) -> list[str]:
    """`opsdeck reproduce RUN` is `opsdeck reproduce run RUN`."""
    at = 2 if options[:1] == ["--home"] else 1 if options and options[0].startswith("--home=") else 0
    first = options[at] if at < len(options) else "--help"
    if first in ("run", "lint", "verify", "-h", "--help"):
        return options
    return [*options[:at], "run", *options[at:]]


def _again(args: argparse.Namespace) -> int:
    """In a process of its own: it loads what trains and compares, which no command should wait for."""
    import subprocess
    import sys

    named = {"--in": args.folder, "--manifest": args.manifest, "--project": args.project,
             "--patch": args.patch}
    words = [word for option, value in named.items() if value is not None for word in (option, str(value))]
    done = subprocess.run([sys.executable, "-P", "-m", "engine.pipeline.reproduction.main", "--home",
                           str(args.home.config.parent), *words, *(["--json"] if args.json else []),
                           *([args.name] if args.name else [])], check=False)
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


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
