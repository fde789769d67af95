"""The key of a stage, what is kept under it, and what made another key.

A key is the digest of the stage's *fields*, a JSON object:

    stage, version   which stage, and of which version of it
    settings         the parts of the project file that it depends on
    code, tests, source, expectations, cases, downstream    by path the digests of the files that it reads
    environment      lock, Python and image, where it runs the project's code
    inputs           by stage, by path, the digests of what the stages before it have put out

The order of keys of an object does not count, each value does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import OpsdeckError
from engine.pipeline.building import publishing
from engine.pipeline.building.memo import Memo
from engine.pipeline.building.places import Area
from engine.reproduce import canonical

_ORDER = ("version", "settings", "environment", "code", "tests", "expectations", "cases", "downstream",
          "source", "inputs")
_NOTHING = object()
_SHOWN = 40  # characters of a value


def key(fields: Mapping[str, Any]) -> str:
    """The key of these fields, 64 hex digits. Raises UsageError for a value that JSON cannot hold."""
    return canonical.digest(dict(fields))


@dataclass(frozen=True)
class Kept:
    """What is in place under a key."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def output(self) -> Path:
        return self.folder / "output"

    @property
    def key(self) -> str:
        return str(self.record["key"])

    @property
    def digests(self) -> dict[str, str]:
        """Of its output's files, by path: what a stage after it depends on."""
        return {name: one["sha256"] for name, one in self.record["outputs"].items()}


def look_up(area: Area, stage: str, key: str, memo: Memo | None = None) -> Kept | None:
    """What is kept under a key, None unless all of its output is there with its sizes; with a `memo`, with
    its content too. Blocking."""
    return kept_at(area.stage(stage) / key, key, memo)


def kept_at(folder: Path, key: str | None = None, memo: Memo | None = None) -> Kept | None:
    """As `look_up`, for a folder."""
    record = publishing.intact(folder, key)
    if record is None:
        return None
    kept = Kept(folder, record)
    try:
        return kept if memo is None or altered(kept, memo) is None else None
    except OpsdeckError:  # gone or changing at this moment: it cannot be relied on
        return None


def altered(kept: Kept, memo: Memo) -> str | None:
    """The first file of the output whose content is not what was recorded. Raises as `Memo.digest`."""
    for name, digest in kept.digests.items():
        if memo.digest(kept.output / name) != digest:
            return name
    return None


def latest(area: Area, stage: str) -> Mapping[str, Any] | None:
    """The record of that stage that was put in place last."""
    return next(_records(area, stage), None)


def unlike_all(area: Area, stage: str, fields: Mapping[str, Any]) -> Difference | None:
    """How a stage's fields but its inputs differ from the latest that is kept; None if one that is kept has
    them all, or nothing is kept. Tells of a miss before the inputs are known."""
    first, now = None, _without_inputs(fields)
    for record in _records(area, stage):
        found = differing(_without_inputs(record["fields"]), now)
        if found is None:
            return None
        first = first or found
    return first


def _without_inputs(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "inputs"}


def _records(area: Area, stage: str) -> Iterator[Mapping[str, Any]]:
    """Of that stage, the latest first."""
    found = []
    try:
        for folder in area.stage(stage).iterdir():
            found.append((folder.stat().st_ctime_ns, folder))
    except FileNotFoundError:
        pass
    for _, folder in sorted(found, reverse=True):
        record = publishing.intact(folder)
        if record is not None and isinstance(record.get("fields"), dict):
            yield record


@dataclass(frozen=True)
class Difference:
    """The dotted path of the first field that differs, and both values, shortened."""

    path: str
    before: str
    now: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} → {self.now}"


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Difference | None:
    """The first field that differs, the project's own words first and what follows from others last."""
    names = [*_ORDER, *sorted({*before, *now} - set(_ORDER))]
    for name in names:
        for path, old, new in _differences(before.get(name, _NOTHING), now.get(name, _NOTHING), name):
            return Difference(path, _short(old), _short(new))
    return None


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(old.get(name, _NOTHING), new.get(name, _NOTHING), f"{path}.{name}")
    elif old is _NOTHING or new is _NOTHING:
        if old is not new:
            yield path, old, new
    elif canonical.encode(old) != canonical.encode(new):
        yield path, old, new


def _short(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    if isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef"):
        return value[:12]
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= _SHOWN else text[:_SHOWN - 1] + "…"
