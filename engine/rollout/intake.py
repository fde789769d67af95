"""From what the collector saw of both versions in one beat to a tick that can be judged. Pure.

Counted are units where the gateway tells them (a session or a chain of retries counts once), requests
otherwise. Latencies are counted by request, above an edge that was frozen before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import ceil, isfinite

from engine.monitoring.histograms import Histogram, count_above, quantile
from engine.monitoring.sources.source import ERROR_TYPES
from engine.monitoring.windows import Increment
from engine.rollout.analysis import Mark, Tick
from engine.rollout.setup import ERRORS, PREDICTIONS, QUALITY, QUANTILES, Setup

ANY = "any"
MEMORY = "out_of_memory"
LEAST_FOR_EDGE = 100  # requests of the baseline from which its quantiles are frozen


class NotNumbers(ValueError):
    """What was measured is not a count: NaN, infinite or negative."""


def tick(setup: Setup, increments: Iterable[Increment], *, canary: str, baseline: str, stage: str,
         weight: float, edges: Mapping[str, float],
         quality: Sequence[Mapping[str, tuple[int, int]]] = (), mark: Mark = "") -> Tick | None:
    """The tick of the increments of one service since the one before; None where neither was seen.

    `quality`: new labelled predictions and wrong ones by variant, for each second in which they were made.
    Raises NotNumbers.
    """
    seen = list(increments)
    here = [one for one in seen if one.variant == canary]
    there = [one for one in seen if one.variant == baseline]
    if not here and not there:
        return None
    wanted = {metric.name for metric in setup.metrics}
    counts: dict[str, tuple[int, int, int, int]] = {}
    for name, kind in ((ERRORS, ANY), *((f"{ERRORS}: {kind}", kind) for kind in ERROR_TYPES)):
        if name in wanted:
            counts[name] = (*_failures(here, kind), *_failures(there, kind))
    for name in QUANTILES:
        if name in wanted and name in edges:
            counts[name] = (*_slower(here, edges[name]), *_slower(there, edges[name]))
    labelled = [(*one.get(canary, (0, 0)), *one.get(baseline, (0, 0))) for one in quality]
    strata = {QUALITY: [four for four in labelled if any(four)]} if QUALITY in wanted else {}
    known = {bin for metric in setup.metrics if metric.name == PREDICTIONS for bin in metric.bins}
    bins = {PREDICTIONS: (_bins(here, known), _bins(there, known))} if known else {}
    return Tick(
        span_s=max(one.span_s for one in seen), stage=stage, weight=weight,
        requests=(_whole(one.requests for one in here), _whole(one.requests for one in there)),
        failed=(_whole(_errors(here)), _whole(_errors(there))),
        memory=(_whole(one.errors.get(MEMORY, 0.0) for one in here),
                _whole(one.errors.get(MEMORY, 0.0) for one in there)),
        counts={name: four for name, four in counts.items() if four[0] or four[2]},
        bins={name: sides for name, sides in bins.items() if any(sides)},
        strata={name: some for name, some in strata.items() if some}, mark=mark)


def edges(histogram: Histogram | None, slack: float, least_s: float) -> dict[str, float]:
    """The latency edges of a baseline, in seconds: for each quantile the first bucket bound at or above
    `slack` times it and `least_s`. Empty where there are too few requests to tell, or no bound so high."""
    found: dict[str, float] = {}
    if histogram is None or histogram.total < LEAST_FOR_EDGE:
        return found
    for name, q in QUANTILES.items():
        value = quantile(histogram, q)
        if value is None:
            continue
        at = bisect_left(histogram.bounds, max(value * slack, least_s))
        if at < len(histogram.bounds):
            found[name] = histogram.bounds[at]
    return found


def marked(tick: Tick, mark: Mark) -> Tick:
    """The same tick with that mark."""
    return replace(tick, mark=mark) if mark else tick


def recorded(tick: Tick, rate: Sequence[int] | None, floor: float = 0.0) -> Tick:
    """A tick whose baseline is gone, with one from before in its place: `rate` is (n, y) of its requests
    and failures, `floor` the least share of failures that it is taken for, since it stands in for every
    beat: one that never failed in its minute would accuse whatever fails once in a while. Nothing is
    guaranteed by such a comparison."""
    here = tick.counts.get(ERRORS, (*tick.requests[:1], *tick.failed[:1], 0, 0))
    counts = {}
    if rate:
        counts[ERRORS] = (here[0], here[1], rate[0], max(rate[1], ceil(floor * rate[0])))
    return replace(tick, counts=counts, bins={}, mark="recorded")


def _failures(some: Sequence[Increment], kind: str) -> tuple[int, int]:
    """(n, y) of one side. A unit may fail in a later beat than the one that counted it: n is at least y."""
    n = y = 0.0
    for one in some:
        if one.units is not None:
            n += one.units
            y += one.unit_failures.get(kind, 0.0)
        else:
            n += one.requests
            y += sum(one.errors.values()) if kind == ANY else one.errors.get(kind, 0.0)
    failed = _whole([y])
    return max(_whole([n]), failed), failed


def _errors(some: Sequence[Increment]) -> list[float]:
    return [sum(one.errors.values()) for one in some]


def _slower(some: Sequence[Increment], edge: float) -> tuple[int, int]:
    seen = [one.latency for one in some if one.latency is not None]  # targets may have other buckets
    return _whole(one.total for one in seen), _whole(count_above(one, edge) for one in seen)


def _bins(some: Sequence[Increment], known: Collection[str]) -> dict[str, int]:
    """Counts by bin. Those of a bin that was not there when the rollout began are left out: among the
    others two equal versions still fall alike."""
    total: dict[str, float] = {}
    for one in some:
        for name, count in one.predictions.items():
            total[name] = total.get(name, 0.0) + count
    return {name: _whole([count]) for name, count in sorted(total.items()) if count and name in known}


def _whole(values: Iterable[float]) -> int:
    total = sum(values)
    if not isfinite(total) or round(total) < 0:
        raise NotNumbers(f"{total:g} is not a count")
    return max(round(total), 0)
