"""The histogram's promise, the exposition's bytes, and the contract that scrapers rely on."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.parser import text_string_to_metric_families

from engine.serving.instruments import (
    BOUNDS,
    Exposition,
    Histogram,
    Instruments,
    quantile,
)
from engine.serving.prediction_bins import Bins


def instruments(observations: int = 50) -> Instruments:
    made = Instruments("flights", {"champion": "3", "challenger": None},
                       bins=Bins("p", edges=[0.5]))
    made.predicted("champion", [{"p": 0.1}, {"p": 0.5}, {"p": 0.7}, {}])
    made.weights = {"champion": 95.0, "challenger": 5.0}
    rng = random.Random(7)
    for _ in range(observations):
        made.variants["champion"].observe(rng.lognormvariate(-4, 1), "")
        made.variants["champion"].observe(rng.lognormvariate(-1, 1), "timeout")
        made.variants["champion"].units.answered(rng.randrange(20), 0.0, "timeout")
    return made


def test_the_buckets_grow_by_a_tenth_from_a_fifth_of_a_millisecond_beyond_a_minute() -> None:
    assert BOUNDS[0] == 0.0002 and BOUNDS[-1] > 60
    assert all(1.099 < high / low < 1.101 for low, high in pairwise(BOUNDS))


@given(st.floats(0.0002, 60))
def test_a_value_and_its_buckets_geometric_mean_differ_by_less_than_five_percent(
        value: float) -> None:
    histogram = Histogram()
    histogram.observe(value)
    i = histogram.counts.index(1)
    if i > 0:
        assert abs(math.sqrt(BOUNDS[i - 1] * BOUNDS[i]) / value - 1) < 0.05


@settings(max_examples=25, deadline=None)
@given(mu=st.floats(math.log(0.002), math.log(5)), sigma=st.floats(0.1, 1.2),
       seed=st.integers(0, 2**31))
def test_p99_of_log_normal_latencies_is_off_by_at_most_five_percent(mu: float, sigma: float,
                                                                    seed: int) -> None:
    rng = random.Random(seed)
    values = sorted(min(60.0, max(0.0002, rng.lognormvariate(mu, sigma))) for _ in range(4000))
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    estimate = quantile(histogram.counts, 0.99)
    assert estimate is not None
    # The value at the rank itself, so that only the buckets can be wrong and not the sample.
    assert abs(estimate / values[math.ceil(0.99 * len(values)) - 1] - 1) <= 0.05


def test_a_quantile_of_nothing_is_unknown_and_beyond_the_last_bound_is_the_last_bound() -> None:
    histogram = Histogram()
    assert quantile(histogram.counts, 0.99) is None
    histogram.observe(1000.0)
    assert quantile(histogram.counts, 0.99) == BOUNDS[-1]


def test_a_value_on_a_bound_belongs_to_the_bucket_below_it_as_prometheus_wants() -> None:
    histogram = Histogram()
    histogram.observe(BOUNDS[10])
    assert histogram.counts[10] == 1


@pytest.mark.parametrize("accept", [
    "", "text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0",
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"])
@pytest.mark.parametrize("observations", [0, 1, 2000])
@pytest.mark.parametrize("lease", [None, 12.5])
def test_the_exposition_equals_prometheus_clients_byte_for_byte(accept: str, observations: int,
                                                               lease: float | None) -> None:
    made = instruments(observations)
    made.lease_left = lambda: lease
    made.variants["challenger"].observe(2_000_000.0, "unavailable")
    registry = CollectorRegistry()
    registry.register(made)
    encode, content_type = choose_encoder(accept)
    exposition = Exposition(made)
    exposition.render(accept)
    assert exposition.render(accept) == (encode(registry), content_type)


def samples(made: Instruments) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, _ = Exposition(made).render("")
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode()) for sample in family.samples}


def test_the_metric_contract_holds_name_by_name() -> None:
    made = instruments()
    made.lease_left = lambda: 41.5
    made.dropped = lambda: 2
    found = samples(made)
    champion = (("service", "flights"), ("variant", "champion"))
    assert found["http_server_active_requests", champion] == 0
    assert found["opsdeck_traffic_weight_percent", champion] == 95
    assert found["opsdeck_traffic_lease_seconds", (("service", "flights"),)] == 41.5
    assert found["opsdeck_model_info", (*champion, ("version", "3"))] == 1
    assert found["opsdeck_prediction_log_dropped_total", (("service", "flights"),)] == 2
    failed = [(("error_type", kind), *champion) for kind in ("timeout", "any")]
    assert {labels[0][1]: value for (name, labels), value in found.items()
            if name == "opsdeck_predictions_total" and champion[1] in labels} == {
        "..0.5": 1, "0.5..": 2, "invalid": 1}
    assert 1 < found["opsdeck_units_total", champion] <= 20
    assert {found["opsdeck_unit_failures_total", labels] for labels in failed} == {
        found["opsdeck_units_total", champion]}
    for error_type in ("", "timeout"):
        labels = (("error_type", error_type), *champion)
        assert found["http_server_request_duration_seconds_count", labels] == 50
        buckets = [value for (name, label), value in found.items()
                   if name.endswith("_bucket") and ("error_type", error_type) in label]
        assert len(buckets) == len(BOUNDS) + 1 and buckets[-1] == 50


def test_label_sets_that_were_never_seen_are_not_there_nor_a_lease_that_does_not_run() -> None:
    found = samples(instruments())
    durations = [dict(labels) for name, labels in found if name.endswith("duration_seconds_count")]
    assert {d["variant"] for d in durations} == {"champion"}
    assert {d["error_type"] for d in durations} == {"", "timeout"}
    assert not any(name == "opsdeck_traffic_lease_seconds" for name, _ in found)
    assert not any(dict(labels).get("variant") == "challenger" for name, labels in found
                   if name == "opsdeck_model_info")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.0001, 100), max_size=50), st.lists(st.floats(0.0001, 100), max_size=50))
def test_two_scrapes_can_be_subtracted_bucket_by_bucket(first: list[float],
                                                        then: list[float]) -> None:
    made = Instruments("flights", {"champion": None})
    variant = made.variants["champion"]
    for value in first:
        variant.observe(value, "")
    before = samples(made)
    for value in then:
        variant.observe(value, "")
    after = samples(made)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    bucket = "http_server_request_duration_seconds_bucket"
    assert all(value >= 0 for (name, _), value in grown.items() if name == bucket)
    total = [value for (name, _), value in grown.items() if name.endswith("seconds_count")]
    assert total == ([len(then)] if first or then else [])
