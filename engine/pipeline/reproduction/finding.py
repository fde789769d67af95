"""Where a run's manifest, its patch and its project are: in the engine's home, or named by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NotFound, NotPermitted, UsageError
from engine.pipeline.building import places
from engine.pipeline.project import history
from engine.reproduce import manifest as manifests
from engine.reproduce.manifest import Manifest

MANIFEST, PATCH = "manifest.json", "patch.diff"


@dataclass(frozen=True)
class Found:
    """`folder`: the project's, in its repository if it has one. `kept`: patches at hand by their SHA-256."""

    manifest: Manifest
    folder: Path
    kept: Mapping[str, Path]


def find(run: str | None, home: Path, projects: Mapping[str, Path], *, manifest: Path | None = None,
         folder: Path | None = None, patch: Path | None = None) -> Found:
    """A run of the engine in `home`, or the manifest that is named. Reads only.

    `projects`: the folders by the engine's config; for a project that it does not name, the folder is taken
    that the run was given. Raises UsageError when neither is told or a file is no
    manifest, NotFound for a run that left none or a project whose folder is not known, NotPermitted.
    """
    if manifest is None and run is None:
        raise UsageError("Neither a run nor a manifest is named.",
                         hint="Write opsdeck reproduce RUN, or --manifest FILE.")
    path = manifest or _registered(str(run), home, projects)
    found = manifests.read(_bytes(path), str(path))
    if run is not None and found.known.run.id != run:
        raise UsageError(f"This manifest is of run {found.known.run.id}, not of {run}.", where=str(path),
                         hint="Name the run that it is of, or none.")
    name = found.known.run.project
    place = folder or projects.get(name) or _built_from(home, name, found.known.run.id)
    if place is None or not place.is_dir():
        raise NotFound(f"The folder of the project {name} is not known." if place is None else
                       f"The folder of the project {name} is not there.", where=str(place) if place else "",
                       hint="Name it: --project FOLDER, in a clone of its repository, or the folder itself "
                            "where it is in none.")
    kept = {}
    for one in (patch, path.with_name(PATCH), *path.parent.glob("patch-*.diff")):
        if one is not None and (one.is_file() or one == patch):
            kept[hashlib.sha256(_bytes(one)).hexdigest()] = one
    return Found(found, place.resolve(), kept)


def _built_from(home: Path, name: str, run: str) -> Path | None:
    """The folder that a run of this engine was given by its path."""
    try:
        return history.folder_of(places.of(home, name).root, run)
    except PermissionError:
        return None  # a system engine's record, which builds only what its config names


def _registered(run: str, home: Path, projects: Mapping[str, Path]) -> Path:
    """The manifest that the registration of a run left. The user of a system engine's steps may not list the
    projects there, and finds those that the config names."""
    root = home / "pipelines"
    try:
        names = sorted(one.name for one in root.iterdir() if one.is_dir()) if root.is_dir() else []
    except PermissionError:
        names = sorted(projects)
    try:
        for name in names:
            note = places.of(home, name).result(run, "register")
            if note is not None and (path := Path(str(note["output"])) / MANIFEST).is_file():
                return path
    except PermissionError as error:
        raise NotPermitted("The engine's pipelines cannot be read.", where=str(root),
                           hint="Get the manifest from MLflow (the run's artifacts, opsdeck/manifest-"
                                f"{run}.json) and name it: --manifest FILE") from error
    raise NotFound(f"Run {run} has left no manifest.", where=str(root),
                   hint="It is written when a run registers its model. A manifest from MLflow can be named: "
                        "--manifest FILE")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"The file cannot be read: {error.strerror}.", where=str(path)) from error
