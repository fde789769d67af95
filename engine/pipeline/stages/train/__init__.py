"""Training: the project's own code, apart from the engine, with its run in MLflow and its curve in sight."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.errors import OpsdeckError, UsageError
from engine.pipeline.child import entries, process, views
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.train import checks
from engine.pipeline.stages.train.curve import Curve
from engine.pipeline.stages.train.job import (
    ARTIFACTS,
    CURVE,
    ENVIRONMENT,
    INPUTS,
    KEY,
    LOG,
    METRICS,
    Job,
    Trained,
)
from engine.pipeline.stages.train.tracking import Tracked, Tracking, reachable
from engine.reproduce import digests
from engine.words import span


def run(work: Work) -> Done:
    """Train. Result: loss, metrics, mlflow_run, tracked (and tracked_why), seconds, payload, sha256, model,
    peak_mb, runs_on.

    Raises OpsdeckError when tracking cannot be reached at the beginning, before training is paid for, when
    training does not end well, and when what it left is not what the contract asks for. Once training has
    begun, tracking that fails is told and no more: `tracked` is then false, and registration logs the run.
    """
    uri = tracking_uri(work)
    credentials = entries.credentials(work.project.train.credentials, work.folder, KEY)
    place = _place(work)
    reachable(uri)
    curve = Curve(work.output / CURVE, work.point, work.say)
    tracking = Tracking(work, uri, curve, _tags(work))

    def tick() -> None:
        curve.poll()
        tracking.check()

    with process.stoppable(), entries.scratch(work.output) as scratch, views.of(work, "code") as view:
        files = [work.inputs["data"] / name for name in INPUTS if (work.inputs["data"] / name).exists()]
        inputs = entries.copied(files, scratch / "inputs")
        tracking.begin()
        try:
            trained = place(Job(work, scratch, inputs, curve, credentials, tick, view))
            curve.poll(last=True)
            figures = checks.metrics(work.output, curve.broken)
            made = checks.model(work.output)
            checks.artifacts(work.output, made)
        except OpsdeckError:
            curve.poll(last=True)
            tracking.end("FAILED", files=work.output if (work.output / LOG).exists() else None)
            raise
        except process.Stopped:
            tracking.end("KILLED")
            raise
        except BaseException:
            tracking.end("FAILED")
            raise
        tracked = tracking.end("FINISHED", figures, {"opsdeck.payload": made.payload}, work.output)
    return _done(work, trained, figures, made, tracked)


def tracking_uri(work: Work) -> str:
    """The project's own, the engine's, or the SQLite file in the engine's home."""
    return str(work.project.tracking or work.settings.get("tracking") or f"sqlite:///{work.home}/mlflow.db")


def _place(work: Work) -> Callable[[Job], Trained]:
    match work.project.train.runs_on:
        case "sagemaker":
            from engine.pipeline.stages.train import sagemaker

            return sagemaker.train
        case "ray":
            from engine.pipeline.stages.train import ray_

            return ray_.train
        case "local":
            from engine.pipeline.stages.train import local

            return local.train


def _tags(work: Work) -> dict[str, str]:
    rows = work.inputs["data"] / "train.parquet"
    if not rows.is_file():
        raise UsageError("The data stage has left no train.parquet, which training reads.", where=str(rows),
                         hint="Run the pipeline again from the data stage.")
    lock = work.project.environment.lock
    told = work.inputs["data"] / "dataset.json"
    source: dict[str, Any] = json.loads(told.read_bytes()) if told.exists() else {}
    return {"opsdeck.data": str(source.get("sha256") or source.get("version") or digests.file(rows).sha256),
            "opsdeck.lock": digests.file(work.folder / lock).sha256 if lock and (work.folder / lock).is_file()
            else "none: the engine's own packages"}


def _done(work: Work, trained: Trained, figures: dict[str, float], made: checks.Model, tracked: Tracked
          ) -> Done:
    loss = figures.get("loss")
    result: dict[str, Any] = {
        "loss": loss, "metrics": figures, "mlflow_run": tracked.run, "tracked": tracked.run is not None,
        "seconds": round(trained.seconds, 3), "payload": made.payload, "sha256": made.sha256,
        "model": made.path.name, "model_bytes": made.bytes, "runs_on": work.project.train.runs_on,
        "peak_mb": None if trained.peak_mb is None else round(trained.peak_mb, 1), **trained.result}
    said = f"Trained in {span(trained.seconds)}"
    said += f", loss {loss:.6g}" if loss is not None else ""
    said += f", {made.path.name} of {_size(made.bytes)}"
    if tracked.run is None:
        result["tracked_why"] = tracked.why
        said += f"; not in MLflow yet: {tracked.why}"
    shown = (METRICS, CURVE, LOG, ENVIRONMENT, ARTIFACTS)
    return Done(True, said, result, tuple(name for name in shown if _is_file(work.output / name)))


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.1f} kB" if count < 10**6 else f"{count / 1e6:.1f} MB"
