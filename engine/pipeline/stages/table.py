"""Which stages there are, in order, and what each depends on. Pure, and light to import.

The key of a cached stage is the digest of its `fields`: its own version here, the parts of the project file
under `settings`, the files under `reads`, the lock and image where it runs code, and the digests of what
the stages it `needs` have put out. `engine.pipeline.building.cache` computes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Stage:
    """`settings`: keys of the project file. `reads`: code (the files under `code`), tests, source (the
    data's), expectations, cases, downstream. `cached`: an unchanged one is not run again. `user`: steps
    (the second user of a system engine) or engine."""

    name: str
    title: str
    needs: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    reads: tuple[Literal["code", "tests", "source", "expectations", "cases", "downstream"], ...] = ()
    environment: bool = False
    cached: bool = True
    user: Literal["steps", "engine"] = "steps"
    version: int = 1


STAGES: dict[str, Stage] = {stage.name: stage for stage in (
    Stage("tests", "The project's own tests", settings=("tests",), reads=("code", "tests"),
          environment=True),
    Stage("data", "The data against what is expected of it", settings=("data", "task", "seed"),
          reads=("source", "expectations")),
    Stage("train", "Training", needs=("data",), settings=("train", "seed", "task", "data"), reads=("code",),
          environment=True),
    Stage("evaluate", "Evaluation on held-out rows", needs=("data", "train"),
          settings=("evaluate", "seed", "task", "data"), reads=("code",), environment=True),
    Stage("robustness", "Hard cases and disturbances", needs=("data", "train"),
          settings=("robustness", "evaluate", "seed", "task", "data"), reads=("code", "cases"),
          environment=True),
    Stage("compare", "Comparison with the model in production", needs=("data", "train", "evaluate"),
          reads=("code",), environment=True, cached=False),
    Stage("register", "Registration", needs=("data", "train", "evaluate"), cached=False, user="engine"),
    Stage("staging", "Staging: real servers, contract and smoke tests",
          needs=("data", "train", "evaluate", "register"),
          reads=("downstream",), cached=False),
    Stage("page", "The page of evidence", cached=False),
)}

# Files of an output that people read and no later stage does: accepting a finding trains nothing anew.
REPORTS: dict[str, tuple[str, ...]] = {"data": ("findings.json", "expectations.yaml", "log.txt"),
                                       "train": ("log.txt", "metrics.jsonl")}
