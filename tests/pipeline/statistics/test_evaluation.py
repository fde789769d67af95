"""An evaluation says how good a model is and how sure that is: intervals cover what they claim to."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from engine.errors import UsageError
from engine.pipeline.statistics import bootstrap
from engine.pipeline.statistics.evaluation import Estimate, Evaluation, evaluate, segments_of
from engine.pipeline.statistics.labelled import labelled
from engine.pipeline.statistics.metrics import measure
from tests.pipeline.statistics.simulated import scored


def of(found: Evaluation, name: str, segment: str | None = None) -> Estimate:
    named = {one.name: one.metrics for one in found.segments}
    metrics = found.metrics if segment is None else named[segment]
    return next(one for one in metrics if one.metric == name)


def coverage(make, name: str, truth: float, runs: int, resamples: int = 400) -> tuple[float, float, float]:
    """The share of runs whose interval covers, and that misses below and above."""
    low = high = none = 0
    for run in range(runs):
        rng = np.random.default_rng([run, 7])
        found = evaluate(make(rng), [name], rng=rng, resamples=resamples).metrics[0]
        none += found.low is None
        low += found.low is not None and found.low > truth
        high += found.high is not None and found.high < truth
    assert none < runs / 20
    return 1 - (low + high) / (runs - none), low / runs, high / runs


def truth(name: str) -> float:
    return measure(name, scored(np.random.default_rng(0), 1_000_000))


@pytest.mark.parametrize("name, n", [("log_loss", 40), ("roc_auc", 80), ("pr_auc", 120), ("f1", 120)])
def test_an_interval_at_95_percent_covers_the_true_value_about_95_times_in_100(name, n):
    covers, below, above = coverage(lambda rng: scored(rng, n), name, truth(name), 400)
    assert covers > 0.92  # the error of the simulation is 0.011
    assert below < 0.05 and above < 0.05


def test_an_exact_interval_of_accuracy_covers_at_any_n():
    for n in (5, 12, 30):
        found = coverage(lambda rng, n=n: scored(rng, n, signal=3), "accuracy", accuracy_at_3(), 300)
        assert found[0] >= 0.93


def accuracy_at_3() -> float:
    big = scored(np.random.default_rng(1), 1_000_000, signal=3)
    return float(((big.scores >= 0.5) == big.labels).mean())


def test_rows_of_one_group_are_dependent_and_only_an_interval_by_groups_covers():
    def grouped(rng):
        who = np.repeat(np.arange(30), 20)
        labels = rng.normal(size=600)
        return labelled("regression", labels, labels + rng.normal(size=30)[who] + 0.3 * rng.normal(size=600),
                        groups=who)

    def rows_alone(rng):
        data = grouped(rng)
        return labelled("regression", data.labels, data.scores)

    true_mse = 1 + 0.3**2
    assert coverage(grouped, "mse", true_mse, 300)[0] > 0.90  # 30 groups of a skewed loss
    assert coverage(rows_alone, "mse", true_mse, 100)[0] < 0.6


def test_poisson_counts_give_the_interval_that_drawing_with_replacement_gives(monkeypatch):
    data = scored(np.random.default_rng(3), 3000)
    drawn = evaluate(data, ["log_loss", "roc_auc"], rng=np.random.default_rng(1), resamples=4000)
    monkeypatch.setattr(bootstrap, "POISSON_FROM", 1000)
    poisson = evaluate(data, ["log_loss", "roc_auc"], rng=np.random.default_rng(2), resamples=4000)
    for name in ("log_loss", "roc_auc"):
        one, other = of(drawn, name), of(poisson, name)
        width = one.high - one.low
        assert other.high - other.low == pytest.approx(width, rel=0.06)
        assert (other.low, other.high) == pytest.approx((one.low, one.high), abs=0.06 * width)


def test_the_poisson_counts_are_poisson():
    table = bootstrap._poisson_table()
    assert [np.mean(table == k) for k in range(7)] == pytest.approx(stats.poisson(1).pmf(range(7)), abs=3e-5)


def test_a_bca_interval_of_a_mean_is_scipys_but_for_its_widening():
    rng = np.random.default_rng(5)
    losses = rng.exponential(size=150)
    data = labelled("regression", np.zeros(150), losses)
    mine = of(evaluate(data, ["mae"], rng=rng, resamples=20_000), "mae")
    theirs = stats.bootstrap((losses,), np.mean, n_resamples=20_000, rng=rng).confidence_interval
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)
    assert mine.high - mine.low > theirs.high - theirs.low


def test_an_exact_interval_is_scipys():
    data = labelled("binary", [1] * 18 + [0] * 2, [0.9] * 20)
    found = of(evaluate(data, ["accuracy"], rng=np.random.default_rng(0)), "accuracy")
    wanted = stats.binomtest(18, 20).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high)) and found.method == "exact"


def test_twenty_right_answers_out_of_twenty_are_not_certainty():
    found = evaluate(labelled("binary", [1, 0] * 10, [0.9, 0.1] * 10), rng=np.random.default_rng(0))
    assert of(found, "accuracy").low == pytest.approx(0.025 ** (1 / 20))
    auc = of(found, "roc_auc")
    assert (auc.value, auc.low, auc.high) == (1, None, None) and "every resample gives the same" in auc.why


def test_strata_keep_their_shares_and_narrow_what_they_explain():
    rng = np.random.default_rng(4)
    easy = rng.random(400) < 0.5
    labels = rng.normal(size=400)
    data = labelled("regression", labels, labels + np.where(easy, 0.1, 5) * rng.choice([-1, 1], 400))
    free, kept = (of(evaluate(data, ["mae"], rng=np.random.default_rng(1), strata=strata), "mae")
                  for strata in (None, easy))
    assert free.high - free.low > 0.4
    assert kept.high == pytest.approx(kept.low) or kept.low is None  # within a stratum every loss is the same


def test_segments_are_measured_by_themselves_and_small_ones_are_flagged():
    data = scored(np.random.default_rng(6), 600)
    names = np.where(np.arange(600) < 500, "AA", np.where(np.arange(600) < 594, "DL", "HA"))
    found = evaluate(data, ["log_loss", "roc_auc"], rng=np.random.default_rng(0),
                     segments=segments_of("carrier", names))
    assert [s.name for s in found.segments] == ["carrier=AA", "carrier=DL", "carrier=HA"]
    assert [s.small for s in found.segments] == [False, True, True]
    assert "carrier=DL has only" in found.segments[1].why and "of class" in found.segments[1].why
    alone = evaluate(data.only(names == "AA"), ["log_loss"], rng=np.random.default_rng(0))
    assert of(found, "log_loss", "carrier=AA").value == alone.metrics[0].value
    tiny = of(found, "log_loss", "carrier=HA")
    assert tiny.value is not None and tiny.low is None and tiny.why == "6 rows are too few for an interval"
    wide, narrow = of(found, "log_loss", "carrier=DL"), of(found, "log_loss", "carrier=AA")
    assert wide.high - wide.low > narrow.high - narrow.low
    assert any("about 0.2 miss" in note for note in found.notes)
    assert any(note == "Too small to conclude from: carrier=DL, carrier=HA." for note in found.notes)


def test_a_segment_of_one_class_has_no_auc_and_says_why_but_has_its_other_metrics():
    data = labelled("binary", [0, 1] * 50 + [0] * 60, [0.3, 0.6] * 50 + [0.2] * 60)
    found = evaluate(data, ["roc_auc", "brier"], rng=np.random.default_rng(0),
                     segments={"quiet": np.arange(160) >= 100})
    auc = of(found, "roc_auc", "quiet")
    assert auc.value is None and auc.why == (
        "roc_auc needs rows of every class, and of class 1 there is none among 60")
    assert of(found, "brier", "quiet").value == pytest.approx(0.04)


def test_an_evaluation_on_little_says_so():
    found = evaluate(scored(np.random.default_rng(1), 60), ["brier"], rng=np.random.default_rng(0))
    assert any(note.startswith("Only 2") and "rows of class 1: intervals from so few" in note
               for note in found.notes)


def test_together_widens_every_interval_so_that_all_hold_at_once():
    data = scored(np.random.default_rng(6), 600)
    masks = segments_of("half", np.arange(600) % 4)
    alone, together = (evaluate(data, ["log_loss"], rng=np.random.default_rng(0), segments=masks,
                                together=flag) for flag in (False, True))
    assert together.confidence == pytest.approx(1 - 0.05 / 5)
    for one, wider in zip(alone.segments, together.segments, strict=True):
        assert wider.metrics[0].high - wider.metrics[0].low > one.metrics[0].high - one.metrics[0].low
    assert any("all 5 hold together at 95%" in note for note in together.notes)


def test_all_intervals_together_miss_in_one_evaluation_of_twenty():
    missed = 0
    wanted, masks = truth("log_loss"), segments_of("s", np.arange(320) % 4)
    for run in range(120):
        rng = np.random.default_rng([run, 3])
        found = evaluate(scored(rng, 320), ["log_loss"], rng=rng, segments=masks, together=True)
        ends = [e for s in found.segments for e in s.metrics]
        missed += any(not e.low <= wanted <= e.high for e in ends)
    assert missed / 120 < 0.05 + 2.6 * 0.0199


@pytest.mark.parametrize("more, said", [
    ({"metrics": ["auc"]}, "there is no metric auc of a binary task"),
    ({"segments": {"none": np.zeros(100, bool)}}, "the segment none is empty"),
    ({"segments": {"short": np.ones(3, bool)}}, "the segment short is not one true or false for each of 100"),
    ({"confidence": 95}, "a confidence lies between 0.5 and 1, not at 95"),
    ({"resamples": 10}, "10 resamples are too few"),
    ({"strata": np.zeros(3)}, "there are 100 rows and 3 strata"),
])
def test_what_cannot_be_evaluated_is_refused_in_a_sentence(more, said):
    with pytest.raises(UsageError, match=said):
        evaluate(scored(np.random.default_rng(0), 100), rng=np.random.default_rng(0), **more)


def test_a_metric_that_all_rows_cannot_give_is_refused_when_asked_for_and_explained_otherwise():
    data = labelled("binary", [0] * 30, [0.2] * 30)
    with pytest.raises(UsageError, match="needs rows of every class"):
        evaluate(data, ["roc_auc"], rng=np.random.default_rng(0))
    assert "needs rows of every class" in of(evaluate(data, rng=np.random.default_rng(0)), "roc_auc").why


def test_a_segment_that_cuts_a_query_or_a_column_of_too_many_values_is_refused():
    data = labelled("ranking", [1, 0, 1, 0], [2, 1, 2, 1], groups=[0, 0, 1, 1])
    with pytest.raises(UsageError, match="takes only a part of 1 queries"):
        evaluate(data, rng=np.random.default_rng(0), segments={"s": np.array([True, False, True, True])})
    with pytest.raises(UsageError, match="the column tail has 60 values, more than 50 segments"):
        segments_of("tail", np.arange(60))


def test_the_same_seed_gives_the_same_evaluation():
    data = scored(np.random.default_rng(0), 200)
    first, second = (evaluate(data, rng=np.random.default_rng(9)) for _ in range(2))
    assert first == second and first != evaluate(data, rng=np.random.default_rng(8))
    assert json.loads(json.dumps(dataclasses.asdict(first)))["metrics"][0]["low"] == first.metrics[0].low
