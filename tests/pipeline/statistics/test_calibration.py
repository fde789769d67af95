"""A reliability table says whether probabilities mean what they say, and what chance alone would show."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from engine.errors import UsageError
from engine.pipeline.statistics.calibration import calibration, distribution
from engine.pipeline.statistics.labelled import labelled
from tests.pipeline.statistics.simulated import scored


def test_the_table_is_scikit_learns_with_bins_of_equal_counts():
    data = scored(np.random.default_rng(0), 1000)
    found = calibration(data)
    seen, said = calibration_curve(data.labels, data.scores, n_bins=10, strategy="quantile")
    assert [b.seen for b in found.bins] == pytest.approx(seen)
    assert [b.said for b in found.bins] == pytest.approx(said)
    assert sum(b.rows for b in found.bins) == 1000
    assert found.ece == pytest.approx(np.mean(np.abs(seen - said)))


def test_a_perfect_models_ece_is_what_is_expected_by_chance():
    found = [calibration(scored(np.random.default_rng(seed), 800)) for seed in range(200)]
    expected = np.mean([one.ece_by_chance for one in found])
    assert np.mean([one.ece for one in found]) == pytest.approx(expected, rel=0.05)
    assert np.mean(["by chance" in one.says for one in found]) > 0.95


def test_scores_that_are_too_high_are_told_as_such():
    data = scored(np.random.default_rng(0), 5000)
    found = calibration(labelled("binary", data.labels, np.clip(data.scores + 0.1, 0, 1)))
    assert found.bias == pytest.approx(0.1, abs=0.02) and "too high by 0.1" in found.says
    assert any(b.interval[1] < b.said for b in found.bins)


def test_of_many_classes_it_is_the_confidence_of_the_one_said():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([1, 1, 1], 3000)
    labels = (rng.random(3000)[:, None] > scores.cumsum(axis=1)).sum(axis=1)
    found = calibration(labelled("multiclass", labels, scores))
    assert found.ece < 0.04 and found.bins[0].low >= 1 / 3


def test_equal_scores_stay_in_one_bin_and_weighted_rows_have_no_exact_interval():
    found = calibration(labelled("binary", [0, 1] * 20, [0.5] * 40))
    assert [(b.rows, b.seen, b.said) for b in found.bins] == [(40, 0.5, 0.5)] and found.ece == 0
    assert calibration(labelled("binary", [0, 1], [0.2, 0.9], weights=[1, 3])).bins[0].interval is None


def test_quantities_have_no_calibration_but_a_distribution():
    data = labelled("regression", [1, 2, 3], [1.0, 2.0, 6.0])
    with pytest.raises(UsageError, match="a regression task has no probabilities"):
        calibration(data)
    found = distribution(data)
    assert (found.mean, found.least, found.most, found.quantiles[0.5], found.shares) == (3, 1, 6, 2, {})


def test_the_distribution_says_how_many_rows_each_class_was_said_to_be():
    data = labelled("binary", ["no", "no", "yes", "no"], [0.1, 0.2, 0.7, 0.9], classes=["no", "yes"])
    assert distribution(data).shares == {"no": 0.5, "yes": 0.5}
