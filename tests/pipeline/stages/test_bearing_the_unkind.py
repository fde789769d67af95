"""Hard cases refuse a model by their names, disturbances are drawn from the seed, behaviours are held to."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import numpy as np
import pytest

from engine.pipeline.robustness import case_files
from engine.pipeline.robustness.case_recording import record_cases
from engine.pipeline.scoring import rows
from engine.pipeline.stages import robustness
from tests.pipeline.stages.kit import FEATURES, Made, onnx_model, project, table

TEST = table(500, 4)
NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)
UNKIND = {"rows": 200, "perturbations": [
    {"name": "rough", "try": {"kind": "noise", "columns": ["heat"], "scale": 0.1}, "mean_shift": 0.1},
    {"name": "a new city", "try": {"kind": "unseen", "columns": ["city"]}, "metric": "log_loss", "drop": 0.5},
    {"name": "searched", "try": {"kind": "adversarial", "columns": {"heat": 0.2}, "rows": 20, "budget": 400},
     "flips": 1}],
    "behaviours": [{"name": "warmer is later", "expect": {
        "kind": "directional", "change": {"kind": "shift", "column": "heat", "by": 1}, "goes": "up"}}]}


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path, TEST, onnx_model())


def hottest() -> int:
    return int(TEST["heat"].to_numpy().argmax())


def hard_case(made: Made, id_: str, low: float) -> Path:
    case_files.add(made.folder / "cases", id_, TEST.select(list(FEATURES)).slice(hottest(), 1),
                   [{"kind": "between", "low": low}], title="a storm", why="it was late", source="ann",
                   by="ann", now=NOW - dt.timedelta(days=2))
    return made.folder / "cases" / f"{id_}.yaml"


def test_a_good_model_bears_it_all_and_twice_alike(made, tmp_path):
    done = robustness.run(made.work("robustness", project(robustness=UNKIND)))
    assert done.passed, done.says
    assert done.says == ("There are no hard cases yet; the model bears all 4 disturbances and expectations "
                         "on 200 rows.")
    again = robustness.run(Made(tmp_path / "again", TEST, onnx_model()).work(
        "robustness", project(robustness=UNKIND)))
    assert again.result == done.result


def test_a_model_that_goes_the_wrong_way_is_refused_by_the_behaviours_name(made):
    (made.trained / "model.onnx").write_bytes(onnx_model(heat=-1.0))
    done = robustness.run(made.work("robustness", project(robustness=UNKIND)))
    assert not done.passed and done.result["failed"] == ["warmer is later"]
    assert "“warmer is later”" in done.says and "not so in 200 of 200 rows" in done.says


def test_a_case_that_passed_once_and_fails_now_refuses_the_model_by_its_name(made):
    path = hard_case(made, "storm", 0.5)
    done = robustness.run(made.work("robustness", project()))
    assert done.passed and "1 of 1 hard cases pass" in done.says
    said = record_cases(path.parent, made.root / "robustness-output" / "robustness.json", NOW)
    assert said == [] and "passed_at: 2026-11-24T12:00:00Z" in path.read_text()
    kept = path.read_text()
    record_cases(path.parent, made.root / "robustness-output" / "robustness.json", NOW)
    assert path.read_text() == kept

    (made.trained / "model.onnx").write_bytes(onnx_model(heat=-1.0))
    done = robustness.run(made.work("robustness", project()))
    assert not done.passed and done.result["failed"] == ["storm"]
    assert done.says.startswith("The case storm broke. Passed since 2026-11-24T12:00:00Z, and must not fail.")


def test_a_case_that_never_passed_refuses_nobody_and_is_noted_when_the_model_is_kept(made):
    path = hard_case(made, "hopeless", 0.9999)
    work = made.work("robustness", project())
    done = robustness.run(work)
    assert done.passed and "1 new and failing: hopeless" in done.says
    kept = made.work("register", project(), before={"robustness": done.result})
    assert robustness.record_cases(kept, NOW) == []
    assert "failed_at: 2026-11-24T12:00:00Z" in path.read_text()


def test_a_case_that_changed_meanwhile_is_not_noted_and_stops_nobody(made):
    path = hard_case(made, "storm", 0.0)
    robustness.run(made.work("robustness", project()))
    path.write_text(path.read_text().replace("low: 0.0", "low: 0.1"))
    said = record_cases(path.parent, made.root / "robustness-output" / "robustness.json", NOW)
    assert said == ["The case storm has changed since it was run, so its times were not set."]
    path.unlink()
    [sentence] = record_cases(path.parent, made.root / "robustness-output" / "robustness.json", NOW)
    assert "cannot be read any more" in sentence
    assert json.loads((made.root / "robustness-output" / "robustness.json").read_text())["passed"] is True


def test_of_a_ranking_whole_queries_are_tried(tmp_path):
    test = TEST.append_column("query", [np.repeat(np.arange(50), 10)])
    made = Made(tmp_path, test, None)
    given = project(task="ranking", data={**project().data.model_dump(by_alias=True, exclude_none=True),
                                          "group": "query", "segments": [], "holdout": {"share": 0.2}})
    held = rows.read(given, made.data, "robustness")
    mask = robustness._picked(held, 105, np.random.default_rng(1))
    counts = np.bincount(held.groups[mask], minlength=50)
    assert mask.sum() == 100 and set(counts) == {0, 10}
