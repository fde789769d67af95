"""What a variant and a service are said to do, from one target or several."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest

from engine.monitoring.histograms import Histogram
from engine.monitoring.signals import ServiceFold
from engine.monitoring.sources.source import ERROR_TYPES, Key, Reading
from engine.monitoring.windows import TargetFold

BOUNDS = tuple(0.0005 * 1.1**i for i in range(125))


def of_samples(samples, bounds=BOUNDS) -> Histogram:
    own = np.bincount(np.searchsorted(bounds, samples), minlength=len(bounds) + 1)
    return Histogram.of(bounds, accumulate(own.tolist()))


class Replica:
    """One target that serves the variants of flights, its counters, and its fold."""

    def __init__(self) -> None:
        self.fold = TargetFold(60.0)
        self.samples: dict[Key, list[float]] = {}
        self.bounds = BOUNDS
        self.gauges: dict = {}

    def serve(self, variant: str, samples, error: str = "") -> None:
        self.samples.setdefault(Key("flights", variant, error), []).extend(samples)

    def scrape(self, at: float) -> None:
        self.fold.fold(Reading(requests={key: of_samples(some, self.bounds)
                                         for key, some in self.samples.items()}, **self.gauges), at)


def service(*replicas: Replica, **known) -> ServiceFold:
    return ServiceFold("flights", [one.fold for one in replicas], stale_after_s=5.0, **known)


def test_what_is_mirrored_stands_apart_and_adds_nothing_to_the_service():
    one = Replica()
    one.gauges = {"weights": {("flights", "champion"): 100.0, ("flights", "challenger"): 0.0}}
    one.serve("champion", [])
    one.scrape(100.0)
    for second in (1, 2):
        one.serve("champion", [0.02] * 10)
        one.serve("challenger+mirror", [0.9] * 4)
        one.serve("challenger+mirror", [0.9], error="timeout")
        one.scrape(100.0 + second)
    fold = service(one)
    whole, variants = fold.signals(102.0)
    assert list(variants) == ["challenger", "champion"] and variants["challenger"].requests == 0
    assert (whole.rps, whole.error_ratio, whole.requests) == (10.0, 0.0, 20)
    assert whole.p99_ms == pytest.approx(20, rel=0.1)
    mirrored = fold.mirrors(102.0)
    assert list(mirrored) == ["challenger+mirror"]
    shown = mirrored["challenger+mirror"]
    assert (shown.rps, shown.error_ratio, shown.weight, shown.stale) == (5.0, 0.2, None, False)
    assert fold.carried() == {"champion", "challenger"}


@pytest.fixture
def replica() -> Replica:
    one = Replica()
    one.serve("champion", [])
    one.scrape(100.0)
    return one


def test_rates_and_percentiles_are_of_the_window(replica):
    for second in range(1, 11):
        replica.serve("champion", [0.020] * 9 + [0.200])
        replica.scrape(100.0 + second)
    whole, variants = service(replica).signals(110.0)
    assert whole.rps == variants["champion"].rps == 10.0
    assert whole.p50_ms == pytest.approx(20, rel=0.1)
    assert whole.p95_ms == pytest.approx(200, rel=0.1)
    assert whole.p99_ms == pytest.approx(200, rel=0.1)
    assert whole.error_ratio == 0.0


def test_a_service_is_read_from_all_its_requests_and_not_from_an_average_of_its_variants(replica):
    rng = np.random.default_rng(7)
    slow, fast = rng.lognormal(-1.5, 0.4, 200), rng.lognormal(-4, 0.4, 3800)
    replica.serve("champion", fast)
    replica.serve("challenger", slow)
    replica.scrape(101.0)
    whole, variants = service(replica).signals(101.0)
    exact = 1000 * float(np.percentile(np.concatenate([slow, fast]), 99))
    assert whole.p99_ms == pytest.approx(exact, rel=0.05)
    average = (variants["champion"].p99_ms + variants["challenger"].p99_ms) / 2
    assert abs(average / exact - 1) > 0.1


def test_requests_of_two_targets_are_added_and_their_histograms_merged(replica):
    other = Replica()
    other.serve("champion", [])
    other.scrape(100.0)
    replica.serve("champion", [0.01] * 60)
    other.serve("champion", [0.1] * 40)
    for one in (replica, other):
        one.scrape(101.0)
    whole, _ = service(replica, other).signals(101.0)
    assert whole.rps == 100.0
    assert whole.p50_ms == pytest.approx(10, rel=0.1)
    assert whole.p95_ms == pytest.approx(100, rel=0.1)


def test_no_request_in_the_window_is_a_rate_of_zero_and_no_percentiles(replica):
    replica.scrape(101.0)
    whole, variants = service(replica).signals(101.0)
    for signals in (whole, variants["champion"]):
        assert signals.rps == 0.0
        assert signals.p50_ms is signals.p95_ms is signals.p99_ms is signals.error_ratio is None
        assert signals.errors == dict.fromkeys(ERROR_TYPES, 0.0)


def test_one_reading_alone_leaves_every_rate_unknown(replica):
    whole, variants = service(replica).signals(100.0)
    for signals in (whole, variants["champion"]):
        assert signals.rps is signals.p99_ms is signals.error_ratio is None
        assert signals.errors == {}
        assert not signals.stale


def test_errors_are_per_second_by_kind(replica):
    replica.serve("champion", [0.01] * 95)
    replica.serve("champion", [1.0] * 4, "timeout")
    replica.serve("champion", [0.01], "quota")
    replica.scrape(102.0)
    whole, _ = service(replica).signals(102.0)
    assert whole.errors == {**dict.fromkeys(ERROR_TYPES, 0.0), "timeout": 2.0, "quota": 0.5}
    assert whole.error_ratio == pytest.approx(0.05)
    assert whole.rps == 50.0


def test_what_a_silent_target_carries_is_stale_and_unknown_but_keeps_version_and_weight(replica):
    replica.gauges = {"weights": {("flights", "champion"): 100.0},
                      "versions": {("flights", "champion"): "7"},
                      "in_flight": {("flights", "champion"): 3.0}}
    replica.serve("champion", [0.01] * 10)
    replica.scrape(101.0)
    fold = service(replica)
    assert not fold.signals(106.0)[0].stale
    whole, variants = fold.signals(106.1)
    champion = variants["champion"]
    assert whole.stale and champion.stale
    assert champion.age_s == pytest.approx(5.1)
    assert champion.rps is champion.p99_ms is champion.in_flight is champion.error_ratio is None
    assert whole.rps is whole.in_flight is None
    assert champion.errors == {}
    assert (champion.version, champion.weight) == ("7", 100.0)


def test_where_one_of_two_targets_is_silent_the_numbers_are_the_others_and_marked_stale(replica):
    other = Replica()
    other.serve("champion", [])
    other.scrape(100.0)
    for second in range(1, 10):
        replica.serve("champion", [0.01] * 10)
        replica.scrape(100.0 + second)
    whole, variants = service(replica, other).signals(109.0)
    assert whole.rps == variants["champion"].rps == pytest.approx(10.0)
    assert whole.stale and variants["champion"].stale
    assert whole.age_s == pytest.approx(9.0)


def test_before_anything_was_heard_the_variants_of_the_config_are_stale_rows():
    whole, variants = service(versions={"champion": "7", "challenger": "8"}).signals(100.0)
    assert list(variants) == ["challenger", "champion"]
    assert all(one.stale and one.age_s is None and one.rps is None for one in variants.values())
    assert variants["challenger"].version == "8"
    assert whole.stale and whole.age_s is None
    assert list(service(champion="blue").signals(100.0)[1]) == ["blue"]


def test_a_target_that_answers_without_this_service_leaves_it_stale():
    elsewhere = TargetFold(60.0)
    for at in (100.0, 101.0):
        elsewhere.fold(Reading(weights={("pricing", "champion"): 100.0}), at)
    whole, variants = ServiceFold("flights", [elsewhere], stale_after_s=5.0).signals(101.0)
    assert whole.stale and whole.age_s is None
    assert variants["champion"].stale


def test_targets_that_contradict_each_other_leave_the_weight_unknown(replica):
    other = Replica()
    for one, weight in ((replica, 95.0), (other, 90.0)):
        one.gauges = {"weights": {("flights", "champion"): weight}}
        one.scrape(101.0)
    assert service(replica, other).signals(101.0)[1]["champion"].weight is None
    replica.gauges = other.gauges
    replica.scrape(102.0)
    assert service(replica, other).signals(102.0)[1]["champion"].weight == 90.0


def test_requests_under_way_are_added_over_targets_and_variants(replica):
    other = Replica()
    for one in (replica, other):
        one.gauges = {"in_flight": {("flights", "champion"): 2.0, ("flights", "challenger"): 1.0}}
        one.scrape(101.0)
    whole, variants = service(replica, other).signals(101.0)
    assert variants["champion"].in_flight == 4.0
    assert whole.in_flight == 6.0


def test_variants_with_different_buckets_have_percentiles_but_the_service_has_none(replica):
    other = Replica()
    other.bounds = (0.1, 0.2)
    for one, variant in ((replica, "champion"), (other, "challenger")):
        one.serve(variant, [])
        one.scrape(101.0)
        one.serve(variant, [0.05] * 10)
        one.scrape(102.0)
    whole, variants = service(replica, other).signals(102.0)
    assert variants["champion"].p99_ms and variants["challenger"].p99_ms
    assert whole.p99_ms is None
    assert whole.rps == variants["champion"].rps + variants["challenger"].rps
    assert "125 and 2 bounds" in whole.problem


def test_a_removed_variant_leaves_the_table_but_its_last_minute_stays_in_the_service(replica):
    replica.serve("challenger", [0.1] * 10)
    replica.serve("champion", [0.01] * 10)
    replica.scrape(101.0)
    replica.samples = {key: some for key, some in replica.samples.items()
                       if key.variant == "champion"}
    replica.scrape(102.0)
    whole, variants = service(replica).signals(102.0)
    assert list(variants) == ["champion"]
    assert whole.requests == 20


def test_the_lease_counts_down_between_scrapes_and_is_absent_without_one(replica):
    fold = service(replica)
    assert fold.lease_s(100.0) is None
    replica.gauges = {"leases": {"flights": 42.0}}
    replica.scrape(101.0)
    assert fold.lease_s(103.0) == pytest.approx(40.0)
    assert fold.lease_s(107.0) is None
