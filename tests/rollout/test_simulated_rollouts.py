"""The promise to a good version and about a bad one, by simulation through the real fold, seeds fixed.

A false alarm is promised in at most 1 of 100 rollouts; the soak run asks 300 for it. The short one asks
100 and lets one pass: at a true rate of 5 % it would be red in 96 cases of 100, at 3 % in 81.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.rollout.simulation import EDGES, SETUP, Outcome, World, simulate

TICKS = 180
_from_five = {share: lambda t, share=share: share if t >= 5 else 0.0 for share in (1.0, 0.4, 0.15)}


def runs(world: World, seed: int, count: int, ticks: int = TICKS, **more: bool) -> list[Outcome]:
    return [simulate(world, np.random.default_rng([seed, run]), ticks, **more) for run in range(count)]


def test_every_metric_of_the_default_plan_is_on():
    assert {metric.name for metric in SETUP.metrics} == {
        "errors", "errors: timeout", "errors: out_of_memory", "errors: invalid_input", "errors: model_error",
        "errors: unavailable", "latency p95", "latency p99", "quality", "predictions"}
    assert set(EDGES) == {"latency p95", "latency p99"}


@pytest.mark.parametrize("count", [100, pytest.param(300, marks=pytest.mark.soak)])
def test_identical_versions_are_rolled_back_less_than_once_in_a_hundred_times(count: int):
    assert sum(one.at is not None for one in runs(World(), 1, count)) / count <= 0.01


def test_nor_under_an_incident_that_both_share():
    world = World(incident=lambda t: 5.0 if 60 <= t < 120 else 1.0)
    assert sum(one.at is not None for one in runs(world, 2, 100)) / 100 <= 0.01


@pytest.mark.parametrize("outage", [1.0, 0.95], ids=["total", "nearly total"])
def test_an_outage_of_the_old_version_never_promotes_nor_rolls_back(outage: float):
    """Neither does the new one by what the old one's failures make it look like."""
    world = World(canary_rps=5, baseline_rps=95, outage=lambda t: outage if t >= 2 else 0.0)
    found = runs(world, 3, 60, 60)
    assert [one.at for one in found] == [None] * 60
    assert not any(one.good for one in found)


@pytest.mark.parametrize("share", [1.0, 0.4, 0.15])
@pytest.mark.parametrize("rps", [5, 50])
def test_a_bad_version_is_not_shown_to_be_good_by_an_outage_of_the_old_one(share: float, rps: int):
    """Half of the traffic each, and no tick has enough of it to be called an incident at once."""
    world = World(canary_rps=rps, baseline_rps=rps, worse=4, outage=_from_five[share])
    assert sum(one.good for one in runs(world, 8, 60, 60, stop_at_good=True)) <= 1


def test_an_outage_that_both_share_does_not_roll_back():
    world = World(incident=lambda t: 95.0 if 60 <= t < 90 else 1.0)
    assert sum(one.at is not None for one in runs(world, 4, 60, 120)) == 0


def test_twice_the_errors_are_found_within_a_minute_and_five_times_within_seconds():
    twice, fivefold = (runs(World(worse=worse), 5, 60, 600) for worse in (2, 5))
    assert np.median([one.at or 9999 for one in twice]) <= 60
    assert np.median([one.at or 9999 for one in fivefold]) <= 8
    assert np.median([one.exposed for one in fivefold]) <= 500
    assert all(one.why and one.why.startswith("worse: errors") for one in fivefold)


def test_a_good_version_is_shown_to_be_good_with_some_hundreds_of_requests():
    found = runs(World(canary_rps=50, baseline_rps=950, risk=0.001), 6, 40, 600, stop_at_good=True)
    assert all(one.good for one in found)
    assert np.median([one.exposed for one in found]) <= 3000


def test_a_version_twice_as_bad_is_hardly_ever_shown_to_be_good():
    found = runs(World(worse=2.0), 7, 100, 120, stop_at_good=True)
    assert sum(one.good for one in found) <= 1
