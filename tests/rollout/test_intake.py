"""From what the collector saw in a beat to counts: units or requests, edges, bins, and what is no number."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.monitoring.histograms import Histogram
from engine.monitoring.windows import Increment
from engine.procedures.rollouts import Rollout
from engine.rollout import intake
from engine.rollout.evidence import Counts, worse
from engine.rollout.setup import setup
from tests.rollout.parts import BOUNDS, CHALLENGER, CHAMPION, increment, latencies

SETUP = setup(Rollout(service="flights", to="challenger", canary=[10, 100]), bins=["late", "on time"],
              quality=True)
EDGES = {"latency p95": 0.025, "latency p99": 0.05}


def tick(*increments, edges=EDGES, **more):
    return intake.tick(SETUP, increments, canary=CHALLENGER, baseline=CHAMPION, stage="weight-10",
                       weight=10.0, edges=edges, **more)


def test_both_sides_are_counted_by_metric():
    found = tick(increment(CHALLENGER, 100, 3, kind="timeout", slow=7), increment(CHAMPION, 900, 9, slow=4))
    assert (found.requests, found.failed, found.span_s) == ((100, 900), (3, 9), 1.0)
    assert found.counts["errors"] == (100, 3, 900, 9)
    assert found.counts["errors: timeout"] == (100, 3, 900, 0)
    assert found.counts["errors: unavailable"] == (100, 0, 900, 9)
    assert found.counts["latency p95"] == (100, 7, 900, 4) == found.counts["latency p99"]


def test_several_targets_of_one_version_are_added():
    found = tick(increment(CHALLENGER, 10, 1), increment(CHALLENGER, 20, 2), increment(CHAMPION, 5))
    assert found.requests == (30, 5) and found.counts["errors"] == (30, 3, 5, 0)


def test_a_session_or_a_chain_of_retries_counts_once_where_it_is_told():
    found = tick(increment(CHALLENGER, 100, 40, units=12.0, unit_failures={"any": 1.0, "unavailable": 1.0}),
                 increment(CHAMPION, 900, 9, units=500.0, unit_failures={}))
    assert found.counts["errors"] == (12, 1, 500, 0)
    assert found.counts["errors: unavailable"] == (12, 1, 500, 0)
    assert (found.requests, found.failed) == ((100, 900), (40, 9))  # what was really served
    assert found.counts["latency p95"][0] == 100


def test_a_unit_that_fails_in_a_later_beat_never_makes_more_failures_than_units():
    found = tick(increment(CHALLENGER, 3, 2, units=0.0, unit_failures={"any": 2.0}), increment(CHAMPION, 9))
    assert found.counts["errors"] == (2, 2, 9, 0)


def test_a_beat_without_either_version_is_no_tick():
    assert tick() is None and tick(increment("other", 100)) is None


def test_the_span_is_of_the_slowest_target():
    assert tick(increment(CHALLENGER, 1), increment("other", 1)).span_s == 1.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, -3.0])
@pytest.mark.parametrize("where", ["requests", "errors", "units", "bins", "latency"])
def test_what_is_no_count_is_refused(wrong, where):
    bad = {"requests": increment(CHALLENGER, wrong),
           "errors": increment(CHALLENGER, 10, wrong),
           "units": increment(CHALLENGER, 10, units=wrong),
           "bins": increment(CHALLENGER, 10, predictions={"late": wrong, "on time": 1.0}),
           "latency": increment(CHALLENGER, 10)}[where]
    if where == "latency":
        bad = Increment("flights", CHALLENGER, 1.0, 10, Histogram.of(BOUNDS, [wrong] * 6))
    with pytest.raises(intake.NotNumbers, match="is not a count"):
        tick(bad, increment(CHAMPION, 100))


def test_rounding_below_nothing_is_nothing():
    assert tick(increment(CHALLENGER, -1e-9), increment(CHAMPION, 10)).requests == (0, 10)


def test_bins_that_nobody_knew_are_left_out_on_both_sides():
    found = tick(increment(CHALLENGER, 10, predictions={"late": 2.0, "cancelled": 8.0}),
                 increment(CHAMPION, 90, predictions={"late": 20.0, "on time": 70.0}))
    assert found.bins == {"predictions": ({"late": 2}, {"late": 20, "on time": 70})}


def test_targets_with_other_buckets_are_counted_each_by_their_own():
    other = Increment("flights", CHALLENGER, 1.0, 10, Histogram.of((0.025, 1.0), [6, 10, 10]))
    found = tick(increment(CHALLENGER, 100, slow=7), other, increment(CHAMPION, 900))
    assert found.counts["latency p95"] == (110, 7 + 4, 900, 0)


def test_labels_count_where_they_came():
    found = tick(increment(CHALLENGER, 1), increment(CHAMPION, 1),
                 quality=[{CHALLENGER: (5, 2), CHAMPION: (50, 10), "other": (9, 9)}, {CHAMPION: (3, 0)}])
    assert found.strata["quality"] == [(5, 2, 50, 10), (0, 0, 3, 0)]
    assert "quality" not in tick(increment(CHALLENGER, 1), quality=[{"other": (9, 9)}]).strata


def test_a_metric_without_an_edge_or_without_requests_is_not_counted():
    found = tick(increment(CHALLENGER, 10), edges={})
    assert not any(name.startswith("latency") for name in found.counts)
    assert tick(increment(CHALLENGER, 0), increment(CHAMPION, 0)).counts == {}


NUMBER = st.one_of(st.integers(0, 500).map(float), st.floats(0, 500))


@given(st.lists(st.tuples(st.sampled_from([CHALLENGER, CHAMPION]), NUMBER, NUMBER, NUMBER,
                          st.one_of(st.none(), NUMBER)), min_size=1, max_size=6))
@settings(max_examples=80, deadline=None)
def test_whatever_is_seen_no_count_exceeds_its_total(beats):
    seen = [increment(variant, n, min(n, failed), slow=min(n, slow), units=units,
                      unit_failures={} if units is None else {"any": min(failed, n)})
            for variant, n, failed, slow, units in beats]
    found = tick(*seen)
    for nc, yc, nb, yb in found.counts.values():
        Counts(nc, yc), Counts(nb, yb)
        assert all(isinstance(value, int) for value in (nc, yc, nb, yb))


@pytest.mark.parametrize("requests, slow, slack, least, wanted", [
    (99, 0, 1.25, 0.0, {}),
    (100, 0, 1.0, 0.0, {"latency p95": 0.025, "latency p99": 0.025}),
    (1000, 0, 1.25, 0.0, {"latency p95": 0.05, "latency p99": 0.05}),
    (1000, 20, 1.0, 0.0, {"latency p95": 0.025, "latency p99": 0.1}),
    (1000, 0, 1.0, 0.05, {"latency p95": 0.05, "latency p99": 0.05}),
    (1000, 20, 2.0, 0.0, {"latency p95": 0.05}),
    (1000, 0, 100.0, 0.0, {}),
])
def test_edges_are_bucket_bounds_at_or_above_the_slack(requests, slow, slack, least, wanted):
    found = intake.edges(latencies(requests, slow), slack, least)
    assert found == wanted and set(found.values()) <= set(BOUNDS)


def test_an_edge_that_is_a_bound_counts_exactly():
    seen = latencies(1000, 37)
    edges = intake.edges(latencies(1000), 1.25, 0.0)
    found = tick(Increment("flights", CHALLENGER, 1.0, 1000, seen), edges=edges)
    assert found.counts["latency p95"][:2] == (1000, 37)


def test_without_a_histogram_there_is_no_edge():
    assert intake.edges(None, 1.25, 0.0) == {}


def test_a_recorded_baseline_takes_the_place_of_the_one_that_is_gone():
    found = intake.recorded(tick(increment(CHALLENGER, 100, 3)), [5000, 50])
    assert (found.mark, found.counts, found.bins) == ("recorded", {"errors": (100, 3, 5000, 50)}, {})
    assert intake.recorded(tick(increment(CHALLENGER, 100, 3)), None).counts == {}


def test_a_recorded_baseline_that_never_failed_is_taken_for_its_floor():
    """Each beat has it again: 0 of 200 would soon accuse a version that fails once in a thousand times."""
    beat = tick(increment(CHALLENGER, 1000, 1))
    assert intake.recorded(beat, [200, 0], 0.005).counts["errors"] == (1000, 1, 200, 1)
    assert intake.recorded(beat, [200, 40], 0.005).counts["errors"] == (1000, 1, 200, 40)
    evidence = worse()
    for _ in range(1000):
        nc, yc, nb, yb = intake.recorded(beat, [200, 0], 0.005).counts["errors"]
        evidence.add(Counts(nc, yc), Counts(nb, yb))
    assert evidence.ln_e < 0


def test_a_mark_is_set_and_nothing_else():
    one = tick(increment(CHALLENGER, 10))
    assert intake.marked(one, "") is one
    assert intake.marked(one, "incident").mark == "incident"
