"""Learn how much each likeness counts, from pairs of a query's candidates. `fit` is the pipeline's entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import ranker
from similarity import FEATURES


def fit(inputs: Path, output: Path, params: dict[str, Any]) -> None:
    """Read inputs/train.parquet; write model.onnx, weights.json, metrics.json and metrics.jsonl to `output`.

    Raises ValueError where no query has both a relevant candidate and another.
    """
    table = pq.read_table(inputs / "train.parquet")
    features = ranker.matrix(table)
    relevant = np.asarray(table["relevant"].to_numpy(), dtype=np.int64)
    query = np.unique(np.array(table["query"].to_pylist()), return_inverse=True)[1]
    better, worse = ranker.pairs(relevant, query)
    if not len(better):
        raise ValueError(f"none of {len(np.unique(query)):,} queries has both a relevant candidate "
                         "and another")
    spread = ranker.scale(features)
    differences = (features[better] - features[worse]) / spread
    print(f"{len(better):,} pairs of {len(np.unique(query)):,} queries", flush=True)

    weights, last = np.zeros(len(FEATURES)), 0.0
    with (output / "metrics.jsonl").open("w", encoding="utf-8") as curve:
        for step, weights in ranker.descend(differences, params["ridge"], params["iterations"]):
            last = ranker.loss(differences, weights)
            curve.write(json.dumps({"step": step, "loss": last}) + "\n")
            curve.flush()
    ranker.save(output, dict(zip(FEATURES, (weights / spread).tolist(), strict=True)))
    metrics = {"loss": last, "pairs": len(better), "rows": len(table)}
    text = json.dumps(metrics, indent=1, sort_keys=True) + "\n"
    (output / "metrics.json").write_text(text, encoding="utf-8")
    heaviest = ", ".join(FEATURES[at] for at in np.argsort(-np.abs(weights), kind="stable")[:3])
    print(f"loss {last:.4f} after {params['iterations']} steps; what counts most: {heaviest}", flush=True)
