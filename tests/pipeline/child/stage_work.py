"""A stage's work in a folder of a test, and what it said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.pipeline.project.model import Project
from engine.pipeline.stages.contract import Work


class Heard:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.points: list[tuple[str, float, float]] = []

    def say(self, line: str) -> None:
        self.lines.append(line)

    def point(self, name: str, step: float, value: float) -> None:
        self.points.append((name, step, value))


def work(project: Project, root: Path, stage: str, heard: Heard | None = None, *, attempt: int = 1,
         before: Mapping[str, Any] | None = None, **settings: Any) -> Work:
    """The project lies in root/project, the engine's home in root/home; input `data` is root/data, if any."""
    output = root / "home" / "pipelines" / project.project / "work" / f"run-1.{stage}.{attempt}" / "output"
    output.mkdir(parents=True)
    heard = heard or Heard()
    inputs = {"data": root / "data"} if (root / "data").exists() else {}
    return Work(project, root / "project", root / "home", "run-1", stage, attempt, inputs, output,
                before or {}, heard.say, heard.point, settings)
