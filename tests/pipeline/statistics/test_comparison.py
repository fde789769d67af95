"""A challenger replaces the champion when every gate is shown: errors and power by simulation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from engine.errors import UsageError
from engine.pipeline.statistics.comparison import Verdict, compare
from engine.pipeline.statistics.evaluation import evaluate
from engine.pipeline.statistics.evidence import paired
from engine.pipeline.statistics.gates import Gate, Improvement, Latency, Memory, NonInferiority, Segments
from engine.pipeline.statistics.labelled import labelled
from engine.pipeline.statistics.metrics import find, measure
from engine.pipeline.statistics.resources import least_for, measured, quantile_bound
from tests.pipeline.statistics.simulated import two_models

RNG = np.random.default_rng


def judged(gates, one, other, seed=0, **more) -> Verdict:
    """Of a champion and a challenger; `of` holds what was measured of the two."""
    of_one, of_other = more.pop("of", (None, None))
    return compare(paired(one, other), gates, rng=RNG(seed), champion=of_one, challenger=of_other, **more)


def shares(gates, make, runs: int, **more) -> list[float]:
    """How often each gate passes in simulated comparisons."""
    passed = np.zeros(len(gates))
    for run in range(runs):
        rng = RNG([run, 12])
        found = compare(paired(*make(rng)), gates, rng=rng, resamples=400, **more)
        passed += [gate.passed for gate in found.gates]
    return list(passed / runs)


def at_most(level: float, runs: int) -> float:
    """What a share of runs stays below in 998 of 1000 simulations when its chance is `level`."""
    return level + 2.9 * (level * (1 - level) / runs) ** 0.5


def test_models_of_equal_worth_pass_a_gate_of_improvement_in_25_cases_of_1000():
    gates = [Improvement(metric=name) for name in ("log_loss", "roc_auc", "accuracy", "f1")]
    for share in shares(gates, lambda rng: two_models(rng, 200), 300):
        assert share < at_most(0.025, 300)


def test_a_challenger_that_is_worse_by_just_the_margin_passes_in_25_cases_of_1000():
    gates = []
    big = two_models(RNG(1), 1_000_000, noise=(0.5, 1.2))
    for name in ("log_loss", "roc_auc", "accuracy", "pr_auc"):
        worse = find(name, "binary").sign * (measure(name, big[0]) - measure(name, big[1]))
        assert worse > 0.005
        gates.append(NonInferiority(metric=name, margin=worse))
    for share in shares(gates, lambda rng: two_models(rng, 250, noise=(0.5, 1.2)), 200):
        assert share < at_most(0.025, 200)


def test_rows_of_one_group_do_not_pass_as_independent_evidence():
    """Ten rows of each of 80 customers, whom both models know equally badly."""
    who = np.repeat(np.arange(80), 10)

    def make(rng, groups=who):
        errors = rng.normal(size=(2, 80))[:, who] + 0.3 * rng.normal(size=(2, 800))
        return (labelled("regression", np.zeros(800), one, groups=groups) for one in errors)

    gate = [Improvement(metric="mae")]
    assert shares(gate, make, 300)[0] < at_most(0.03, 300) < shares(gate, lambda r: make(r, None), 100)[0]


@pytest.mark.parametrize("gate", [Improvement(metric="log_loss"), Improvement(metric="roc_auc"),
                                  NonInferiority(metric="roc_auc", margin=0.02)])
def test_a_challenger_that_is_clearly_better_passes(gate):
    assert shares([gate], lambda rng: two_models(rng, 1500, noise=(1.0, 0.4)), 40)[0] > 0.9


def test_pairing_finds_what_two_separate_intervals_would_not():
    champion, _ = two_models(RNG(5), 3000)
    logits = np.log(champion.scores / (1 - champion.scores))
    shrunk = labelled("binary", champion.labels, 1 / (1 + np.exp(-0.8 * logits)))
    found = judged([Improvement(metric="log_loss")], champion, shrunk)
    alone = evaluate(champion, ["log_loss"], rng=RNG(0)).metrics[0]
    assert found.passed and found.comparisons[0].gain < (alone.high - alone.low) / 2


EIGHT = {f"s{at}": np.arange(1200) % 8 == at for at in range(8)}


def test_eight_segments_of_equal_models_refuse_one_in_forty_not_one_in_six():
    gate = Segments(metric="log_loss", margin=0.0)
    refused = 1 - shares([gate], lambda rng: two_models(rng, 1200), 60, segments=EIGHT)[0]
    assert refused < at_most(0.025, 60)


def harmed_in(rng, name="s3"):
    champion, challenger = two_models(rng, 1200)
    scores = challenger.scores.copy()
    scores[EIGHT[name]] = 1 - scores[EIGHT[name]]
    return champion, labelled("binary", challenger.labels, scores)


def test_one_segment_that_is_harmed_is_found_among_eight_and_named():
    found = judged([Segments(metric="log_loss", margin=0.05)], *harmed_in(RNG(0)), segments=EIGHT)
    assert not found.passed and found.gates[0].status == "failed"
    assert "s3: worse by" in found.gates[0].says and "s4" not in found.gates[0].says
    assert shares([Segments(metric="log_loss", margin=0.05)], harmed_in, 20, segments=EIGHT)[0] < 0.2


def test_a_segment_of_few_rows_passes_where_no_harm_is_shown_and_stops_where_its_safety_must_be():
    champion, challenger = two_models(RNG(2), 2000)
    masks = {"all but": np.arange(2000) >= 6, "few": np.arange(2000) < 6}
    lenient, strict = (judged([Segments(metric="log_loss", margin=0.2, require=r)], champion, challenger,
                              segments=masks).gates[0] for r in ("no harm", "shown"))
    assert lenient.passed and "Nothing can be said of few: " in lenient.says
    assert strict.status == "not shown" and "few" in strict.says and "too few to compare on" in strict.says


def test_the_verdict_says_what_was_compared_the_interval_and_why():
    champion, challenger = two_models(RNG(3), 3000, noise=(0.5, 0.9))
    gates = [NonInferiority(metric="log_loss", margin=0.001), NonInferiority(metric="roc_auc", margin=0.2)]
    found = judged(gates, champion, challenger)
    assert not found.passed and found.says.startswith(
        "The challenger does not pass on the same 3,000 rows: log_loss not worse by 0.001.")
    assert [gate.status for gate in found.gates] == ["failed", "passed"]
    assert "worse by 0.0" in found.gates[0].says and "95% interval of the gain -0.0" in found.gates[0].says
    assert "and the contrary is shown" in found.gates[0].says
    json.dumps(dataclasses.asdict(found))


def test_too_few_rows_are_not_shown_rather_than_failed_and_how_many_would_do_is_said():
    champion, challenger = two_models(RNG(3), 120, noise=(0.6, 0.4))
    found = judged([Improvement(metric="log_loss")], champion, challenger).gates[0]
    assert found.status == "not shown" and "which these rows do not show; about" in found.says
    assert "rows would, if the gain is real" in found.says


def test_the_rows_said_to_be_needed_do_show_it_four_times_in_five():
    """A gate that lies 0.005 below what 2,000 rows of two equal models gave; then so many rows as it says.
    Of 25 comparisons 16 to 23 must show it: so they do in 96 cases of 100 at a power of 80 %, in 11 at
    50 %, and in 9 at 98 %."""
    pair = two_models(RNG(0), 2000, noise=(0.6, 0.6))
    gain = judged([Improvement(metric="log_loss")], *pair).comparisons[0].gain
    says = judged([NonInferiority(metric="log_loss", margin=0.005 - gain)], *pair).gates[0].says
    needed = int(says.split("about ")[1].split(" rows")[0].replace(",", ""))
    again = [NonInferiority(metric="log_loss", margin=0.005)]  # the true gain is 0
    assert 0.6 < shares(again, lambda rng: two_models(rng, needed, noise=(0.6, 0.6)), 25)[0] <= 0.95


def test_the_same_model_twice_is_not_inferior_is_no_improvement_and_is_told():
    champion, _ = two_models(RNG(3), 500)
    gates = [NonInferiority(metric="roc_auc", margin=0.01), Improvement(metric="log_loss")]
    found = judged(gates, champion, champion, one_model=True)
    assert [gate.status for gate in found.gates] == ["passed", "not shown"]
    assert found.comparisons[0].method == "same" and "is it the same model twice?" in found.notes[0]
    again = judged(gates, champion, champion)
    assert [gate.status for gate in again.gates] == ["not shown", "not shown"]
    assert "the two differ on none of 500 rows, but of all others up to 0.74% may" in again.gates[0].says


@pytest.mark.parametrize("metric", ["f1", "balanced_accuracy", "accuracy"])
def test_of_two_equal_models_that_differ_on_few_rows_one_in_forty_passes_at_most(metric):
    """About 4 and 8 of 300 rows differ, each to either side alike; four can show nothing at all (2^-4)."""
    def few(rng, differing):
        y = (rng.random(300) < 0.3).astype(float)
        one = np.where(rng.random(300) < 0.85, y, 1 - y)
        flipped = rng.random(300) < differing / 300
        one = np.where(flipped & (rng.random(300) < 0.5), 1 - one, one)
        other = np.where(flipped, 1 - one, one)
        return [labelled("binary", y, 0.2 + 0.6 * scores) for scores in (one, other)]

    for differing in (4, 8):
        passed, = shares([Improvement(metric=metric)], lambda rng, d=differing: few(rng, d), 150)
        assert passed <= at_most(0.025, 150)


@pytest.mark.parametrize(("worse", "status"), [(5, "not shown"), (6, "passed")])
def test_fewer_rows_than_the_sign_test_needs_show_no_improvement(worse, status):
    y = np.array([0, 1] * 150)
    one = np.where(y == 1, 0.8, 0.2)
    one[:worse] = 1 - one[:worse]
    found = judged([Improvement(metric="f1")], labelled("binary", y, one),
                   labelled("binary", y, np.where(y == 1, 0.8, 0.2))).gates[0]
    assert found.status == status
    assert status == "passed" or "only 5 of 300 rows differ, too few to show which model" in found.says


def test_two_perfect_models_cannot_be_told_apart_by_auc_and_so_nothing_is_claimed():
    y = np.array([0, 1] * 15)
    one, other = (labelled("binary", y, np.where(y == 1, high, 0.2)) for high in (0.8, 0.9))
    found = judged([NonInferiority(metric="roc_auc", margin=0.01)], one, other).gates[0]
    assert found.status == "not shown"
    assert "the two differ on none of 30 rows, but of all others up to 11.57% may" in found.says


def test_tests_stand_beside_the_interval_and_decide_nothing():
    champion, challenger = two_models(RNG(8), 800)
    found = judged([NonInferiority(metric=m, margin=0.5) for m in ("accuracy", "roc_auc", "log_loss")],
                   champion, challenger, metrics=["f1"])
    assert [[t.name for t in one.tests] for one in found.comparisons] == [
        ["McNemar, exact"], ["DeLong"], ["paired t", "Wilcoxon"], []]
    assert [one.method for one in found.comparisons] == ["score", "bca", "bca", "bca"]


@pytest.mark.parametrize("name", ["log_loss", "roc_auc"])
def test_the_interval_agrees_with_the_textbook_test_on_many_rows(name):
    champion, challenger = two_models(RNG(9), 5000, noise=(0.5, 0.6))
    one = judged([Improvement(metric=name)], champion, challenger, resamples=4000).comparisons[0]
    test = one.tests[0]
    sign = find(name, "binary").sign
    assert one.gain == pytest.approx(sign * test.difference)
    assert (one.low, one.high) == pytest.approx((one.gain - 1.96 * test.error, one.gain + 1.96 * test.error),
                                                abs=0.25 * test.error)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["log_loss", "roc_auc", "f1", "accuracy"]))
def test_changing_sides_turns_the_gain_and_its_interval_round(seed, metric):
    one, other = two_models(RNG(seed), 60)
    gate = NonInferiority(metric=metric, margin=0.01)
    there, back = (judged([gate], *sides, resamples=300).comparisons[0]
                   for sides in ((one, other), (other, one)))
    assert there.gain == pytest.approx(-back.gain)
    if there.low is not None and there.method != "bca":
        assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 0.2), st.floats(1, 4))
def test_a_wider_margin_never_stops_what_a_narrower_one_lets_pass(seed, margin, times):
    pair = two_models(RNG(seed), 80)
    narrow, wide = (judged([NonInferiority(metric="brier", margin=m)], *pair, resamples=200).passed
                    for m in (margin, margin * times))
    assert wide or not narrow


def latencies(rng, n, median=10.0):
    return rng.lognormal(np.log(median), 0.4, n)


def test_a_bound_of_a_quantile_holds_whatever_the_distribution():
    true = 10 * np.exp(0.4 * 2.3263)
    held = np.mean([quantile_bound(latencies(RNG(s), 600), 0.99, 0.025) >= true for s in range(1000)])
    assert held >= 0.975 - 0.01


@pytest.mark.parametrize("limit, status", [
    ({"at_most_ms": 40}, "passed"), ({"at_most_ms": 20}, "failed"), ({"at_most_ms": 26.5}, "not shown"),
    ({"at_most_ratio": 1.5}, "passed"), ({"at_most_ratio": 0.8}, "failed"),
    ({"at_most_ms": 40, "at_most_ratio": 0.5}, "failed")])
def test_latency_is_limited_in_milliseconds_and_against_the_champion(limit, status):
    rng = RNG(0)
    own, other = measured(latencies(rng, 4000)), measured(latencies(rng, 4000))
    found = judged([Latency(**limit)], *two_models(rng, 50), of=(other, own)).gates[0]
    assert found.status == status and "p99 is 2" in found.says and "allowed" in found.says


def test_a_challenger_that_is_as_slow_as_is_allowed_passes_seldom():
    pair, passed = two_models(RNG(0), 20), 0
    for run in range(300):
        rng = RNG([run, 5])
        of = measured(latencies(rng, 1500)), measured(latencies(rng, 1500, 12.0))
        passed += judged([Latency(at_most_ratio=1.2)], *pair, seed=run, of=of).passed
    assert passed / 300 < at_most(0.03, 300)


def test_a_p99_of_a_hundred_requests_is_not_known():
    assert least_for(0.99, 0.025) == 368 and quantile_bound(np.arange(367.0), 0.99, 0.025) is None
    of = None, measured([5.0] * 100)
    found = judged([Latency(at_most_ms=50)], *two_models(RNG(0), 50), of=of).gates[0]
    assert found.status == "not shown" and "a bound needs 368" in found.says


def test_memory_is_limited_by_itself_and_against_the_champion():
    own, other = measured(memory_mb=300), measured(memory_mb=200)
    pair = two_models(RNG(0), 50)
    for gate, passed in ((Memory(at_most_mb=512), True), (Memory(at_most_mb=256), False),
                         (Memory(at_most_ratio=1.2), False), (Memory(at_most_ratio=1.6), True)):
        assert judged([gate], *pair, of=(other, own)).passed is passed


@pytest.mark.parametrize("change, said", [
    (lambda d: labelled("binary", 1 - d.labels, d.scores), r"row 0 has the label .* 60 rows differ"),
    (lambda d: d.only(np.arange(60) < 50), "the champion scored 60 rows, the challenger 50"),
    (lambda d: labelled("binary", d.labels, d.scores, weights=[1] * 60), "only one of the two has weights"),
    (lambda d: labelled("regression", d.labels, d.scores), "not of the same task"),
    (lambda d: labelled("binary", d.labels, d.scores, threshold=0.3), "the champion calls 1 from 0.5 on"),
])
def test_rows_that_are_not_the_same_are_refused(change, said):
    champion, challenger = two_models(RNG(0), 60)
    with pytest.raises(UsageError, match=said):
        paired(champion, change(challenger))


def test_rows_in_another_order_are_found_by_their_keys_even_where_labels_agree():
    data = labelled("binary", [1, 1, 0], [0.7, 0.8, 0.1])
    with pytest.raises(UsageError, match="row 0 has the key b for the champion and a for the challenger"):
        paired(data, data, ids=(["b", "a", "c"], ["a", "b", "c"]))


@pytest.mark.parametrize("gates, more, said", [
    ([], {}, "no gate is given, so that anything would pass"),
    ([Improvement(metric="auc")], {}, "there is no metric auc"),
    ([Segments(metric="log_loss", margin=0.1)], {}, "asks for every segment, and no segment is named"),
    ([Improvement(metric="log_loss")], {"segments": {"no": np.zeros(60, bool)}}, "the segment no is empty"),
    ([Latency(at_most_ms=5)], {}, "wants latencies of the challenger, and there are none"),
    ([Latency(at_most_ratio=2)], {"of": (None, measured([1.0]))}, "wants latencies of the champion"),
    ([Memory(at_most_mb=5)], {}, "a gate limits the memory, which was not measured"),
    ([Improvement(metric="log_loss")], {"confidence": 1.0}, "cannot be used"),
])
def test_what_cannot_be_compared_is_refused_in_a_sentence(gates, more, said):
    with pytest.raises(UsageError, match=said):
        judged(gates, *two_models(RNG(0), 60), **more)


@pytest.mark.parametrize("values", [[1.0, float("nan")], [-1.0], []])
def test_latencies_that_are_none_are_refused(values):
    with pytest.raises(UsageError, match="latencies are one number of milliseconds"):
        measured(values)


@pytest.mark.parametrize("written, said", [
    ({"kind": "non_inferiority", "metric": "log_loss", "margin": -1}, "margin"),
    ({"kind": "latency"}, "wants `at_most_ms` or `at_most_ratio`"),
    ({"kind": "segments", "metric": "f1", "margin": 0, "require": "shown"}, "a margin is more than 0"),
    ({"kind": "better", "metric": "f1"}, "kind"),
])
def test_gates_are_data_and_a_wrong_one_is_refused(written, said):
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(Gate).validate_python(written)


def test_the_same_seed_gives_the_same_verdict():
    pair = two_models(RNG(1), 300)
    gates = [NonInferiority(metric="roc_auc", margin=0.01)]
    assert judged(gates, *pair) == judged(gates, *pair)
