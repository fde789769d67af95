"""The score of a canary. The first cases are those that Kayenta publishes in its ScorerSuite.scala."""

from __future__ import annotations

import pytest

from engine.rollout.scorer import Scored, score


def one(label, group="test-group", **more):
    return Scored(f"test-metric-{label}", label, group, **more)


@pytest.mark.parametrize("metrics, weights, summary", [
    ([one("pass")], {}, 100.0),
    ([one("high")], {}, 0.0),
    ([one("pass"), one("high")], {}, 50.0),
    ([one("pass"), one("high"), one("low")], {}, 33.33),
    ([one("pass", "group-1"), one("pass", "group-1"), one("high", "group-2")],
     {"group-1": 75, "group-2": 25}, 75.0),
    ([one("pass", "group-1"), one("high", "group-1"), one("high", "group-2")],
     {"group-1": 50, "group-2": 50}, 25.0),
    ([one("nodata")], {}, 0.0),
    ([one("pass"), one("high", critical=True)], {}, 0.0),
    ([one("low"), one("pass", critical=True)], {}, 50.0),
    ([one("pass"), one("high", report_only=True)], {}, 100.0),
])
def test_the_summary_is_that_of_kayentas_published_cases(metrics, weights, summary):
    assert score(metrics, weights).summary == pytest.approx(summary, abs=0.01)


def test_groups_without_a_weight_share_what_the_others_leave():
    found = score([one("pass", "a"), one("high", "b"), one("pass", "c")], {"a": 40})
    assert found.summary == pytest.approx(70)
    assert found.groups == {"a": 100, "b": 0, "c": 100}


def test_a_group_without_data_adds_nothing_and_is_named_so():
    found = score([one("pass", "a"), one("nodata", "b")])
    assert (found.summary, found.groups) == (50, {"a": 100, "b": None})


def test_missing_data_counts_neither_way_within_a_group():
    assert score([one("pass"), one("nodata"), one("high")]).summary == 50


def test_a_critical_metric_without_data_fails_the_canary_and_is_named():
    found = score([one("pass"), one("nodata", critical=True)])
    assert (found.summary, found.label) == (0, "fail")
    assert "test-metric-nodata" in found.reason


def test_nothing_known_is_neither_a_pass_nor_a_failure():
    assert score([one("nodata")]).label == "nodata"
    assert score([]).label == "nodata"


@pytest.mark.parametrize("passed, label", [(19, "pass"), (18, "marginal"), (15, "marginal"), (14, "fail")])
def test_the_thresholds_belong_to_the_better_side(passed, label):
    assert score([one("pass")] * passed + [one("high")] * (20 - passed)).label == label


def test_thirds_that_add_up_to_a_hundred_pass_at_a_hundred():
    groups = dict.fromkeys("abc", 100 / 3)
    assert score([one("pass", name) for name in groups], groups, passing=100).label == "pass"


@pytest.mark.parametrize("weights, thresholds", [
    ({"test-group": -1}, {}), ({"test-group": 101}, {}), ({"test-group": float("nan")}, {}),
    ({}, {"passing": 50, "marginal": 60}), ({}, {"passing": 101}), ({}, {"marginal": float("nan")})])
def test_weights_and_thresholds_that_are_no_percents_are_refused(weights, thresholds):
    with pytest.raises(ValueError, match="percents"):
        score([one("pass")], weights, **thresholds)
