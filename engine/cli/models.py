"""`opsdeck models compare A B`: two runs or versions side by side."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.pipeline.releasing.side_by_side import Line, Sides

NAME = "models"
HELP = "two runs or versions of a model side by side: parameters, metrics, and what they were made from"
EXAMPLES = """\
A and B are NAME/VERSION, NAME@ALIAS or a run's id in MLflow, or its beginning; with --project also a
version, an alias, or the number of a run of its pipeline.

examples:
  opsdeck models compare flights-late/6 flights-late@champion
  opsdeck models compare champion candidate --project projects/flights
"""
SHORT = 12  # characters of a digest that are shown


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="what", required=True, metavar="compare")
    compare = verbs.add_parser("compare", help="parameters, metrics with differences, digests, who and when")
    compare.add_argument("a", metavar="A", help="a run or version")
    compare.add_argument("b", metavar="B", help="another")
    compare.add_argument("--project", metavar="P", help="a project of the engine's config, or its folder")
    compare.add_argument("--tracking", metavar="URI", help="MLflow's, otherwise that of the engine's config")
    compare.add_argument("--all", action="store_true", help="also the parameters that are the same")
    compare.add_argument("--json", action="store_true", help="print it as JSON")


def run(args: argparse.Namespace) -> int:
    """Raises NotFound for a run or version that is not there, ActionFailed while MLflow does not answer."""
    import dataclasses

    from engine.cli.text import say
    from engine.pipeline.releasing import side_by_side

    model, own = _project(args)
    a, b = _entries(args.tracking or own or _tracking(args), model, args.a, args.b)
    found = side_by_side.compare(a, b)
    if args.json:
        print(json.dumps({"a": a, "b": b, **dataclasses.asdict(found)}, ensure_ascii=False))
        return 0
    say(_lines(a, b, found, everything=args.all))
    return 0


def _project(args: argparse.Namespace) -> tuple[str | None, str | None]:
    """The model's name in the registry, and the tracking that the project has of its own."""
    from engine.cli.projects import folder
    from engine.config_file import load
    from engine.pipeline.project import reading

    projects = load(args.home.config).pipelines.projects
    if args.project is None and len(projects) != 1:
        return None, None
    project = reading.read(next(iter(projects.values())) if args.project is None else
                           folder(args.home, args.project))
    return project.model, project.tracking


def _tracking(args: argparse.Namespace) -> str:
    from engine.config_file import load

    return load(args.home.config).pipelines.tracking or f"sqlite:///{args.home.path}/mlflow.db"


def _entries(tracking: str, model: str | None, *references: str) -> list[dict[str, Any]]:
    """Read by another process: MLflow takes two seconds and hundreds of megabytes."""
    import subprocess
    import sys

    from engine.errors import ActionFailed, NotFound

    asked = subprocess.run([sys.executable, "-P", "-m", "engine.pipeline.releasing.tracked", tracking,
                             model or "", *references], capture_output=True, text=True,
                           stdin=subprocess.DEVNULL)
    lines = asked.stdout.strip().splitlines()
    try:
        answer = json.loads(lines[-1] if lines else "")
    except ValueError:
        said = asked.stderr.strip().splitlines()
        raise ActionFailed("MLflow could not be read", where=tracking,
                           hint=said[-1][:200] if said else None) from None
    if (error := answer.get("error")) is not None:
        kind = ActionFailed if error["found"] else NotFound
        raise kind(error["message"], where=error["where"], hint=error["hint"])
    found: list[dict[str, Any]] = answer["entries"]
    return found


def _lines(a: dict[str, Any], b: dict[str, Any], found: Sides, *, everything: bool) -> list[str]:
    from engine.cli.text import coloured, columns, plain

    colour = coloured()
    about = [("", plain(_named(a)), plain(_named(b))), ("run", _run_of(a), _run_of(b)),
             ("began", _when(a), _when(b)), ("by", plain(a["by"] or "-"), plain(b["by"] or "-"))]
    lines = [*columns(about, colour=colour), "", found.says]
    if found.compared:
        by = f" by run {plain(found.on)}" if found.on else ""
        beside = [(plain(one.name), _number(one.a), _number(one.b), _step(one)) for one in found.compared]
        lines += ["", f"Measured on the same rows{by}:",
                  *columns(beside, header=("metric", "A", "B", "B − A"), right=" rrr", colour=colour)]
    if found.lacking:
        lines += ["", plain(found.lacking)]
        if not found.compared:
            lines.append("The pipeline measures a new model beside the champion: then both have figures of "
                         "the same rows.")
    if found.metrics:
        figures = [(plain(one.name), _number(one.a), _number(one.b), _step(one)) for one in found.metrics]
        lines += ["", *columns(figures, header=("metric", "A", "B", "B − A"), right=" rrr", colour=colour)]
    shown = [one for one in found.parameters if everything or not one.same]
    if shown:
        rows = [(plain(one.name), _text(one.a), _text(one.b)) for one in shown]
        lines += ["", *columns(rows, header=("parameter", "A", "B"), colour=colour)]
    if left := len(found.parameters) - len(shown):
        lines.append(f"{left} parameter{'s are' if left > 1 else ' is'} the same")
    if found.sources:
        made = [(one.name, _text(one.a)[:SHORT], _text(one.b)[:SHORT], "same" if one.same else "differs")
                for one in found.sources]
        lines += ["", *columns(made, header=("made from", "A", "B", ""), colour=colour)]
    return lines


def _named(one: dict[str, Any]) -> str:
    if one["name"] is None:
        return f"run {one['mlflow_run'][:8]}"
    aliases = f" ({', '.join(one['aliases'])})" if one["aliases"] else ""
    return f"{one['name']}/{one['version']}{aliases}"


def _run_of(one: dict[str, Any]) -> str:
    own = f"{one['run']}, " if one["run"] else ""
    tracked = one["mlflow_run"][:8] if one["mlflow_run"] else "-"
    return f"{own}{tracked} {(one['status'] or '').lower()}".strip()


def _when(one: dict[str, Any]) -> str:
    from engine.cli.text import duration, stamp

    if one["began"] is None:
        return "-"
    took = f" ({duration(one['ended'] - one['began'])})" if one["ended"] else ""
    return f"{stamp(one['began'])}{took}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.6g}"


def _step(one: Line) -> str:
    return "-" if one.difference is None else f"{one.difference:+.4g}" if one.difference else "0"


def _text(value: Any) -> str:
    from engine.cli.text import plain

    return "-" if value is None else plain(value)
