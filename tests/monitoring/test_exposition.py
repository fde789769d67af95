"""The fast reader of the text format, with prometheus_client's own parser as the oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from engine.monitoring.histograms import quantile
from engine.monitoring.sources.exposition import Parser, Rubbish
from engine.monitoring.sources.scrape import ACCEPT
from engine.monitoring.sources.source import (
    ACTIVE,
    DURATION,
    INFO,
    LEASE,
    MIRROR,
    PREDICTIONS,
    UNIT_FAILURES,
    UNITS,
    WEIGHT,
    Key,
    Tally,
)
from engine.serving.instruments import MIRROR as SERVING_MIRROR
from engine.serving.instruments import Exposition, Instruments
from engine.serving.prediction_bins import Bins

NAMES = st.text(st.sampled_from(list('ab7 "\\\n{}=,#é+')), max_size=6)
PAIRS = st.tuples(NAMES, NAMES)
NUMBERS = st.one_of(st.floats(-1e9, 1e9), st.sampled_from([math.inf, math.nan, 0.0]))
CALLS = st.lists(st.tuples(PAIRS, st.sampled_from(["", "timeout", "model_error"]),
                           st.floats(0.0001, 20.0)), max_size=20)


def exposed(calls, active, weights, versions, leases, buckets=(0.01, 0.1, 1.0, 10.0)) -> str:
    registry = CollectorRegistry()
    pair = ["service", "variant"]
    durations = Histogram(DURATION, "how long", [*pair, "error_type"], buckets=buckets,
                          registry=registry)
    for names, error, seconds in calls:
        durations.labels(*names, error).observe(seconds)
    for name, values in ((ACTIVE, active), (WEIGHT, weights)):
        gauge = Gauge(name, "a gauge", pair, registry=registry)
        for names, value in values.items():
            gauge.labels(*names).set(value)
    lease = Gauge(LEASE, "left", ["service"], registry=registry)
    for service, value in leases.items():
        lease.labels(service).set(value)
    info = Gauge(INFO, "which", [*pair, "version"], registry=registry)
    for names, version in versions.items():
        info.labels(*names, version).set(1)
    Gauge("other_family", "not ours", ["service", "variant"], registry=registry).labels("a", "b")
    return generate_latest(registry).decode()


def oracle(text: str):
    """The same reading by way of prometheus_client."""
    buckets: dict = {}
    gauges: dict = {ACTIVE: {}, WEIGHT: {}, LEASE: {}, INFO: {}}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == f"{DURATION}_bucket":
                key = Key(labels["service"], labels["variant"], labels["error_type"])
                buckets.setdefault(key, []).append((float(labels["le"]), sample.value))
            elif sample.name in gauges and not math.isnan(sample.value):
                names = tuple(labels[name] for name in ("service", "variant") if name in labels)
                gauges[sample.name][names] = (labels["version"] if sample.name == INFO
                                              else sample.value)
    histograms = {key: ([bound for bound, _ in sorted(some)[:-1]],
                        [count for _, count in sorted(some)]) for key, some in buckets.items()}
    return histograms, gauges


@given(st.lists(st.tuples(CALLS, st.dictionaries(PAIRS, NUMBERS, max_size=3),
                          st.dictionaries(PAIRS, NUMBERS, max_size=3),
                          st.dictionaries(PAIRS, NAMES, max_size=3),
                          st.dictionaries(NAMES, NUMBERS, max_size=2)), min_size=1, max_size=3))
def test_it_reads_what_prometheus_clients_parser_reads_over_several_scrapes(scrapes):
    parser = Parser()
    for scrape in scrapes:
        text = exposed(*scrape)
        histograms, gauges = oracle(text)
        reading = parser.parse(text)
        if reading is None:
            assert not histograms and not any(gauges.values())
            continue
        assert {key: (list(one.bounds), list(one.counts))
                for key, one in reading.requests.items()} == histograms
        assert reading.in_flight == gauges[ACTIVE]
        assert reading.weights == gauges[WEIGHT]
        assert reading.versions == gauges[INFO]
        assert reading.leases == {name: value for (name,), value in gauges[LEASE].items()}


FAMILIES = {UNITS: (), UNIT_FAILURES: ("error_type",), PREDICTIONS: ("bin",)}
COUNTS = st.dictionaries(st.tuples(NAMES, NAMES, NAMES), st.floats(0, 1e9), max_size=4)


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), min_size=1, max_size=3))
def test_counters_are_read_as_prometheus_clients_parser_reads_them(scrapes):
    parser = Parser()
    for scrape in scrapes:
        registry = CollectorRegistry()
        Gauge(ACTIVE, "so that there is a service", ["service", "variant"],
              registry=registry).labels("s", "v")
        for (name, more), counts in zip(FAMILIES.items(), scrape, strict=True):
            counter = Counter(name, "", ["service", "variant", *more, "host"], registry=registry)
            for (service, variant, what), value in counts.items():
                counter.labels(service, variant, *(what for _ in more), "h").inc(value)
        text = generate_latest(registry).decode()
        expected: dict = {name: {} for name in FAMILIES}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in FAMILIES:
                    labels = sample.labels
                    what = "".join(labels[one] for one in FAMILIES[sample.name])
                    expected[sample.name][Tally(labels["service"], labels["variant"], what,
                                                "host='h'")] = sample.value
        said = parser.parse(text)
        assert {UNITS: said.units, UNIT_FAILURES: said.unit_failures,
                PREDICTIONS: said.predictions} == expected


@pytest.mark.parametrize("value", ["-1", "NaN", "+Inf"])
def test_a_counter_that_is_no_count_makes_the_text_rubbish(value):
    text = (f'{ACTIVE}{{service="a",variant="b"}} 1\n{UNITS}{{service="a",variant="b"}} {value}\n')
    with pytest.raises(Rubbish, match=r"opsdeck_units_total of 'a' 'b' is .*, no count"):
        Parser().parse(text)


def test_what_the_gateway_exposes_is_read_whole():
    gateway = Instruments("flights", {"champion": "7", "challenger": "8"}, bins=Bins("p", edges=[0.5]))
    gateway.weights = {"champion": 95.0, "challenger": 5.0}
    gateway.lease_left = lambda: 42.0
    exposition, parser = Exposition(gateway), Parser()

    def read():
        body, content_type = exposition.render(ACCEPT)
        assert content_type.startswith("text/plain")
        return parser.parse(body.decode())

    assert SERVING_MIRROR == MIRROR
    before = read()
    assert before.measures and not before.requests
    assert before.weights == {("flights", "champion"): 95.0, ("flights", "challenger"): 5.0}
    assert before.versions == {("flights", "champion"): "7", ("flights", "challenger"): "8"}
    assert before.leases == {"flights": 42.0}
    latencies = np.random.default_rng(5).lognormal(np.log(0.02), 0.8, 5000)
    for seconds in latencies:
        gateway.variants["champion"].observe(float(seconds), "")
    gateway.variants["challenger"].observe(30.0, "timeout")
    gateway.variants["challenger"].active = 3
    gateway.variants["challenger"].units.answered(1, 0.0, "timeout")
    gateway.predicted("champion", [{"p": 0.5}])
    gateway.mirror("challenger").observe(0.1, "")
    found = read()
    assert found.in_flight == {("flights", "champion"): 0, ("flights", "challenger"): 3}
    assert found.requests[Key("flights", "challenger", "timeout")].total == 1
    champion = found.requests[Key("flights", "champion", "")]
    assert quantile(champion, 0.99) == pytest.approx(np.percentile(latencies, 99), rel=0.05)
    assert before.units == {Tally("flights", "champion", ""): 0, Tally("flights", "challenger", ""): 0}
    assert found.units[Tally("flights", "challenger", "")] == 1
    assert found.unit_failures == {Tally("flights", "challenger", "timeout"): 1,
                                   Tally("flights", "challenger", "any"): 1}
    assert {tally.what: count for tally, count in found.predictions.items()
            if tally.variant == "champion"} == {"..0.5": 0, "0.5..": 1, "invalid": 0}
    assert found.requests[Key("flights", "challenger+mirror", "")].total == 1
    assert found.units[Tally("flights", "challenger+mirror", "")] == 0


def bucket(le: str, value: str, labels: str = 'service="s",variant="v",error_type=""') -> str:
    return f'{DURATION}_bucket{{{labels},le="{le}"}} {value}\n'


def test_buckets_may_come_in_any_order_and_change_it():
    lines = [bucket("+Inf", "9"), bucket("0.1", "3"), bucket("1", "7")]
    parser = Parser()
    for some in (lines, lines[::-1], lines):
        one = parser.parse("".join(some)).requests[Key("s", "v", "")]
        assert (one.bounds, list(one.counts)) == ((0.1, 1.0), [3, 7, 9])


def test_times_exemplars_and_odd_spaces_are_passed_over():
    text = (f'{DURATION}_bucket {{service="s", variant="v", le="0.1", }}   3  1395066363000\n'
            f'{DURATION}_bucket{{service="s",variant="v",le="+Inf"}} 4 # {{trace="a}} 5"}} 0.05 1.5\n')
    parser = Parser()
    for _ in range(2):
        assert list(parser.parse(text).requests[Key("s", "v", "")].counts) == [3, 4]


def test_further_labels_keep_series_apart():
    text = "".join(bucket("+Inf", str(n), f'service="s",variant="v",error_type="",worker="{n}"')
                   for n in (1, 2))
    assert {(key.rest, one.total) for key, one in Parser().parse(text).requests.items()} == {
        ("worker='1'", 1), ("worker='2'", 2)}


def test_a_program_that_measures_other_things_under_the_same_name_is_not_ours():
    assert Parser().parse(bucket("+Inf", "5", 'http_route="/login"')) is None


def test_an_unknown_number_is_left_out_and_never_zero():
    text = (f'{ACTIVE}{{service="s",variant="v"}} NaN\n'
            f'{WEIGHT}{{service="s",variant="v"}} 100\n')
    reading = Parser().parse(text)
    assert reading.in_flight == {}
    assert reading.weights == {("s", "v"): 100.0}


def test_two_versions_of_one_variant_leave_it_unknown():
    line = INFO + '{{service="s",variant="v",version="{}"}} {}\n'
    assert Parser().parse(line.format(7, 1) + line.format(8, 1)).versions == {}
    assert Parser().parse(line.format(7, 0) + line.format(8, 1)).versions == {("s", "v"): "8"}


def test_whether_requests_are_measured_at_all_is_told_by_the_type_line():
    weight = f'{WEIGHT}{{service="s",variant="v"}} 100\n'
    assert not Parser().parse(weight).measures
    assert Parser().parse(f"# TYPE {DURATION} histogram\n{weight}").measures


@pytest.mark.parametrize(("text", "why"), [
    (bucket("0.1", "3"), "no +Inf bucket"),
    (bucket("0.1", "5") + bucket("+Inf", "3"), "counts that fall"),
    (bucket("0.1", "-5") + bucket("+Inf", "3"), "counts that fall"),
    (bucket("0.1", "2") + bucket("0.1", "2") + bucket("+Inf", "3"), "do not increase"),
    (bucket("0.1", "x") + bucket("+Inf", "3"), "not a number"),
    (bucket("x", "2") + bucket("+Inf", "3"), "not a number"),
    (bucket("0.1", "NaN") + bucket("+Inf", "3"), "fall"),
    (bucket("0.1", "+Inf") + bucket("+Inf", "+Inf"), "fall"),
    (bucket("0.1", "2") + bucket("+Inf", "3").rstrip("\n"), "middle of a line"),
    (bucket("0.1", "2") + bucket("+Inf", ""), "not a number"),
    (f'{DURATION}_bucket{{service="s",service="t",variant="v",le="1"}} 1\n', "cannot be read"),
    (f'{DURATION}_bucket{{service="s",variant="v"}} 1\n', "without its bound"),
    (f'{DURATION}_bucket{{service=s,variant="v",le="1"}} 1\n', "cannot be read"),
    (f'{DURATION}_bucket{{service="s\n', "not a metric"),
    (f'{WEIGHT}{{service="s",variant="v"}} lots\n', "not a number"),
])
def test_text_that_cannot_be_trusted_is_refused_as_a_whole(text, why):
    well = bucket("0.1", "1") + bucket("+Inf", "1")
    parser = Parser()
    assert parser.parse(well) is not None
    with pytest.raises(Rubbish, match=why.replace("+", r"\+")):
        parser.parse(text)
    assert list(parser.parse(well).requests[Key("s", "v", "")].counts) == [1, 1]


@given(st.text(st.sampled_from(list('{}", =0123456789.eE+-#\\abNfn')), max_size=40))
def test_no_rubbish_behind_a_name_of_ours_raises_anything_else(tail):
    try:
        Parser().parse(f"{DURATION}_bucket{tail}\n{WEIGHT}{tail}\n")
    except Rubbish as error:
        assert error.message
