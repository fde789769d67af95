"""Evidence that a version is no worse: below a fixed rate, below the baseline's, and what is judged by it."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.monitoring.sources.source import ERROR_TYPES
from engine.procedures.rollouts import Budget, Errors, Judging, Latency, Predictions, Quality, Rollout
from engine.rollout.evidence import BELOW, BelowRate, Counts, NotWorse, Tick, not_worse
from engine.rollout.judge import Judge, Metric
from engine.rollout.setup import Setup, setup

ALPHA = 0.01
SHARES = st.integers(0, 10**4).map(lambda part: part / 1e4)


def expectation(make, n_c: int, p_c: float, n_b: int = 1, p_b: float = 0.5) -> float:
    """E[E] after one tick of independent requests, summed over every outcome."""
    return math.fsum(stats.binom.pmf(y_c, n_c, p_c) * stats.binom.pmf(y_b, n_b, p_b)
                     * math.exp(make().add(Counts(n_c, y_c), Counts(n_b, y_b)))
                     for y_c, y_b in itertools.product(range(n_c + 1), range(n_b + 1)))


@given(st.integers(1, 30), st.floats(0.001, 0.6), SHARES)
@settings(max_examples=60, deadline=None)
def test_below_a_rate_its_expectation_is_at_most_one_at_that_rate_or_above(n, rate, share):
    assert expectation(lambda: BelowRate(rate), n, rate + (1 - rate) * share) <= 1 + 1e-9


@given(st.integers(1, 30), st.floats(0.001, 0.6))
@settings(max_examples=30, deadline=None)
def test_at_the_rate_itself_its_expectation_is_exactly_one(n, rate):
    assert expectation(lambda: BelowRate(rate), n, rate) == pytest.approx(1, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 12)), min_size=1, max_size=6),
       st.floats(0.001, 0.6))
@settings(max_examples=60, deadline=None)
def test_it_is_the_mixture_of_binomial_likelihood_ratios_against_that_rate(ticks, rate):
    """The textbook form: the probability of all counts at each alternative over that at the rate."""
    ticks = [(n, min(n, y)) for n, y in ticks]
    evidence = BelowRate(rate)
    for n, y in ticks:
        found = evidence.add(Counts(n, y), Counts(0, 0))
    ratios = [math.fsum(stats.binom.logpmf(y, n, share * rate) - stats.binom.logpmf(y, n, rate)
                        for n, y in ticks) for share in BELOW]
    most = max(ratios)
    wanted = most + math.log(math.fsum(math.exp(ratio - most) for ratio in ratios) / len(BELOW))
    assert found == pytest.approx(wanted, abs=1e-8)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.001, 0.95), SHARES, st.floats(1.05, 3),
       st.floats(0.001, 0.3))
@settings(max_examples=60, deadline=None)
def test_no_worse_with_a_floor_holds_its_level_beyond_both(n_c, n_b, p_b, share, limit, floor):
    least = limit * max(p_b, floor)
    if least <= 1:
        p_c = least + (1 - least) * share
        assert expectation(lambda: NotWorse(limit, floor), n_c, p_c, n_b, p_b) <= 1 + 1e-9


def test_two_versions_that_never_fail_can_be_shown_to_be_alike_only_with_a_floor():
    with_floor, without = not_worse(2.0, 0.005), not_worse(2.0)
    for _ in range(40):
        with_floor.add(Counts(50, 0), Counts(450, 0))
        without.add(Counts(50, 0), Counts(450, 0))
    assert without.ln_e == 0.0
    assert with_floor.ln_e > math.log(1 / ALPHA)


def test_a_tick_without_a_baseline_says_nothing_about_being_no_worse():
    evidence = NotWorse(2.0, 0.005)
    assert [evidence.add(Counts(500, 0), Counts(0, 0)) for _ in range(10)] == [0.0] * 10


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.001, 0.95), SHARES, st.floats(0.0, 0.5))
@settings(max_examples=40, deadline=None)
def test_leaving_failures_of_the_baseline_out_keeps_its_level(n_c, n_b, p_b, share, usual):
    least = 2 * max(p_b, 0.01)
    if least <= 1:
        p_c = least + (1 - least) * share
        assert expectation(lambda: NotWorse(2.0, 0.01, usual), n_c, p_c, n_b, p_b) <= 1 + 1e-9


def test_beside_a_baseline_that_breaks_down_nothing_is_shown_to_be_good():
    """The canary fails at four times the baseline's usual 1 %, which is no worse than its present 40 %."""
    known, unknown = NotWorse(2.0, 0.005, 0.01), NotWorse(2.0, 0.005, 0.5)
    for _ in range(300):
        known.add(Counts(50, 2), Counts(50, 20))
        unknown.add(Counts(50, 2), Counts(50, 20))
    assert known.ln_e < 1 < math.log(1 / ALPHA) < unknown.ln_e


def test_a_usual_share_is_known_from_enough_requests_of_before():
    usual = {n: setup(plan(), recorded=[n, n // 50]).metrics[0].usual for n in (99, 100, 5000)}
    assert usual == {99: None, 100: 0.02, 5000: 0.02} and setup(plan()).metrics[0].usual is None


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_that_is_none_is_refused(rate):
    with pytest.raises(ValueError, match="a rate lies between 0 and 1"):
        BelowRate(rate)


def test_a_judge_calls_good_what_never_fails_where_a_floor_says_what_does_not_matter():
    judging = Judge(ALPHA, [Metric("errors", ALPHA, limit=2.0, floor=0.005)])
    ticks = 0
    while judging.add({"errors": Tick(Counts(50, 0), Counts(450, 0))}).verdict != "good":
        ticks += 1
    assert 10 < ticks < 40  # some hundreds of requests, not one and not thousands


def test_a_canary_at_the_limit_of_the_floor_is_rarely_called_good():
    """The baseline fails once in 2,000, the floor is 0.5 %: at 1 % it must not pass as good."""
    import numpy as np

    rng = np.random.default_rng(5)

    def good() -> bool:
        judging = Judge(0.05, [Metric("errors", 0.05, tolerated_ratio=100, limit=2.0, floor=0.005)])
        canary, baseline = rng.binomial(50, 0.01, 180), rng.binomial(450, 0.0005, 180)
        return any(judging.add({"errors": Tick(Counts(50, int(c)), Counts(450, int(b)))}).verdict == "good"
                   for c, b in zip(canary, baseline, strict=True))

    assert sum(good() for _ in range(300)) / 300 <= 0.05


BINS = ["a", "b", "c"]


def plan(judge: Judging | None = None, **more) -> Rollout:
    return Rollout(service="flights", to="challenger", canary=[1, 100], judge=judge or Judging(), **more)


@pytest.mark.parametrize("errors, latency, predictions, quality, types, bins, labels", [
    case for case in itertools.product([True, False], [True, False], [True, False], [True, False],
                                       [True, False], [[], BINS], [True, False]) if case[0] or case[1]])
def test_whatever_is_critical_the_parts_add_up_to_alpha_at_most(
        errors, latency, predictions, quality, types, bins, labels):
    found = setup(plan(Judging(
        errors=Errors(critical=errors), latency=Latency(critical=latency), quality=Quality(critical=quality),
        predictions=Predictions(critical=predictions), types=types)), bins=bins, quality=labels)
    spent = math.fsum(metric.alpha for metric in found.metrics)
    assert spent <= ALPHA * (1 + 1e-12) and spent == pytest.approx(ALPHA)
    Judge(found.alpha, found.metrics)
    for metric in found.metrics:
        critical = {"errors": errors, "latency": latency, "predictions": predictions, "quality": quality}
        assert (metric.alpha > 0) == critical[metric.name.split(":")[0].split(" ")[0]]
        assert metric.limit is None or metric.alpha > 0  # nobody waits for evidence on what only shows
    assert len({metric.name for metric in found.metrics}) == len(found.metrics)


def test_half_of_alpha_watches_all_errors_and_the_rest_is_shared_alike():
    found = {metric.name: metric for metric in setup(plan(), bins=BINS, quality=True).metrics}
    assert found["errors"].alpha == ALPHA / 2
    others = {name: metric.alpha for name, metric in found.items() if name not in ("errors", "predictions")}
    types = {f"errors: {kind}" for kind in ERROR_TYPES}
    assert set(others) == {"latency p95", "latency p99", "quality", *types}
    assert len(set(others.values())) == 1 and found["predictions"].alpha == 0
    assert found["predictions"].bins == tuple(BINS)


def test_good_is_asked_of_errors_and_p95_and_watched_elsewhere():
    found = setup(plan(), bins=BINS, quality=True)
    assert {metric.name: (metric.limit, metric.floor) for metric in found.metrics if metric.limit} == {
        "errors": (2.0, 0.005), "latency p95": (2.0, 0.05)}


def test_one_bin_is_no_distribution():
    assert "predictions" not in {metric.name for metric in setup(plan(), bins=["only"]).metrics}


def test_a_setup_comes_back_from_its_record_as_it_was():
    import json

    found = setup(plan(budget=Budget(bad=7, exposed=None)), bins=BINS, quality=True)
    assert Setup.from_data(json.loads(json.dumps(found.as_data()))) == found
    assert (found.bad_limit, found.exposed_limit) == (7, None)
