"""The evaluation says how good, how fast and how large a model is, and refuses rows that say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import UsageError
from engine.pipeline.scoring import measuring, rows
from engine.pipeline.stages import evaluate
from tests.pipeline.stages.kit import Made, onnx_model, project, table

TEST = table(1200, 3)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One evaluation: what came of it, and its output."""
    root = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "MOST", 0)
        return evaluate.run(Made(root, TEST, onnx_model()).work("evaluate", project())), \
            root / "evaluate-output"


def held(tmp_path: Path, test: pa.Table, **changed) -> rows.HeldOut:
    """As the stage reads them; training has a row of each city and the labels of these."""
    train = pa.concat_tables([test, table(60, 1)]) if test.schema == TEST.schema else test
    return rows.read(project(**changed), Made(tmp_path, test, None, train).data, "evaluate")


def refused(tmp_path: Path, test: pa.Table, **changed) -> UsageError:
    with pytest.raises(UsageError) as caught:
        evaluate._evaluated(project(**changed), held(tmp_path, test, **changed), np.full(len(test), 0.4))
    return caught.value


def test_it_leaves_predictions_figures_and_the_time_of_every_call(done):
    done, output = done
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
    assert done.result["model_bytes"] == len(onnx_model())
    assert told["idle_mb"] < done.result["peak_mb"] < 1000
    assert all((output / name).is_file() for name in done.evidence)


def test_the_same_seed_gives_the_same_figures(tmp_path, done):
    first, output = done
    scores = np.load(output / "predictions.npy")
    again = evaluate._evaluated(project(), held(tmp_path, TEST), scores)
    assert {one.metric: one.low for one in again.metrics} == {
        name: one["low"] for name, one in first.result["metrics"].items()}
    other = evaluate._evaluated(project(seed=8), held(tmp_path / "other", TEST), scores)
    assert other.metrics[0].value == again.metrics[0].value and other.metrics[0].low != again.metrics[0].low


def test_the_metrics_that_are_asked_for_and_those_of_the_gates_are_given(tmp_path):
    changed = {"evaluate": {"metrics": ["brier"], "resamples": 100},
               "gates": [{"kind": "improvement", "metric": "roc_auc"}]}
    found = evaluate._evaluated(project(**changed), held(tmp_path, TEST, **changed), np.full(1200, 0.4))
    assert [one.metric for one in found.metrics] == ["brier", "roc_auc"]


def test_labels_may_be_names_of_classes(tmp_path):
    names = np.where(TEST["late"].to_numpy() == 1, "late", "in time")
    test = TEST.set_column(3, "late", pa.array(names))
    named = held(tmp_path, test, evaluate={"classes": ["late", "in time"]}).labelled(np.full(1200, 0.4))
    assert (named.labels == (names == "in time")).all()
    sorted_ = held(tmp_path / "sorted", test).labelled(np.full(1200, 0.4))
    assert sorted_.classes == ("in time", "late") and (sorted_.labels == (names == "late")).all()


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
    found = held(tmp_path, here)
    assert list(found.segments) == ["city=Bern", "city=Rome"] and found.absent == ("city=Oslo",)
    assert "No held-out row is of city=Oslo" in evaluate._notes(found, [])[0]
