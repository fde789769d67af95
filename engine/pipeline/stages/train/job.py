"""What a place to train in gets, and what it gives back; the files of training's contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.pipeline.child.entries import Call
from engine.pipeline.child.views import View
from engine.pipeline.project.model import Train
from engine.pipeline.stages.contract import Work
from engine.pipeline.stages.train.curve import Curve

WHAT, KEY = "The training", "train"
LOG, CURVE, METRICS = "log.txt", "metrics.jsonl", "metrics.json"
ENVIRONMENT, ARTIFACTS = "environment.json", "artifacts.json"
INPUTS = ("train.parquet", "dataset.json")  # of the data stage; the held-out rows are not among them


@dataclass(frozen=True)
class Job:
    """One training. `inputs`: the folder it reads; `scratch`: thrown away after it; `tick`: to be called a
    few times a second, follows the curve, and raises when training must not go on; `view`: the code."""

    work: Work
    scratch: Path
    inputs: Path
    curve: Curve
    credentials: Mapping[str, str]
    tick: Callable[[], None]
    view: View

    @property
    def train(self) -> Train:
        return self.work.project.train

    def call(self, python: Path) -> Call:
        """The entry as it is called with this interpreter on this machine."""
        return Call(self.train.entry, WHAT, KEY, python, self.view.folder, self.inputs, self.work.output,
                    self.scratch, self.train.params, self.work.project.seed, self.train.limits,
                    self.work.output / LOG, self.credentials, self.view)


@dataclass(frozen=True)
class Trained:
    """`seconds` it took; `peak_mb` where it was measured; `result`: what the place adds to the stage's."""

    seconds: float
    peak_mb: float | None = None
    result: Mapping[str, object] = field(default_factory=dict)
