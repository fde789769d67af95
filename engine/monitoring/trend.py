"""The last five minutes of a service's p99, a value for every few seconds. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from engine.monitoring.histograms import quantile
from engine.monitoring.points import Point, after

LENGTH_S, STEP_S = 300.0, 5.0


class Trend:
    """p99 in ms by steps of `step_s`, each from the merged buckets of its own requests, so that the
    line moves sooner than the sliding minute does."""

    def __init__(self, interval_s: float = 1.0) -> None:
        self.step_s = max(STEP_S, interval_s)
        self.length = max(round(LENGTH_S / self.step_s), 1)
        self._values: dict[int, float | None] = {}
        self._open: tuple[int, Point] | None = None

    def add(self, now: float, point: Point) -> None:
        """Take what the whole service did up to `now` (monotonic seconds)."""
        step = int(now // self.step_s)
        if self._open is not None and self._open[0] == step:
            point = after((self._open[1], point))
        self._open = (step, point)
        latency = point.latency()
        value = quantile(latency, 0.99) if latency is not None else None
        self._values[step] = None if value is None else round(1000 * value, 2)
        for old in [old for old in self._values if old <= step - self.length]:
            del self._values[old]

    def fill(self, now: float, past: Iterable[tuple[float, float | None]]) -> None:
        """Put in what is known from before: how many seconds ago, and the p99 in ms."""
        for ago_s, value in past:
            self._values.setdefault(int((now - ago_s) // self.step_s), value)

    def values(self, now: float) -> list[float | None]:
        """Oldest first, the last one still growing; None where nothing was seen."""
        last = int(now // self.step_s)
        return [self._values.get(step) for step in range(last - self.length + 1, last + 1)]
