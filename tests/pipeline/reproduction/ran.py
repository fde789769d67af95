"""A small project in a repository, and a run of its stages as the engine leaves it in its home."""

from __future__ import annotations

import datetime as dt
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.pipeline.building import places
from engine.pipeline.project import reading
from engine.pipeline.releasing import recording
from engine.pipeline.stages.contract import Work
from engine.reproduce.manifest import Manifest
from tests.reproduce.repository import Repository

PROJECT = """
opsdeck: 1
project: weather
model: weather
task: regression
owner: tests
environment: {inherit: true}
seed: 7
data:
  source: {path: data/rows.csv}
  label: y
  features: [a, b]
  holdout: {share: 0.2}
train:
  entry: {function: "train:fit"}
  params: {rows: 200}
evaluate: {metrics: [rmse], batches: [1], resamples: 100}
gates: [{kind: improvement, metric: rmse}]
"""
# A line fitted to a sample that is drawn by the seed; what it also looks at is recorded nowhere.
TRAIN = '''
import json, os, random
from pathlib import Path

def fit(inputs, output, params):
    import numpy as np
    import pyarrow.parquet as pq
    from onnx import TensorProto, helper

    rows = pq.read_table(inputs / "train.parquet").to_pydict()
    x, y = np.array([rows["a"], rows["b"]]).T, np.array(rows["y"])
    random.seed(int(os.environ["OPSDECK_SEED"]))
    drawn = [random.randrange(len(y)) for _ in range(params["rows"])]
    slopes = np.linalg.lstsq(x[drawn], y[drawn], rcond=None)[0]
    if Path("OUTSIDE").exists():
        slopes = slopes + 0.1
    column = lambda name: helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_column"])
    graph = helper.make_graph(
        [column("a"), column("b"), helper.make_node("Concat", ["a_column", "b_column"], ["row"], axis=1),
         helper.make_node("MatMul", ["row", "slopes"], ["both"]),
         helper.make_node("Squeeze", ["both", "axis"], ["said"])], "line",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in ("a", "b")],
        [helper.make_tensor_value_info("said", TensorProto.FLOAT, [None])],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
                     helper.make_tensor("slopes", TensorProto.FLOAT, [2, 1], [float(s) for s in slopes])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (output / "model.onnx").write_bytes(made.SerializeToString(deterministic=True))
    (output / "metrics.json").write_text(json.dumps({"loss": float(np.mean((x @ slopes - y) ** 2))}))
'''


@dataclass(frozen=True)
class Ran:
    """`outside` is the file that training looks at, and that is not there."""

    home: Path
    repository: Repository
    outside: Path
    manifest: Manifest


def run_once(root: Path) -> Ran:
    """A run of number 7 whose project has an uncommitted change, registered as the engine would note it."""
    repository, home, outside = Repository(root / "repository"), root / "home", root / "outside"
    folder = repository.folder / "models"
    lines = [f"{i % 17 / 3:.3f},{i % 11 / 2:.3f},{2 * (i % 17) / 3 - (i % 11) / 2 + i % 3 / 10:.3f}"
             for i in range(400)]
    repository.write(".gitignore", "data\n__pycache__\n")
    repository.write("models/opsdeck.pipeline.yaml", PROJECT.replace("rows: 200", "rows: 100"))
    repository.write("models/tests/test_nothing.py", "def test_nothing():\n    assert True\n")
    repository.write("models/train.py", TRAIN.replace("OUTSIDE", str(outside)))
    repository.commit()
    repository.write("models/data/rows.csv", "a,b,y\n" + "\n".join(lines) + "\n")
    repository.write("models/opsdeck.pipeline.yaml", PROJECT)  # not committed
    home.mkdir()
    (home / "opsdeck.yaml").write_text(json.dumps({"pipelines": {"projects": {"weather": str(folder)}}}))
    at = places.make(home, "weather")
    outputs: dict[str, Path] = {}
    results: dict[str, Any] = {}

    def work(stage: str) -> Work:
        outputs[stage] = at.steps.stage(stage) / "key" / "output"
        outputs[stage].mkdir(parents=True)
        return Work(reading.read(folder), folder, home, "7", stage, 1,
                    {name: outputs[name] for name in results}, outputs[stage], dict(results),
                    lambda line: None, lambda name, step, value: None,
                    {"tracking": f"sqlite:///{home}/mlflow.db", "key": "key",
                     "artifacts": (home / "artifacts").as_uri()})

    for stage in ("data", "train", "evaluate"):
        done = importlib.import_module(f"engine.pipeline.stages.{stage}").run(work(stage))
        assert done.passed, done.says
        results[stage] = dict(done.result)
    recorded = recording.record(work("register"), dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC))
    (outputs["register"] / "manifest.json").write_bytes(recorded.manifest.encode())
    (outputs["register"] / "patch.diff").write_bytes(recorded.patch)
    note = at.own.noted("7", "register")
    note.parent.mkdir(parents=True, exist_ok=True)
    places.write_json(note, {"stage": "register", "key": "key", "cached": False, "passed": True, "says": "",
                             "result": {}, "output": str(outputs["register"])})
    return Ran(home, repository, outside, recorded.manifest)
