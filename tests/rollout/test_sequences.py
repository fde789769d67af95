"""Confidence sequences: they hold at every look, agree with published values, and are not needlessly wide."""

from __future__ import annotations

import math
from array import array
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.monitoring import histograms
from engine.monitoring.histograms import Histogram
from engine.rollout import sequences
from engine.rollout.sequences import ln_martingale, quantile_sequence, rate_sequence

BOUNDS = tuple(0.001 * 1.15 ** i for i in range(60))


def histogram(seconds: np.ndarray) -> Histogram:
    places = np.searchsorted(BOUNDS, seconds, side="left")
    own = np.bincount(places, minlength=len(BOUNDS) + 1)
    return Histogram(BOUNDS, array("d", accumulate(float(x) for x in own)))


def mixture(variance_tuned: float, alpha: float, g: float) -> tuple[float, float]:
    """The prior of Howard & Ramdas for any tuning; the module has it for `TIGHTEST_AT` alone."""
    odds = 2 * math.log(1 / alpha)
    r = variance_tuned / (odds + math.log1p(odds)) - g * (1 - g)
    return r / (1 - g), r / g


# Values of the authors' own implementation (R), as the unit tests of their package `confseq` have them:
# the two-sided beta-binomial mixture with g = 0.2, h = 0.8, tuned at v = 100 and α = 0.05.
def test_the_martingale_agrees_with_the_authors_published_value() -> None:
    a, b = mixture(100, 0.05, 0.2)
    n = 100 / (0.2 * 0.8)
    assert ln_martingale(n, n * 0.2 + 10, 0.2, a, b) == pytest.approx(-0.6941012, abs=1e-6)


def test_the_boundary_agrees_with_the_authors_published_value() -> None:
    a, b = mixture(100, 0.05, 0.2)
    n = 100 / (0.2 * 0.8)
    crossing = math.log(1 / 0.05)
    assert ln_martingale(n, n * 0.2 + 31.4307, 0.2, a, b) < crossing
    assert ln_martingale(n, n * 0.2 + 31.4309, 0.2, a, b) > crossing


@pytest.mark.parametrize(("q", "alpha"), [(0.5, 0.05), (0.95, 0.05), (0.99, 0.01)])
def test_the_prior_is_the_authors_for_the_tuning_we_chose(q: float, alpha: float) -> None:
    weight = sequences._weight(q, alpha)
    a, b = mixture(sequences.TIGHTEST_AT, alpha, q)
    assert (weight * q, weight * (1 - q)) == pytest.approx((a, b), rel=1e-12)


@pytest.mark.parametrize(("n", "y", "p"), [(10, 3, 0.4), (400, 1, 0.01), (57, 57, 0.9)])
def test_the_martingale_is_the_integral_of_likelihood_ratios_over_the_prior(n: int, y: int, p: float
                                                                            ) -> None:
    from scipy import integrate, stats

    def ratio(theta: float) -> float:
        return float(stats.beta.pdf(theta, 0.5, 0.5)
                     * stats.binom.pmf(y, n, theta) / stats.binom.pmf(y, n, p))

    total, _ = integrate.quad(ratio, 0, 1, points=[y / n] if y < n else None, limit=400)
    assert ln_martingale(n, y, p, 0.5, 0.5) == pytest.approx(math.log(total), abs=1e-5)


@given(st.integers(0, 3000), st.data(), st.floats(0.001, 0.999))
def test_with_a_flat_prior_it_is_robbins_sequence_in_closed_form(n: int, data: st.DataObject,
                                                                p: float) -> None:
    """Ding, Gandy & Hahn 2017: reject where (n + 1) b(n, p, y) ≤ ε, b the binomial probability."""
    y = data.draw(st.integers(0, n))
    ln_binomial = (math.log(math.comb(n, y)) + y * math.log(p) + (n - y) * math.log1p(-p))
    assert ln_martingale(n, y, p, 1, 1) == pytest.approx(-math.log(n + 1) - ln_binomial, abs=1e-7)


def test_no_failure_in_n_gives_the_closed_form_of_the_upper_end() -> None:
    n, alpha = 500, 0.05
    from scipy.special import betaln

    expected = -math.expm1((betaln(0.5, 0.5 + n) - betaln(0.5, 0.5) + math.log(alpha)) / n)
    low, high = rate_sequence(n, 0, alpha)
    assert low == 0.0
    assert high == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 100_000), st.data(), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_ends_of_a_rate_are_just_rejected_and_lie_round_it(n: int, data: st.DataObject,
                                                               alpha: float) -> None:
    y = data.draw(st.integers(0, n))
    low, high = rate_sequence(n, y, alpha)
    assert 0 <= low <= y / n <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert ln_martingale(n, y, end, 0.5, 0.5) == pytest.approx(-math.log(alpha), abs=1e-6)
    wider_low, wider_high = rate_sequence(n, y, alpha / 2)
    assert wider_low <= low and high <= wider_high


def test_a_rate_is_covered_at_every_one_of_a_thousand_looks_in_nearly_all_runs() -> None:
    rng = np.random.default_rng(20260101)
    runs, ticks, alpha, p = 2000, 400, 0.05, 0.02
    threshold = -math.log(alpha)
    y = np.cumsum(rng.binomial(20, p, size=(runs, ticks)), axis=1)
    n = 20 * np.arange(1, ticks + 1)
    values = {(int(a), int(b)): ln_martingale(int(a), int(b), p, 0.5, 0.5)
              for a, row in zip(n, y.T, strict=True) for b in np.unique(row)}
    missed = sum(any(values[int(a), int(b)] >= threshold for a, b in zip(n, row, strict=True)) for row in y)
    assert missed / runs <= alpha
    # that M < 1/α and "p lies in the interval" are the same thing, on a sample of the looks
    for a, b in list(values)[::997]:
        low, high = rate_sequence(a, b, alpha)
        assert (low < p < high) == (values[a, b] < threshold)


def test_the_same_looks_find_out_an_interval_for_one_look() -> None:
    """What the simulation must be able to see: Clopper–Pearson misses far more often than it says."""
    from scipy import stats

    rng = np.random.default_rng(20260101)
    runs, ticks, alpha, p = 2000, 400, 0.05, 0.02
    y = np.cumsum(rng.binomial(20, p, size=(runs, ticks)), axis=1)
    n = 20 * np.arange(1, ticks + 1)
    low = stats.beta.ppf(alpha / 2, y, n - y + 1)
    high = stats.beta.ppf(1 - alpha / 2, y + 1, n - y)
    missed = ((p < low) | (p > high)).any(axis=1).mean()
    assert missed > 3 * alpha


@pytest.mark.parametrize(("q", "alpha"), [(0.5, 0.05), (0.95, 0.05), (0.99, 0.05), (0.99, 0.2)])
def test_a_quantile_is_covered_at_every_look_in_nearly_all_runs(q: float, alpha: float) -> None:
    """1,000 runs of 180 one-second ticks of about 50 requests, lognormal latencies. The edges stand close
    to the true quantile, where the least is given away."""
    from scipy import stats

    rng = np.random.default_rng(7)
    true = 0.04 * math.exp(0.6 * stats.norm.ppf(q))
    bounds = tuple(true * ratio for ratio in (0.9, 0.999, 1.001, 1.1))
    shares = np.diff([0.0, *(stats.norm.cdf(math.log(edge / 0.04) / 0.6) for edge in bounds), 1.0])
    missed = 0
    for _ in range(1000):
        own = np.stack([rng.multinomial(n, shares) for n in rng.poisson(50, 180)])
        counts = own.cumsum(axis=0).cumsum(axis=1)  # over the ticks, then over the buckets
        for row in counts:
            low, high = quantile_sequence(Histogram.of(bounds, row), q, alpha)
            if not low < true <= high:
                missed += 1
                break
    assert missed / 1000 <= alpha


def test_a_quantile_that_sits_on_a_tie_and_on_an_edge_is_covered() -> None:
    """Three in ten answers take exactly 0.1 s, the bound of a bucket: the p95 is that."""
    rng = np.random.default_rng(3)
    bounds = (0.05, 0.1, 0.2)
    missed = 0
    for _ in range(1000):
        draws = rng.choice([0.03, 0.1, 0.15], p=[0.66, 0.30, 0.04], size=(120, 40))
        own = np.stack([(draws <= e).sum(axis=1) for e in (*bounds, 9.0)], axis=1).cumsum(axis=0)
        if any(not low < 0.1 <= high for low, high in
               (quantile_sequence(Histogram.of(bounds, row), 0.95, 0.05) for row in own)):
            missed += 1
    assert missed / 1000 <= 0.05


def test_it_is_tight_enough_to_be_of_use() -> None:
    """After a minute at 50 requests a second, p50 and p95 are known to a few buckets of 15 %."""
    rng = np.random.default_rng(11)
    seen = histogram(0.04 * np.exp(0.6 * rng.standard_normal(3000)))
    for q, ratio in ((0.5, 1.5), (0.95, 1.6), (0.99, 2.2)):
        low, high = quantile_sequence(seen, q, 0.05)
        assert low > 0 and high / low < ratio, (q, low, high)


def test_nothing_is_known_before_the_first_request() -> None:
    assert quantile_sequence(histogram(np.array([])), 0.99, 0.05) == (0.0, math.inf)
    assert rate_sequence(0, 0, 0.05) == (0.0, 1.0)


def test_a_quantile_beyond_the_last_bound_has_no_upper_end() -> None:
    seen = Histogram.of((0.1, 0.2), (10, 20, 5000))
    assert quantile_sequence(seen, 0.95, 0.05) == (0.2, math.inf)


@settings(max_examples=60)
@given(st.lists(st.floats(0.0005, 20), min_size=1, max_size=400), st.sampled_from([0.5, 0.95, 0.99]))
def test_the_interval_holds_the_estimate_and_widens_with_a_smaller_alpha(values: list[float], q: float
                                                                        ) -> None:
    seen = histogram(np.array(values))
    low, high = quantile_sequence(seen, q, 0.05)
    estimate = histograms.quantile(seen, q)
    assert estimate is not None and low <= estimate <= high
    wider = quantile_sequence(seen, q, 0.001)
    assert wider[0] <= low and high <= wider[1]


@pytest.mark.parametrize("call", [
    lambda: quantile_sequence(Histogram.of((1.0,), (1, 1)), 1.0, 0.05),
    lambda: quantile_sequence(Histogram.of((1.0,), (1, 1)), 0.5, 0.0),
    lambda: rate_sequence(3, 4, 0.05),
    lambda: rate_sequence(3, 1, 1.0),
    lambda: rate_sequence(float("nan"), 1, 0.05),
])
def test_numbers_that_make_no_sense_are_refused(call: object) -> None:
    with pytest.raises(ValueError):
        call()  # type: ignore[operator]
