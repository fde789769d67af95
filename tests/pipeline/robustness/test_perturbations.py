"""Robustness: changed inputs are ones a caller could send, and what a model does with them is judged."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from engine.errors import UsageError
from engine.pipeline.robustness.adversary import Adversarial, search
from engine.pipeline.robustness.behaviour import Behaviour, Expectation, answer, check, check_all
from engine.pipeline.robustness.changes import Change, apply, numbers
from engine.pipeline.robustness.perturbations import Perturbation, perturb
from engine.pipeline.statistics.labelled import labelled

RNG = np.random.default_rng


def flights(n: int = 200, seed: int = 0) -> pa.Table:
    rng = RNG(seed)
    return pa.table({
        "temp": rng.normal(15, 8, n), "wind": pa.array(rng.exponential(10, n).astype(np.float32)),
        "delay": pa.array(rng.integers(-5, 60, n), pa.int16()),
        "carrier": pa.array(rng.choice(["AA", "DL", "UA"], n)).dictionary_encode(),
        "tail": [f"N{i}" for i in range(n)]})


WEIGHTS = {"temp": -0.02, "wind": 0.03, "delay": 0.05}


def logistic(rows: pa.Table) -> np.ndarray:
    """A model that is additive, and takes missing values as zero."""
    total = sum(weight * np.nan_to_num(numbers(rows, name)) for name, weight in WEIGHTS.items())
    return 1 / (1 + np.exp(-(total - 1)))


def fragile(rows: pa.Table) -> np.ndarray:
    """As above, but knows three carriers alone and cannot do with nulls."""
    if rows["wind"].null_count:
        raise ValueError("input contains NaN")
    known = {"AA": 0.0, "DL": 0.1, "UA": -0.1}
    return logistic(rows) + np.array([known[c] for c in rows["carrier"].to_pylist()]) / 10


def change(**written):
    return TypeAdapter(Change).validate_python(written)


def expected(**written):
    return TypeAdapter(Expectation).validate_python(written)


def tried(predict=logistic, rows=None, labels=None, seed=0, **written):
    rows = flights() if rows is None else rows
    return perturb([Perturbation.model_validate({"name": "it", **written})], rows, predict, rng=RNG(seed),
                   labels=labels)[0]


@pytest.mark.parametrize("written", [
    {"kind": "noise", "scale": 1e6}, {"kind": "missing", "share": 0.5}, {"kind": "unseen"},
    {"kind": "extreme", "factor": 1e300}, {"kind": "put", "column": "carrier", "to": "HA"},
    {"kind": "shift", "column": "delay", "by": 1e9}, {"kind": "shuffle", "columns": ["temp", "carrier"]}],
    ids=lambda w: w["kind"])
def test_a_changed_table_has_the_schema_it_had_and_the_given_one_is_untouched(written):
    rows = flights()
    found = apply(change(**written), rows, RNG(1))
    assert found.schema == rows.schema and found.num_rows == rows.num_rows
    assert found != rows and rows == flights()
    for name in ("temp", "wind", "delay"):
        assert not np.isinf(numbers(found, name)).any()


def test_each_change_does_what_it_says():
    rows = flights(2000)
    temp = numbers(rows, "temp")
    noisy = numbers(apply(change(kind="noise", columns=["temp"], scale=0.5), rows, RNG(0)), "temp")
    assert np.std(noisy - temp) == pytest.approx(0.5 * np.std(temp), rel=0.05)
    gone = apply(change(kind="missing", columns=["wind"], share=0.3), rows, RNG(0))
    assert gone["wind"].null_count / 2000 == pytest.approx(0.3, abs=0.04) and gone["temp"] == rows["temp"]
    new = apply(change(kind="unseen", columns=["carrier", "delay"]), rows, RNG(0))
    assert set(new["carrier"].unique().to_pylist()) == {"never-seen-before"}
    assert set(numbers(new, "delay")) == {numbers(rows, "delay").max() + 1}
    far = numbers(apply(change(kind="extreme", columns=["temp"]), rows, RNG(0)), "temp")
    assert (np.abs(far) > 10 * np.abs(numbers(rows, "temp")).max()).all() and 0.4 < np.mean(far > 0) < 0.6
    same = apply(change(kind="put", column="carrier", to="AA"), rows, RNG(0))
    assert set(same["carrier"].to_pylist()) == {"AA"}
    later = apply(change(kind="shift", column="delay", by=30), rows, RNG(0))
    assert (numbers(later, "delay") == numbers(rows, "delay") + 30).all()
    dealt = apply(change(kind="shuffle", columns=["tail"]), rows, RNG(0))["tail"].to_pylist()
    assert sorted(dealt) == sorted(rows["tail"].to_pylist()) and dealt != rows["tail"].to_pylist()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=20), st.integers(0, 999))
def test_no_change_invents_a_value_where_there_was_none_but_for_one_that_puts_it(values, seed):
    rows = pa.table({"x": pa.array(values, pa.float64())})
    for written in ({"kind": "noise"}, {"kind": "shift", "column": "x", "by": 1}):
        found = apply(change(**written), rows, RNG(seed))["x"].to_pylist()
        assert [one is None for one in found] == [one is None for one in values]


@pytest.mark.parametrize("written, said", [
    ({"kind": "noise", "columns": ["tmp"]}, "there is no column tmp to change"),
    ({"kind": "noise", "columns": ["carrier"]}, "noise does not apply to the column carrier"),
    ({"kind": "put", "column": "delay", "to": "late"}, "column delay is int16, which cannot hold 'late'")])
def test_a_change_that_cannot_be_made_is_refused(written, said):
    with pytest.raises(UsageError, match=said):
        apply(change(**written), flights(), RNG(0))


def test_a_robust_model_passes_and_its_figures_are_told():
    found = tried(**{"try": {"kind": "noise", "columns": ["temp"], "scale": 0.1}}, mean_shift=0.02,
                  worst_shift=0.1)
    assert found.passed and found.says.startswith("Scores moved by 0.00") and len(found.worst) == 3
    assert 0 < found.mean_shift < found.worst_shift < 0.1


def test_a_model_that_breaks_on_missing_or_unseen_values_fails_whatever_the_limits_are():
    missing = tried(fragile, **{"try": {"kind": "missing", "columns": ["wind"], "share": 0.1}})
    assert not missing.passed and missing.says == "The model failed: ValueError: input contains NaN."
    unseen = tried(fragile, **{"try": {"kind": "unseen", "columns": ["carrier"]}})
    assert not unseen.passed and "KeyError" in unseen.says


def test_a_model_that_answers_nan_or_too_few_scores_fails():
    def sometimes_nan(rows):
        scores = logistic(rows)
        scores[np.abs(numbers(rows, "temp")) > 100] = np.nan
        return scores
    found = tried(sometimes_nan, **{"try": {"kind": "extreme", "columns": ["temp"]}})
    assert not found.passed and "is not a number" in found.says
    assert answer(lambda rows: [0.5], flights()) == "the model gave scores of shape (1,) for 200 rows"


def test_what_the_metric_loses_and_which_rows_are_called_otherwise_is_limited():
    rows = flights(1000)
    scores = logistic(rows)
    labels = labelled("binary", RNG(0).random(1000) < scores, scores)
    lost = tried(rows=rows, labels=labels, metric="log_loss", drop=0.01,
                 **{"try": {"kind": "shuffle", "columns": ["delay"]}})
    assert not lost.passed and lost.after > lost.before + 0.01
    assert lost.says.startswith("The metric log_loss is worse by") and "0.01 allowed" in lost.says
    flipped = tried(rows=rows, labels=labels, flips=0.05,
                    **{"try": {"kind": "shift", "column": "delay", "by": 60}})
    assert not flipped.passed and "are called another class, 5.0% allowed" in flipped.says


def test_one_more_perturbation_changes_no_others_draws():
    one = Perturbation.model_validate({"name": "a", "try": {"kind": "noise", "scale": 0.1}})
    other = Perturbation.model_validate({"name": "b", "try": {"kind": "extreme"}})
    alone, beside = (perturb(some, flights(), logistic, rng=RNG(3))[0] for some in ([one], [one, other]))
    assert alone == beside


def test_the_search_finds_the_worst_point_of_the_box_where_it_can_be_known():
    """Of an additive model it is a corner: every column to the end that pushes the same way."""
    rows = flights(300)
    spec = Adversarial(columns={"temp": 0.5, "wind": 0.5}, rows=60, budget=60 * 30)
    found = search(spec, rows, logistic, RNG(0))
    original = found.original
    best = np.zeros(60)
    for way in (1, -1):
        total = sum(WEIGHTS[n] * numbers(original, n) for n in WEIGHTS) - 1
        for name in ("temp", "wind"):
            known, here = numbers(rows, name), numbers(original, name)
            up = np.minimum(here + 0.5 * known.std(), known.max()) - here
            down = np.maximum(here - 0.5 * known.std(), known.min()) - here
            total += np.maximum(way * WEIGHTS[name] * up, way * WEIGHTS[name] * down) * way
        best = np.maximum(best, np.abs(1 / (1 + np.exp(-total)) - logistic(original)))
    assert found.shift == pytest.approx(best, rel=1e-5)
    assert found.scored <= 60 * 30 and np.allclose(logistic(found.worst), found.after)


def trap(rows):
    """Jumps in a narrow place that no corner shows."""
    temp, wind = numbers(rows, "temp"), numbers(rows, "wind")
    return 0.2 + 0.7 * ((np.abs(temp - 15) < 1) & (np.abs(wind - 8) < 2))


def test_the_search_finds_a_trap_inside_the_box_more_often_than_noise_does():
    rows = flights(400)
    spec = Adversarial(columns={"temp": 0.6, "wind": 0.6}, rows=50, budget=20_000)
    found = search(spec, rows, trap, RNG(0))
    noise = np.abs(trap(apply(change(kind="noise", scale=0.6), rows, RNG(0))) - trap(rows)) > 0.5
    assert np.mean(found.shift > 0.5) > 4 * noise.mean() > 0


def test_the_search_stays_in_its_box_and_in_what_was_observed():
    rows = flights(300)
    spec = Adversarial(columns={"temp": 0.3, "delay": 0.3}, rows=40, budget=4000)
    found = search(spec, rows, logistic, RNG(1))
    for name in ("temp", "delay"):
        known, worst = numbers(rows, name), numbers(found.worst, name)
        moved = np.abs(worst - numbers(found.original, name))
        assert 0 < moved.max() <= 0.3 * known.std() + 0.5  # whole numbers are rounded
        assert known.min() <= worst.min() <= worst.max() <= known.max()
    assert found.worst["wind"] == found.original["wind"]


def carriers(rows):
    worth = {"AA": 0.2, "DL": 0.5, "UA": 0.9}
    return np.array([worth[c] for c in rows["carrier"].to_pylist()])


def test_the_search_swaps_categories_for_observed_ones():
    found = search(Adversarial(categories=["carrier"], rows=50, budget=3000), flights(), carriers, RNG(0))
    wanted = {"AA": 0.7, "DL": 0.4, "UA": 0.7}
    assert found.shift == pytest.approx([wanted[c] for c in found.original["carrier"].to_pylist()])


def test_the_same_seed_searches_the_same_and_the_budget_is_kept():
    spec = Adversarial(columns={"temp": 1.0}, categories=["carrier"], rows=20, budget=999)
    calls = []

    def counting(rows):
        calls.append(rows.num_rows)
        return trap(rows)
    first, second = (search(spec, flights(), counting, RNG(4)) for _ in range(2))
    assert np.array_equal(first.shift, second.shift) and first.worst == second.worst
    assert sum(calls) == first.scored + second.scored and first.scored <= 999


def test_a_search_is_judged_and_its_worst_row_told_as_a_person_would_look_for_it():
    spec = {"kind": "adversarial", "columns": {"delay": 1.0}, "rows": 50, "budget": 2000}
    found = tried(**{"try": spec}, flips=0.05)
    assert not found.passed and "are called another class" in found.says
    assert f"Worst is row {found.worst[0]}, from 0." in found.says and ": delay " in found.says
    assert "inputs were tried." in found.says


def test_a_model_that_fails_on_an_input_that_the_search_tries_fails():
    def brittle(rows):
        if ((numbers(rows, "temp") > 25) & (numbers(rows, "wind") > 30)).any():
            raise OverflowError("warm and windy")
        return logistic(rows)
    rows = flights().filter(pa.array((numbers(flights(), "temp") < 25) | (numbers(flights(), "wind") < 30)))
    assert not isinstance(answer(brittle, rows), str)
    spec = {"kind": "adversarial", "columns": {"temp": 2.0, "wind": 2.0}, "rows": 50, "budget": 2000}
    found = tried(brittle, rows, **{"try": spec})
    assert not found.passed
    assert found.says == "On an input that the search tried, the model failed: OverflowError: warm and windy."


@pytest.mark.parametrize("written, said", [
    ({"columns": {"tmp": 1.0}}, "there is no column tmp to search in"),
    ({"columns": {"carrier": 1.0}}, "is searched as a number"),
    ({"categories": ["temp"]}, "is searched as a category"), ({}, "is given no column to change"),
    ({"columns": {"temp": 1.0}, "rows": 200, "budget": 300}, "a budget of 300 is below two scores for")])
def test_a_search_that_cannot_be_made_is_refused(written, said):
    with pytest.raises(UsageError, match=said):
        search(Adversarial.model_validate(written), flights(), logistic, RNG(0))


@pytest.mark.parametrize("written, said", [
    ({"try": {"kind": "noise"}, "metric": "log_loss"}, "go together"),
    ({"try": {"kind": "adversarial"}, "metric": "log_loss", "drop": 0.1}, "an adversarial search has no"),
    ({"try": {"kind": "missing", "share": 0}}, "share")])
def test_a_perturbation_that_means_nothing_is_refused(written, said):
    with pytest.raises(ValidationError, match=said):
        Perturbation.model_validate({"name": "it", **written})


def test_rows_that_cannot_be_scored_unchanged_a_metric_without_labels_and_other_rows_are_refused():
    with pytest.raises(UsageError, match="there are no rows to try a model on"):
        tried(logistic, flights().slice(0, 0), **{"try": {"kind": "noise"}})
    gone = apply(change(kind="missing", columns=["wind"]), flights(), RNG(0))
    with pytest.raises(UsageError, match="the unchanged rows cannot be scored: the model failed: ValueError"):
        tried(fragile, gone, **{"try": {"kind": "noise"}})
    with pytest.raises(UsageError, match="it limits log_loss, and the rows have no labels"):
        tried(metric="log_loss", drop=0.1, **{"try": {"kind": "noise"}})
    with pytest.raises(UsageError, match="there are 200 rows and 2 labels"):
        tried(labels=labelled("binary", [0, 1], [0.1, 0.2]), **{"try": {"kind": "noise"}})


@pytest.mark.parametrize("written, passed, said", [
    ({"kind": "between", "low": 0, "high": 1}, True, "Scores lie between 0 and 1."),
    ({"kind": "between", "high": 0.2}, False, "not so in"),
    ({"kind": "called", "as": 1}, False, "Rows are called 1: not so in"),
    ({"kind": "invariant", "change": {"kind": "shuffle", "columns": ["tail"]}, "within": 0}, True,
     "moves no score by more than 0."),
    ({"kind": "invariant", "change": {"kind": "shift", "column": "delay", "by": 1}, "within": 0.001}, False,
     "not so in"),
    ({"kind": "directional", "change": {"kind": "shift", "column": "delay", "by": 30}, "goes": "up"}, True,
     "moves scores up"),
    ({"kind": "directional", "change": {"kind": "shift", "column": "delay", "by": 30}, "goes": "down"}, False,
     "moves scores down: not so in 200 of 200 rows (row 0 0."),
])
def test_expectations_are_data_and_are_checked(written, passed, said):
    found = check(expected(**written), flights(), logistic, RNG(0))
    assert found.passed is passed and said in found.says


def test_a_projects_expectations_are_checked_by_name():
    some = [Behaviour.model_validate({"name": name, "expect": {"kind": "between", "high": high}})
            for name, high in (("possible", 1), ("rare", 0.1))]
    found = check_all(some, flights(), logistic, RNG(0))
    assert {name: one.passed for name, one in found.items()} == {"possible": True, "rare": False}
    with pytest.raises(UsageError, match="two expectations have the same name"):
        check_all([some[0], some[0]], flights(), logistic, RNG(0))


def test_a_few_rows_may_break_an_expectation_where_it_says_so():
    rows = pa.table({"x": np.arange(100.0)})
    written = {"kind": "directional", "change": {"kind": "shift", "column": "x", "by": 1}, "goes": "up"}
    folded = lambda r: -np.abs(numbers(r, "x") - 96)  # noqa: E731
    assert not check(expected(**written), rows, folded, RNG(0)).passed
    found = check(expected(**written, but_for=0.1), rows, folded, RNG(0))
    assert found.passed and "but for 4 of 100 rows" in found.says


def test_scores_near_those_in_a_column_that_the_model_does_not_see():
    rows = flights().append_column("expected", pa.array(logistic(flights())))

    def strict(seen):
        assert "expected" not in seen.column_names
        return logistic(seen)
    near = expected(kind="near", column="expected", within=0.01)
    assert check(near, rows, strict, RNG(0)).passed
    assert not check(near, rows, lambda r: strict(r) + 0.02, RNG(0)).passed
    with pytest.raises(UsageError, match="there is no column wanted"):
        check(expected(kind="near", column="wanted", within=0.1), rows, strict, RNG(0))
