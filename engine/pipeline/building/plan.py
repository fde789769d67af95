"""What each stage of a project would come to now: taken from the cache, or run, and why. Blocking.

Within a run the stages that are done in it are taken as they are. So that a run is of one piece, what they
depended on must still be as it was: it is an error when the code changes between tests and training, or when
somebody alters what a stage has put out. New data is no such change: what the run learns from was copied
when its data stage ran, and expectations that a person accepted meanwhile belong to the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import Conflict, OpsdeckError, UsageError
from engine.pipeline.building import cache, learned
from engine.pipeline.building import fields as stage_fields
from engine.pipeline.building.cache import Kept
from engine.pipeline.building.memo import Memo
from engine.pipeline.building.places import Places, plain
from engine.pipeline.project.model import Project
from engine.pipeline.stages.table import STAGES, Stage

State = Literal["hit", "miss", "unknown"]
NEVER = "never run"
ALWAYS = "runs every time"
_OWN = ("stage", "version", "inputs", "source", "expectations", "only")  # two stages need not share these


@dataclass(frozen=True)
class Planned:
    """`why`: the first field that differs from the latest that is kept, or that there is none, or what the
    stage waits for; of a hit who made it. `key` is None where it cannot be known yet."""

    stage: str
    state: State
    key: str | None
    why: str


@dataclass(frozen=True)
class Prepared:
    """A stage that is about to run: its key and fields, the files they come from, and its inputs by stage.

    `found` is what is kept under the key already; `before` what the run's stages came to.
    """

    stage: Stage
    key: str
    fields: dict[str, Any]
    watched: stage_fields.Watched
    inputs: Mapping[str, Path]
    before: Mapping[str, Mapping[str, Any]]
    found: Kept | None = None
    patterns: list[str] = field(default_factory=list)


def plan(project: Project, folder: Path, places: Places, run: str | None = None,
         stages: Mapping[str, Stage] = STAGES) -> list[Planned]:
    """What every stage would come to. Raises UsageError or ActionFailed for files that are missing or cannot
    be read, Conflict when a run is no longer of one piece."""
    memo = Memo(places.memo)
    try:
        done = _taken(places, run, stages, memo) if run is not None else {}
        outputs: dict[str, Mapping[str, str]] = {name: kept.digests for name, kept in done.items()}
        planned = []
        for stage in stages.values():
            if stage.name in done:
                planned.append(Planned(stage.name, "hit", done[stage.name].key, "done in this run"))
                continue
            one, kept = _foreseen(stage, project, folder, places, memo, outputs)
            planned.append(one)
            if kept is not None:
                outputs[stage.name] = kept.digests
        return planned
    finally:
        memo.save()


def _foreseen(stage: Stage, project: Project, folder: Path, places: Places, memo: Memo,
              outputs: Mapping[str, Mapping[str, str]]) -> tuple[Planned, Kept | None]:
    if not stage.cached:
        return Planned(stage.name, "miss", None, ALWAYS), None
    missing = [name for name in stage.needs if name not in outputs]
    fields, _ = stage_fields.of(stage, project, folder, memo,
                                {name: outputs[name] for name in stage.needs if name not in missing})
    area = places.area(stage)
    if missing:
        if cache.latest(area, stage.name) is None:
            return Planned(stage.name, "miss", None, NEVER), None
        differing = cache.unlike_all(area, stage.name, fields)
        if differing is not None:
            return Planned(stage.name, "miss", None, str(differing)), None
        names = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
        gives = "give" if missing[1:] else "gives"
        return Planned(stage.name, "unknown", None, f"waits for what {names} {gives}"), None
    key = cache.key(fields)
    kept = cache.look_up(area, stage.name, key, memo)
    if kept is None:
        kept = learned.look_up(area, stage.name, fields, memo)
    if kept is not None:
        return Planned(stage.name, "hit", kept.key, f"made by run {kept.record.get('run')}"), kept
    if (area.stage(stage.name) / key).exists():
        return Planned(stage.name, "miss", key, "what is kept of it is not whole any more"), None
    last = cache.latest(area, stage.name)
    if last is None:
        return Planned(stage.name, "miss", key, NEVER), None
    return Planned(stage.name, "miss", key, str(cache.differing(last["fields"], fields))), None


def prepare(stage: Stage, project: Project, folder: Path, places: Places, run: str, attempt: int, *,
            fresh: bool = False, stages: Mapping[str, Stage] = STAGES) -> Prepared:
    """One stage of a run, which is about to run or be taken from the cache. `fresh`: it runs whatever is
    kept, and what it makes is for this run alone.

    Raises UsageError for a stage that it needs and that has not passed in this run, Conflict when the run is
    no longer of one piece, and as `plan` does.
    """
    memo = Memo(places.memo)
    try:
        done = _taken(places, run, {name: one for name, one in stages.items() if name != stage.name}, memo)
        for name in stage.needs:
            if name not in done:
                raise UsageError(f"{stage.name} needs what {name} gives; in this run {name} has not passed",
                                 where=f"run {run}", hint=f"put a step with pipeline.{name} before it")
        fields, watched = stage_fields.of(stage, project, folder, memo,
                                          {name: done[name].digests for name in stage.needs})
        _of_one_piece(stage, fields, done)
        if fresh or not stage.cached:
            fields["only"] = {"run": run, "attempt": attempt}
        key = cache.key(fields)
        found = None if "only" in fields else cache.look_up(places.area(stage), stage.name, key, memo)
        if found is None and "only" not in fields:
            found = learned.look_up(places.area(stage), stage.name, fields, memo)
            if found is not None:
                fields, key = dict(found.record["fields"]), found.key
        given = stage.needs if stage.cached else tuple(done)
        patterns = [one for several in stage_fields.patterns(stage, project, folder).values()
                    for one in several]
        return Prepared(stage, key, fields, watched, {name: done[name].output for name in given},
                        {name: kept.record.get("result", {}) for name, kept in done.items()}, found,
                        [*patterns, *fields.get("environment", {}).get("lock", {})])
    finally:
        memo.save()


def _taken(places: Places, run: str, stages: Mapping[str, Stage], memo: Memo) -> dict[str, Kept]:
    """What the stages of a run that passed have put out. Raises Conflict where it is not there as it was."""
    done = {}
    for name, noted in places.results(run, stages).items():
        if not noted.get("passed"):
            continue
        folder = places.area(stages[name]).stage(name) / plain(str(noted.get("key")))
        kept, why = cache.kept_at(folder, str(noted.get("key"))), "is no longer there as it was made"
        if kept is not None:
            try:
                changed = cache.altered(kept, memo)
            except OpsdeckError as error:
                changed, why = "", f"cannot be read: {error.message}"
            if changed is not None:
                kept, why = None, f"was changed since: {changed}" if changed else why
        if kept is None:
            raise Conflict(f"what {name} gave in this run {why}", where=str(folder / "output"),
                           hint="start a new run: what has not changed is taken from the cache")
        done[name] = kept
    return done


def _of_one_piece(stage: Stage, fields: Mapping[str, Any], done: Mapping[str, Kept]) -> None:
    for name, kept in done.items():
        before = kept.record.get("fields", {})
        shared = [one for one in fields if one in before and one not in _OWN and one != "settings"]
        old, new = {one: before[one] for one in shared}, {one: fields[one] for one in shared}
        both = [one for one in fields["settings"] if one in before.get("settings", {})]
        old["settings"] = {one: before["settings"][one] for one in both}
        new["settings"] = {one: fields["settings"][one] for one in both}
        differing = cache.differing(old, new)
        if differing is not None:
            raise Conflict(f"{differing.path} changed since {name} ran in this run "
                           f"({differing.before} → {differing.now}), so {stage.name} would not fit to it",
                           where=f"stage {stage.name}",
                           hint="start a new run: what has not changed is taken from the cache")
