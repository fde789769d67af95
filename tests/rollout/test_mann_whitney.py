"""The Mann-Whitney judges: Kayenta's published cases, its users' reported ones, and independent
implementations of each statistic. The cases are in kayenta_cases.json, with where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import barnard_exact, binom, mannwhitneyu

from engine.rollout.mann_whitney import JUDGES, more_frequent, shift

CASES = json.loads((Path(__file__).parent / "kayenta_cases.json").read_text())
KAYENTA, STRICT = JUDGES["mann-whitney"], JUDGES["mann-whitney-strict"]

SPARSE = [0.0, 1.0, 2.0, 1.0, 0.0, 0.0]  # kayenta #426: the canary of a metric that is usually zero
CLUSTERED = [10.0, 10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 17.0, 17.1, 17.2, 17.3, 17.4, 17.5, 17.6, 17.7]
SCATTERED = [1.0, 100.0, 4.0, 101.0, 5.0, 102.0, 6.0, 103.0, 7.0, 104.0, 8.0, 105.0, 9.0, 106.0, 17.0]

samples = st.lists(st.one_of(st.integers(0, 4).map(float), st.floats(-50, 50).map(lambda v: round(v, 3))),
                   min_size=1, max_size=12)


@pytest.mark.parametrize("canary, baseline, direction, label", [
    (CASES["ten_canary"], CASES["ten_baseline"], "either", "pass"),
    (CASES["twenty_canary"], CASES["ten_baseline"], "either", "high"),
    (CASES["ten_canary"], CASES["twenty_baseline"], "either", "low"),
    (CASES["ten_canary"], CASES["twenty_baseline"], "increase", "pass"),
    (CASES["twenty_canary"], CASES["ten_baseline"], "decrease", "pass"),
    (CASES["twenty_canary"], CASES["ten_baseline"], "increase", "high"),
    (CASES["ten_canary"], CASES["twenty_baseline"], "decrease", "low"),
    ([1.0, 1.0, 1.0], [1.0, 1.0], "decrease", "pass"),
    ([1.0, 2.0, 3.0, 4.0, 5.0], [5.0, 4.0, 3.0, 2.0, 1.0], "decrease", "pass"),
    ([0.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0, 1.0], "decrease", "pass"),
    ([], [1.0, 2.0, 3.0, 4.0, 5.0], "decrease", "nodata"),
])
@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
def test_both_judges_decide_kayentas_published_cases_as_it_does(judge, canary, baseline, direction, label):
    confidence = 0.95 if judge is KAYENTA else None
    assert judge.classify(canary, baseline, direction, confidence=confidence, tolerance=0.1).label == label


@pytest.mark.parametrize("case", ["r_ties", "r_more_ties"])
def test_the_interval_is_that_which_kayenta_publishes_from_r(case):
    published = CASES[case]
    found = shift(published["canary"], published["baseline"], published["confidence"])
    assert (found.low, found.high, found.estimate) == pytest.approx(
        (published["low"], published["high"], published["estimate"]), abs=1e-4)


@pytest.mark.parametrize("canary, baseline, said", [
    (SPARSE, [0.0] * 6, "high"),
    ([100.0] * 7 + [1.0] * 3, [1.0] * 10, "high"),  # a comment on the same complaint, spinnaker #6278
    (CLUSTERED, SCATTERED, "low"),  # kayenta #780, its first case as its test has the two
    (SCATTERED, CLUSTERED, "high"),  # and the other way round, as its title has them
])
def test_what_users_reported_as_wrongly_passed_passes_by_name_alone(canary, baseline, said):
    assert KAYENTA.classify(canary, baseline).label == "pass"
    assert STRICT.classify(canary, baseline).label == said


def test_strict_says_nothing_about_the_direction_that_is_no_harm():
    assert STRICT.classify(SPARSE, [0.0] * 6, "decrease").label == "pass"
    assert STRICT.classify([0.0] * 6, SPARSE, "increase").label == "pass"
    assert STRICT.classify(SCATTERED, CLUSTERED, "decrease").label == "pass"
    assert STRICT.classify(CLUSTERED, SCATTERED, "increase").label == "pass"


def test_strict_sees_a_metric_that_falls_below_what_it_usually_is():
    assert STRICT.classify([100, 98, 97, 100, 95, 99], [100.0] * 6).label == "low"
    assert STRICT.classify([100.0] * 6, [100, 98, 97, 100, 95, 99]).label == "high"


def test_a_level_that_few_samples_cannot_reach_is_not_claimed_for_them():
    assert STRICT.classify(SPARSE, [0.0] * 6, confidence=0.98).label == "pass"


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
@pytest.mark.parametrize("m, n", [(8, 8), (9, 8), (8, 20)])
def test_a_difference_of_rounding_alone_is_none(judge, m, n):
    assert judge.classify([0.1 + 0.2] * m, [0.3] * n).label == "pass"
    assert judge.classify([0.1 + 0.2, 1.1] * m, [0.3, 1.1] * n).label == "pass"


def test_one_departure_is_no_evidence():
    assert STRICT.classify([0, 0, 0, 500, 0, 0], [0.0] * 6).label == "pass"


@settings(max_examples=150, deadline=None)
@given(samples, samples, st.sampled_from([0.8, 0.95, 0.98]))
def test_the_interval_holds_what_scipys_test_does_not_reject(x, y, confidence):
    if len(set(x + y)) == 1:
        return
    found = shift(x, y, confidence)
    differences = np.unique(np.subtract.outer(x, y).round(9))
    between = (differences[1:] + differences[:-1]) / 2
    for mu in between[:: max(1, len(between) // 10)]:
        if min(abs(differences - mu)) < 1e-7:
            continue  # neighbours that differ by a rounding
        p = mannwhitneyu(np.subtract(x, mu), y, method="asymptotic").pvalue
        if abs(p - (1 - confidence)) > 1e-9:
            assert (found.low < mu < found.high) == (p > 1 - confidence)


@settings(max_examples=60, deadline=None)
@given(samples, samples)
def test_the_estimate_is_the_shift_at_which_the_ranks_balance(x, y):
    estimate = shift(x, y, 0.95).estimate
    above = sum(a - estimate > b + 1e-9 for a in x for b in y)
    below = sum(a - estimate < b - 1e-9 for a in x for b in y)
    assert max(above, below) <= len(x) * len(y) / 2


@settings(max_examples=60, deadline=None)
@given(samples, samples, st.floats(0.01, 100))
def test_swapping_the_sides_swaps_high_and_low_and_a_unit_changes_nothing(x, y, unit):
    swapped = {"high": "low", "low": "high"}
    found = KAYENTA.classify(x, y).label
    assert KAYENTA.classify(y, x).label == swapped.get(found, found)
    assert KAYENTA.classify([4 * v for v in x], [4 * v for v in y]).label == found
    assert shift(np.multiply(x, unit), np.multiply(y, unit), 0.9).estimate == pytest.approx(
        unit * shift(x, y, 0.9).estimate, abs=1e-6)


@pytest.mark.parametrize("canary, baseline", [((3, 6), (0, 6)), ((4, 9), (1, 7)), ((5, 20), (9, 20)),
                                              ((1, 4), (0, 30)), ((6, 6), (0, 6))])
def test_departures_are_tested_as_scipys_barnard_test_does(canary, baseline):
    table = [[canary[0], baseline[0]], [canary[1] - canary[0], baseline[1] - baseline[0]]]
    expected = barnard_exact(table, alternative="greater", n=64).pvalue
    assert more_frequent(canary, baseline) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("m, n", [(4, 4), (6, 6), (5, 12), (15, 15)])
def test_identical_sparse_versions_are_called_bad_at_most_at_the_level_exactly(m, n):
    """Every result of a metric that is 0 or 1, weighted by its chance, over frequencies from 0 to 1."""
    labels = np.array([[STRICT.classify([1.0] * a + [0.0] * (m - a), [1.0] * b + [0.0] * (n - b)).label
                        for b in range(n + 1)] for a in range(m + 1)])
    for frequency in np.linspace(0, 1, 201):
        chance = np.outer(binom.pmf(range(m + 1), m, frequency), binom.pmf(range(n + 1), n, frequency))
        assert chance[labels == "high"].sum() <= 0.05 + 1e-9
        assert chance[labels == "low"].sum() <= 0.05 + 1e-9


@pytest.mark.parametrize("judge", JUDGES.values(), ids=JUDGES)
@pytest.mark.parametrize("name, draw", [
    ("normal", lambda rng, n: rng.normal(10, 2, n)),
    ("heavy tails", lambda rng, n: rng.standard_cauchy(n)),
    ("skewed", lambda rng, n: rng.exponential(1, n)),
    ("counts", lambda rng, n: rng.poisson(0.7, n)),
    ("half zero", lambda rng, n: np.where(rng.random(n) < 0.5, 0, rng.exponential(1, n))),
])
def test_identical_versions_are_called_bad_at_most_at_the_stated_level(judge, name, draw):
    rng = np.random.default_rng(20)
    runs = 300
    for m, n in ((6, 6), (15, 25)):
        labels = [judge.classify(draw(rng, m), draw(rng, n)).label for _ in range(runs)]
        level = 1 - judge.confidence
        assert sum(label != "pass" for label in labels) <= binom.ppf(0.999, runs, level), (name, m, n)


def test_strict_finds_a_spread_that_tripled_and_kayentas_judge_does_not():
    rng = np.random.default_rng(4)
    wide, narrow = rng.normal(100, 9, (50, 40)), rng.normal(100, 3, (50, 40))
    pairs = list(zip(wide, narrow, strict=True))
    assert sum(STRICT.classify(x, y).label == "high" for x, y in pairs) >= 45
    assert sum(KAYENTA.classify(x, y).label == "high" for x, y in pairs) <= 3


def test_missing_samples_are_left_out_and_a_side_of_nothing_else_has_no_data():
    nan = float("nan")
    full = KAYENTA.classify(CASES["twenty_canary"], CASES["ten_baseline"])
    assert KAYENTA.classify([nan, *CASES["twenty_canary"], nan], CASES["ten_baseline"]) == full
    assert KAYENTA.classify([1.0, 2.0], [nan, nan]).reason == "the baseline has no samples"


@pytest.mark.parametrize("given_, more, said", [
    ([1.0, float("inf")], {}, "infinite"), ([2.0], {"confidence": 1.0}, "confidence is 1"),
    ([2.0], {"confidence": float("nan")}, "confidence"), ([2.0], {"tolerance": -1}, "tolerance is -1"),
    ([2.0] * 4_000_001, {}, "too many")])
def test_what_cannot_be_judged_is_refused(given_, more, said):
    with pytest.raises(ValueError, match=said):
        KAYENTA.classify(given_, [1.0], **more)


def test_counts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not counts"):
        more_frequent((3, 2), (0, 4))
