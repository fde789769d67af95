"""Paired tests against published examples and independent implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.pipeline.paired_tests import PairedProportions, delong, holm, mcnemar, paired_t, wilcoxon

# DeLong, DeLong and Clarke-Pearson (1988), as in SAS/STAT's example "Comparing Receiver Operating
# Characteristic Curves": albumin, total protein, Krebs-Goplerud score, 1 if surgery did not help.
OVARIAN = np.fromstring("""
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1""", sep=" ").reshape(-1, 4)
ALBUMIN, PROTEIN, KG, POPIND = OVARIAN.T


@pytest.mark.parametrize("marker, difference, error, chi_square, p", [
    (ALBUMIN, 0.0108, 0.0953, 0.0127, 0.9102), (PROTEIN, -0.0780, 0.1046, 0.5554, 0.4561)])
def test_delong_gives_what_sas_publishes_for_ovarian_cancer(marker, difference, error, chi_square, p):
    found = delong(POPIND == 0, KG, -marker)
    assert (found.difference, found.error) == pytest.approx((difference, error), abs=5e-5)
    assert (found.statistic**2, found.p) == pytest.approx((chi_square, p), abs=1e-4)


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


@pytest.mark.parametrize("first, second, p", [(1, 7, 0.0703125), (6, 16, 0.0525), (0, 0, 1.0), (5, 5, 1.0)])
def test_mcnemar_gives_the_published_exact_p(first, second, p):
    """Bentur et al. 2009 and Cavo et al. 2012, in Fagerland, Lydersen and Laake (2013)."""
    assert mcnemar(first, second).p == pytest.approx(p, abs=5e-5) == mcnemar(second, first).p


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_a_binomial_test(first, second):
    if first + second:
        assert mcnemar(first, second).p == pytest.approx(stats.binomtest(first, first + second).pvalue)


@pytest.mark.parametrize("b, c, n, confidence, low, high, digits", [
    (6, 16, 161, 0.95, -0.1240, -0.0054, 4),  # Cavo et al. 2012, in Fagerland, Lydersen and Laake (2017)
    (16, 8, 86, 0.95, -0.020, 0.207, 3),  # Agresti and Min (2005)
    (0, 1, 44, 0.90, -0.096, 0.037, 3),  # Tango (1998)
])
def test_a_difference_of_accuracies_has_the_published_score_interval(b, c, n, confidence, low, high, digits):
    found = PairedProportions(b, c, n).interval(confidence)
    assert found == pytest.approx((low, high), abs=0.51 * 10**-digits)


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
