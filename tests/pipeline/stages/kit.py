"""A project small enough to be scored in a second: two numbers and a text, and models of them as ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.pipeline.project.model import Project
from engine.pipeline.stages.contract import Work

CITIES = ("Bern", "Oslo", "Rome")
FEATURES = ("heat", "wind", "city")


def onnx_model(heat: float = 1.0, wind: float = -0.5, *, names: Sequence[str] = FEATURES,
               scale: float = 1.0) -> bytes:
    """P(1) = sigmoid(scale × (heat × heat + wind × wind + 0.3 × place of the city)), an input a column."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("LabelEncoder", [names[2]], ["code"], domain="ai.onnx.ml", keys_strings=list(CITIES),
                         values_floats=[0.0, 1.0, 2.0], default_float=-1.0),
        *(helper.make_node("Unsqueeze", [one, "axis"], [f"{one}_column"]) for one in (*names[:2], "code")),
        helper.make_node("Concat", [f"{one}_column" for one in (*names[:2], "code")], ["row"], axis=1),
        helper.make_node("MatMul", ["row", "weights"], ["margin"]),
        helper.make_node("Sigmoid", ["margin"], ["both"]),
        helper.make_node("Squeeze", ["both", "axis"], ["probability"])]
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.STRING)
    inputs = [helper.make_tensor_value_info(name, kind, [None])
              for name, kind in zip(names, kinds, strict=True)]
    graph = helper.make_graph(
        nodes, "small", inputs, [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
                     helper.make_tensor("weights", TensorProto.FLOAT, [3, 1],
                                        [scale * heat, scale * wind, scale * 0.3])])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17),
                                                   helper.make_opsetid("ai.onnx.ml", 3)], ir_version=8)
    return bytes(made.SerializeToString(deterministic=True))


def table(rows: int, seed: int) -> pa.Table:
    """Rows whose label is drawn with the probability that `onnx_model()` gives them."""
    rng = np.random.default_rng(seed)
    heat, wind, city = rng.normal(size=rows), rng.normal(size=rows), rng.integers(0, 3, rows)
    p = 1 / (1 + np.exp(-(heat - 0.5 * wind + 0.3 * city)))
    return pa.table({"heat": heat, "wind": wind, "city": np.array(CITIES)[city],
                     "late": (rng.random(rows) < p).astype(np.int64)})


def project(**changed: Any) -> Project:
    return Project.model_validate({
        "opsdeck": 1, "project": "weather", "model": "weather-late", "task": "binary", "owner": "ann",
        "environment": {"inherit": True}, "seed": 7,
        "data": {"source": {"path": "data.parquet"}, "label": "late", "features": list(FEATURES),
                 "segments": ["city"], "holdout": {"share": 0.2}},
        "train": {"entry": {"function": "train:main"}},
        "evaluate": {"batches": [1, 16], "resamples": 200},
        "gates": [{"kind": "non_inferiority", "metric": "log_loss", "margin": 0.05}], **changed})


class Made:
    """A home with what the stages before have left; `work` is the next stage's."""

    def __init__(self, root: Path, test: pa.Table, model: bytes | None,
                 train: pa.Table | None = None) -> None:
        self.root, self.said = root, []
        self.folder, self.data, self.trained = root / "project", root / "data", root / "train"
        for folder in (self.folder, self.data, self.trained):
            folder.mkdir(parents=True)
        pq.write_table(test, self.data / "test.parquet")
        pq.write_table(table(200, 1) if train is None else train, self.data / "train.parquet")
        if model is not None:
            (self.trained / "model.onnx").write_bytes(model)

    def work(self, stage: str, given: Project, *, inputs: Mapping[str, Path] | None = None,
             settings: Mapping[str, Any] | None = None, before: Mapping[str, Any] | None = None) -> Work:
        output = self.root / f"{stage}-output"
        output.mkdir(exist_ok=True)
        return Work(given, self.folder, self.root / "home", "184", stage, 1,
                    {"data": self.data, "train": self.trained, **(inputs or {})}, output, before or {},
                    self.said.append, lambda name, step, value: None, settings or {})
