"""Train the model: a logistic regression, by plain gradient descent. Put your own in its place.

The contract is files in, files out: `fit` reads train.parquet and writes model.onnx and metrics.json. Lines
appended to metrics.jsonl are shown as a curve while it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
from onnx import TensorProto, helper

FEATURES, LABEL = ["size", "warmth"], "happened"


def fit(inputs: Path, output: Path, params: dict[str, Any]) -> None:
    """`params` are those of opsdeck.pipeline.yaml: steps of the descent, and their rate."""
    table = pq.read_table(inputs / "train.parquet")
    x = np.column_stack([table[name].to_numpy() for name in FEATURES]).astype(np.float64)
    y = table[LABEL].to_numpy().astype(np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scaled = (x - mean) / spread
    slope, offset, loss = np.zeros(len(FEATURES)), 0.0, 0.0
    with (output / "metrics.jsonl").open("w", encoding="utf-8") as curve:
        for step in range(params["steps"]):
            p = 1 / (1 + np.exp(-(scaled @ slope + offset)))
            loss = float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
            slope -= params["rate"] * scaled.T @ (p - y) / len(y)
            offset -= params["rate"] * float(np.mean(p - y))
            if step % 20 == 0:
                curve.write(json.dumps({"step": step, "loss": loss}) + "\n")
                curve.flush()
    model = export(slope / spread, offset - float(slope @ (mean / spread)))
    (output / "model.onnx").write_bytes(model)
    (output / "metrics.json").write_text(json.dumps({"loss": loss, "rows": len(y)}), encoding="utf-8")
    print(f"loss {loss:.4f} after {params['steps']} steps on {len(y):,} rows", flush=True)


def export(slope: Any, offset: float) -> bytes:
    """The model as ONNX: a column of numbers for each feature, by name, to a probability for each row."""
    nodes = [helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_column"]) for name in FEATURES]
    nodes += [helper.make_node("Concat", [f"{name}_column" for name in FEATURES], ["row"], axis=1),
              helper.make_node("MatMul", ["row", "slope"], ["product"]),
              helper.make_node("Add", ["product", "offset"], ["sum"]),
              helper.make_node("Sigmoid", ["sum"], ["probability"])]
    graph = helper.make_graph(
        nodes, "model", [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in FEATURES],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, [None])],
        initializer=[helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
                     helper.make_tensor("slope", TensorProto.FLOAT, [len(FEATURES)], slope.tolist()),
                     helper.make_tensor("offset", TensorProto.FLOAT, [], [offset])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))
