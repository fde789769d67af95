"""The models learn what they can from the winter, lose it from April on, and are exported exactly."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.demo import export, flights, train
from engine.demo.layout import CHAMPION, START, VARIANTS, Layout
from engine.errors import ActionFailed, UsageError

# Said by the converter, of what it gives to its own library.
pytestmark = pytest.mark.filterwarnings("ignore:Field onnx.AttributeProto:DeprecationWarning")


@pytest.fixture(scope="module")
def winter(prepared: Layout) -> Any:
    rows = flights.load(prepared)
    return rows[rows["month"] <= 3][::4]


@pytest.fixture(scope="module")
def categories(prepared: Layout) -> dict[str, list[str]]:
    about = flights.load_about(prepared)
    return {"carrier": about.carrier, "origin": about.origin}


def test_the_champion_has_an_auc_of_083_on_the_winter_it_learned_from(trained: Layout) -> None:
    report = train.load_report(trained, CHAMPION)
    assert report.auc_train == pytest.approx(0.83, abs=0.01)


def test_flights_held_out_and_days_held_out_tell_how_much_of_it_is_memory(trained: Layout) -> None:
    report = train.load_report(trained, CHAMPION)
    assert report.auc_holdout == pytest.approx(0.79, abs=0.01)
    assert report.auc_new_days == pytest.approx(0.73, abs=0.015)


def test_from_april_on_the_champion_falls_to_067_to_074(trained: Layout) -> None:
    by_month = train.load_report(trained, CHAMPION).auc_by_month
    assert list(by_month) == [f"{month:02d}" for month in range(4, 13)]
    assert all(0.66 <= auc <= 0.75 for auc in by_month.values()), by_month


def test_the_models_learn_from_nothing_that_the_traffic_will_send(prepared: Layout) -> None:
    rows = flights.load(prepared)
    learned, held, away = train.split(rows, np.random.default_rng(train.SEED))
    start = dt.datetime.combine(START, dt.time(), dt.UTC).timestamp()
    assert rows["depart"][learned].max() < start
    assert not (learned & held).any() and not (learned & away).any()
    assert (learned | held | away).sum() == (rows["month"] <= 3).sum()


def test_champion_and_challenger_are_different_models_of_the_same_data(trained: Layout) -> None:
    champion, challenger = (train.load_report(trained, variant) for variant in VARIANTS)
    assert champion.onnx_sha256 != challenger.onnx_sha256
    assert champion.data_digest == challenger.data_digest
    # The challenger remembers less of the winter, and does no worse on days it never saw.
    assert challenger.auc_train < champion.auc_train - 0.03
    assert challenger.auc_new_days > champion.auc_new_days - 0.01


def test_every_export_was_compared_with_its_source_on_real_rows(trained: Layout) -> None:
    for variant in VARIANTS:
        report = train.load_report(trained, variant)
        assert report.compared_rows >= 2000
        assert 0 < report.compared_largest <= 1e-5


def test_training_again_on_other_threads_gives_the_same_onnx_bytes(
        trained: Layout, step: Callable[..., Any]) -> None:
    before = (trained.training(CHAMPION) / "model.onnx").read_bytes()
    again = step("train", "--home", str(trained.home), "--variant", CHAMPION,
                 OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive", PYTHONHASHSEED="7")
    assert again.returncode == 0, again.stderr
    assert (trained.training(CHAMPION) / "model.onnx").read_bytes() == before


def test_a_model_with_categorical_splits_is_caught_because_it_is_exported_wrongly(
        winter: Any, categories: dict[str, list[str]]) -> None:
    from sklearn.ensemble import HistGradientBoostingClassifier

    inputs, late = flights.features(winter), np.array(winter["late"])
    model = HistGradientBoostingClassifier(max_iter=10, categorical_features=[0, 1],
                                           early_stopping=False, random_state=1).fit(inputs, late)
    exported = export.convert(model, categories, "flights")
    some = winter[::5]
    expected = model.predict_proba(flights.features(some))[:, 1]
    with pytest.raises(ActionFailed, match=r"is not its source: .* real rows differ"):
        export.agreement(exported, expected, export.feed(some, categories))


def test_an_export_that_fails_the_comparison_is_not_written(
        prepared: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path)
    layout.flights.parent.mkdir(parents=True)
    for name in ("flights.npy", "flights.json"):
        (layout.flights.parent / name).symlink_to(prepared.flights.parent / name)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    monkeypatch.setitem(train.PARAMS, CHAMPION, {"max_iter": 5})
    with pytest.raises(ActionFailed, match="is not its source"):
        train.train(layout, CHAMPION)
    assert not layout.training(CHAMPION).exists()


def test_the_model_takes_columns_by_name_and_gives_one_probability(trained: Layout) -> None:
    session = export.session((trained.training(CHAMPION) / "model.onnx").read_bytes())
    assert tuple(entry.name for entry in session.get_inputs()) == flights.FEATURES
    assert {entry.name: entry.type for entry in session.get_inputs()} == {
        name: "tensor(string)" if name in ("carrier", "origin") else "tensor(float)"
        for name in flights.FEATURES}
    assert [(entry.name, entry.type) for entry in session.get_outputs()] == [
        ("probability", "tensor(float)")]


def test_an_unknown_carrier_and_missing_weather_give_what_the_source_gives_for_missing(
        winter: Any, categories: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train.PARAMS[CHAMPION], "max_iter", 20)
    model = train.fit(CHAMPION, flights.features(winter), np.array(winter["late"]))
    exported = export.convert(model, categories, "flights")
    rows = winter[:500]
    fed = export.feed(rows, categories)
    fed["carrier"] = np.array(["??"] * len(rows), dtype=object)
    fed["temp"] = np.full(len(rows), np.nan, dtype=np.float32)
    source = flights.features(rows)
    source[:, flights.FEATURES.index("carrier")] = np.nan
    source[:, flights.FEATURES.index("temp")] = np.nan
    export.agreement(exported, model.predict_proba(source)[:, 1], fed)


def test_a_variant_that_does_not_exist_and_missing_data_are_plain_sentences(
        tmp_path: Path, step: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="There is no variant canary"):
        train.train(Layout(tmp_path), "canary")
    failed = step("train", "--home", str(tmp_path), "--variant", CHAMPION)
    assert failed.returncode == 2
    assert "is not there yet" in failed.stderr and "Traceback" not in failed.stderr


def test_the_report_is_json_with_what_the_registry_is_told(trained: Layout) -> None:
    stated = json.loads((trained.training(CHAMPION) / "report.json").read_text())
    assert stated["seed"] == train.SEED
    assert stated["params"] == train.PARAMS[CHAMPION]
    assert stated["data_digest"] == flights.load_about(trained).digest
