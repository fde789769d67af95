"""What a run has left so far: the records of its stages and the JSON in their outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.pipeline.building.places import Places
from engine.pipeline.project.model import Project
from engine.procedures.authors import Authors

ORDER = ("tests", "data", "train", "evaluate", "robustness", "compare", "register", "staging")
LARGEST = 64 << 20  # of a file that is read for the page


@dataclass(frozen=True)
class StageFound:
    """One stage of the run. `output` None: its files are not there."""

    name: str
    passed: bool
    says: str
    result: Mapping[str, Any]
    output: Path | None = None
    cached: bool = False

    def read(self, name: str) -> Any | None:
        """A JSON file of its output, None where it is not there or is damaged."""
        if self.output is None:
            return None
        path = self.output / name
        try:
            if path.stat().st_size > LARGEST:
                return None
            return json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None

    def mapping(self, name: str) -> Mapping[str, Any]:
        """The same where it is an object, else an empty one."""
        value = self.read(name)
        return value if isinstance(value, dict) else {}

    def lines(self, name: str) -> list[Mapping[str, Any]]:
        """A file of JSON lines; lines that are none are left out."""
        if self.output is None:
            return []
        try:
            text = (self.output / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        found: list[Mapping[str, Any]] = []
        for line in text.splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found


@dataclass(frozen=True)
class RunFound:
    """Everything of one run that the page may show. `authors`: who wrote it, where the engine has told which
    users these are."""

    run: str
    project: Project
    stages: Mapping[str, StageFound]
    authors: Authors | None = None

    def get(self, name: str) -> StageFound | None:
        return self.stages.get(name)

    def result(self, name: str) -> Mapping[str, Any]:
        one = self.stages.get(name)
        return one.result if one is not None else {}


def gather(at: Places, run: str, project: Project, authors: Authors | None = None) -> RunFound:
    """From the project's folders in the engine's home. Blocking. Raises UsageError for what is no run."""
    noted = at.results(run)
    found: dict[str, StageFound] = {}
    for name in ORDER:
        record = noted.get(name)
        if record is not None:
            output = record.get("output")
            found[name] = _stage(name, record, Path(output) if isinstance(output, str) else None)
        elif (failed := _failed(at, run, name)) is not None:
            found[name] = failed
    return RunFound(run, project, found, authors)


def _failed(at: Places, run: str, name: str) -> StageFound | None:
    """The newest attempt that did not pass."""
    attempts = [(int(path.name.rpartition(".")[2]), path)
                for area in dict.fromkeys((at.own, at.steps)) for path in area.failed.glob(f"{run}.{name}.*")
                if path.name.rpartition(".")[2].isdigit()]
    if not attempts:
        return None
    path = max(attempts)[1]
    return _stage(name, {**(_json(path / "record.json") or {}), "passed": False}, path / "output")


def _stage(name: str, record: Mapping[str, Any], output: Path | None) -> StageFound:
    result = record.get("result")
    return StageFound(name, bool(record.get("passed")), str(record.get("says", "")),
                      result if isinstance(result, dict) else {},
                      output if output is not None and output.is_dir() else None, bool(record.get("cached")))


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
