"""A small project whose model is trained and evaluated: what the stages after that are given."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.pipeline.project.model import Project
from engine.pipeline.stages.contract import Work
from engine.reproduce import environment
from tests.serving.onnx_models import linear_model

MODEL = "late"
ROWS = 60
LOCK = "".join(f"{name} \\\n    --hash=sha256:{digit * 64}\n"
               for name, digit in (("numpy==2.4.0", "a"), ("onnxruntime==1.24.0", "b")))


def settings(**more: Any) -> dict[str, Any]:
    return {
        "opsdeck": 1, "project": "late-flights", "model": MODEL, "task": "regression", "owner": "tests",
        "environment": {"lock": "requirements.lock"},
        "data": {"source": {"path": "data"}, "label": "delay",
                 "features": ["distance", "temp", "hour", "carrier"], "holdout": {"share": 0.2}},
        "train": {"entry": {"function": "training:train"}, "params": {"rate": 0.1}},
        "gates": [{"kind": "non_inferiority", "metric": "rmse", "margin": 0.1}],
        "staging": {"requests": 40, "concurrency": 4, "p99_ms": 2000, "largest_mb": 0.05}, **more}


@dataclass
class Built:
    """The project's folder and its stages' outputs in `root`."""

    root: Path
    project: Project
    before: dict[str, dict[str, Any]]
    said: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.root / "project"

    def work(self, step: str, output: str = "", run: str = "7", **change: Any) -> Work:
        place = self.root / "out" / (output or step)
        place.mkdir(parents=True, exist_ok=True)
        inputs = {stage.name: stage / "output" for stage in sorted((self.root / "stages").iterdir())}
        given: dict[str, Any] = {
            "project": self.project, "folder": self.folder, "home": self.root / "home", "run": run,
            "step": step, "attempt": 1, "inputs": inputs, "output": place, "before": self.before,
            "say": self.said.append, "point": lambda name, at, value: None,
            "settings": {"tracking": f"sqlite:///{self.root}/mlflow.db",
                         "artifacts": str(self.root / "artifacts")}}
        return Work(**{**given, **change})

    def output(self, stage: str) -> Path:
        place = self.root / "stages" / stage / "output"
        place.mkdir(parents=True, exist_ok=True)
        return place

    def write(self, stage: str, name: str, value: Any) -> None:
        (self.output(stage) / name).write_text(json.dumps(value, sort_keys=True))


def table() -> pa.Table:
    rng = np.random.default_rng(7)
    return pa.table({
        "distance": rng.uniform(100, 3000, ROWS), "temp": rng.normal(15, 8, ROWS),
        "hour": pa.array(rng.integers(0, 24, ROWS)), "carrier": rng.choice(["UA", "AA", "DL"], ROWS).tolist(),
        "delay": rng.normal(10, 5, ROWS)})


def predictions(content: bytes, rows: pa.Table) -> Any:
    """The score of each row, by ONNX Runtime, as the evaluation has it."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(string)": object}
    feed = {one.name: np.array(rows[one.name].to_pylist(), dtype=kinds[one.type])
            for one in session.get_inputs()}
    return np.asarray(session.run(["score"], feed)[0], dtype=np.float64)


def build(root: Path, **change: Any) -> Built:
    """Everything up to the comparison, as the stages before would leave it; a Git repository around it."""
    built = Built(root, Project.model_validate(settings(**change)), {})
    built.folder.mkdir(parents=True)
    (built.folder / "training.py").write_text("def train(inputs, output, params): ...\n")
    (built.folder / "requirements.lock").write_text(LOCK)
    commit(built.folder)
    rows = table()
    content = linear_model(carrier=True).SerializeToString()
    for stage, name in (("data", "train.parquet"), ("data", "test.parquet")):
        pq.write_table(rows, built.output(stage) / name)
    built.write("data", "dataset.json", {"uri": "data", "kind": "folder", "sha256": "d" * 64})
    built.write("data", "findings.json", [])
    train = built.output("train")
    (train / "model.onnx").write_bytes(content)
    (train / "metrics.jsonl").write_text('{"step": 1, "loss": 0.9}\n{"step": 2, "loss": 0.4}\n')
    (train / "environment.json").write_bytes(msgspec.json.encode(environment.collect()))
    np.save(built.output("evaluate") / "predictions.npy", predictions(content, rows))
    built.write("evaluate", "evaluation.json", {"rows": ROWS})
    built.output("robustness")
    built.write("compare", "comparison.json", {"champion": None, "verdict": None})
    built.before.update({
        "tests": {"tests": 3, "failed": 0}, "data": {"rows": 120, "train": 60, "test": ROWS},
        "train": {"loss": 0.4, "metrics": {"loss": 0.4}, "payload": hashlib.sha256(content).hexdigest()},
        "evaluate": {"metrics": {"rmse": {"value": 4.2, "low": 3.9, "high": 4.6}}, "p99_ms": 1.5},
        "compare": {"passed": True, "says": "There is no champion yet.", "champion": None,
                    "gates": [{"name": "no worse", "passed": True, "says": "nothing to compare with"}]}})
    return built


def commit(folder: Path, message: str = "first") -> str:
    """Commit everything there; the commit's id."""
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    if not (folder / ".git").exists():
        git("init", "-qb", "main")
    git("add", "--all")
    git("commit", "-qm", message)
    return git("rev-parse", "HEAD")


def registered(client: Any, name: str = MODEL) -> list[Mapping[str, Any]]:
    """Every version there is, with its tags."""
    return [{"version": str(one.version), "tags": dict(one.tags)}
            for one in client.search_model_versions(f"name = '{name}'")]
