"""Paired tests against published examples and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from engine.pipeline.statistics.paired_tests import (
    PairedProportions,
    delong,
    holm,
    mcnemar,
    paired_t,
    wilcoxon,
)

# Of 113 patients after a subarachnoid haemorrhage (Turck et al. 2010; data set aSAH of the R package pROC):
# the WFNS grade, S100B, NDKA, and 1 where the outcome was poor.
ASAH = np.fromstring("""
1 0.13 3.01 0  1 0.14 8.54 0  1 0.1 8.09 0  1 0.04 10.42 0  3 0.13 17.4 1  2 0.1 12.75 1  5 0.47 6.0 0
4 0.16 13.2 1  1 0.18 15.54 0  2 0.1 6.01 0  5 0.12 15.96 1  2 0.1 17.86 0  5 0.44 5.18 1  5 0.71 8.9 1
1 0.04 13.41 0  2 0.08 20.75 0  5 0.49 11.6 1  2 0.04 16.11 0  2 0.07 32.37 1  5 0.33 54.82 1
2 0.09 32.41 1  1 0.09 49.94 0  1 0.07 40.34 1  1 0.11 9.47 0  1 0.07 6.29 0  2 0.17 12.53 0  1 0.07 6.54 0
2 0.11 6.3 0  1 0.13 80.3 0  1 0.19 12.8 0  3 0.05 9.8 0  4 0.16 9.81 0  2 0.41 9.85 1  1 0.14 18.21 0
4 0.34 5.03 0  5 0.35 14.04 1  4 0.48 21.93 1  1 0.09 8.02 0  4 0.96 7.42 1  2 0.25 8.38 1  5 0.5 6.59 0
5 0.46 9.63 0  1 0.16 13.12 0  1 0.07 7.96 0  2 0.43 14.34 0  4 0.45 41.43 0  1 0.11 7.63 0  1 0.08 7.06 0
2 0.09 12.59 0  5 0.86 13.56 1  5 0.52 3.87 1  2 0.08 9.44 0  1 0.06 7.66 0  2 0.13 12.98 0  5 2.07 419.19 1
1 0.1 27.19 0  2 0.14 22.27 0  2 0.15 9.95 0  2 0.07 21.22 1  1 0.06 11.73 0  5 0.77 10.4 1  1 0.05 58.83 0
1 0.09 6.39 0  2 0.3 11.09 1  5 0.03 12.22 1  2 0.09 13.67 1  1 0.04 17.21 0  4 0.23 22.63 1  5 0.7 12.9 1
2 0.09 9.7 0  4 0.27 21.57 1  4 0.71 8.23 1  1 0.08 72.57 1  4 0.26 15.54 1  1 0.08 10.51 0  2 0.16 10.6 0
1 0.09 14.57 0  4 0.13 5.19 1  2 0.1 9.63 1  1 0.08 4.61 0  2 0.11 21.48 1  3 0.33 17.3 0  2 0.11 12.71 0
4 0.28 9.44 0  2 0.07 11.07 0  1 0.1 19.46 0  4 0.32 10.83 0  5 0.22 5.37 1  1 0.07 11.97 0  1 0.05 7.75 0
5 0.24 9.83 0  4 0.38 10.55 0  2 0.1 28.49 0  2 0.15 8.53 0  1 0.08 12.57 0  1 0.14 12.9 0  1 0.1 46.83 0
3 0.07 11.68 0  1 0.04 12.67 0  2 0.19 9.01 0  5 0.56 9.57 1  2 0.14 34.06 1  2 0.58 11.72 1  5 0.32 14.26 1
5 0.82 47.61 1  5 0.74 11.67 1  2 0.15 24.58 0  4 0.47 10.33 0  4 0.17 13.87 0  5 0.44 15.89 1
1 0.15 22.43 0  1 0.5 6.79 0  1 0.48 13.45 0""", sep=" ").reshape(-1, 4)
WFNS, S100B, NDKA, POOR = ASAH.T


@pytest.mark.parametrize("first, second, z, p, low, high", [
    (S100B, WFNS, 2.20898359144091, 0.0271757822291882, 0.0104061769564846, 0.174214419249478),
    (NDKA, WFNS, 2.79777591868904, 0.00514557970691098, 0.0634011709339876, 0.3600405634833566),
    (S100B, NDKA, -1.39077002573558, 0.164295175223054, -0.2876917446341914, 0.0488706064228094)])
def test_delong_gives_what_proc_does(first, second, z, p, low, high):
    """pROC's roc.test(method = "delong", paired = TRUE), as its own tests have it (tests/testthat/
    test-roc.test.R; Robin et al. 2011, BMC Bioinformatics 12:77). WFNS has ties, as a model of few leaves."""
    found = delong(POOR == 1, first, second)
    assert (found.statistic, found.p) == pytest.approx((z, p), rel=1e-9)
    reach = stats.norm.ppf(0.975) * found.error
    assert (found.difference - reach, found.difference + reach) == pytest.approx((low, high), rel=1e-9)


def by_the_definition(positive, first, second):
    """DeLong (1988), eq. 4 to 7, with every pair's kernel written out."""
    v10, v01, areas = [], [], []
    for scores in (first, second):
        x, y = scores[positive], scores[~positive]
        kernel = np.where(x[:, None] > y, 1.0, np.where(x[:, None] == y, 0.5, 0.0))
        v10.append(kernel.mean(axis=1))
        v01.append(kernel.mean(axis=0))
        areas.append(kernel.mean())
    s = np.cov(v10) / positive.sum() + np.cov(v01) / (~positive).sum()
    contrast = np.array([-1, 1])
    return areas[1] - areas[0], float(contrast @ s @ contrast) ** 0.5


@pytest.mark.parametrize("decimals", [1, 8])
def test_delong_is_its_definition_with_ties_and_without(decimals):
    rng = np.random.default_rng(0)
    positive = rng.random(90) < 0.4
    first, second = (np.round(rng.normal(positive, 1), decimals) for _ in range(2))
    found = delong(positive, first, second)
    assert (found.difference, found.error) == pytest.approx(by_the_definition(positive, first, second))


def test_models_that_rank_alike_have_no_difference():
    scores = np.array([0.1, 0.4, 0.3, 0.9])
    assert delong(np.array([False, True, False, True]), scores, scores * 2).p == 1


@pytest.mark.parametrize("first, second, p", [
    (6, 16, 0.052479),  # Cavo et al. 2012, as the R package contingencytables states it in its tests: the
    # companion of Fagerland, Lydersen and Laake (2017)
    (1, 7, 18 / 256),  # Bentur et al. 2009, ibid.; by hand: 2 × (1 + 8) of 2⁸ sequences are as uneven
    (2, 25, 2 * (1 + 27 + 351) / 2**27),  # Ezra et al. 2010, ibid.; by hand
    (0, 0, 1.0), (5, 5, 1.0)])
def test_mcnemar_gives_the_published_exact_p(first, second, p):
    assert mcnemar(first, second).p == pytest.approx(p, abs=5e-7) == mcnemar(second, first).p


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_a_binomial_test(first, second):
    if first + second:
        assert mcnemar(first, second).p == pytest.approx(stats.binomtest(first, first + second).pvalue)


def test_a_difference_of_accuracies_has_the_published_score_interval():
    """Cavo et al. 2012, as contingencytables has it in its tests: -0.1240 to -0.0054."""
    assert PairedProportions(6, 16, 161).interval(0.95) == pytest.approx((-0.1240, -0.0054), abs=5.1e-5)


@pytest.mark.parametrize("b, c, n", [(16, 8, 86), (1, 0, 44), (3, 12, 40)])
def test_at_an_end_of_the_score_interval_the_constrained_likelihoods_score_is_the_normal_quantile(b, c, n):
    """Tango (1998) by its definition: the nuisance parameter is found by search, not by the closed form."""
    for end, z in zip(PairedProportions(b, c, n).interval(0.95), (1.959964, -1.959964), strict=True):
        def minus_log_likelihood(other, end=end):
            first, rest = other + end, 1 - 2 * other - end
            terms = [(b, first), (c, other), (n - b - c, rest)]
            return -sum(count * np.log(max(p, 1e-300)) for count, p in terms if count)
        found = optimize.minimize_scalar(minus_log_likelihood, bounds=(max(0.0, -end), (1 - end) / 2),
                                         method="bounded", options={"xatol": 1e-12})
        variance = n * (2 * found.x + end * (1 - end))
        assert (b - c - n * end) / variance**0.5 == pytest.approx(z, abs=1e-4)


def test_models_that_agree_on_every_one_of_50_rows_may_differ_on_others():
    low, high = PairedProportions(0, 0, 50).interval(0.95)
    z2 = stats.norm.ppf(0.975) ** 2
    assert (low, high) == pytest.approx((-z2 / (50 + z2), z2 / (50 + z2)))  # Tango's own closed form for this


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 100))
def test_the_interval_and_the_p_value_say_the_same(b, c, others):
    if b + c + others == 0:
        return
    pair = PairedProportions(b, c, b + c + others)
    low, high = pair.interval(0.95)
    assert -1 <= low <= pair.estimate + 1e-9 and pair.estimate - 1e-9 <= high <= 1
    if low > -0.999:
        assert pair.p_at_most(low) == pytest.approx(0.025, abs=1e-6)
        assert pair.p_at_most(low) + pair.p_at_least(low) == pytest.approx(1)


def test_paired_t_and_wilcoxon_are_scipys():
    rng = np.random.default_rng(0)
    first, second = rng.exponential(size=(2, 70))
    t = stats.ttest_rel(second, first)
    mine = paired_t(first, second, np.ones(70))
    assert (mine.statistic, mine.p) == pytest.approx((t.statistic, t.pvalue))
    assert wilcoxon(first, second).p == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert paired_t(first, first, np.ones(70)).p == wilcoxon(first, first).p == 1


def test_paired_t_over_groups_takes_each_group_as_one():
    """Losses that are the same twenty times over are no more evidence than once."""
    rng = np.random.default_rng(1)
    first, second = rng.exponential(size=(2, 30))
    once = paired_t(first, second, np.ones(30))
    twenty = paired_t(first * 20, second * 20, np.full(30, 20.0))
    assert (twenty.difference, twenty.p) == pytest.approx((once.difference, once.p))


def test_holm_multiplies_by_how_many_are_left_and_never_falls():
    """By hand: 0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04 × 1, which may not fall below the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_rejects_more_than_no_adjustment_nor_less_than_bonferroni(ps):
    for p, adjusted in zip(ps, holm(ps), strict=True):
        assert p <= adjusted <= min(1, p * len(ps)) + 1e-12
