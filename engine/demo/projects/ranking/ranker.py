"""A linear ranking: learned from pairs, kept as ONNX, and loaded for evaluation by a function of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray
from onnx import TensorProto, helper

from similarity import FEATURES

Floats = NDArray[np.float64]
OPSET, IR_VERSION = 17, 8
OUTPUT = "score"
TOLERANCE = 1e-9  # of a score, which is a sum of eleven doubles
FLAT = 1e-12  # a feature that varies less says nothing


def matrix(table: pa.Table) -> Floats:
    """FEATURES as float64 (rows, 11). Raises KeyError for a column that is not there, ValueError for a value
    that is missing: a candidate without a likeness cannot be placed."""
    columns = [table[name].cast(pa.float64()).to_numpy(zero_copy_only=False) for name in FEATURES]
    found = np.stack(columns, axis=1).astype(np.float64)
    if not np.isfinite(found).all():
        row, column = np.argwhere(~np.isfinite(found))[0]
        raise ValueError(f"the {FEATURES[column]} of row {row} is missing")
    return found


def pairs(relevant: NDArray[np.int64], query: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """All (better, worse) rows (p,), (p,) of the same query whose relevance differs."""
    better, worse = [], []
    for one in np.unique(query):
        rows = np.flatnonzero(query == one)
        above, below = np.nonzero(relevant[rows][:, None] > relevant[rows][None, :])
        better.append(rows[above])
        worse.append(rows[below])
    return np.concatenate(better), np.concatenate(worse)


def loss(differences: Floats, weights: Floats) -> float:
    """The mean over pairs (p, 11) of log(1 + exp(-margin)): RankNet's cost (Burges et al. 2005), in nats."""
    return float(np.logaddexp(0, -(differences * weights).sum(axis=1)).mean())


def descend(differences: Floats, ridge: float, iterations: int) -> Iterator[tuple[int, Floats]]:
    """Newton's method on `loss` plus ridge/2 of the squared weights, which is convex: weights (11,) by step.

    The sums over pairs do not go through BLAS, whose order of adding depends on its threads.
    """
    weights = np.zeros(differences.shape[1])
    for step in range(1, iterations + 1):
        chance = 1 / (1 + np.exp((differences * weights).sum(axis=1)))  # that the pair is the wrong way round
        slope = ridge * weights - (differences * chance[:, None]).mean(axis=0)
        bend = chance * (1 - chance)
        curvature = np.stack([(differences * (bend * column)[:, None]).mean(axis=0)
                              for column in differences.T])
        weights = weights - np.linalg.solve(curvature + ridge * np.eye(len(weights)), slope)
        yield step, weights


def scale(features: Floats) -> Floats:
    """The standard deviation of each feature (11,); a flat one counts as 1."""
    spread = features.std(axis=0)
    return np.where(spread > FLAT, spread, 1.0)


def score(columns: Mapping[str, Floats], weights: Mapping[str, float]) -> Floats:
    """The weighted sum of FEATURES (rows,), added one after the other as the model's nodes do: what is
    evaluated and what is served are equal to the last bit, whatever the size of a batch."""
    total = columns[FEATURES[0]] * weights[FEATURES[0]]
    for name in FEATURES[1:]:
        total = total + columns[name] * weights[name]
    return total


def save(folder: Path, weights: Mapping[str, float]) -> None:
    """Write model.onnx, and weights.json for people to read. Raises ValueError when the served model is off
    the evaluated one."""
    exported = to_onnx(weights)
    rng = np.random.default_rng(0)
    columns = {name: rng.uniform(-1, 1, 256) for name in FEATURES}
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    off = np.abs(session.run([OUTPUT], columns)[0] - score(columns, weights)).max()
    if not off <= TOLERANCE:
        raise ValueError(f"model.onnx is off the learned weights by up to {off:.3g}")
    (folder / "model.onnx").write_bytes(exported)
    text = json.dumps(dict(weights), indent=1, sort_keys=True)
    (folder / "weights.json").write_text(text + "\n", encoding="utf-8")


def load(model: Path) -> Callable[[pa.Table], Floats]:
    """The ranking that model.onnx holds: from a table with FEATURES to scores (rows,), the better the higher.

    The weights are taken out and used in NumPy, so that this needs no ONNX Runtime. Raises ValueError for a
    model of another kind.
    """
    graph = onnx.load(model).graph
    kept = {one.name: float(onnx.numpy_helper.to_array(one)) for one in graph.initializer}
    weights = {name: kept.get(f"{name}_weight", np.nan) for name in FEATURES}
    if np.isnan(list(weights.values())).any() or [one.name for one in graph.input] != list(FEATURES):
        raise ValueError(f"{model.name} is not a linear ranking of {', '.join(FEATURES)}")

    def ranked(table: pa.Table) -> Floats:
        features = matrix(table)
        return score({name: features[:, at] for at, name in enumerate(FEATURES)}, weights)

    return ranked


def to_onnx(weights: Mapping[str, float]) -> bytes:
    """Each feature by its name, double [N], to `score`, double [N]; each time the same bytes."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None]) for name in FEATURES]
    nodes = [helper.make_node("Mul", [name, f"{name}_weight"], [f"{name}_part"]) for name in FEATURES]
    total = f"{FEATURES[0]}_part"
    for name in FEATURES[1:]:
        result = OUTPUT if name == FEATURES[-1] else f"{name}_sum"
        nodes.append(helper.make_node("Add", [total, f"{name}_part"], [result]))
        total = result
    whole = helper.make_model(helper.make_graph(
        nodes, "ranking", inputs, [helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, [None])],
        initializer=[helper.make_tensor(f"{name}_weight", TensorProto.DOUBLE, [], [weights[name]])
                     for name in FEATURES]),
        opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(whole, full_check=True)
    return bytes(whole.SerializeToString(deterministic=True))
