"""What a stage's process gets, and what it comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a stage's process reads the project when it is asked for
    from engine.pipeline.project.model import Project


@dataclass(frozen=True)
class Work:
    """One stage of one run.

    `folder` is the project's, `inputs` the outputs of the stages it needs by their names, `output` an empty
    folder of its own: what a stage leaves there is kept under its key when it passed, whole or not at all.
    `before`: the results of every stage of this run that is done, by name. `say` prints a line that whoever
    watches sees at once; `point` adds to a curve they see, such as the loss by step. `digests`: the sha256 of
    the project's files that the stage's key covers, by path; None where there is no key.
    """

    project: Project
    folder: Path
    home: Path
    run: str
    step: str
    attempt: int
    inputs: Mapping[str, Path]
    output: Path
    before: Mapping[str, Mapping[str, Any]]
    say: Callable[[str], None]
    point: Callable[[str, float, float], None]
    settings: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Done:
    """`passed`: whether the pipeline may go on. `says`: one sentence that names what was looked at and what
    came of it. `result`: small JSON, the step's `result`, which later steps' expressions and the evidence
    page read. `evidence`: the files of the output that show it, relative to it."""

    passed: bool
    says: str
    result: Mapping[str, Any] = field(default_factory=dict)
    evidence: tuple[str, ...] = ()
