"""Both versions' latencies as a screen shows them: an interval, and nothing that is not known."""

from __future__ import annotations

import random

from engine.monitoring.histograms import Histogram
from engine.monitoring.windows import Increment
from engine.rollout.latencies import Latencies

BOUNDS = tuple(0.001 * 1.1**k for k in range(80))


def requests(variant: str, seconds: list[float]) -> Increment:
    counts = [float(sum(x <= bound for x in seconds)) for bound in BOUNDS] + [float(len(seconds))]
    return Increment("flights", variant, 1.0, float(len(seconds)), Histogram.of(BOUNDS, counts))


def test_the_interval_holds_the_true_quantile_and_narrows() -> None:
    rng = random.Random(7)
    seen = Latencies()
    widths = []
    for _ in range(200):
        seen.add([requests("challenger", [rng.uniform(0.0, 0.2) for _ in range(30)])])
        interval, other = seen.words("challenger", "champion")["latency p95"]
        low, _, high = interval.removesuffix(" ms").partition("–")
        assert other == "-"
        if high:
            assert float(low) <= 190 <= float(high)
            widths.append(float(high) - float(low))
    assert widths[-1] < widths[0]


def test_with_few_requests_nothing_is_claimed() -> None:
    seen = Latencies()
    seen.add([requests("challenger", [0.01])])
    assert seen.words("challenger", "champion")["latency p99"] == ("not known yet", "-")


def test_other_buckets_begin_anew_and_a_beat_without_requests_changes_nothing() -> None:
    seen = Latencies()
    seen.add([requests("champion", [0.01] * 5000)])
    before = seen.words("challenger", "champion")
    seen.add([Increment("flights", "champion", 1.0)])
    assert seen.words("challenger", "champion") == before
    seen.add([Increment("flights", "champion", 1.0, 1.0, Histogram.of((1.0,), [1.0, 1.0]))])
    assert seen.words("challenger", "champion")["latency p95"] == ("-", "not known yet")
