"""What lies in a project's folders, and which of it is kept, and why. Reads only.

A run is kept while it has not ended, while the registry calls its model champion, previous or candidate,
while it is one of the last, and while it is young. A stage's output is kept as long as a run that is kept
refers to it, or it is young itself; an environment as long as an output that is kept was made in one of its
lock, or it was used lately. Notes are another user's in a system engine: what they say can keep something,
and never names what goes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.errors import OpsdeckError
from engine.pipeline.building import places, publishing
from engine.pipeline.building.places import Area, Places

Kind = Literal["run", "output", "failure", "environment"]
FOLDERS: dict[Kind, str] = {"run": "runs", "output": "stages", "failure": "failed",
                            "environment": "environments"}
YOUNG = 3600.0  # seconds that everything is kept for: a stage may be about to refer to it
ALIASES = ("champion", "previous", "candidate")
Version = tuple[str, str]  # a model's name and its version
Held = Mapping[Version, str]  # what the registry calls them


@dataclass(frozen=True)
class Item:
    """Something that is kept or goes as a whole. `name` is for people, `path` where it lies, `area` whose it
    is; `changed`: seconds since the epoch. `run` is of a failure."""

    kind: Kind
    name: str
    path: Path
    area: Area
    changed: float
    run: str = ""
    made_of: frozenset[str] = frozenset()  # an output's locks, an environment's own: digests

    @property
    def within(self) -> str:
        """Its path in the area."""
        return self.path.relative_to(self.area.root).as_posix()


@dataclass
class Run:
    """The notes of a run, in up to two areas, and what they refer to: (stage, key)."""

    id: str
    notes: list[Item] = field(default_factory=list)
    refers: set[tuple[str, str]] = field(default_factory=set)
    version: Version | None = None

    @property
    def changed(self) -> float:
        return max(one.changed for one in self.notes)


@dataclass
class Lying:
    """All there is of a project."""

    runs: dict[str, Run] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)  # but for the runs' notes

    @property
    def versions(self) -> set[Version]:
        return {one.version for one in self.runs.values() if one.version is not None}


@dataclass(frozen=True)
class Policy:
    """`runs`: how many of the last, `seconds`: how long everything is kept."""

    runs: int
    seconds: float


def look(at: Places) -> Lying:
    """What is there. Blocking: reads every note, and the record of every output."""
    found = Lying()
    for area in dict.fromkeys((at.own, at.steps)):
        for folder in folders(area.root / "runs"):
            run = found.runs.setdefault(folder.name, Run(folder.name))
            run.notes.append(Item("run", folder.name, folder, area, changed(folder)))
            for noted in _notes(folder):
                run.refers.add((str(noted.get("stage")), str(noted.get("key"))))
                run.version = _version(noted) or run.version
        for stage in folders(area.root / "stages"):
            for folder in folders(stage):
                found.items.append(Item("output", f"{stage.name} {folder.name[:12]}", folder, area,
                                        changed(folder), made_of=_locks(folder)))
        for folder in folders(area.root / "failed"):
            found.items.append(Item("failure", folder.name, folder, area, changed(folder),
                                    run=folder.name.partition(".")[0]))
    for folder in folders(at.environments):
        used = max(changed(folder), changed(folder.with_name(f"{folder.name}.used")))
        found.items.append(Item("environment", folder.name, folder, at.steps, used, made_of=_lock_of(folder)))
    return found


@dataclass(frozen=True)
class Verdict:
    """`why` it stays, None where it goes."""

    item: Item
    why: str | None


def decide(found: Lying, policy: Policy, going: Collection[str], held: Held | None, now: float
           ) -> list[Verdict]:
    """What becomes of each thing; runs first. `going`: the runs that have not ended. `held` is None while the
    registry does not answer: then every run that has registered a model stays. Pure."""
    last = {one.id for one in newest(found)[:policy.runs]}
    age = max(policy.seconds, YOUNG)
    verdicts, referred = [], dict[tuple[str, str], str]()
    runs: dict[str, str] = {}
    for run in newest(found):
        why = _why(run, policy, run.id in going, held, run.id in last, now - run.changed < age, age)
        verdicts += [Verdict(one, why) for one in run.notes]
        if why is not None:
            runs[run.id] = why
            for one in run.refers:
                referred.setdefault(one, why)
    locks: dict[str, str] = {}
    for item in found.items:
        if item.kind == "output":
            why = referred.get((item.path.parent.name, item.path.name)) or _young(item, now, age)
            verdicts.append(Verdict(item, why))
            if why is not None:
                for lock in item.made_of:
                    locks.setdefault(lock, why)
    for item in found.items:
        if item.kind == "failure":
            ended = None if item.run not in going else f"of run {item.run}, which has not ended"
            verdicts.append(Verdict(item, ended or runs.get(item.run) or _young(item, now, age)))
        elif item.kind == "environment":
            of = next((locks[one] for one in item.made_of if one in locks), None)
            verdicts.append(Verdict(item, of or _young(item, now, age)))
    return verdicts


def _why(run: Run, policy: Policy, going: bool, held: Held | None, last: bool, young: bool, age: float
         ) -> str | None:
    if going:
        return f"of run {run.id}, which has not ended"
    if run.version is not None:
        if held is None:
            return "registered, and the registry does not answer whether it is in use"
        if run.version in held:
            return f"of {' version '.join(run.version)}, the {held[run.version]}"
    if last:
        return f"of the last {policy.runs} runs" if policy.runs > 1 else "of the last run"
    return _lately(age) if young else None


def _young(item: Item, now: float, age: float) -> str | None:
    return _lately(age) if now - item.changed < age else None


def _lately(age: float) -> str:
    from engine.words import span

    return f"made or used in the last {span(age)}"


def folders(at: Path) -> Iterator[Path]:
    """The folders in a folder, sorted; no links, and nothing hidden."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(at) as entries:
        for entry in sorted(entries, key=lambda one: one.name):
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _notes(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OpsdeckError):  # it refers to nothing that could be told
            noted = places.read_json(path)
            if noted is not None:
                yield noted


def _version(noted: Mapping[str, Any]) -> Version | None:
    result = noted.get("result")
    if noted.get("stage") != "register" or not noted.get("passed") or not isinstance(result, Mapping):
        return None
    return str(result.get("name")), str(result.get("version"))


def _locks(folder: Path) -> frozenset[str]:
    """The digests of the locks that an output was made with."""
    try:
        lock = (places.read_json(folder / publishing.RECORD) or {})["fields"]["environment"]["lock"]
        return frozenset(str(one) for one in lock.values())
    except (OpsdeckError, KeyError, TypeError, AttributeError):
        return frozenset()


def _lock_of(folder: Path) -> frozenset[str]:
    try:
        return frozenset([str((places.read_json(folder / "opsdeck.json") or {})["lock"])])
    except (OpsdeckError, KeyError):
        return frozenset()


def changed(path: Path) -> float:
    """When it was put in place or written last; nobody can set the inode's time back."""
    try:
        found = path.lstat()
    except OSError:
        return 0.0
    return max(found.st_mtime, found.st_ctime)


def newest(found: Lying) -> list[Run]:
    """The runs, the last changed first; of the same moment the higher number. Pure."""
    return sorted(found.runs.values(), reverse=True,
                  key=lambda one: (one.changed, int(one.id) if one.id.isdecimal() else 0))
