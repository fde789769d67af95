"""Where a rollout stands, in words and numbers: its progress, its weights, its record recomputed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.procedures.rollouts import Rollout
from engine.rollout.analysis import Analysis
from engine.rollout.facts import Facts, holds, safe_weights
from engine.rollout.progress import (
    Wanted,
    closest_metric,
    failures_left,
    line,
    progress,
    share,
    verdict_sentence,
)
from engine.rollout.replay import numbers, replay
from tests.rollout.test_analysis import began, folded, tick

PLAN = Rollout(service="flights", to="challenger", canary=[10, 100])
GOOD = {"errors": (1000, 0, 1000, 0), "latency p95": (1000, 0, 1000, 0)}


def now(analysis: Analysis, *, stage: str = "weight-10", stale: float | None = None, blind: str | None = None,
        **wanted: Any) -> Any:
    return progress(analysis, Wanted(**wanted), stage=stage, stale_s=stale, blind=blind)


@pytest.mark.parametrize("found, kind, text, halts", [
    (now(folded(tick((50, 0))), requests=50), "done", None, False),
    (now(folded(tick((49, 0))), requests=50), "watching", "49 of 50 requests at this weight", False),
    (now(folded(tick(span=5.0)), hold_s=60), "watching", "5 s of 1 min watched", False),
    (now(folded(tick((10, 0), span=1.0)), requests=1000, hold_s=2),
     "watching", "10 of 1,000 requests at this weight; 1 s of 2 s watched", False),
    (now(folded(tick((1, 0), span=30.0)), requests=100),
     "traffic", "too little traffic: 1 of 100 requests at this weight", True),
    (now(folded(*[tick((0, 0))] * 30), requests=100),
     "traffic", "it gets no traffic: 0 of 100 requests at this weight", True),
    (now(folded(*[tick((0, 0))] * 3), requests=100),
     "watching", "0 of 100 requests at this weight", False),
    (now(folded(tick()), stale=42.0), "stale", "nothing was measured for 42 s; it goes on when data comes",
     True),
    (now(folded(tick()), stale=math.inf), "stale", "nothing was measured yet; it goes on when data comes",
     True),
    (now(folded(tick()), blind="what is measured makes no sense"), "stale", "what is measured makes no sense",
     True),
    (now(folded(tick(mark="incident")), requests=1), "incident",
     "the old version itself is failing, so that nothing can be compared; that is an incident of its own",
     True),
    (now(folded(tick((100, 0), (0, 0))), requests=1), "baseline",
     "nothing is measured of the old version, so that nothing can be compared; it goes on when that has "
     "requests again", True),
    (now(folded(tick((500, 300), (500, 1))), requests=1), "bad", "it is worse than the old version", True),
    (now(folded(tick((500, 300), (500, 1))), stale=60.0), "bad", "it is worse than the old version", True),
])
def test_each_kind_says_what_is_missing(found, kind, text, halts):
    assert (found.kind, found.text, found.halts) == (kind, text, halts)


def test_the_wait_is_told_at_this_rate():
    found = now(folded(tick((10, 0), span=2.0)), requests=100, hold_s=6)
    assert found.wait_s == pytest.approx(90 / 5)
    assert now(folded(tick((0, 0))), requests=100).wait_s is None


def test_evidence_of_an_earlier_stage_counts_for_nothing():
    found = now(folded(tick((500, 0))), stage="weight-100", requests=50, hold_s=1)
    assert found.kind == "watching" and found.text.startswith("0 of 50 requests at this weight; ")


def test_good_is_waited_for_with_what_is_there_of_it():
    counts = {"errors": (100, 0, 900, 0), "latency p95": (100, 0, 900, 0)}
    some = folded(*[tick((100, 0), (900, 0), counts=counts)] * 6)
    found = now(some, good=True)
    ln_good = some.verdict.ln_good
    least = min(ln_good, key=lambda name: ln_good[name])
    assert found.text == f"evidence of {ln_good[least]:.1f} of 4.6 that it is no worse ({least})"
    assert found.wait_s == pytest.approx((some.verdict.threshold - ln_good[least]) / (ln_good[least] / 6))
    assert now(folded(*[tick((1000, 0), (1000, 0), counts=GOOD)] * 8), good=True).kind == "done"


def test_before_it_began_it_waits_for_evidence():
    assert now(Analysis(), good=True).text == "evidence that it is no worse"


def test_the_verdict_says_what_brought_it_there():
    assert verdict_sentence(Analysis()) == "not watched yet"
    assert verdict_sentence(folded(tick())) == "undecided; nothing speaks against it"
    assert "not concurrent: compared with what was recorded before, without a guarantee" in verdict_sentence(
        folded(tick(mark="recorded")))
    good = folded(*[tick((1000, 0), (1000, 0), counts=GOOD)] * 8)
    assert verdict_sentence(good) == "no worse than the old version, at α = 0.01"
    counts = {"errors": (500, 50, 4500, 45), "errors: out_of_memory": (500, 40, 4500, 40)}
    bad = verdict_sentence(folded(tick((500, 50), (4500, 45), counts=counts)))
    assert bad.startswith(
        "worse: errors (mostly out of memory), 10 % of 500 against 1 % of the old version's")


def test_how_many_more_failures_would_roll_it_back_is_told_and_true():
    found = folded(tick((500, 12), (4500, 45)))
    name = closest_metric(found)
    more = failures_left(found, "errors")
    assert name == "errors" and more is not None
    assert f"about {more:,} more errors, and none at the old version, would roll" in verdict_sentence(found)
    alpha = next(metric.alpha for metric in found.setup.metrics if metric.name == "errors")
    for _ in range(more):
        assert found.verdict.ln_e["errors"] < line(alpha)
        found.fold("rollout.tick", tick((1, 1), (9, 0)).as_data())
    assert found.verdict.ln_e["errors"] >= line(alpha)


def test_shares_and_lines_in_words():
    assert share((0, 0)) == "none yet" and share((500, 9)) == "1.8 % of 500"
    assert line(0.01) == pytest.approx(math.log(100)) and line(0.0) == math.inf


# weights


def facts_of(weights: dict[str, float], to: str = "challenger") -> Facts:
    champion, safe = safe_weights(weights, to)
    return Facts("flights", to, champion, safe, weights, PLAN, {}, [])


@pytest.mark.parametrize("weights, champion, safe", [
    ({"champion": 100.0, "challenger": 0.0}, "champion", {"champion": 100, "challenger": 0}),
    ({"champion": 90.0, "challenger": 10.0}, "champion", {"champion": 100, "challenger": 0}),
    ({"champion": 40.0, "challenger": 60.0}, "champion", {"champion": 100, "challenger": 0}),
    ({"a": 30.0, "b": 60.0, "challenger": 10.0}, "b", {"a": 30, "b": 70, "challenger": 0}),
    ({"a": 50.0, "b": 50.0, "challenger": 0.0}, "b", {"a": 50, "b": 50, "challenger": 0}),
])
def test_the_way_back_gives_the_new_versions_share_to_the_champion(weights, champion, safe):
    assert safe_weights(weights, "challenger") == (champion, safe)


WEIGHTS = st.lists(st.floats(0, 1000), min_size=2, max_size=5).filter(lambda some: sum(some[:-1]) > 1)


@given(WEIGHTS, st.floats(0.01, 100))
@settings(max_examples=100, deadline=None)
def test_a_split_adds_up_and_the_others_keep_their_proportions(some, weight):
    names = [*"abcd"[:len(some) - 1], "challenger"]
    total = sum(some)
    found = facts_of({name: 100 * one / total for name, one in zip(names, some, strict=True)})
    split = found.split(weight)
    assert math.fsum(split.values()) == pytest.approx(100) and split["challenger"] == weight
    assert math.fsum(found.safe.values()) == pytest.approx(100) and found.safe["challenger"] == 0
    for one in names[:-1]:
        assert split[one] == pytest.approx(found.safe[one] * (100 - weight) / 100)
    assert holds(split, found.split(weight)) and not holds(found.safe, split)


@pytest.mark.parametrize("seen, wanted, so", [
    ({"a": 99.0, "b": 1.0}, {"a": 100.0, "b": 0.0}, False),
    ({"a": 100.0, "b": 0.0}, {"a": 99.0, "b": 1.0}, False),
    ({"a": 100.0, "b": 0.0}, {"a": 99.9, "b": 0.1}, False),
    ({"a": 99.9, "b": 0.1}, {"a": 100.0, "b": 0.0}, False),
    ({"a": 99.1, "b": 0.9}, {"a": 99.0, "b": 1.0}, True),
    ({"a": 98.0, "b": 2.0}, {"a": 99.0, "b": 1.0}, False),
    ({"a": 74.6, "b": 25.4}, {"a": 75.0, "b": 25.0}, True),
    ({"a": 73.0, "b": 27.0}, {"a": 75.0, "b": 25.0}, False),
    ({"a": 100.0}, {"a": 100.0, "b": 0.0}, True),
    ({"a": 99.99999, "b": 0.00001}, {"a": 100.0, "b": 0.0}, True),
    ({"a": 50.0, "c": 50.0}, {"a": 50.0, "b": 50.0}, False),
])
def test_whether_a_router_has_what_was_wanted(seen, wanted, so):
    assert holds(seen, wanted) == so


# the record


@dataclass
class Recorded:
    kind: str
    data: dict[str, Any]
    at: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


def record(ticks: int = 8) -> list[Recorded]:
    analysis, events = Analysis(), []

    def put(kind: str, data: dict[str, Any]) -> None:
        data = json.loads(json.dumps(data))
        events.append(Recorded(kind, data))
        analysis.fold(kind, data)

    put("rollout.began", began(made_by={"python": "3.11"}))
    for at in range(ticks):
        put("rollout.tick", tick((97, 3 + at % 2), (903, 9)).as_data())
    put("rollout.verdict", {"verdict": analysis.verdict.verdict, "text": "why", **numbers(analysis)})
    return events


def test_what_was_decided_is_recomputed_to_the_bit():
    found = replay(record())
    assert found.bit_equal and found.agrees and len(found.decisions) == 1
    assert found.made_by == {"python": "3.11"} and found.decisions[0].ticks == 8


@pytest.mark.parametrize("index, place", [(1, 1), (3, 0), (8, 3), (5, 2)])
def test_a_count_that_was_changed_afterwards_is_found(index, place):
    events = record()
    events[index].data["counts"]["errors"][place] += 1
    found = replay(events)
    assert not found.bit_equal and not found.agrees


@pytest.mark.parametrize("change", ["left out", "doubled", "swapped verdict"])
def test_a_tick_that_is_missing_or_there_twice_and_another_verdict_are_found(change):
    events = record()
    if change == "left out":
        del events[4]
    elif change == "doubled":
        events.insert(4, events[4])
    else:
        events[-1].data["judged"] = "good"
    assert not replay(events).agrees


def test_the_last_place_of_another_machine_agrees_and_is_not_bit_equal():
    events = record()
    events[-1].data["ln_e"]["errors"] = math.nextafter(events[-1].data["ln_e"]["errors"], math.inf)
    found = replay(events)
    assert found.agrees and not found.bit_equal
    events[-1].data["ln_e"]["errors"] *= 1 + 1e-10
    assert not replay(events).agrees


def test_events_of_no_rollout_are_refused():
    with pytest.raises(ValueError, match="not the events of a rollout"):
        replay([Recorded("run.created", {})])
