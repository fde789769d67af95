"""The whole training on small synthetic queries: pairs, loss, model, twice the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ranker
import train
from similarity import FEATURES

PARAMS: dict[str, Any] = {"ridge": 0.01, "iterations": 6}


def synthetic(queries: int, seed: int = 0) -> pa.Table:
    """Queries of ten candidates: the three with the most of `seen`, but for some noise, are relevant."""
    rng = np.random.default_rng(seed)
    features = rng.uniform(0, 1, (queries, 10, len(FEATURES)))
    strength = features[:, :, FEATURES.index("seen")] + rng.normal(0, 0.05, (queries, 10))
    relevant = (np.argsort(np.argsort(-strength, axis=1), axis=1) < 3).astype(int)
    return pa.table({**{name: features[:, :, at].ravel() for at, name in enumerate(FEATURES)},
                     "query": [f"q{one}" for one in range(queries) for _ in range(10)],
                     "relevant": relevant.ravel()})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trainings on the same rows, in two folders."""
    inputs = tmp_path_factory.mktemp("inputs")
    pq.write_table(synthetic(60), inputs / "train.parquet")
    outputs = (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two"))
    for output in outputs:
        train.fit(inputs, output, PARAMS)
    return outputs


def test_pairs_are_of_one_query_and_of_different_relevance() -> None:
    better, worse = ranker.pairs(np.array([1, 0, 0, 2, 2, 1]), np.array([0, 0, 0, 1, 1, 1]))
    assert list(zip(better.tolist(), worse.tolist(), strict=True)) == [(0, 1), (0, 2), (3, 5), (4, 5)]


def test_without_weights_each_pair_costs_log_two_and_a_clear_order_costs_little() -> None:
    differences = np.ones((5, 2))
    assert ranker.loss(differences, np.zeros(2)) == pytest.approx(math.log(2))
    assert ranker.loss(differences, np.array([5.0, 5.0])) < 1e-4
    assert math.isfinite(ranker.loss(differences, np.array([-900.0, -900.0])))


def test_the_descent_ends_where_the_slope_is_zero() -> None:
    differences = np.random.default_rng(3).normal(0.3, 1, (400, 3))
    *_, (_, weights) = ranker.descend(differences, 0.1, 12)
    for at in range(3):
        step = np.eye(3)[at] * 1e-5
        slope = (cost(differences, weights + step) - cost(differences, weights - step)) / 2e-5
        assert abs(slope) < 1e-8


def cost(differences: ranker.Floats, weights: ranker.Floats) -> float:
    return ranker.loss(differences, weights) + 0.05 * float((weights**2).sum())


def test_it_ranks_fresh_queries_by_what_matters(trained: tuple[Path, Path]) -> None:
    fresh = synthetic(100, seed=9)
    scores = ranker.load(trained[0] / "model.onnx")(fresh).reshape(100, 10)
    relevant = np.asarray(fresh["relevant"]).reshape(100, 10)
    first = relevant[np.arange(100), scores.argmax(axis=1)]
    assert first.mean() > 0.9
    weights = json.loads((trained[0] / "weights.json").read_text())
    assert max(weights, key=lambda name: abs(weights[name])) == "seen"


def test_the_curve_falls_and_ends_at_the_loss_of_the_metrics(trained: tuple[Path, Path]) -> None:
    curve = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    losses = [point["loss"] for point in curve]
    assert [point["step"] for point in curve] == [1, 2, 3, 4, 5, 6]
    assert losses[-1] < losses[0] < math.log(2)
    assert json.loads((trained[0] / "metrics.json").read_text())["loss"] == losses[-1]


def test_two_trainings_give_the_same_bytes(trained: tuple[Path, Path]) -> None:
    one, two = trained
    for name in ("model.onnx", "weights.json", "metrics.json", "metrics.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_what_is_served_is_what_is_evaluated_to_the_last_bit(trained: tuple[Path, Path]) -> None:
    fresh = synthetic(20, seed=4)
    session = onnxruntime.InferenceSession((trained[0] / "model.onnx").read_bytes(),
                                           providers=["CPUExecutionProvider"])
    columns = {name: fresh[name].to_numpy() for name in FEATURES}
    served = session.run(["score"], columns)[0]
    ranked = ranker.load(trained[0] / "model.onnx")
    assert (served == ranked(fresh)).all()
    assert (served[3:4] == ranked(fresh.slice(3, 1))).all()


def test_queries_of_one_relevance_only_are_refused(tmp_path: Path) -> None:
    rows = synthetic(4)
    flat = rows.set_column(rows.column_names.index("relevant"), "relevant", pa.array([1] * 40))
    pq.write_table(flat, tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="none of 4 queries has both"):
        train.fit(tmp_path, tmp_path, PARAMS)


def test_a_missing_likeness_is_refused_by_column_and_row() -> None:
    rows = synthetic(1)
    torn = rows.set_column(0, FEATURES[0], pa.array([0.5, None, *[0.5] * 8]))
    with pytest.raises(ValueError, match="pixels of row 1 is missing"):
        ranker.matrix(torn)


def test_a_model_of_another_kind_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    import onnx

    model = onnx.load(trained[0] / "model.onnx")
    model.graph.input[0].name = "something"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="not a linear ranking"):
        ranker.load(tmp_path / "model.onnx")
