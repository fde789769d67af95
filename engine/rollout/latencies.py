"""How slow both versions were since the rollout began, for display: quantiles with what is known of them.

Cumulative, since a sliding window has no confidence sequence; begun anew with the engine. What decides
are the counts above an edge that the judge has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.monitoring.histograms import BoundsMismatch, Histogram, merge
from engine.monitoring.windows import Increment
from engine.rollout.sequences import quantile_sequence
from engine.rollout.setup import QUANTILES

ALPHA = 0.05


class Latencies:
    """Histograms of both versions, merged from what the collector saw."""

    def __init__(self) -> None:
        self._seen: dict[str, Histogram] = {}

    def add(self, increments: Iterable[Increment]) -> None:
        """Take in one beat of a service. Other buckets than before begin anew."""
        for one in increments:
            if one.latency is None:
                continue
            before = self._seen.get(one.variant)
            try:
                merged = merge([before, one.latency] if before is not None else [one.latency])
            except BoundsMismatch:
                merged = one.latency
            if merged is not None:
                self._seen[one.variant] = merged

    def words(self, canary: str, baseline: str) -> dict[str, tuple[str, str]]:
        """By latency metric, both sides' quantile as an interval that holds at every look together, at
        95 %: ("11–13 ms", "9.1–10 ms")."""
        return {name: (self._interval(canary, q), self._interval(baseline, q))
                for name, q in QUANTILES.items()}

    def _interval(self, variant: str, q: float) -> str:
        histogram = self._seen.get(variant)
        if histogram is None:
            return "-"
        low, high = quantile_sequence(histogram, q, ALPHA)
        if math.isinf(high):
            return f"over {_number(low)} ms" if low else "not known yet"
        return f"{_number(low)}–{_number(high)} ms"


def _number(seconds: float) -> str:
    ms = 1000 * seconds
    return f"{ms:.0f}" if ms >= 10 else f"{ms:.1f}"
