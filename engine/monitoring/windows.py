"""What one target's scrapes say happened: increments, and sliding windows of them.

Pure: `at` and `now` are monotonic seconds that the caller reads. Counters as they stand mean
nothing by themselves; an increment is what came between two scrapes of one target, and a window
keeps the last minute of increments with their running sum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from engine.monitoring.histograms import BoundsMismatch, Histogram, delta, merge, minus, plus
from engine.monitoring.sources.source import Key, Pair, Reading, Tally, is_mirror


@dataclass(frozen=True, slots=True)
class Increment:
    """What one target saw of one variant between two scrapes, `span_s` apart.

    `latency` is None without requests, or where the series' bounds cannot be merged; `errors` and
    `unit_failures` hold only types that occurred. `units` is None where the target does not count
    them; a unit may fail in a later increment than the one that counts it. `predictions` holds every
    bin that the target exposes, those with 0 too.
    """

    service: str
    variant: str
    span_s: float
    requests: float = 0.0
    latency: Histogram | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    units: float | None = None
    unit_failures: Mapping[str, float] = field(default_factory=dict)
    predictions: Mapping[str, float] = field(default_factory=dict)


class _Entry(NamedTuple):
    at: float
    increment: Increment


class Window:
    """The increments of one variant on one target over the last `length_s`, with their sums."""

    def __init__(self, length_s: float) -> None:
        self.length_s = length_s
        self.requests = 0.0
        self.latency: Histogram | None = None
        self.errors: dict[str, float] = {}
        self._entries: deque[_Entry] = deque()

    @property
    def span_s(self) -> float:
        """How much time the window has really seen; 0 before its first increment."""
        if not self._entries:
            return 0.0
        first, last = self._entries[0], self._entries[-1]
        return last.at - first.at + first.increment.span_s

    def add(self, at: float, increment: Increment) -> None:
        """Take one more increment, ending at `at`. Other bounds than before start a new window."""
        new, held = increment.latency, self.latency
        if new is not None and held is not None and new.bounds != held.bounds:
            self.clear()
        self._entries.append(_Entry(at, increment))
        self.requests += increment.requests
        if new is not None:
            self.latency = new if self.latency is None else plus(self.latency, new)
        for type_, count in increment.errors.items():
            self.errors[type_] = self.errors.get(type_, 0.0) + count

    def expire(self, now: float) -> None:
        """Let go of what ended `length_s` ago or earlier."""
        while self._entries and self._entries[0].at <= now - self.length_s:
            old = self._entries.popleft().increment
            self.requests -= old.requests
            if old.latency is not None and self.latency is not None:
                self.latency = minus(self.latency, old.latency)
            for type_, count in old.errors.items():
                self.errors[type_] -= count

    def clear(self) -> None:
        self._entries.clear()
        self.requests, self.latency = 0.0, None
        self.errors.clear()


class TargetFold:
    """One target's readings, folded. Knows every service and variant that the target names."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.at: float | None = None
        self.reading: Reading | None = None
        self.problem: str | None = None
        self._windows: dict[Pair, Window] = {}

    def fold(self, reading: Reading, at: float) -> list[Increment]:
        """Take in a reading that arrived at `at`; returns what happened since the one before.

        Nothing is known to have happened before the first reading, nor over a silence longer than
        the window: its counters are where counting starts again. A reading no newer than the one
        before is ignored.
        """
        at -= reading.age_s
        last, last_at = self.reading, self.at
        if last_at is not None and at <= last_at:
            return []
        self.reading, self.at, self.problem = reading, at, None
        if last is None or last_at is None or at - last_at > self.window_s:
            self._windows.clear()
            return []
        increments = self._increments(last, reading, at - last_at)
        for increment in increments:
            pair = (increment.service, increment.variant)
            window = self._windows.setdefault(pair, Window(self.window_s))
            window.add(at, increment)
        return increments

    def expire(self, now: float) -> None:
        """Move the windows on; a variant that the target no longer names goes with its last."""
        named = self.pairs()
        for pair, window in list(self._windows.items()):
            window.expire(now)
            if pair not in named and not window.span_s:
                del self._windows[pair]

    def pairs(self) -> set[Pair]:
        """The services and variants that the last reading named."""
        said = self.reading
        if said is None:
            return set()
        return {key[:2] for key in said.requests} | set().union(
            said.in_flight, said.weights, said.versions)

    def windows(self, service: str) -> list[Window]:
        """The windows of all variants of a service, those just removed from it too, without mirrors."""
        return [window for pair, window in self._windows.items()
                if pair[0] == service and not is_mirror(pair[1])]

    def window(self, pair: Pair) -> Window | None:
        return self._windows.get(pair)

    def _increments(self, last: Reading, reading: Reading, span_s: float) -> list[Increment]:
        if not (last.measures and reading.measures):
            return []
        grown: dict[Pair, list[tuple[Key, Histogram]]] = {pair: [] for pair in self.pairs()}
        for key, new in reading.requests.items():
            old = last.requests.get(key)
            if old is new:
                continue
            change = delta(old, new)
            if change.total:
                grown[key[:2]].append((key, change))
        units = _grown(last.units, reading.units)
        failures = _grown(last.unit_failures, reading.unit_failures)
        predictions = _grown(last.predictions, reading.predictions)
        return [replace(self._increment(pair, span_s, changes),
                        units=sum(units[pair].values()) if pair in units else None,
                        unit_failures={type_: count for type_, count
                                       in failures.get(pair, {}).items() if count},
                        predictions=predictions.get(pair, {}))
                for pair, changes in grown.items()]

    def _increment(self, pair: Pair, span_s: float,
                   changes: list[tuple[Key, Histogram]]) -> Increment:
        errors: dict[str, float] = {}
        for key, change in changes:
            if key.error_type:
                errors[key.error_type] = errors.get(key.error_type, 0.0) + change.total
        try:
            latency = merge(change for _, change in changes)
        except BoundsMismatch as mismatch:
            self.problem, latency = f"{pair[0]} {pair[1]}: {mismatch}", None
        return Increment(*pair, span_s, sum(change.total for _, change in changes), latency, errors)


def _grown(last: Mapping[Tally, float], now: Mapping[Tally, float]) -> dict[Pair, dict[str, float]]:
    """What each pair has counted of each error type or bin between two readings.

    As with histograms, a series that was not there counts from zero, and so does one that fell.
    """
    grown: dict[Pair, dict[str, float]] = {}
    for tally, count in now.items():
        before = last.get(tally, 0.0)
        of_pair = grown.setdefault(tally[:2], {})
        of_pair[tally.what] = of_pair.get(tally.what, 0.0) + (
            count - before if count >= before else count)
    return grown
