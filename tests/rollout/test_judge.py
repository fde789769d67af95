"""The judge: several metrics under one error rate, good on evidence alone, nothing taken back."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.rollout.evidence import BinTick, Counts, Tick
from engine.rollout.judge import Judge, Metric, judge

ALPHA = 0.01


def tick(y_c: int, y_b: int, n_c: int = 50, n_b: int = 450) -> Tick:
    return Tick(Counts(n_c, y_c), Counts(n_b, y_b))


def drawn(rng: np.random.Generator, canary: float, baseline: float, ticks: int,
          n_c: int = 50, n_b: int = 450) -> list[Tick]:
    return [tick(int(c), int(b), n_c, n_b) for c, b in zip(
        rng.binomial(n_c, canary, ticks), rng.binomial(n_b, baseline, ticks), strict=True)]


def test_identical_versions_are_rarely_called_bad_however_often_one_looks():
    rng = np.random.default_rng(20261124)
    bad = sum(judge(drawn(rng, 0.01, 0.01, 180), alpha=0.05).verdict == "bad" for _ in range(400))
    assert bad / 400 <= 0.05


def test_a_canary_with_five_times_the_errors_is_found_within_seconds():
    rng = np.random.default_rng(7)
    found = [judge(drawn(rng, 0.05, 0.01, 60), alpha=ALPHA).decided_at or 999 for _ in range(200)]
    assert np.median(found) <= 8


def test_a_verdict_is_never_taken_back():
    ticks = [tick(20, 1)] * 3 + [tick(0, 50)] * 50
    found = judge(ticks, alpha=ALPHA)
    assert found.verdict == "bad"
    assert found.ln_e[-1] < 0 < math.log(1 / ALPHA) <= found.ln_e[found.decided_at - 1]
    assert found.decided_at == 1 or found.ln_e[found.decided_at - 2] < math.log(1 / ALPHA)


def test_no_ticks_are_no_verdict():
    found = judge([], alpha=ALPHA)
    assert (found.ln_e, found.verdict, found.decided_at) == ([], "undecided", None)


def test_the_errors_of_one_type_alone_can_decide_and_are_named():
    judging = Judge(ALPHA, [Metric("errors", ALPHA / 2), Metric("errors: timeout", ALPHA / 2)])
    for _ in range(50):
        verdict = judging.add({"errors": tick(5, 45), "errors: timeout": tick(4, 4)})
    assert verdict.verdict == "bad"
    assert verdict.by == "errors: timeout"
    assert verdict.ln_e["errors"] < 0


def test_a_metric_that_reaches_its_own_line_decides_without_the_others():
    """E_i ≥ 1/α_i brings the weighted mean to 1/α: one rule covers both."""
    shares = [0.001, 0.009]
    judging = Judge(ALPHA, [Metric("small", shares[0]), Metric("large", shares[1])])
    while True:
        verdict = judging.add({"small": tick(5, 1), "large": tick(0, 9)})
        if verdict.ln_e["small"] >= -math.log(shares[0]):
            break
    assert verdict.verdict == "bad"
    assert verdict.by == "small"


def test_an_advisory_metric_shows_and_decides_nothing():
    judging = Judge(ALPHA, [Metric("errors", ALPHA), Metric("latency p99", 0.0)])
    for _ in range(20):
        verdict = judging.add({"errors": tick(0, 4), "latency p99": tick(25, 4)})
    assert verdict.ln_e["latency p99"] > 20
    assert verdict.verdict == "undecided"


def test_nothing_measured_is_neither_bad_nor_good():
    judging = Judge(ALPHA, [Metric("errors", ALPHA, limit=1.5)])
    for _ in range(1000):
        verdict = judging.add({})
    assert verdict.verdict == "undecided"
    assert verdict.ln_e == verdict.ln_good == {"errors": 0.0}


def test_good_wants_evidence_on_each_metric_with_a_limit():
    metrics = [Metric("errors", ALPHA / 2, limit=1.5), Metric("latency p99", ALPHA / 2, limit=1.5)]
    judging = Judge(ALPHA, metrics)
    for _ in range(2000):
        verdict = judging.add({"errors": tick(1, 18)})
    assert verdict.ln_good["errors"] > verdict.threshold
    assert verdict.verdict == "undecided"
    for _ in range(2000):
        verdict = judging.add({"latency p99": tick(1, 18)})
    assert verdict.verdict == "good"


def test_a_canary_at_the_limit_is_rarely_called_good():
    rng = np.random.default_rng(11)

    def good() -> bool:
        judging = Judge(0.05, [Metric("errors", 0.05, tolerated_ratio=2, limit=1.5)])
        return any(judging.add({"errors": each}).verdict == "good"
                   for each in drawn(rng, 0.015, 0.01, 180))

    assert sum(good() for _ in range(400)) / 400 <= 0.05


def test_bad_wins_over_good():
    judging = Judge(ALPHA, [Metric("errors", ALPHA / 2, limit=1.5), Metric("crashes", ALPHA / 2)])
    for _ in range(2000):
        verdict = judging.add({"errors": tick(1, 18), "crashes": tick(3, 1)})
    assert verdict.ln_good["errors"] > verdict.threshold
    assert verdict.verdict == "bad"


def test_the_classes_of_the_predictions_are_judged_beside_the_errors():
    judging = Judge(ALPHA, [Metric("errors", ALPHA / 2),
                            Metric("predictions", ALPHA / 2, bins=("late", "on time"))])
    for _ in range(60):
        verdict = judging.add({"errors": tick(0, 4), "predictions": BinTick(
            {"late": 25, "on time": 25}, {"late": 90, "on time": 360})})
    assert (verdict.verdict, verdict.by) == ("bad", "predictions")


@pytest.mark.parametrize("alpha, metrics, said", [
    (0.0, [], "between 0 and 1"), (1.0, [], "between 0 and 1"), (math.nan, [], "between 0 and 1"),
    (0.01, [Metric("a", 0.01), Metric("b", 0.001)], "more than 0.01"),
    (0.01, [Metric("a", -0.01)], "negative"), (0.01, [Metric("a", math.nan)], "negative"),
    (0.01, [Metric("a", 0.001), Metric("a", 0.001)], "same name"),
    (0.01, [Metric("a", 0.001, limit=1.5, bins=("x", "y"))], "no limit"),
])
def test_a_judge_that_could_not_keep_its_word_is_refused(alpha, metrics, said):
    with pytest.raises(ValueError, match=said):
        Judge(alpha, metrics)


def test_eight_equal_parts_may_add_up_to_alpha():
    Judge(0.01, [Metric(str(i), 0.01 / 8) for i in range(8)])
    Judge(0.3, [Metric(str(i), 0.1) for i in range(3)])


@pytest.mark.parametrize("counts", [{"other": tick(0, 0)}, {"errors": BinTick({}, {})}])
def test_counts_that_belong_to_no_metric_are_refused(counts):
    with pytest.raises(ValueError, match="no such metric"):
        Judge(ALPHA, [Metric("errors", ALPHA)]).add(counts)
