"""`opsdeck pipeline evidence RUN`: the page that whoever approves a release is shown."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import NotFound, UsageError

if TYPE_CHECKING:
    from engine.pipeline.building.places import Places
    from engine.pipeline.project.model import Project

NAME = "evidence"
EXAMPLES = """\
The page as it was when the run came to it, or of what the run has left so far.

examples:
  opsdeck pipeline evidence 184
  opsdeck pipeline evidence 184 --html evidence.html
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("run", metavar="RUN", help="its number, as opsdeck runs lists it")
    parser.add_argument("--html", type=Path, metavar="FILE",
                        help="write it as one HTML file with plots instead")


def run(args: argparse.Namespace) -> int:
    """Raises NotFound for a run that has no stages here, UsageError for a file that cannot be written."""
    if args.home.mode == "system" or (args.home.path.exists() and not os.access(args.home.path, os.R_OK)):
        return _asked(args)
    at = _of(args.home.path, args.run)
    written = _written(at, args.run)
    if written is None:
        from engine.pipeline.stages.page import rendering
        from engine.pipeline.stages.page.content import page
        from engine.pipeline.stages.page.found import gather

        made = page(gather(at, args.run, _project(at, args.run)))
        text, picture = rendering.markdown(made), rendering.html if args.html else None
        shown = picture(made) if picture else ""
    else:
        text = written[0].read_text(encoding="utf-8")
        shown = written[1].read_text(encoding="utf-8") if args.html else ""
    return _told(args, text, shown)


def _asked(args: argparse.Namespace) -> int:
    """From the engine: what is in its home is not for others, and partly by the user of its steps."""
    from engine.api.light import connect

    page = connect(args.home).page(args.run, html=bool(args.html))
    if args.html and page.whole is None:
        raise NotFound(f"the page of run {args.run} has no HTML that can be read", where=page.html,
                       hint="without --html it is shown as text")
    return _told(args, page.text, page.whole or "")


def _told(args: argparse.Namespace, text: str, whole: str) -> int:
    from engine.cli.text import plain

    if args.html:
        _write(args.html, whole)
        print(f"the page of run {args.run} is in {plain(str(args.html))}")
    else:
        sys.stdout.write(text)
    return 0


def _of(home: Path, run: str) -> Places:
    """The project whose run it is."""
    from engine.pipeline.building import places

    for folder in sorted((home / "pipelines").glob("*")):
        at = places.of(home, folder.name) if folder.is_dir() else None
        if at is not None and (at.results(run) or any(
                next(area.failed.glob(f"{places.plain(run)}.*"), None) for area in (at.own, at.steps))):
            return at
    raise NotFound(f"there is no evidence of a run {run} here", where=str(home / "pipelines"),
                   hint="opsdeck runs lists the runs; only those of pipelines have it")


def _written(at: Places, run: str) -> tuple[Path, Path] | None:
    """The Markdown and HTML that the run's own stage has written."""
    found = at.result(run, "page")
    if found is None or not isinstance(found.get("output"), str):
        return None
    both = Path(found["output"]) / "evidence.md", Path(found["output"]) / "evidence.html"
    return both if all(path.is_file() for path in both) else None


def _project(at: Places, run: str) -> Project:
    """The project as it was read for this run: what was handed to the newest of its stages."""
    from engine.pipeline.project.model import Project

    handed: list[Path] = [path for area in dict.fromkeys((at.own, at.steps))
                          for path in area.noted(run, "page").parent.glob(".planned.*")]
    for path in sorted(handed, key=lambda one: one.stat().st_mtime_ns, reverse=True):
        try:
            told: Any = json.loads(path.read_bytes())["project"]
        except (OSError, ValueError, KeyError):
            continue
        return Project.model_validate(told)
    raise NotFound(f"what project run {run} was of is not kept any more", where=str(at.root),
                   hint="run the pipeline again")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the page cannot be written: {error.strerror}", where=str(path)) from error
