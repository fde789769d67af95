"""The whole training on small synthetic data: it learns what is in it, and twice the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import to_onnx
import train
from columns import FEATURES, feed, known, matrix
from synthetic import synthetic

PARAMS: dict[str, Any] = {
    "max_iter": 24, "every": 6, "learning_rate": 0.2, "max_leaf_nodes": 6, "min_samples_leaf": 20,
    "l2_regularization": 1.0, "max_bins": 32, "validation": 0.2,
    "monotonic": {"precip": "up", "visib": "down", "hour": "up"}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two trainings on the same rows, in two folders."""
    inputs = tmp_path_factory.mktemp("inputs")
    pq.write_table(synthetic(3000), inputs / "train.parquet")
    outputs = (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two"))
    for output in outputs:
        train.fit(inputs, output, PARAMS)
    return outputs


def test_it_learns_what_makes_flights_late(trained: tuple[Path, Path]) -> None:
    model = (trained[0] / "model.onnx").read_bytes()
    fresh = synthetic(1000, seed=1)
    probability = to_onnx.run(model, feed(fresh))
    rain = fresh["precip"].to_numpy()
    assert probability[rain > 0.3].mean() > 0.6 and probability[rain == 0].mean() < 0.2


def test_the_curve_has_its_points_and_ends_where_the_metrics_say(trained: tuple[Path, Path]) -> None:
    curve = [json.loads(line) for line in (trained[0] / "metrics.jsonl").read_text().splitlines()]
    metrics = json.loads((trained[0] / "metrics.json").read_text())
    assert [point["step"] for point in curve] == [6, 12, 18, 24]
    losses = [point["loss"] for point in curve]
    assert losses == sorted(losses, reverse=True)
    assert (metrics["loss"], metrics["validation_loss"]) == (losses[-1], curve[-1]["validation_loss"])
    assert metrics["validation_roc_auc"] > 0.7


def test_two_trainings_give_the_same_bytes(trained: tuple[Path, Path]) -> None:
    one, two = trained
    for name in ("model.onnx", "metrics.json", "metrics.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_more_rain_less_sight_and_a_later_hour_never_lower_it(trained: tuple[Path, Path]) -> None:
    model = (trained[0] / "model.onnx").read_bytes()
    inputs = feed(synthetic(1000, seed=2))
    before = to_onnx.run(model, inputs)
    for name, by in (("precip", 0.3), ("visib", -2), ("hour", 2)):
        after = to_onnx.run(model, {**inputs, name: (inputs[name] + by).astype(np.float32)})
        assert (after >= before).all() and (name != "precip" or (after > before).any())


def test_growing_in_steps_gives_the_model_that_grows_at_once() -> None:
    rows = synthetic(1500)
    learned = train.rows_of(rows, known(rows))
    *_, (_, stepwise) = train.grow(learned, PARAMS, 0)
    *_, (_, at_once) = train.grow(learned, {**PARAMS, "every": 24}, 0)
    features = matrix(rows, known(rows))
    assert np.abs(stepwise.predict_proba(features) - at_once.predict_proba(features)).max() < 1e-9


def test_an_export_that_is_not_its_source_is_refused(trained: tuple[Path, Path]) -> None:
    model = (trained[0] / "model.onnx").read_bytes()
    inputs = feed(synthetic(50))
    expected = to_onnx.run(model, inputs).astype(np.float64)
    assert to_onnx.check(model, expected, inputs) == 0
    expected[7] += 0.01
    with pytest.raises(ValueError, match=r"1 of 50 rows differ, by up to 0\.01"):
        to_onnx.check(model, expected, inputs)


def test_the_exported_model_takes_each_feature_by_name(trained: tuple[Path, Path]) -> None:
    import onnx

    graph = onnx.load(trained[0] / "model.onnx").graph
    assert [one.name for one in graph.input] == list(FEATURES)
    assert [one.name for one in graph.output] == ["probability"]
