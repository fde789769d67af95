"""The five-minute line of a service's p99."""

from __future__ import annotations

import pytest

from engine.monitoring.points import Point
from engine.monitoring.trend import Trend

BOUNDS = tuple(0.0005 * 1.1**i for i in range(125))


def took(ms: float, requests: int) -> Point:
    place = sum(bound < ms / 1000 for bound in BOUNDS)
    return Point(1.0, requests, bounds=BOUNDS, buckets={place: float(requests)})


def test_a_value_is_read_from_all_requests_of_its_five_seconds_merged():
    trend = Trend()
    for second, point in enumerate((took(20, 500), took(400, 2), took(20, 500))):
        trend.add(1000.0 + second, point)
    # two of 1,002 are slow, which is less than one in a hundred
    assert trend.values(1002.0)[-1] == pytest.approx(20, rel=0.1)
    trend.add(1003.0, took(400, 50))
    trend.add(1004.0, took(20, 500))
    assert trend.values(1004.0)[-1] == pytest.approx(400, rel=0.1)


def test_it_is_sixty_values_oldest_first_and_none_where_nothing_was_seen():
    trend = Trend()
    trend.add(1000.0, took(20, 10))
    trend.add(1010.0, took(40, 10))
    trend.add(1015.0, Point(1.0))
    values = trend.values(1015.0)
    assert len(values) == 60
    assert values[:-4] == [None] * 56
    assert values[-4:] == [pytest.approx(20, rel=0.1), None, pytest.approx(40, rel=0.1), None]


def test_what_is_older_than_five_minutes_is_let_go_of():
    trend = Trend()
    trend.add(1000.0, took(20, 10))
    trend.add(1300.0, took(40, 10))
    assert trend.values(1300.0)[:-1] == [None] * 59
    assert set(trend.values(1000.0)) == {None}


def test_the_past_fills_gaps_and_never_replaces_what_was_seen():
    trend = Trend()
    trend.add(1000.0, took(20, 10))
    trend.fill(1001.0, [(0.5, 999.0), (8.0, 77.0)])
    assert trend.values(1001.0)[-3:] == [77.0, None, pytest.approx(20, rel=0.1)]


def test_steps_are_never_shorter_than_the_scrapes_are_apart():
    trend = Trend(interval_s=30.0)
    assert (trend.step_s, trend.length) == (30.0, 10)
