"""Bucket arithmetic: what merging, subtracting and reading a quantile promise."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.monitoring.histograms import (
    BoundsMismatch,
    Histogram,
    count_above,
    delta,
    from_sparse,
    merge,
    minus,
    plus,
    quantile,
    sparse,
    well_formed,
)

BOUNDS = tuple(0.001 * 1.25**i for i in range(24))
own_counts = st.lists(st.integers(0, 10_000), min_size=25, max_size=25)
shares = st.floats(0.0, 1.0)


def of(own) -> Histogram:
    """From the count of each bucket by itself."""
    return Histogram.of(BOUNDS, accumulate(own))


def of_samples(samples, bounds=BOUNDS) -> Histogram:
    own = np.bincount(np.searchsorted(bounds, samples, side="left"), minlength=len(bounds) + 1)
    return Histogram.of(bounds, accumulate(own.tolist()))


histograms = own_counts.map(of)


@given(histograms, histograms, histograms)
def test_merging_does_not_depend_on_the_order_or_the_grouping(a, b, c):
    assert plus(a, b) == plus(b, a)
    assert plus(plus(a, b), c) == plus(a, plus(b, c)) == merge([c, a, b])


@given(histograms, histograms)
def test_taking_away_what_was_merged_leaves_the_rest_exactly(a, b):
    assert minus(plus(a, b), b) == a


def test_merging_nothing_is_unknown_rather_than_empty():
    assert merge([]) is None


@given(histograms, histograms)
def test_the_delta_of_two_scrapes_is_what_came_between_them(before, between):
    grown = delta(before, plus(before, between))
    assert grown == between


@given(histograms, histograms)
def test_a_delta_is_never_negative_and_a_bucket_that_fell_restarts_the_whole_series(old, new):
    grown = delta(old, new)
    assert well_formed(grown) is None
    own_old, own_new = ([b - a for a, b in zip([0, *h.counts], h.counts, strict=False)]
                        for h in (old, new))
    if any(n < o for o, n in zip(own_old, own_new, strict=True)):
        assert grown == new


def test_a_restart_is_seen_even_when_the_total_has_already_passed_the_old_one():
    old = of([5] + [0] * 24)
    new = of([0, 9] + [0] * 23)
    assert new.total > old.total
    assert delta(old, new) == new


def test_a_series_that_was_not_there_before_counts_from_zero():
    new = of([1] * 25)
    assert delta(None, new) == new


def test_a_series_that_comes_back_with_other_bounds_counts_from_zero():
    old, new = Histogram.of((0.1, 0.2), (1, 2, 3)), Histogram.of((0.1, 0.3), (4, 6, 9))
    assert delta(old, new) == new


@pytest.mark.parametrize("together", [plus, minus, lambda a, b: merge([a, b])])
def test_different_bounds_are_an_error_and_not_a_guess(together):
    with pytest.raises(BoundsMismatch, match="24 and 2 bounds"):
        together(of([1] * 25), Histogram.of((0.1, 0.2), (1, 2, 3)))


@given(histograms, shares, shares)
def test_a_higher_quantile_is_never_a_lower_latency(histogram, p, q):
    low, high = quantile(histogram, min(p, q)), quantile(histogram, max(p, q))
    if histogram.total == 0:
        assert low is None and high is None
    else:
        assert 0 < low <= high <= BOUNDS[-1]


@given(st.lists(st.floats(0.0011, 0.19), min_size=1, max_size=300), st.floats(0.001, 1.0))
def test_the_error_of_any_quantile_of_any_samples_is_below_the_growth_of_the_bounds(samples, q):
    exact = float(np.quantile(samples, q, method="inverted_cdf"))
    answer = quantile(of_samples(samples), q)
    assert max(answer / exact, exact / answer) <= 1.25 * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sigma", [0.3, 0.8, 1.5])
@pytest.mark.parametrize("q", [0.5, 0.95, 0.99])
def test_log_normal_latencies_are_read_within_the_bound_and_usually_far_closer(seed, sigma, q):
    growth = 1.1
    bounds = tuple(0.0005 * growth**i for i in range(125))
    samples = np.random.default_rng(seed).lognormal(np.log(0.02), sigma, 20_000)
    exact = float(np.percentile(samples, 100 * q))
    error = abs(quantile(of_samples(samples, bounds), q) / exact - 1)
    assert error <= growth - 1
    assert error <= 0.02


def test_a_quantile_above_the_last_bound_is_that_bound():
    assert quantile(of([0] * 24 + [7]), 0.5) == BOUNDS[-1]


def test_inside_the_first_bucket_the_quantile_goes_linearly_from_zero():
    assert quantile(of([4] + [0] * 24), 0.5) == pytest.approx(BOUNDS[0] / 2)


@given(histograms.filter(lambda h: h.total > h.counts[-1] - h.counts[-2] and h.counts[-2] > 0),
       st.floats(0.01, 0.99))
def test_counting_above_a_quantile_finds_the_share_the_quantile_left(histogram, q):
    value = quantile(histogram, q)
    if value < BOUNDS[-1]:
        assert count_above(histogram, value) == pytest.approx((1 - q) * histogram.total, abs=1e-3,
                                                              rel=1e-6)


@given(histograms, st.floats(0.0, 5.0), st.floats(0.0, 5.0))
def test_fewer_observations_are_above_a_higher_value(histogram, a, b):
    low, high = count_above(histogram, min(a, b)), count_above(histogram, max(a, b))
    assert -1e-6 <= high <= low + 1e-6
    assert low <= histogram.total + 1e-6


@given(st.lists(histograms, min_size=1, max_size=4))
def test_what_storage_keeps_merges_to_the_same_histogram(many):
    assert from_sparse(BOUNDS, [sparse(h) for h in many]) == merge(many)


@pytest.mark.parametrize(("bounds", "counts", "wrong"), [
    ((0.1, 0.2), (1, 2), "2 counts for 2 bounds"),
    ((0.2, 0.1), (1, 2, 3), "do not increase"),
    ((0.1, 0.1), (1, 2, 3), "do not increase"),
    ((0.1, float("nan")), (1, 2, 3), "do not increase"),
    ((0.1, float("inf")), (1, 2, 3), "do not increase"),
    ((0.1, 0.2), (1, 3, 2), "fall"),
    ((0.1, 0.2), (-1, 2, 3), "fall"),
    ((0.1, 0.2), (1, float("nan"), 3), "fall"),
    ((0.1, 0.2), (1, 2, float("inf")), "fall"),
])
def test_a_malformed_histogram_is_named_as_such(bounds, counts, wrong):
    assert wrong in well_formed(Histogram.of(bounds, counts))
