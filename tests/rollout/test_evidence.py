"""The e-processes: the worked value, the guarantee computed exactly, and an independent form of them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.rollout.evidence import (
    AS_GOOD,
    WORSE,
    Counts,
    Distribution,
    Evidence,
    ln_weighted,
    not_worse,
    worse,
)

RISKS = st.floats(0.001, 0.95)
SIZES = st.integers(1, 12)
SHARES = st.integers(0, 10**6).map(lambda millionths: millionths / 1e6)  # scipy's pmf overflows far below


def after(evidence: Evidence, *ticks: tuple[int, int, int, int]) -> list[float]:
    return [evidence.add(Counts(n_c, y_c), Counts(n_b, y_b)) for n_c, y_c, n_b, y_b in ticks]


def expectation(evidence, n_c: int, p_c: float, n_b: int, p_b: float) -> float:
    """E[E] after one tick of independent requests, summed over every outcome."""
    return sum(stats.binom.pmf(y_c, n_c, p_c) * stats.binom.pmf(y_b, n_b, p_b)
               * math.exp(evidence().add(Counts(n_c, y_c), Counts(n_b, y_b)))
               for y_c, y_b in itertools.product(range(n_c + 1), range(n_b + 1)))


def test_the_worked_value_of_the_specification():
    found = after(worse(), *[(500, 10, 4500, 45)] * 3)
    assert found == pytest.approx([0.878834, 2.258345, 3.735789], abs=5e-7)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(0, 20), st.integers(1, 5000),
                          st.integers(0, 50)), min_size=1, max_size=5), st.floats(0.5, 3))
@settings(max_examples=50, deadline=None)
def test_it_is_the_mixture_of_conditional_binomial_likelihood_ratios(ticks, tolerated):
    """The textbook form: given all failures of a tick, the canary's are binomial."""
    ticks = [(n_c, min(y_c, n_c), n_b, min(y_b, n_b)) for n_c, y_c, n_b, y_b in ticks]
    ratios = []
    for r in WORSE:
        product = 0.0
        for n_c, y_c, n_b, y_b in ticks:
            null, other = (n_c * m / (n_c * m + n_b) for m in (tolerated, r * tolerated))
            product += (stats.binom.logpmf(y_c, y_c + y_b, other)
                        - stats.binom.logpmf(y_c, y_c + y_b, null))
        ratios.append(product)
    wanted = math.log(sum(math.exp(x) for x in ratios) / len(WORSE))
    assert after(worse(tolerated), *ticks)[-1] == pytest.approx(wanted, abs=1e-8)


@given(SIZES, SIZES, RISKS, SHARES, st.floats(0.5, 2))
@settings(max_examples=40, deadline=None)
def test_its_expectation_is_at_most_one_for_every_canary_within_the_tolerance(n_c, n_b, p_b, share, m):
    p_c = min(1.0, m * p_b) * share
    assert expectation(lambda: worse(m), n_c, p_c, n_b, p_b) <= 1 + 1e-9


@given(SIZES, SIZES, RISKS, SHARES, st.floats(1.05, 3))
@settings(max_examples=40, deadline=None)
def test_nor_for_good_when_the_canary_is_at_or_beyond_the_limit(n_c, n_b, p_b, share, limit):
    least = limit * p_b
    if least <= 1:
        p_c = least + (1 - least) * share
        assert expectation(lambda: not_worse(limit), n_c, p_c, n_b, p_b) <= 1 + 1e-9


def test_its_expectation_grows_where_the_canary_is_worse():
    assert expectation(worse, 12, 0.5, 12, 0.1) > 1.5
    assert expectation(lambda: not_worse(2.0), 12, 0.3, 12, 0.3) > 1.05


def test_a_tick_with_one_side_or_without_failures_says_nothing():
    assert after(worse(), (100, 50, 0, 0), (0, 0, 900, 100), (100, 0, 900, 0)) == [0.0, 0.0, 0.0]


def test_it_stays_finite_over_twenty_thousand_ticks_and_falls_for_a_good_canary():
    evidence = worse()
    for _ in range(20_000):
        evidence.add(Counts(1000, 0), Counts(1000, 100))
    assert math.isfinite(evidence.ln_e) and evidence.ln_e < -2e4
    bad = worse()
    for _ in range(20_000):
        bad.add(Counts(1000, 1000), Counts(1000, 1))
    assert math.isfinite(bad.ln_e) and bad.ln_e > 2e4


def test_the_same_ticks_give_the_same_bits():
    ticks = [(50, k % 3, 950, k % 11) for k in range(500)]
    assert after(worse(1.1), *ticks) == after(worse(1.1), *ticks)


def test_a_shifted_distribution_shows_and_an_equal_one_does_not():
    equal, shifted = Distribution(["late", "on time"]), Distribution(["late", "on time"])
    for _ in range(50):
        equal.add({"late": 20, "on time": 80}, {"late": 180, "on time": 720})
        shifted.add({"late": 40, "on time": 60}, {"late": 180, "on time": 720})
    assert equal.ln_e < 0 < math.log(100) < shifted.ln_e


def test_a_bin_that_becomes_rarer_shows_as_well():
    rarer = Distribution(["a", "b", "c"])
    for _ in range(50):
        rarer.add({"a": 98, "b": 1, "c": 1}, {"a": 800, "b": 100, "c": 100})
    assert rarer.ln_e > math.log(100)


def test_a_distribution_has_fixed_bins():
    with pytest.raises(ValueError, match="no bin maybe"):
        Distribution(["yes", "no"]).add({"maybe": 1}, {})
    with pytest.raises(ValueError, match="two or more"):
        Distribution(["only"])


@pytest.mark.parametrize("n, y", [(5, 6), (5, -1), (-1, 0)])
def test_more_failures_than_requests_are_refused(n, y):
    with pytest.raises(ValueError, match="cannot be"):
        Counts(n, y)


@pytest.mark.parametrize("ratio", [0.0, -1.0, math.nan, math.inf])
def test_a_ratio_that_makes_no_sense_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio"):
        worse(ratio)
    with pytest.raises(ValueError, match="ratio"):
        not_worse(ratio)


def test_alternatives_lie_on_one_side():
    with pytest.raises(ValueError, match="all above or all below"):
        Evidence(1.0, [0.5, 2.0])
    assert all(share <= 1 for share in AS_GOOD)
    with pytest.raises(ValueError, match="above 1"):
        not_worse(1.0)


def test_a_weighted_mean_without_weights_is_nothing():
    assert ln_weighted([5.0], [0.0]) == -math.inf
    assert ln_weighted([1000.0, 0.0], [0.5, 0.5]) == pytest.approx(1000 - math.log(2))
