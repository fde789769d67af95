"""A small project in a repository, and a run of its stages as the engine leaves it in its home."""

from __future__ import annotations

import base64
import datetime as dt
import importlib
import json
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.pipeline.building import places
from engine.pipeline.child import process
from engine.pipeline.project import reading
from engine.pipeline.releasing import recording
from engine.pipeline.stages.contract import Work
from engine.reproduce.manifest import Manifest
from tests.pipeline.child.wheels import wheel
from tests.reproduce.repository import Repository

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
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


# With the standard library and one package of a lock alone: one weight of a model that is at hand is drawn.
LOCKED = '''
import base64, json, random, struct
import tiny

MODEL = base64.b64decode("ENCODED")

def fit(inputs, output, params):
    assert tiny.VERSION == "1.0" and (inputs / "train.parquet").stat().st_size
    drawn = struct.pack("<2f", random.random(), -1.0)
    (output / "model.onnx").write_bytes(MODEL.replace(struct.pack("<2f", 2.0, -1.0), drawn))
    (output / "metrics.json").write_text(json.dumps({"loss": struct.unpack("<2f", drawn)[0]}))
'''


@dataclass(frozen=True)
class Ran:
    """`outside` is the file that training looks at, and that is not there."""

    home: Path
    repository: Repository
    outside: Path
    manifest: Manifest


def rows(count: int = 400) -> str:
    """A CSV file."""
    lines = [f"{i % 17 / 3:.3f},{i % 11 / 2:.3f},{2 * (i % 17) / 3 - (i % 11) / 2 + i % 3 / 10:.3f}"
             for i in range(count)]
    return "a,b,y\n" + "\n".join(lines) + "\n"


def run_once(root: Path) -> Ran:
    """A run of number 7 whose project has an uncommitted change, registered as the engine would note it."""
    repository, home, outside = Repository(root / "repository"), root / "home", root / "outside"
    repository.write(".gitignore", "data\n__pycache__\n")
    repository.write("models/opsdeck.pipeline.yaml", PROJECT.replace("rows: 200", "rows: 100"))
    repository.write("models/tests/test_nothing.py", "def test_nothing():\n    assert True\n")
    repository.write("models/train.py", TRAIN.replace("OUTSIDE", str(outside)))
    repository.commit()
    repository.write("models/data/rows.csv", rows())
    repository.write("models/opsdeck.pipeline.yaml", PROJECT)  # not committed
    return Ran(home, repository, outside, _run(repository.folder / "models", home))


def run_locked(root: Path, uri: str) -> Ran:
    """A run of number 7 whose data is at `uri`, in the environment of a uv.lock with one wheel beside it."""
    repository, home = Repository(root / "repository"), root / "home"
    folder = repository.folder / "models"
    text = PROJECT.replace("{path: data/rows.csv}", f"{{uri: '{uri}'}}")
    repository.write("models/opsdeck.pipeline.yaml", text.replace(
        "{inherit: true}", f"{{lock: uv.lock, python: '{PYTHON}'}}"))
    repository.write("models/tests/test_nothing.py", "def test_nothing():\n    assert True\n")
    repository.write("models/train.py", LOCKED.replace("ENCODED", base64.b64encode(_line()).decode()))
    repository.write("models/pyproject.toml", '[project]\nname = "weather"\nversion = "0"\n'
                     'requires-python = ">=3.11"\ndependencies = ["tiny"]\n')
    wheel(folder / "wheels")
    subprocess.run([str(process.tool("uv")), "lock", "--quiet", "--project", str(folder)], check=True)
    repository.commit()
    return Ran(home, repository, root / "outside", _run(folder, home))


def _line() -> bytes:
    """2 a - b, as an ONNX model."""
    from onnx import TensorProto, helper

    kinds = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None])
             for name in ("a", "b", "said")}
    column = [helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_column"]) for name in ("a", "b")]
    graph = helper.make_graph(
        [*column, helper.make_node("Concat", ["a_column", "b_column"], ["row"], axis=1),
         helper.make_node("MatMul", ["row", "slopes"], ["both"]),
         helper.make_node("Squeeze", ["both", "axis"], ["said"])], "line",
        [kinds["a"], kinds["b"]], [kinds["said"]],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1]), helper.make_tensor(
            "slopes", TensorProto.FLOAT, [2, 1], struct.pack("<2f", 2.0, -1.0), raw=True)])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString(deterministic=True))


def _run(folder: Path, home: Path) -> Manifest:
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
    return recorded.manifest
