"""Counters of one target become increments, and increments a sliding window."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.monitoring.histograms import Histogram, merge
from engine.monitoring.sources.source import Key, Reading, Tally
from engine.monitoring.windows import Increment, TargetFold, Window

BOUNDS = (0.01, 0.1, 1.0)
OK = Key("flights", "champion", "")
TIMEOUT = Key("flights", "champion", "timeout")


def counts(*own: float, bounds=BOUNDS) -> Histogram:
    return Histogram.of(bounds, accumulate(own))


def reading(**requests) -> Reading:
    keys = {"ok": OK, "timeout": TIMEOUT, "other": Key("flights", "challenger", "")}
    return Reading(requests={keys[name]: histogram for name, histogram in requests.items()})


def folded(*readings: Reading, every: float = 1.0) -> list[list[Increment]]:
    fold = TargetFold(window_s=60.0)
    return [fold.fold(one, 100.0 + every * n) for n, one in enumerate(readings)]


def test_the_first_reading_is_where_counting_starts_and_says_nothing_happened():
    assert folded(reading(ok=counts(500, 0, 0, 0))) == [[]]


def test_between_two_readings_the_difference_happened():
    _, [increment] = folded(reading(ok=counts(5, 0, 0, 0)), reading(ok=counts(5, 2, 0, 0)))
    assert increment.requests == 2
    assert increment.latency == counts(0, 2, 0, 0)
    assert increment.span_s == 1.0


def test_a_variant_without_a_request_has_an_increment_of_none():
    _, [increment] = folded(reading(ok=counts(5, 0, 0, 0)), reading(ok=counts(5, 0, 0, 0)))
    assert increment.requests == 0
    assert increment.latency is None


def test_after_a_restart_the_new_value_is_what_happened():
    _, [increment] = folded(reading(ok=counts(50, 0, 0, 0)), reading(ok=counts(3, 1, 0, 0)))
    assert increment.requests == 4


def test_the_first_error_of_a_kind_counts_though_its_series_was_not_there_before():
    _, [increment] = folded(reading(ok=counts(5, 0, 0, 0)),
                            reading(ok=counts(5, 0, 0, 0), timeout=counts(0, 0, 0, 1)))
    assert increment.errors == {"timeout": 1}
    assert increment.requests == 1


def test_latency_is_over_failed_requests_too():
    _, [increment] = folded(reading(ok=counts(0, 0, 0, 0)),
                            reading(ok=counts(3, 0, 0, 0), timeout=counts(0, 0, 0, 2)))
    assert increment.latency == counts(3, 0, 0, 2)


def test_a_silence_shorter_than_the_window_is_one_long_increment():
    _, [increment] = folded(reading(ok=counts(0, 0, 0, 0)), reading(ok=counts(90, 0, 0, 0)),
                            every=30.0)
    assert (increment.requests, increment.span_s) == (90, 30.0)


def test_after_a_silence_longer_than_the_window_counting_starts_again():
    *_, last, after = folded(*(reading(ok=counts(90 * n, 0, 0, 0)) for n in range(3)), every=61.0)
    assert last == after == []


def test_a_reading_that_is_no_newer_says_nothing():
    fold = TargetFold(60.0)
    fold.fold(reading(ok=counts(0, 0, 0, 0)), 100.0)
    old = Reading(requests={OK: counts(7, 0, 0, 0)}, age_s=5.0)
    assert fold.fold(old, 104.0) == []
    assert fold.at == 100.0


def test_a_source_that_does_not_measure_leaves_requests_unknown_rather_than_none():
    quiet = Reading(measures=False, weights={("flights", "champion"): 100.0})
    fold = TargetFold(60.0)
    assert [fold.fold(quiet, 100.0 + n) for n in range(3)] == [[], [], []]
    assert fold.window(("flights", "champion")) is None


def test_series_that_differ_in_other_labels_restart_alone():
    first, second = (Key("flights", "champion", "", f"worker='{n}'") for n in (1, 2))
    readings = [Reading(requests={first: counts(9, 0, 0, 0), second: counts(100, 0, 0, 0)}),
                Reading(requests={first: counts(1, 0, 0, 0), second: counts(105, 0, 0, 0)})]
    _, [increment] = folded(*readings)
    assert increment.requests == 6


def counting(units: dict[str, float], failures: dict[str, float] | None = None,
             bins: dict[str, float] | None = None) -> Reading:
    """A target that has counted units of these hosts, failures of these types, these bins."""
    pair = ("flights", "champion")
    return Reading(in_flight={pair: 0.0},
                   units={Tally(*pair, "", host): count for host, count in units.items()},
                   unit_failures={Tally(*pair, kind): n for kind, n in (failures or {}).items()},
                   predictions={Tally(*pair, bin_): n for bin_, n in (bins or {}).items()})


def test_between_two_readings_units_failed_and_predictions_fell_into_bins():
    _, [one] = folded(counting({"a": 100}, {"any": 7, "timeout": 7}, {"..0.5": 90, "0.5..": 10}),
                      counting({"a": 130}, {"any": 9, "timeout": 7, "model_error": 2},
                               {"..0.5": 105, "0.5..": 10}))
    assert one.units == 30
    assert one.unit_failures == {"any": 2, "model_error": 2}
    assert one.predictions == {"..0.5": 15, "0.5..": 0}


def test_units_are_unknown_where_the_target_does_not_count_them_and_0_where_there_were_none():
    _, [unknown] = folded(counting({}), counting({}))
    assert (unknown.units, unknown.unit_failures, unknown.predictions) == (None, {}, {})
    _, [none] = folded(counting({"a": 5}), counting({"a": 5}))
    assert none.units == 0


def test_after_a_restart_what_the_new_counters_say_has_happened_host_by_host():
    _, [one] = folded(counting({"a": 100, "b": 50}, {"any": 40}, {"..0.5": 40}),
                      counting({"a": 3, "b": 60, "c": 1}, {"any": 2}, {"..0.5": 41}))
    assert (one.units, one.unit_failures, one.predictions) == (14, {"any": 2}, {"..0.5": 1})


def test_bounds_that_differ_between_kinds_of_error_are_told_and_not_guessed():
    fold = TargetFold(60.0)
    fold.fold(reading(ok=counts(0, 0, 0, 0)), 100.0)
    [increment] = fold.fold(reading(ok=counts(1, 0, 0, 0),
                                    timeout=counts(0, 2, bounds=(0.5,))), 101.0)
    assert increment.latency is None
    assert increment.requests == 3
    assert "flights champion" in fold.problem


def test_a_variant_that_is_no_longer_named_keeps_its_window_until_that_has_passed():
    fold = TargetFold(60.0)
    fold.fold(reading(ok=counts(0, 0, 0, 0), other=counts(0, 0, 0, 0)), 100.0)
    fold.fold(reading(ok=counts(1, 0, 0, 0), other=counts(1, 0, 0, 0)), 101.0)
    fold.fold(reading(ok=counts(1, 0, 0, 0)), 102.0)
    assert fold.pairs() == {("flights", "champion")}
    fold.expire(150.0)
    assert sum(window.requests for window in fold.windows("flights")) == 2
    fold.expire(161.5)
    assert len(fold.windows("flights")) == 1


increments = st.lists(st.tuples(st.floats(0.1, 20.0), st.lists(st.integers(0, 9), min_size=4,
                                                               max_size=4),
                                st.integers(0, 3)), max_size=40)


@given(increments)
def test_the_running_sums_of_a_window_equal_adding_up_what_is_in_it(steps):
    window = Window(60.0)
    at, kept = 0.0, []
    for span_s, own, failed in steps:
        at += span_s
        latency = counts(*own) if sum(own) else None
        one = Increment("s", "v", span_s, sum(own), latency, {"timeout": failed} if failed else {})
        window.add(at, one)
        window.expire(at)
        kept = [(t, i) for t, i in [*kept, (at, one)] if t > at - 60.0]
        expected = merge(i.latency for _, i in kept if i.latency)
        assert window.requests == sum(i.requests for _, i in kept)
        assert list(window.latency.counts if window.latency else [0] * 4) == list(
            expected.counts if expected else [0] * 4)
        assert window.errors.get("timeout", 0) == sum(i.errors.get("timeout", 0) for _, i in kept)
        assert window.span_s == pytest.approx(sum(i.span_s for _, i in kept))


def test_other_bounds_begin_a_new_window():
    window = Window(60.0)
    window.add(1.0, Increment("s", "v", 1.0, 3, counts(3, 0, 0, 0)))
    window.add(2.0, Increment("s", "v", 1.0, 2, counts(0, 2, bounds=(0.5,))))
    assert (window.requests, window.span_s) == (2, 1.0)
    assert window.latency == counts(0, 2, bounds=(0.5,))
