"""Learn whether a flight will arrive late: gradient boosting on train.parquet, exported to model.onnx.

`fit` is the entry that opsdeck.pipeline.yaml names. While it learns it appends a line to metrics.jsonl every
few trees, so that the curve on screen is the one of this very training.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

import to_onnx
from columns import FEATURES, GROUP, LABEL, feed, known, matrix, numbers

Floats = NDArray[np.float64]
Rising = {"up": 1, "down": -1}
LEAST = 2.0**-52  # a probability of 0 for what happened costs 36 nats, not infinity
COMPARED = 4000  # rows on which the export is compared with its source


@dataclass(frozen=True)
class Rows:
    """Of learning or validation: features (n, 12), labels (n,) 0 or 1, weights (n,)."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: Floats

    def only(self, mask: NDArray[np.bool_]) -> Rows:
        return Rows(self.features[mask], self.labels[mask], self.weights[mask])


def log_loss(labels: NDArray[np.int64], probability: Floats, weights: Floats) -> float:
    """The weighted mean of -log of the probability that was given to what happened, in nats."""
    said = np.where(labels == 1, probability, 1 - probability)
    return float(np.average(-np.log(np.clip(said, LEAST, 1.0)), weights=weights))


def rows_of(table: pa.Table, categories: Mapping[str, list[str]]) -> Rows:
    """Raises ValueError when there are no rows, a label is missing or only one class occurs."""
    labels = numbers(table, LABEL)
    if np.isnan(labels).any():
        raise ValueError(f"{int(np.isnan(labels).sum()):,} of {len(labels):,} rows have no {LABEL}")
    if len(np.unique(labels)) != 2:
        raise ValueError(f"there is nothing to learn: the column {LABEL} holds "
                         f"{len(np.unique(labels))} class in {len(labels):,} rows")
    weighted = "sample_weight" in table.column_names
    weights = numbers(table, "sample_weight") if weighted else np.ones(len(labels))
    return Rows(matrix(table, categories), labels.astype(np.int64), weights)


def held_out(groups: list[str], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which rows are for validation: whole hours of an airport, about `share` of them. Single flights would
    flatter the model, which knows how their hour went from the others."""
    names, of = np.unique(np.array(groups), return_inverse=True)
    return np.asarray((rng.random(len(names)) < share)[of])


def grow(rows: Rows, params: Mapping[str, Any], seed: int) -> Iterator[tuple[int, Any]]:
    """The model after every `every` trees, and how many it has. The last one has `max_iter`."""
    constraints = [Rising.get(params.get("monotonic", {}).get(name, ""), 0) for name in FEATURES]
    model = HistGradientBoostingClassifier(
        learning_rate=params["learning_rate"], max_leaf_nodes=params["max_leaf_nodes"],
        min_samples_leaf=params["min_samples_leaf"], l2_regularization=params["l2_regularization"],
        max_bins=params["max_bins"],
        monotonic_cst=constraints, categorical_features=None, early_stopping=False, warm_start=True,
        random_state=seed)
    trees = 0
    while trees < params["max_iter"]:
        trees = min(trees + params["every"], params["max_iter"])
        model.set_params(max_iter=trees).fit(rows.features, rows.labels, rows.weights)
        yield trees, model


def fit(inputs: Path, output: Path, params: dict[str, Any]) -> None:
    """Read inputs/train.parquet; write model.onnx, metrics.json and metrics.jsonl into `output`."""
    seed = int(os.environ.get("OPSDECK_SEED", "0"))
    rng = np.random.default_rng(seed)
    table = pq.read_table(inputs / "train.parquet")
    categories = known(table)
    every = rows_of(table, categories)
    aside = held_out(table[GROUP].to_pylist(), params["validation"], rng)
    learned, validation = every.only(~aside), every.only(aside)
    print(f"{len(learned.labels):,} flights to learn from, {len(validation.labels):,} for validation",
          flush=True)

    def loss(model: Any, rows: Rows) -> tuple[float, Floats]:
        probability = np.asarray(model.predict_proba(rows.features)[:, 1], dtype=np.float64)
        return log_loss(rows.labels, probability, rows.weights), probability

    model: Any = None
    points: dict[str, float] = {}
    with (output / "metrics.jsonl").open("w", encoding="utf-8") as curve:
        for trees, model in grow(learned, params, seed):
            points = {"loss": loss(model, learned)[0], "validation_loss": loss(model, validation)[0]}
            curve.write(json.dumps({"step": trees, **points}) + "\n")
            curve.flush()

    exported = to_onnx.convert(model, categories, "flights")
    some = np.sort(rng.choice(len(table), min(COMPARED, len(table)), replace=False))
    probability = np.asarray(model.predict_proba(every.features[some])[:, 1], dtype=np.float64)
    off = to_onnx.check(exported, probability, feed(table.take(some)))
    (output / "model.onnx").write_bytes(exported)
    auc = roc_auc_score(validation.labels, loss(model, validation)[1])
    write(output / "metrics.json", {**points, "validation_roc_auc": float(auc), "trees": params["max_iter"],
                                    "rows": len(learned.labels), "export_largest_difference": off})
    print(f"log loss {points['loss']:.4f}, {points['validation_loss']:.4f} on the hours kept for validation; "
          f"the export is at most {off:.1e} off its source", flush=True)


def write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", encoding="utf-8")
