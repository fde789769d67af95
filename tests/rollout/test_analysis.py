"""What a rollout has seen, folded from its events; what ends it at once, and what is an incident."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.procedures.rollouts import Budget, Judging, Rollout
from engine.rollout import danger
from engine.rollout.analysis import POINTS, Analysis, Tick
from engine.rollout.setup import setup

BINS = ("late", "on time")


def began(budget: Budget | None = None, judge: Judging | None = None, **more) -> dict:
    plan = Rollout(service="flights", to="challenger", canary=[10, 100], budget=budget or Budget(),
                   judge=judge or Judging())
    return {"service": "flights", "to": "challenger", "champion": "champion",
            "safe": {"champion": 100.0, "challenger": 0.0}, "setup": setup(plan, bins=BINS).as_data(),
            "recorded": [1000, 10], "versions": {}, "made_by": {}, **more}


def tick(canary=(100, 0), baseline=(900, 0), *, stage="weight-10", weight=10.0, span=1.0, mark="",
         memory=(0, 0), counts=None, bins=None) -> Tick:
    return Tick(span, stage, weight, (canary[0], baseline[0]), (canary[1], baseline[1]),
                counts if counts is not None else {"errors": (*canary, *baseline)}, bins or {}, memory, mark)


def folded(*ticks: Tick, begin: dict | None = None) -> Analysis:
    analysis = Analysis()
    analysis.fold("rollout.began", begin or began())
    for one in ticks:
        analysis.fold("rollout.tick", one.as_data())
    return analysis


def state(analysis: Analysis) -> tuple:
    return (analysis.verdict, analysis.totals, analysis.ticks, analysis.stage, analysis.stage_s,
            analysis.stage_requests, analysis.exposed, analysis.bad, analysis.concurrent, analysis.rate())


SIDE = st.integers(0, 2000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))
BIN = st.dictionaries(st.sampled_from(BINS), st.integers(1, 500))
TICKS = st.builds(
    lambda canary, baseline, late, span, stage, mark, bins: tick(
        canary, baseline, span=span, stage=stage, mark=mark, bins={"predictions": bins} if all(bins) else {},
        counts={"errors": (*canary, *baseline), "latency p95": (*late, *baseline)}),
    SIDE, SIDE, SIDE, st.floats(0.1, 30), st.sampled_from(["weight-10", "weight-100"]),
    st.sampled_from(["", "incident", "recorded"]), st.tuples(BIN, BIN))


@given(st.lists(TICKS, max_size=20))
@settings(max_examples=60, deadline=None)
def test_events_read_back_from_json_come_to_the_same_to_the_bit(ticks):
    believed, read = folded(), Analysis()
    read.fold("rollout.began", json.loads(json.dumps(began())))
    for one in ticks:
        data = one.as_data()
        believed.fold("rollout.tick", data)
        read.fold("rollout.tick", json.loads(json.dumps(data)))
    assert state(believed) == state(read)


@given(TICKS)
@settings(max_examples=60, deadline=None)
def test_a_tick_comes_back_from_its_record(one):
    back = Tick.from_data(json.loads(json.dumps(one.as_data())))
    assert back.as_data() == one.as_data()
    assert back.span_s == pytest.approx(one.span_s, abs=5e-4) and back.counts == one.counts


def test_totals_add_up_and_expected_is_the_baselines_risk_in_the_same_beats():
    """The canary had most of its requests while everybody failed: the totals alone would accuse it."""
    found = folded(tick((10, 0), (990, 9)), tick((500, 50), (500, 50)))
    total = found.totals["errors"]
    assert (total.canary, total.baseline) == ((510, 50), (1490, 59))
    assert total.expected == (510, pytest.approx(10 * 9 / 990 + 50))


def test_beats_without_a_baseline_have_no_expectation():
    assert folded(tick((10, 5), (0, 0))).totals["errors"].expected == (0, 0.0)


def test_a_new_stage_counts_its_requests_and_seconds_anew():
    found = folded(tick((5, 0)), tick((7, 0)), tick((3, 0), stage="weight-100", span=2.0))
    assert (found.stage, found.stage_requests, found.stage_s) == ("weight-100", 3, 2.0)
    assert found.exposed == 15 and found.rate() == 1.5


def test_the_curve_is_thinned_and_keeps_its_newest_point():
    found = folded(*[tick((10, 1), (90, 1))] * 1000)
    history = found.totals["errors"].history
    assert POINTS / 2 <= len(history) <= POINTS
    assert history == sorted(history) and len({len(total.history) for total in found.totals.values()}) == 1


def test_a_budget_is_no_longer_spent_once_it_was_shown_to_be_good():
    counts = {"errors": (1000, 0, 1000, 0), "latency p95": (1000, 0, 1000, 0)}
    found = folded(*[tick((1000, 0), (1000, 0), counts=counts)] * 10)
    assert found.verdict.verdict == "good"
    exposed = found.exposed
    found.fold("rollout.tick", tick((5000, 0), (1000, 0)).as_data())
    assert (found.exposed, found.bad) == (exposed, 0) and exposed < 10_000


def test_a_version_that_is_worse_after_it_was_shown_to_be_good_is_good_no_longer_and_costs_again():
    counts = {"errors": (1000, 0, 1000, 0), "latency p95": (1000, 0, 1000, 0)}
    found = folded(*[tick((1000, 0), (1000, 0), counts=counts)] * 10)
    assert found.verdict.verdict == "good"
    slow = {"errors": (1000, 0, 10, 0), "latency p95": (1000, 840, 10, 0)}
    for _ in range(3):
        found.fold("rollout.tick", tick((1000, 70), (10, 0), counts=slow).as_data())
    assert found.verdict.verdict != "good" and found.bad == 210


def test_a_budget_is_for_what_fails_beyond_half_as_much_again_as_the_old_version():
    """Else the usual failures of a good version would use it up in time, and an incident at once."""
    usual = folded(*[tick((1000, 10), (1000, 10))] * 600)
    assert usual.bad <= 10
    together = folded(*[tick((1000, 10), (1000, 10))] * 60, *[tick((1000, 50), (1000, 50))] * 60)
    assert together.bad <= 60
    twice = folded(*[tick((1000, 20), (1000, 10))] * 60)
    assert twice.bad == pytest.approx(300, abs=20)


def test_right_after_a_weight_was_set_nothing_speaks_for_the_new_version():
    """What fails slowly has not failed yet."""
    counts = {"errors": (1000, 0, 1000, 0), "latency p95": (1000, 0, 1000, 0)}
    found = folded(*[tick((1000, 0), (1000, 0), counts=counts)] * 5)
    assert found.verdict.ln_good == {"errors": 0.0, "latency p95": 0.0}


def test_one_pause_is_not_as_many_slow_requests_as_it_held_up_but_a_slow_version_is_slow_in_every_beat():
    usual = {"latency p95": (50, 2, 50, 2)}
    pause, slow = {"latency p95": (50, 30, 50, 2)}, {"latency p95": (50, 50, 50, 2)}
    begun = [tick(counts=usual)] * 20
    calm, paused = folded(*begun, tick(counts=usual)), folded(*begun, tick(counts=pause), tick(counts=usual))
    once = paused.verdict.ln_e["latency p95"] - calm.verdict.ln_e["latency p95"]
    assert once < 2.5
    assert folded(*begun, *[tick(counts=slow)] * 5).verdict.verdict == "bad"


def test_mirrored_requests_expose_nobody():
    found = folded(tick((5000, 300), (5000, 300), stage="mirror", weight=0.0))
    assert (found.exposed, found.bad, found.stage_requests) == (0, 0, 5000)


def test_an_incident_of_the_old_version_is_neither_judged_nor_counted():
    found = folded(tick((100, 100), (900, 800), mark="incident"))
    assert (found.exposed, found.bad, found.stage_requests, found.stage_s) == (0, 0, 0, 0.0)
    assert found.verdict.ln_e_all == pytest.approx(0.0) and found.totals["errors"].canary == (0, 0)
    assert found.ticks == 1 and found.recent[-1].mark == "incident"


def test_a_recorded_baseline_is_not_concurrent_until_one_is_back():
    found = folded(tick(mark="recorded"))
    assert not found.concurrent
    found.fold("rollout.tick", tick().as_data())
    assert found.concurrent


def test_only_a_minute_is_remembered():
    found = folded(*[tick(span=1.0)] * 300)
    assert len(found.recent) <= 61


def test_what_people_and_the_engine_decided_is_folded_too():
    found = Analysis()
    found.fold("rollout.promoted", {"step": "watch-10"})
    found.fold("rollout.halted", {"kind": "stale", "text": "nothing"})
    found.fold("rollout.frozen", {"edges": {"latency p95": 0.02}})
    found.fold("rollout.verdict", {"verdict": "good"})
    found.fold("step.outcome", {"state": "done"})
    assert (found.promoted, found.halted, found.edges, found.told, found.full) == (
        {"watch-10": "somebody"}, ("stale", "nothing"), {"latency p95": 0.02}, "good", None)
    found.fold("rollout.promoted", {"full": True})
    found.fold("rollout.halted", {"kind": None, "text": "it goes on"})
    assert found.full and found.halted is None


# what ends it at once


def recent(*ticks: Tick) -> list[Tick]:
    return list(ticks)


@pytest.mark.parametrize("ticks, ends", [
    ([tick((10, 10), (90, 1))], True),
    ([tick((4, 4), (90, 1)), tick((6, 6), (90, 0))], True),
    ([tick((10, 10), (90, 1)), tick((0, 0), (90, 0))], True),
    ([tick((9, 9), (90, 1))], False),
    ([tick((10, 9), (90, 1))], False),
    ([tick((9, 9), (90, 0)), tick((1, 0), (90, 0))], False),
    ([tick((10, 10), (90, 46))], False),
    ([tick((10, 10), (90, 45))], True),
    ([tick((10, 10), (1, 1))], False),
    ([tick((10, 10), (0, 0))], True),
    ([tick((50, 50), (2, 0))], True),
    ([tick((0, 0), (0, 0))], False),
    ([], False),
])
def test_a_version_that_answers_nothing_well_is_a_catastrophe_unless_the_old_one_fails_too(ticks, ends):
    found = danger.catastrophe(ticks)
    assert (found is not None) == ends
    if found:
        assert found.startswith("all of its last ")


@pytest.mark.parametrize("units, ends", [(1, False), (2, False), (3, True), (12, True)])
def test_one_client_that_tries_again_and_again_is_no_catastrophe(units, ends):
    first = tick((6, 6), (90, 1), counts={"errors": (units, units, 90, 1)})
    again = tick((6, 6), (90, 1), counts={"errors": (0, 0, 90, 1)})
    unseen = tick((6, 6), (0, 0), counts={})
    assert (danger.catastrophe([first, again, unseen]) is not None) == ends


@pytest.mark.parametrize("ticks, ends", [
    ([tick((20, 5), (90, 0), memory=(5, 0))], True),
    ([tick((20, 4), (90, 0), memory=(4, 0))], False),
    ([tick((26, 5), (90, 0), memory=(5, 0))], False),
    ([tick((25, 5), (90, 0), memory=(5, 0))], True),
    ([tick((20, 5), (90, 20), memory=(5, 20))], False),
    ([tick((10, 3), (90, 0), memory=(3, 0)), tick((10, 2), (90, 0), memory=(2, 0))], True),
    ([tick((10, 3), (90, 0), memory=(3, 0))] + [tick((1, 0))] * 10 + [tick((9, 2), memory=(2, 0))], False),
])
def test_running_out_of_memory_again_and_again_is_one_as_well(ticks, ends):
    assert (danger.catastrophe(ticks) is not None) == ends


@pytest.mark.parametrize("before, so", [
    ([], False), ([tick(baseline=(10, 6))], True), ([tick(baseline=(10, 5))], False),
    ([tick(baseline=(9, 9))], False), ([tick(baseline=(5, 5)), tick(baseline=(5, 4))], True),
    ([tick(baseline=(100, 90)), tick(baseline=(20, 0))], True),
    ([tick(baseline=(100, 90))] + [tick()] * 10, False),
])
def test_an_incident_is_an_old_version_that_failed_more_often_than_not_in_the_last_ten_seconds(before, so):
    assert danger.incident(before) == so


@pytest.mark.parametrize("budget, ticks, said", [
    (Budget(bad=10), [tick((100, 9))], None),
    (Budget(bad=10), [tick((100, 9)), tick((50, 1))], "its budget of 10 bad requests is used up"),
    (Budget(exposed=1000), [tick((999, 0))], None),
    (Budget(exposed=1000), [tick((1000, 0))],
     "its budget of 1,000 exposed requests is used up before it was shown to be no worse"),
    (Budget(bad=None, exposed=None), [tick((10**6, 10**5))], None),
])
def test_a_budget_ends_it_when_it_is_reached(budget, ticks, said):
    assert danger.overspent(folded(*ticks, begin=began(budget))) == said


def test_before_it_began_nothing_is_overspent():
    assert danger.overspent(Analysis()) is None


@pytest.mark.parametrize("ticks, gone", [
    ([tick((1, 0), (0, 0))], False), ([tick((2, 0), (0, 0))], True),
    ([tick((1, 0), (1, 0)), tick((1, 0), (0, 0))], False),
    ([tick((990, 0), (0, 0), weight=99.0)], True), ([tick((989, 0), (0, 0), weight=99.0)], False),
    ([tick((9, 0), (0, 0), weight=0.0)], False), ([tick((10, 0), (0, 0), weight=0.0)], True),
    ([tick((500, 0), (0, 0), mark="recorded")], False),
])
def test_a_baseline_is_gone_when_it_misses_what_the_weights_give_it(ticks, gone):
    assert folded(*ticks).without_baseline() == gone
