"""A challenger meets the version with the alias champion: on the same rows, in turns, told in sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.cli.main import main
from engine.errors import ActionFailed
from engine.pipeline.releasing import registry as registry_
from engine.pipeline.releasing import tracked
from engine.pipeline.releasing.registry import Registry
from engine.pipeline.scoring import measuring
from engine.pipeline.stages import compare
from tests.pipeline.stages.kit import CITIES, Made, onnx_model, project, table

TEST = table(1000, 6)
GATES = [{"kind": "non_inferiority", "metric": "log_loss", "margin": 0.05},
         {"kind": "segments", "metric": "log_loss", "margin": 0.05},
         {"kind": "latency", "at_most_ms": 500}, {"kind": "memory", "at_most_mb": 1000, "at_most_ratio": 3}]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One registry for all: weather-late has a champion and a candidate, renamed-late a champion that wants a
    column which the data lacks."""
    root = tmp_path_factory.mktemp("store")
    registry = Registry(f"sqlite:///{root}/mlflow.db")
    experiment = registry.experiment("weather", str(root / "artifacts"))

    def keep(name: str, alias: str, content: bytes, run: str, **parameters: float) -> None:
        client = registry.client
        made = client.create_run(experiment)
        for key, value in {"seed": 7, **parameters}.items():
            client.log_param(made.info.run_id, key, value)
        client.log_metric(made.info.run_id, "eval.log_loss", 0.5 + len(run) / 10)
        room = root / f"{name}-{run}"
        room.mkdir()
        (room / "model.onnx").write_bytes(content)
        client.log_artifacts(made.info.run_id, str(room), "model")
        client.set_terminated(made.info.run_id)
        registry.ensure_model(name, "", {})
        version = client.create_model_version(
            name, f"{made.info.artifact_uri}/model", run_id=made.info.run_id,
            tags={"opsdeck.run": run, "opsdeck.commit": f"c0ffee{run}", "opsdeck.lock": "10cc"})
        registry.point(name, alias, str(version.version))

    keep("weather-late", "champion", onnx_model(heat=0.8), "9", heat=0.8)
    keep("weather-late", "candidate", onnx_model(), "10", heat=1.0)
    keep("renamed-late", "champion", onnx_model(names=("heat", "gust", "city")), "11")
    return registry.tracking


@pytest.fixture(autouse=True)
def few_calls(monkeypatch):
    monkeypatch.setattr(measuring, "MOST", 0)


def compared(tmp_path: Path, tracking: str, heat: float = 1.0, **changed):
    """Of the model with this weight of heat, whose scores the evaluation has left."""
    made = Made(tmp_path, TEST, onnx_model(heat))
    place = np.array([CITIES.index(one) for one in TEST["city"].to_pylist()])
    margin = heat * TEST["heat"].to_numpy() - 0.5 * TEST["wind"].to_numpy() + 0.3 * place
    scores = 1 / (1 + np.exp(-margin))
    given = project(**{"gates": GATES, **changed})
    held = made.work("evaluate", given)
    np.save(held.output / "predictions.npy", scores)
    return compare.run(made.work("compare", given, inputs={"evaluate": held.output},
                                 settings={"tracking": tracking}))


def test_a_first_model_meets_the_absolute_limits_alone(tmp_path, store):
    done = compared(tmp_path, store, model="new-late")
    assert done.passed and done.says == "There is no model in production to compare with."
    assert done.result["champion"] is None
    told = {one["name"]: one["says"] for one in done.result["gates"]}
    assert told["log_loss not worse by 0.05"] == "There is no model in production to compare with."
    assert "500 ms are allowed" in told["latency p99"] and "1000 MB are allowed" in told["memory"]
    assert "times" not in told["memory"]
    tight = [{"kind": "memory", "at_most_ratio": 2}, {"kind": "memory", "at_most_mb": 5}]
    done = compared(tmp_path / "tight", store, model="new-late", gates=tight)
    assert not done.passed and "5 MB are allowed" in done.says


def test_a_better_model_passes_and_the_interval_is_told(tmp_path, store):
    done = compared(tmp_path, store)
    assert done.passed and done.result["champion"]["version"] == "1", done.says
    assert "was compared with version 1, which is in production, on the same 1,000 held-out rows" \
        in done.result["summary"][0]
    assert any("95% interval of the gain" in line for line in done.result["summary"])
    output = tmp_path / "compare-output"
    told = json.loads((output / "comparison.json").read_text(), parse_constant=pytest.fail)
    one = next(one for one in told["verdict"]["comparisons"] if one["segment"] is None)
    labels, theirs = TEST["late"].to_numpy(), np.load(output / "champion.npy")
    assert one["champion"] == pytest.approx(-np.log(np.where(labels == 1, theirs, 1 - theirs)).mean())
    assert one["low"] < one["gain"] < one["high"]
    assert {two["segment"] for two in told["verdict"]["comparisons"]} == {
        None, "city=Bern", "city=Oslo", "city=Rome"}
    assert set(np.load(output / "latencies.npz").files) == {"champion", "challenger"}
    assert set(told["memory_mb"]) == {"champion", "challenger"}


def test_a_worse_model_is_refused_and_the_gate_says_why(tmp_path, store):
    done = compared(tmp_path, store, -1.0)
    assert not done.passed
    assert "log_loss not worse by 0.05" in done.says and "the contrary is shown" in done.says


def test_the_model_that_is_in_production_already_is_recognised(tmp_path, store):
    done = compared(tmp_path, store, 0.8)
    assert done.says.startswith("This is the very model that is in production already, weather-late "
                                "version 1.")
    assert "their payloads have the same digest" in " ".join(done.result["summary"])


def test_a_champion_that_wants_a_column_the_data_lacks_is_told(tmp_path, store):
    with pytest.raises(ActionFailed) as caught:
        compared(tmp_path, store, model="renamed-late")
    assert caught.value.message.startswith("The model in production, renamed-late version 1, cannot be "
                                           "asked on this data: the model wants the column gust")
    assert str(caught.value.where).startswith("compare:")
    assert "renamed-late@champion" in str(caught.value.hint)


def test_a_registry_that_is_down_is_told_with_the_stage_and_leaves_nothing(tmp_path, monkeypatch, store):
    monkeypatch.setitem(registry_.ENVIRONMENT, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(ActionFailed) as caught:
        compared(tmp_path, "http://ann:secret@127.0.0.1:9")
    assert caught.value.where == "compare: http://127.0.0.1:9"
    assert "registry" in caught.value.message and "secret" not in str(caught.value)
    assert list((tmp_path / "compare-output").iterdir()) == []
    assert not list(tmp_path.glob(".champion-*"))


def test_two_versions_stand_side_by_side_on_the_command_line(tmp_path, store, capsys):
    words = ["--home", str(tmp_path), "models", "compare", "--tracking", store]
    assert main([*words, "weather-late@champion", "weather-late/2"]) == 0
    said = capsys.readouterr().out
    assert "weather-late/1 (champion)" in said and "weather-late/2 (candidate)" in said
    assert "They differ in code and in the parameter heat." in said
    assert "1 parameter is the same" in said and "eval.log_loss" in said and "+0.1" in said


@pytest.mark.parametrize("reference, version", [("1", "1"), ("champion", "1"), ("10", "2")])
def test_a_version_is_found_by_its_number_its_alias_or_the_pipelines_run(store, capsys, reference, version):
    tracked.main([store, "weather-late", reference])
    [entry] = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["version"], entry["parameters"]["seed"]) == (version, "7")
    tracked.main([store, "", entry["mlflow_run"][:10]])
    [again] = json.loads(capsys.readouterr().out)["entries"]
    assert {**again, "reference": ""} == {**entry, "reference": ""}


def test_a_version_that_is_not_there_is_told_with_those_that_are(store, tmp_path, capsys):
    tracked.main([store, "weather-late", "77"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["message"] == "there is no run or version 77" and "versions 1 to 2" in error["hint"]
    tracked.main([f"sqlite:///{tmp_path}/none.db", "", "77"])
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "nothing has been tracked there yet"
    assert not (tmp_path / "none.db").exists()
