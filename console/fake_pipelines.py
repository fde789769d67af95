"""A made-up pipeline that trains: its steps, what they say, and the curves of the training."""

from __future__ import annotations

import math

from console.fake_runs import done, run, step
from engine.api import wire
from engine.api.backend import Point

ROUNDS = 64  # of 100 boosting rounds


def training(at: float) -> tuple[wire.RunView, dict[tuple[str, str], list[Point]]]:
    """Run 190 in its training, and its curves by (run, step)."""
    points = [Point(name, float(at), value) for at in range(1, ROUNDS + 1)
              for name, value in (("log_loss", _loss(at, 0.41)), ("val_log_loss", _loss(at, 0.455)))]
    told = "".join(f"round {at:>3}  log_loss {_loss(at, 0.41):.4f}\n" for at in range(1, ROUNDS + 1))
    view = run("190", "train-and-release", "From data to a release", "running", [
        done("tests", "The project's own tests", at - 96, 21.4, effect="idempotent",
             command="pipeline.tests flights", stdout="14 tests passed\n"),
        done("data", "The data against what is expected", at - 74, 6.2, effect="idempotent",
             command="pipeline.data flights",
             stdout="81,204 rows: nothing hard, nothing suspicious\n"),
        step("review", "Suspicious findings", "skipped", kind="manual", reason="nothing is suspicious"),
        step("train", "Training", "intent", started=at - 68, by="mlops3", effect="idempotent",
             command="pipeline.train flights", stdout=told, output_bytes=len(told)),
        step("evaluate", "Evaluation on held-out rows"),
        step("robustness", "Hard cases and disturbances"),
        step("compare", "Comparison with production"),
        step("register", "Registration"), step("staging", "Staging and smoke tests"),
        step("page", "The page of evidence"),
        step("release", "Roll it out", undo="the rollout's own way back"),
    ], at, by="mlops3", started=at - 118, params={"project": "flights"})
    return view, {("190", "train"): points}


def _loss(at: int, floor: float) -> float:
    return floor + (0.693 - floor) * math.exp(-at / 22) + 0.004 * math.sin(at * 1.7) * math.exp(-at / 40)
