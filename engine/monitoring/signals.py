"""The live signals of each variant, and of each service, from the windows of its targets.

Pure. Summaries are only ever merged from bucket counts: a service's p99 is read from the histogram
of all its requests, on all targets, not from its variants' p99s. Latency is over all requests, the
failed ones too, because that is how long callers waited.

Unknown is None and never 0. A variant without a request in the window has rps 0.0 and no
percentiles. A target that has been silent for `stale_after_s` marks what it carries as stale; the
numbers then are those of the targets that still answer, and None if none does. Weight and version
are the last that were said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from engine.monitoring.histograms import BoundsMismatch, Histogram, merge, quantile
from engine.monitoring.sources.source import ERROR_TYPES, is_mirror
from engine.monitoring.windows import TargetFold, Window

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signals:
    """The numbers of a variant or a whole service. Latencies in ms, rates per second.

    `requests` and `latency` are the evidence behind them: how many requests the window holds, and
    their merged histogram. `problem` is a sentence when latencies could not be merged.
    """

    rps: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    errors: Mapping[str, float] = field(default_factory=dict)
    error_ratio: float | None = None
    in_flight: float | None = None
    weight: float | None = None
    version: str | None = None
    age_s: float | None = None
    stale: bool = True
    requests: float | None = None
    latency: Histogram | None = None
    problem: str | None = None


class ServiceFold:
    """One service over all the targets that carry it."""

    def __init__(self, name: str, targets: Sequence[TargetFold], *, stale_after_s: float,
                 champion: str = "champion", versions: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._targets = targets
        self._stale_after_s = stale_after_s
        self._versions = dict(versions or {})
        self._expected = list(self._versions) or [champion]

    def signals(self, now: float) -> tuple[Signals, dict[str, Signals]]:
        """The whole service, and its variants in order of name.

        Before any target has named a variant, those of the config stand as stale rows.
        """
        carried = self.carried()
        fresh, stale, age_s = seen = self._seen(now, carried)
        variants = {variant: self._variant(variant, *seen)
                    for variant in sorted(carried or self._expected)}
        windows = [window for target in fresh for window in target.windows(self.name)]
        flights = [one.in_flight for one in variants.values()]
        known = [flight for flight in flights if flight is not None]
        whole = replace(_summed(windows), age_s=age_s, stale=stale,
                        in_flight=sum(known) if len(known) == len(flights) else None)
        return whole, variants

    def mirrors(self, now: float) -> dict[str, Signals]:
        """What is mirrored to variants, by VARIANT+mirror: no part of the service's own numbers."""
        seen = self._seen(now, self.carried())
        return {variant: self._variant(variant, *seen)
                for variant in sorted(self._named()) if is_mirror(variant)}

    def carried(self) -> set[str]:
        """The variants that the targets last named; empty if none names this service."""
        return {variant for variant in self._named() if not is_mirror(variant)}

    def bins(self) -> list[str]:
        """The bins that its predictions are counted in, sorted; empty where they are not counted."""
        return sorted({tally.what for target in self._targets if target.reading
                       for tally in target.reading.predictions if tally.service == self.name})

    def age_s(self, now: float) -> float | None:
        """How long the target silent longest has been silent; None if one was never heard."""
        heard = [target.at for target in self._targets if target.at is not None]
        if not self._targets or len(heard) < len(self._targets):
            return None
        return max(now - min(heard), 0.0)

    def lease_s(self, now: float) -> float | None:
        """What is left of the shortest lease that a fresh target tells of, None without one."""
        left = [target.reading.leases[self.name] - (now - target.at) for target in self._targets
                if self._fresh(target, now) and target.reading and target.at is not None
                and self.name in target.reading.leases]
        return max(min(left), 0.0) if left else None

    def _named(self) -> set[str]:
        return {variant for target in self._targets for service, variant in target.pairs()
                if service == self.name}

    def _seen(self, now: float, carried: set[str]) -> tuple[list[TargetFold], bool, float | None]:
        """The fresh targets, whether the service is stale, and its age."""
        age_s = self.age_s(now) if carried else None
        stale = age_s is None or age_s > self._stale_after_s
        return [one for one in self._targets if self._fresh(one, now)], stale, age_s

    def _fresh(self, target: TargetFold, now: float) -> bool:
        return target.at is not None and now - target.at <= self._stale_after_s

    def _variant(self, variant: str, fresh: list[TargetFold], stale: bool,
                 age_s: float | None) -> Signals:
        pair = (self.name, variant)
        windows = [window for target in fresh if (window := target.window(pair))]
        said = [target.reading for target in fresh or self._targets if target.reading]
        flights = [one.in_flight[pair] for one in said if pair in one.in_flight]
        return replace(
            _summed(windows),
            in_flight=sum(flights) if fresh and flights else None,
            weight=_agreed(one.weights[pair] for one in said if pair in one.weights),
            version=_agreed(one.versions[pair] for one in said if pair in one.versions)
            or self._versions.get(variant),
            age_s=age_s, stale=stale)


def _summed(windows: Iterable[Window]) -> Signals:
    seen = [window for window in windows if window.span_s]
    if not seen:
        return Signals()
    requests = sum(window.requests for window in seen)
    failed = sum(sum(window.errors.values()) for window in seen)
    errors = dict.fromkeys(ERROR_TYPES, 0.0)
    for window in seen:
        for type_, count in window.errors.items():
            errors[type_] = errors.get(type_, 0.0) + count / window.span_s
    problem = None
    try:
        latency = merge(window.latency for window in seen if window.latency is not None)
    except BoundsMismatch as mismatch:
        latency, problem = None, mismatch.message
    return Signals(
        rps=sum(window.requests / window.span_s for window in seen),
        p50_ms=_ms(latency, 0.50), p95_ms=_ms(latency, 0.95), p99_ms=_ms(latency, 0.99),
        errors=errors, error_ratio=failed / requests if requests else None,
        requests=requests, latency=latency, problem=problem)


def _ms(latency: Histogram | None, q: float) -> float | None:
    value = None if latency is None else quantile(latency, q)
    return None if value is None else 1000 * value


def _agreed(said: Iterable[T]) -> T | None:
    """What all targets say, None where they contradict each other or say nothing."""
    values = set(said)
    return values.pop() if len(values) == 1 else None
