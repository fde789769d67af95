"""What history keeps of a variant for a span of time, how spans are joined, and how they are read.

Pure. A point holds counts, never rates or percentiles, so that any number of points joins into one
without loss: the p99 of an hour is read from the merged buckets of its requests. Only `in_flight`
is not a count; a joined point keeps the highest. Where the bounds of the buckets changed, a joined
point keeps the buckets of the newer ones.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from engine.api import wire
from engine.monitoring.histograms import Histogram, quantile, sparse
from engine.monitoring.windows import Increment

WHOLE = "*"  # in a series: the whole service, beside its variants

Bounds = tuple[float, ...]


@dataclass(slots=True)
class Point:
    """One variant over `span_s` seconds of watching: `buckets` is the count of each used bucket, by
    its place among the `bounds`; both are empty without requests."""

    span_s: float = 0.0
    requests: float = 0.0
    errors: dict[str, float] = field(default_factory=dict)
    in_flight: float | None = None
    bounds: Bounds = ()
    buckets: dict[int, float] = field(default_factory=dict)

    def latency(self) -> Histogram | None:
        """The merged histogram, None without requests."""
        if not self.buckets:
            return None
        own = [0.0] * (len(self.bounds) + 1)
        for place, count in self.buckets.items():
            own[place] = count
        return Histogram(self.bounds, array("d", accumulate(own)))


def point(increments: Iterable[Increment], in_flight: float | None) -> Point:
    """What several targets saw of one variant in the same time."""
    seen = []
    for one in increments:
        flat = sparse(one.latency) if one.latency is not None else []
        seen.append(Point(
            one.span_s, one.requests, dict(one.errors), None,
            one.latency.bounds if one.latency is not None else (),
            {int(place): count for place, count in zip(flat[::2], flat[1::2], strict=True)}))
    joined = beside(seen)
    joined.in_flight = in_flight
    return joined


def after(points: Iterable[Point]) -> Point:
    """One variant over times that follow each other, oldest first."""
    joined = Point()
    for one in points:
        joined.span_s += one.span_s
        _add(joined, one)
        if one.in_flight is not None:
            joined.in_flight = max(one.in_flight, joined.in_flight or 0.0)
    return joined


def beside(points: Iterable[Point]) -> Point:
    """Several variants, or targets, over the same time: they share its span, in-flight adds."""
    joined = Point()
    for one in points:
        joined.span_s = max(joined.span_s, one.span_s)
        _add(joined, one)
        if one.in_flight is not None:
            joined.in_flight = one.in_flight + (joined.in_flight or 0.0)
    return joined


def _add(joined: Point, one: Point) -> None:
    joined.requests += one.requests
    for type_, count in one.errors.items():
        joined.errors[type_] = joined.errors.get(type_, 0.0) + count
    if one.buckets:
        if one.bounds != joined.bounds:
            joined.bounds, joined.buckets = one.bounds, {}
        own = joined.buckets
        for place, count in one.buckets.items():
            own[place] = own.get(place, 0.0) + count


def packed(one: Point, bounds: int) -> list[Any]:
    """A point as storage keeps it, with the number that its bounds have there."""
    flat: list[float] = []
    for place, count in sorted(one.buckets.items()):
        flat += (place, int(count) if count == int(count) else count)
    return [round(one.span_s, 3), one.requests, one.errors, one.in_flight, bounds, flat]


def unpacked(row: Sequence[Any], bounds: Mapping[int, Bounds]) -> Point:
    """The point of a packed row. Raises LookupError for a number without bounds."""
    span_s, requests, errors, in_flight, number, flat = row
    if not flat:
        return Point(span_s, requests, errors, in_flight)
    return Point(span_s, requests, errors, in_flight, bounds[number],
                 dict(zip(flat[::2], flat[1::2], strict=True)))


Rows = Iterable[tuple[float, Mapping[str, Point]]]  # when it began, and the variants' points


def series(service: str, rows: Rows, *, start: float, step_s: float, count: int,
           at: float) -> wire.Series:
    """`count` columns of `step_s` from `start`, each joined from the rows that began in it."""
    bins: list[dict[str, list[Point]]] = [{} for _ in range(count)]
    variants: set[str] = set()
    for began, points in rows:
        place = int((began - start) // step_s)
        if 0 <= place < count:
            variants |= points.keys()
            for variant, one in points.items():
                bins[place].setdefault(variant, []).append(one)
    joined = [{variant: after(points) for variant, points in one.items()} for one in bins]
    for present in joined:
        if present:
            present[WHOLE] = beside(list(present.values()))
    types = sorted({type_ for present in joined if present for type_ in present[WHOLE].errors})
    values: dict[str, list[float | None]] = {}
    for variant in ([WHOLE, *sorted(variants)] if variants else ()):
        for name, column in _columns([present.get(variant) for present in joined], types).items():
            values[f"{variant}/{name}"] = column
    return wire.Series(service=service, start=start, step_s=step_s, at=at, values=values)


def _columns(points: Sequence[Point | None],
             types: Iterable[str]) -> dict[str, list[float | None]]:
    known = [one if one is not None and one.span_s else None for one in points]
    latencies = [one.latency() if one else None for one in known]
    columns: dict[str, list[float | None]] = {
        "rps": [_rounded(one.requests / one.span_s) if one else None for one in known]}
    for name, q in (("p50_ms", 0.50), ("p95_ms", 0.95), ("p99_ms", 0.99)):
        columns[name] = [_ms(one, q) for one in latencies]
    columns["in_flight"] = [one.in_flight if one else None for one in points]
    for type_ in types:
        columns[f"errors.{type_}"] = [
            _rounded(one.errors.get(type_, 0.0) / one.span_s) if one else None for one in known]
    return columns


def _ms(latency: Histogram | None, q: float) -> float | None:
    value = quantile(latency, q) if latency is not None else None
    return None if value is None else _rounded(1000 * value)


def _rounded(value: float) -> float:
    """Four significant digits: finer than the buckets, and a fourth of the bytes."""
    return float(f"{value:.4g}")
