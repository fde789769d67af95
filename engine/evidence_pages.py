"""The page of evidence that a pipeline's run has written, for whoever must approve what follows it."""

from __future__ import annotations

from pathlib import Path

from engine.api import wire
from engine.errors import NotFound, OpsdeckError
from engine.home import Home
from engine.pipeline.building import places
from engine.procedures.output import harmless

STAGE = "page"
LARGEST = 1 << 20  # bytes
LARGEST_HTML = 8 << 20  # bytes, with its plots


def read(home: Home, run: str, *, html: bool = False) -> wire.Page:
    """Blocking. `html`: with all of the page with plots. Raises NotFound for a run that has written none, or
    not yet.

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
        page = Path(output) / "evidence.md"
        data = _plain(page, folder, LARGEST)
        if data is None:
            break
        picture = page.with_suffix(".html")
        drawn = _plain(picture, folder, LARGEST_HTML if html else 0)
        said = noted.get("says") if noted is not None else ""
        return wire.Page(run=run, at=page.lstat().st_mtime, verdict=harmless(str(said)),
                         text=harmless(data.decode("utf-8", "replace")),
                         html=None if drawn is None else str(picture),
                         whole=drawn.decode("utf-8", "replace") if drawn else None)
    known = (f"`opsdeck show {run}` tells how far it is" if home.mode == "system" else
             f"`opsdeck pipeline evidence {run}` shows what is known")
    raise NotFound(f"run {run} has no page of evidence, or not yet",
                   hint=f"a pipeline's run writes one in its step page, after staging; until then {known}")


def _plain(path: Path, root: Path, limit: int) -> bytes | None:
    """None for what is no plain file below `root`, past no link."""
    try:
        return None if ".." in path.parts else places.read_plain(path, root, limit)
    except (OSError, ValueError):
        return None
