"""What the engine finds out before a stage runs, handed to the stage's process in a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed
from engine.pipeline.building import cleaning, places, plan, publishing
from engine.pipeline.building.places import Area, Places
from engine.pipeline.building.plan import Prepared
from engine.pipeline.project.model import Project
from engine.pipeline.project.reading import read
from engine.pipeline.stages.table import Stage


def planned(project: Project, prepared: Prepared) -> dict[str, Any]:
    """What the process of a stage must know: the project as it was read, the key with its fields, the files
    they come from, where its inputs are, and what the stages before it came to."""
    return {"project": project.model_dump(mode="json", by_alias=True), "key": prepared.key,
            "fields": prepared.fields, "patterns": prepared.patterns, "watched": prepared.watched,
            "inputs": {name: str(path) for name, path in prepared.inputs.items()},
            "before": {name: dict(result) for name, result in prepared.before.items()}}


def hand(at: Places, project: Project, prepared: Prepared, run: str, attempt: int,
         told: Mapping[str, Any]) -> Path:
    """Write it where the process can read it and the steps' user cannot change it, with what the stage is
    `told` beside its settings. Raises ActionFailed."""
    name = prepared.stage.name
    path = at.own.noted(run, name).with_name(f".planned.{name}.{attempt}")
    try:
        if at.apart:  # a hit of an earlier attempt, which this one is to replace
            at.own.noted(run, name).unlink(missing_ok=True)
        publishing.folder_of(path, shared=at.apart)
        path.write_text(json.dumps({**planned(project, prepared), "told": dict(told)}, sort_keys=True))
        path.chmod(0o644 if at.apart else 0o600)
    except OSError as error:
        raise ActionFailed(f"what is planned for {name} cannot be written: {error.strerror}", where=str(path),
                           hint="look at the disk, then run it again") from error
    return path


def hit(at: Places, area: Area, run: str, prepared: Prepared) -> dict[str, Any]:
    """Note that a stage of a run is taken from the cache; the step's result."""
    assert prepared.found is not None
    return publishing.note(area, run, prepared.stage.name, prepared.key, prepared.found.folder,
                           prepared.found.record, cached=True, shared=at.apart)


def alone(stage: Stage, folder: Path, home: Path, run: str, attempt: int,
          stages: Mapping[str, Stage]) -> dict[str, Any]:
    """For a process that nobody has handed anything: {"hit": result} or what is `planned`."""
    project = read(folder)
    at = places.of(home, project.project)
    if not at.root.is_dir():
        at = places.make(home, project.project)
    with cleaning.taking(at):
        prepared = plan.prepare(stage, project, folder, at, run, attempt, stages=stages)
        if prepared.found is not None:
            return {"hit": hit(at, at.area(stage), run, prepared)}
    return json.loads(json.dumps(planned(project, prepared)))  # type: ignore[no-any-return]
