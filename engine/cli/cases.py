"""`opsdeck cases`: the hard cases that are kept with a model; a production request becomes one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.pipeline.project.model import Project
    from engine.pipeline.robustness.cases import Case

NAME = "cases"
HELP = "the hard cases that every model of a project must bear; make one of a production request"
EXAMPLES = """\
A request is found in the gateway's prediction log, rotated files too, by its correlation id: each answer of
the gateway bears it as the header x-correlation-id, each line of the log as correlation_id, and
`opsdeck cases add PROJECT` without one shows those of the latest requests. `--expect` says in YAML what a
model must do there, and may be given several times:
  {kind: between, low: 0.7, high: 1}      every score lies there
  {kind: called, as: 1}                   every row is called class 1
  {kind: invariant, change: {kind: shuffle, columns: [flight]}, within: 0.01}
Every model is tried on every case from then on. One that was ever passed must never fail again.

examples:
  opsdeck cases add ~/models/flights --correlation 4f1c9a2e --expect "{kind: between, low: 0.7}" \\
      --title "Storm in the evening" --why "scored 0.2, and every flight was late"
  opsdeck cases list ~/models/flights
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    verbs = parser.add_subparsers(dest="what", required=True, metavar="add|list")
    add = verbs.add_parser("add", help="make a case of a production request")
    listed = verbs.add_parser("list", help="all cases, and how each stands")
    for one in (add, listed):
        one.add_argument("project", metavar="PROJECT", help="as opsdeck.yaml names it, or its folder")
        one.add_argument("--json", action="store_true", help="print it as JSON")
    add.add_argument("--correlation", metavar="ID", help="the request's correlation id")
    add.add_argument("--expect", action="append", default=[], metavar="YAML",
                     help="what a model must do there: {kind: between, low: 0.7}, {kind: near, column: "
                          "truth, within: 0.1}, {kind: called, as: 1}, or invariant and directional with a "
                          "`change`, as under `robustness:` of a project's file")
    add.add_argument("--title", metavar="TEXT", help="a few words, which also name it")
    add.add_argument("--why", metavar="TEXT",
                     help="what makes it hard, for whoever sees it fail in a year")
    add.add_argument("--id", metavar="ID", help="its id and file name, made of the title otherwise")
    add.add_argument("--row", type=int, action="append", default=[], metavar="N",
                     help="only this row of the request, from 0 on")
    add.add_argument("--must", action="store_true", help="no model may fail it, also before one has passed")
    add.add_argument("--log", type=Path, action="append", metavar="PATH",
                     help="the prediction log; otherwise those that the engine's config names")


def run(args: argparse.Namespace) -> int:
    """Raises UsageError and NotFound for a request that the log does not hold, Conflict for an id that is
    taken."""
    from engine.cli import projects
    from engine.pipeline.project import reading

    named = projects.folder(args.home, args.project)
    project = reading.read(named)
    folder = reading.file_of(named).parent
    return _add(args, project, folder) if args.what == "add" else _list(args, project, folder)


def _add(args: argparse.Namespace, project: Project, folder: Path) -> int:
    import datetime as dt

    from engine.cli import projects
    from engine.cli.text import plain
    from engine.pipeline.robustness import case_adding

    logs = args.log or _logs(args, project)
    _complete(args, logs)
    expect = [case_adding.expectation(text) for text in args.expect]
    found = case_adding.find(logs, args.correlation)
    case = case_adding.add(folder, project, found, expect, title=args.title, why=args.why, by=_user(),
                           now=dt.datetime.now(dt.UTC), id_=args.id, rows=args.row, must=args.must)
    path = folder / project.robustness.cases / f"{case.id}.yaml"
    other = projects.elsewhere(args.home, project.project, folder)
    if args.json:
        _print_json({**_case(case), "path": str(path), "engine_builds": other and str(other)})
        return 0
    print(f"{plain(path)}: {plain(case.source)}")
    if found.times > 1:
        print(f"{found.times} requests had this id; the newest was taken")
    if other is not None:
        print(f"warning: the engine builds {project.project} from {plain(other)}, another folder, where no "
              f"model is tried on it before it is there too: `opsdeck cases add {project.project} …`")
        return 0
    print("every model is tried on it from the next run on; commit both files")
    return 0


def _complete(args: argparse.Namespace, logs: list[Path]) -> None:
    """Raises UsageError for what is left out; for the id, with those of the latest requests."""
    from engine.errors import UsageError
    from engine.pipeline.robustness import case_adding

    if args.correlation is None:
        latest = case_adding.latest(logs)
        shown = "".join(f"\n  {case_adding.source(one).removeprefix('request ')}" for one in latest)
        raise UsageError("which request it is, is not said: write --correlation ID", hint=(
            f"the latest of {', '.join(map(str, logs))}:{shown}" if shown else
            f"no request is in {', '.join(map(str, logs))} yet") + "\nan id is the header x-correlation-id "
            "of the gateway's answer, and correlation_id in that log")
    examples = {"expect": '--expect "{kind: between, low: 0.7}"', "title": "--title 'Storm in the evening'",
                "why": "--why 'scored 0.2, and every flight was late'"}
    missing = [example for name, example in examples.items() if not getattr(args, name)]
    if missing:
        raise UsageError(f"{len(missing)} of --expect, --title and --why are missing" if len(missing) > 1 else
                         f"{missing[0].split()[0]} is missing", hint=f"write {' '.join(missing)}")


def _list(args: argparse.Namespace, project: Project, folder: Path) -> int:
    from engine.cli.text import coloured, columns, plain, say
    from engine.pipeline.robustness import case_files

    library = case_files.read(folder / project.robustness.cases)
    if args.json:
        _print_json([_case(one) for one in library.cases])
    elif not library.cases:
        print(f"{project.project} has no hard cases yet")
    else:
        rows = [(one.id, "must pass" if one.must and one.standing == "new" else one.standing,
                 str(library.rows[one.id].num_rows), plain(one.title)) for one in library.cases]
        say(columns(rows, header=("id", "so far", "rows", "title"), right="  r", colour=coloured()))
    return 0


def _logs(args: argparse.Namespace, project: Project) -> list[Path]:
    """The prediction logs of the service that the project is released to, or of all services."""
    from engine.config_file import load
    from engine.errors import UsageError

    services = load(args.home.config).services
    released = project.release.service if project.release is not None else None
    found = [one.outcomes.predictions for name, one in services.items()
             if one.outcomes is not None and released in (None, name)]
    if not found:
        about = f"of the service {released} " if released else ""
        raise UsageError(f"the engine's config names no prediction log {about}", where=str(args.home.config),
                         hint="name it: --log PATH, the `prediction_log.path` of the gateway's config")
    return found


def _case(one: Case) -> dict[str, Any]:
    return {**one.model_dump(mode="json", by_alias=True), "standing": one.standing}


def _user() -> str:
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False))
