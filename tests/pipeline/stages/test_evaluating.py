"""The evaluation says how good, how fast and how large a model is, and refuses rows that say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import UsageError
from engine.pipeline.scoring import measuring
from engine.pipeline.stages import evaluate
from tests.pipeline.stages.kit import Made, onnx_model, project, table

TEST = table(1200, 3)


@pytest.fixture(autouse=True)
def few_calls(monkeypatch):
    monkeypatch.setattr(measuring, "MOST", 0)


def refused(tmp_path: Path, test: pa.Table, **changed) -> UsageError:
    made = Made(tmp_path, test, onnx_model())
    with pytest.raises(UsageError) as caught:
        evaluate.run(made.work("evaluate", project(**changed)))
    return caught.value


def test_it_leaves_predictions_figures_and_the_time_of_every_call(tmp_path):
    made = Made(tmp_path, TEST, onnx_model())
    done = evaluate.run(made.work("evaluate", project()))
    output = tmp_path / "evaluate-output"
    scores, labels = np.load(output / "predictions.npy"), TEST["late"].to_numpy()
    by_hand = -np.log(np.where(labels == 1, scores, 1 - scores)).mean()
    log_loss = done.result["metrics"]["log_loss"]
    assert done.passed and scores.dtype == np.float64 and scores.shape == (1200,)
    assert log_loss["value"] == pytest.approx(by_hand)
    assert log_loss["low"] < by_hand < log_loss["high"]
    assert "On 1,200 held-out rows in 3 segments: log_loss" in done.says
    told = json.loads((output / "evaluation.json").read_text(), parse_constant=pytest.fail)
    assert [one["name"] for one in told["segments"]] == ["city=Bern", "city=Oslo", "city=Rome"]
    assert done.result["segments_worst"]["segment"] in {one["name"] for one in told["segments"]}
    assert told["calibration"]["ece"] == done.result["ece"] and told["distribution"]["quantiles"]
    latencies = np.load(output / "latencies.npz")
    assert sorted(latencies.files) == ["b1", "b16"]
    assert done.result["p50_ms"] == pytest.approx(np.quantile(latencies["b1"], 0.5))
    assert done.result["p50_ms"] <= done.result["p95_ms"] <= done.result["p99_ms"]
    assert done.result["model_bytes"] == (made.trained / "model.onnx").stat().st_size
    assert told["idle_mb"] < done.result["peak_mb"] < 1000
    assert all((output / name).is_file() for name in done.evidence)


def test_the_same_seed_gives_the_same_figures(tmp_path):
    found = []
    for name in ("one", "other"):
        done = evaluate.run(Made(tmp_path / name, TEST, onnx_model()).work("evaluate", project()))
        found.append((done.result["metrics"],
                      (tmp_path / name / "evaluate-output" / "predictions.npy").read_bytes()))
    assert found[0] == found[1]


def test_the_metrics_that_are_asked_for_and_those_of_the_gates_are_given(tmp_path):
    made = Made(tmp_path, TEST, onnx_model())
    given = project(evaluate={"metrics": ["brier"], "batches": [1], "resamples": 100},
                    gates=[{"kind": "improvement", "metric": "roc_auc"}])
    assert list(evaluate.run(made.work("evaluate", given)).result["metrics"]) == ["brier", "roc_auc"]


def test_labels_may_be_names_of_classes(tmp_path):
    names = np.where(TEST["late"].to_numpy() == 1, "late", "in time")
    made = Made(tmp_path, TEST.set_column(3, "late", pa.array(names)), onnx_model())
    done = evaluate.run(made.work("evaluate", project(evaluate={
        "classes": ["in time", "late"], "batches": [1], "resamples": 100})))
    scores = np.load(tmp_path / "evaluate-output" / "predictions.npy")
    accuracy = ((scores >= 0.5) == (names == "late")).mean()
    assert done.result["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)


def test_one_class_only_is_refused_with_the_column(tmp_path):
    error = refused(tmp_path, TEST.set_column(3, "late", pa.array([1] * 1200)))
    assert error.message.startswith("every one of the 1,200 held-out rows is of the class 1")
    assert error.where == "evaluate: column late"


def test_labels_that_are_missing_are_counted(tmp_path):
    labels = pa.array([None, None, *TEST["late"].to_pylist()[2:]])
    error = refused(tmp_path, TEST.set_column(3, "late", labels))
    assert error.message == "2 of 1,200 held-out rows have no label"
    assert error.where == "evaluate: column late"


def test_no_rows_at_all_are_refused(tmp_path):
    error = refused(tmp_path, TEST.slice(0, 0))
    assert error.message == "there are no held-out rows to score" and "holdout" in str(error.hint)


def test_a_label_that_was_renamed_is_refused_with_the_columns_there_are(tmp_path):
    error = refused(tmp_path, TEST.rename_columns(["heat", "wind", "city", "too_late"]))
    assert error.message == "test.parquet has no column late" and "too_late" in str(error.hint)


def test_a_metric_that_has_no_value_on_these_rows_is_refused_with_the_stage(tmp_path):
    error = refused(tmp_path, TEST.set_column(3, "late", pa.array([0.25] * 1200)), task="regression",
                    evaluate={"metrics": ["r2"], "batches": [1]},
                    gates=[{"kind": "non_inferiority", "metric": "rmse", "margin": 1}])
    assert error.message == "r2 is undefined: every label is 0.25" and error.where == "evaluate: column late"


def test_a_segment_that_only_training_has_is_told(tmp_path):
    here = TEST.filter(pa.array([one != "Oslo" for one in TEST["city"].to_pylist()]))
    done = evaluate.run(Made(tmp_path, here, onnx_model()).work("evaluate", project()))
    assert done.result["segments"] == 2
    assert any("No held-out row is of city=Oslo" in note for note in done.result["notes"])
