"""The page of evidence that a pipeline's run has written, for whoever must approve what follows it."""

from __future__ import annotations

from pathlib import Path

from engine.api import wire
from engine.errors import NotFound, OpsdeckError
from engine.home import Home
from engine.pipeline.building import places
from engine.procedures import carried
from engine.procedures.output import harmless

STAGE = "page"
LARGEST = 1 << 20  # bytes


def read(home: Home, run: str) -> wire.Page:
    """Blocking. Raises NotFound for a run that has written none, or not yet.

    A system engine's steps write the page as another user, so that it is read as any stranger's file is:
    plain, small, inside the project's own place, and made harmless.
    """
    for folder in sorted((home.path / "pipelines").glob("*")):
        try:
            noted = places.of(home.path, folder.name).result(run, STAGE)
        except OpsdeckError:
            continue
        output = noted.get("output") if noted is not None else None
        if not isinstance(output, str):
            continue
        page, root = (Path(output) / "evidence.md").resolve(), folder.resolve()
        data = carried.regular(page, LARGEST, 0) if page.is_relative_to(root) and page.is_file() else None
        if data is None:
            break
        html = page.with_suffix(".html")
        said = noted.get("says") if noted is not None else ""
        return wire.Page(run=run, at=page.stat().st_mtime, verdict=harmless(str(said)),
                         text=harmless(data.decode("utf-8", "replace")),
                         html=str(html) if html.is_file() else None)
    raise NotFound(f"run {run} has no page of evidence, or not yet",
                   hint="a pipeline's run writes one in its step page, after staging; until then `opsdeck "
                        f"pipeline evidence {run}` shows what is known")
