"""Things that stages leave, made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.pipeline.building import cache, places, publishing
from engine.pipeline.building.cache import Kept
from engine.pipeline.building.places import Places


def kept(at: Places, stage: str, fields: Mapping[str, Any], files: Mapping[str, str], *, run: str = "1",
         attempt: int = 1) -> Kept:
    """A stage that passed in a run, put in place and noted as the real thing is."""
    key = cache.key(fields)
    target = at.steps.stage(stage) / key
    with publishing.working(at.steps, f"{run}.{stage}.{attempt}") as work:
        for name, text in files.items():
            (work / "output" / name).write_text(text)
        made = publishing.outputs(work / "output")
        places.write_json(work / "record.json", {
            "stage": stage, "key": key, "fields": dict(fields), "outputs": made, "run": run, "result": {}})
        publishing.publish(work, target, at.steps)
    noted = at.steps.noted(run, stage)
    noted.parent.mkdir(exist_ok=True)
    places.write_json(noted, {"stage": stage, "key": key, "cached": False, "passed": True, "says": "",
                              "result": {}, "output": str(target / "output")})
    found = cache.kept_at(target, key)
    assert found is not None
    return found


def everything(at: Path) -> list[str]:
    return sorted(p.relative_to(at).as_posix() for p in at.rglob("*"))
