"""Effect sizes and chances against published formulas, scipy and simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.pipeline.expectations import effects

counts = st.lists(st.integers(0, 500), min_size=2, max_size=8)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.integers(30, 400), st.integers(30, 400), st.booleans())
def test_the_distance_is_scipys_over_all_points_and_no_larger_over_a_few(
        seed: int, n: int, m: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(0.3, 1.2, size=m)
    if ties:
        a, b = a.round(), b.round()
    every = np.unique(np.concatenate([a, b]))

    def upto(x: np.ndarray, at: np.ndarray) -> np.ndarray:
        return np.searchsorted(np.sort(x), at, side="right") / len(x)

    full = effects.ks_distance(upto(a, every), upto(b, every))
    assert full == pytest.approx(stats.ks_2samp(a, b).statistic)
    few = np.quantile(a, [0.1, 0.5, 0.9], method="inverted_cdf")
    assert effects.ks_distance(upto(a, few), upto(b, few)) <= full + 1e-12


@pytest.mark.parametrize(("d", "n", "m"), [(0.1, 500, 800), (0.2, 300, 300), (0.05, 5000, 9000)])
def test_the_chance_of_a_distance_bounds_the_exact_one(d: float, n: int, m: int) -> None:
    z = d * math.sqrt(n * m / (n + m))
    assert stats.kstwobign.sf(z) <= effects.ks_chance(d, n, m) <= 3 * stats.kstwobign.sf(z)


def test_the_standardized_difference_is_cohens_d_for_groups_of_one_size() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=200), rng.normal(0.5, 2, size=200)
    # From t = d * sqrt(n / 2) for equal groups, with scipy's t.
    expected = stats.ttest_ind(b, a).statistic / math.sqrt(200 / 2)
    found = effects.standardized_difference(a.mean(), a.std(ddof=1), b.mean(), b.std(ddof=1))
    assert found == pytest.approx(expected)


def test_the_stability_index_is_jeffreys_divergence() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    assert effects.stability_index(p, q) == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))


@settings(deadline=None, max_examples=50)
@given(counts, st.integers(0, 2**32))
def test_v_is_scipys_when_both_rows_weigh_the_same(row: list[int], seed: int) -> None:
    other = np.random.default_rng(seed).permutation(np.array(row) + 1)
    first = np.array(row) + 1
    observed = np.stack([first, other])
    expected = stats.contingency.association(observed, method="cramer", correction=False)
    assert effects.cramers_v(first / first.sum(), other / other.sum()) == pytest.approx(expected, abs=1e-9)


def test_v_does_not_shrink_with_the_size_of_the_history() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    raw = [stats.contingency.association((np.stack([p * n, q * 100])).astype(int), method="cramer",
                                         correction=False) for n in (100, 1_000_000)]
    assert raw[1] < 0.01 < 0.3 < raw[0] == pytest.approx(effects.cramers_v(p, q))


def test_the_chance_of_shares_is_that_of_pearsons_test() -> None:
    a, b = np.array([400.0, 300, 190, 110]), np.array([190.0, 160, 120, 60])
    assert effects.chi_square(a, b) == pytest.approx(
        stats.chi2_contingency(np.stack([a, b]), correction=False).pvalue)


def test_rare_cells_are_compared_together() -> None:
    rare = effects.chi_square(np.array([1000.0, 500, 3, 2, 1]), np.array([990.0, 510, 0, 0, 6]))
    assert rare == pytest.approx(
        stats.chi2_contingency([[1000, 506], [990, 516]], correction=False).pvalue)


def test_a_rare_cell_that_grew_is_found_by_its_own_exact_test() -> None:
    a, b = np.array([980.0, 18, 2]), np.array([180.0, 8, 12])
    exact = stats.binomtest(12, 14, 200 / 1200, alternative="greater").pvalue
    assert effects.cell_chance(a, b) == pytest.approx(2 * 3 * exact)
    assert effects.homogeneity_chance(a, b) == pytest.approx(2 * 2 * 3 * exact)
    assert 2 * 2 * 3 * exact < 1e-5


@pytest.mark.parametrize(("n", "m"), [(20_000, 300), (2_000, 2_000), (300, 20_000), (100, 100)])
def test_shares_of_one_kind_are_seldom_called_different(n: int, m: int) -> None:
    rng = np.random.default_rng([n, m])
    shares = [0.9, 0.05, 0.03, 0.01, 0.006, 0.003, 0.001]
    old, new = rng.multinomial(n, shares, 4000), rng.multinomial(m, shares, 4000)
    alarms = sum(effects.homogeneity_chance(a, b) < 1e-3 for a, b in zip(old, new, strict=True))
    assert alarms <= 9  # at most 4 are expected; 10 or more have a chance of 0.8 %


def test_h_is_cohens() -> None:
    # Cohen 1988, table 6.2.2: phi(.50) - phi(.40) = 1.571 - 1.369.
    assert effects.cohens_h(0.4, 0.5) == pytest.approx(1.571 - 1.369, abs=1e-3)


def test_q_is_the_difference_of_fishers_z() -> None:
    # Cohen 1988, table 4.2.1: z(.50) = .549, z(.24) = .245.
    assert effects.cohens_q(0.24, 0.5) == pytest.approx(0.549 - 0.245, abs=1e-3)


@pytest.mark.parametrize(("k", "n", "m"), [(1, 5, 3), (2, 5, 3), (3, 10, 12), (7, 100, 50)])
def test_the_chance_of_rows_beyond_all_others_is_that_of_the_top_ranks(k: int, n: int, m: int) -> None:
    # All of the k top ranks are new rows: a draw of k from n + m without one of the n.
    assert effects.exceedance_chance(k, n, m) == pytest.approx(stats.hypergeom.pmf(k, n + m, m, k))


@pytest.mark.parametrize("draw", [
    lambda rng, n: rng.normal(size=n), lambda rng, n: rng.standard_cauchy(n), lambda rng, n: rng.random(n),
    lambda rng, n: rng.exponential(size=n), lambda rng, n: rng.standard_t(3, n),
    lambda rng, n: rng.lognormal(0, 1.5, n), lambda rng, n: rng.pareto(1, n)])
@pytest.mark.parametrize(("n", "m"), [(200, 200), (1000, 1000), (500, 5000)])
def test_a_far_value_is_called_no_rarer_than_it_is(
        draw: Callable[[np.random.Generator, int], np.ndarray], n: int, m: int) -> None:
    rng, level, tail = np.random.default_rng(11), 1e-3, max(10, n // 100)
    alarms = 0
    for _ in range(1000):
        old = draw(rng, n)
        new = float(draw(rng, m).max() - np.median(old))
        old = np.sort(old - np.median(old))
        inner, middle = (float(old[-tail - 1]), tail / n), (float(old[-5 * tail - 1]), 5 * tail / n)
        span = float(np.ptp(old))
        alarms += effects.far_chance(new, float(old[-1]), inner, middle, n, m, span=span) < level
    assert alarms <= 5


def test_a_sentinel_is_far() -> None:
    old = np.sort(np.random.default_rng(1).normal(0, 10, 1000))
    inner, middle = (float(old[-11]), 0.01), (float(old[-51]), 0.05)
    assert effects.far_chance(9999, float(old[-1]), inner, middle, 1000, 1000, span=60) < 1e-6


def test_unseen_categories_are_as_likely_as_good_says() -> None:
    # Many categories were seen once: a twentieth of the new rows may well be in new ones.
    assert effects.unseen_chance(50, 1000, once=50, n=1000, level=1e-3) > 1e-3
    # None was seen once: ten rows in a million may be, a hundred hardly.
    assert effects.unseen_chance(10, 10**6, once=0, n=10**6, level=1e-3) > 1e-3
    assert effects.unseen_chance(100, 10**6, once=0, n=10**6, level=1e-3) < 1e-12


def table_of(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A count of each pair of values, and the grades of both."""
    _, i = np.unique(x, return_inverse=True)
    _, j = np.unique(y, return_inverse=True)
    found = np.zeros((i.max() + 1, j.max() + 1))
    np.add.at(found, (i, j), 1)

    def middle(counts: np.ndarray) -> np.ndarray:
        return (np.cumsum(counts) - counts / 2) / counts.sum()

    return found, middle(found.sum(axis=1)), middle(found.sum(axis=0))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32), st.floats(-0.9, 0.9), st.sampled_from([0, 1, 6]))
def test_the_correlation_of_grades_is_spearmans(seed: int, rho: float, digits: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=200)
    y = rho * x + rng.normal(size=200)
    x, y = x.round(digits), y.round(digits)
    assert effects.grade_correlation(*table_of(x, y))[0] == pytest.approx(stats.spearmanr(x, y).statistic)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_error_of_a_correlation_is_its_spread_over_samples(rho: float) -> None:
    rng, found, errors = np.random.default_rng(8), [], []
    for _ in range(400):
        x = rng.normal(size=300)
        y = rho * x + math.sqrt(1 - rho * rho) * rng.normal(size=300)
        r, error, _ = effects.grade_correlation(*table_of(x.round(1), y.round(1)))
        found.append(math.atanh(r))
        errors.append(error)
    assert 0.9 * np.std(found) <= np.mean(errors) <= 1.3 * np.std(found)


def test_counts_are_compared_with_poissons_tails() -> None:
    assert effects.fewer_chance(40, 100) == pytest.approx(stats.poisson.cdf(40, 100))
    assert effects.more_chance(140, 100) == pytest.approx(stats.poisson.sf(139, 100))
    assert effects.two_sided(1.959964) == pytest.approx(0.05, abs=1e-6)
