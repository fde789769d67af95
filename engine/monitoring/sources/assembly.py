"""From labelled numbers to a reading: what the adapters share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite, isnan
from typing import Any

from engine.monitoring.histograms import Histogram
from engine.monitoring.sources.source import (
    ACTIVE,
    DURATION,
    INFO,
    LEASE,
    PREDICTIONS,
    UNIT_FAILURES,
    UNITS,
    WEIGHT,
    Key,
    Reading,
    Tally,
)

BUCKET = f"{DURATION}_bucket"
GAUGES: Mapping[str, tuple[str, ...]] = {
    ACTIVE: ("service", "variant"), WEIGHT: ("service", "variant"), LEASE: ("service",),
    INFO: ("service", "variant", "version")}

COUNTERS: Mapping[str, tuple[str, ...]] = {
    UNITS: ("service", "variant"), UNIT_FAILURES: ("service", "variant", "error_type"),
    PREDICTIONS: ("service", "variant", "bin")}

_TOLD = {"__name__", "service", "variant", "error_type", "le"}

Gauges = Mapping[str, Sequence[tuple[tuple[str, ...], float]]]
Counters = Mapping[str, Sequence[tuple[Tally, float]]]


def key_of(labels: Mapping[str, str]) -> Key:
    """The series of these labels, the bound left out. An absent error_type is an empty one."""
    rest = sorted((name, value) for name, value in labels.items() if name not in _TOLD)
    return Key(labels["service"], labels["variant"], labels.get("error_type", ""),
               ",".join(f"{name}={value!r}" for name, value in rest))


def tally_of(name: str, labels: Mapping[str, str]) -> Tally:
    """The series of these labels in a family of `COUNTERS`."""
    service, variant, *what = (labels[one] for one in COUNTERS[name])
    told = {"__name__", *COUNTERS[name]}
    rest = sorted((label, value) for label, value in labels.items() if label not in told)
    return Tally(service, variant, "".join(what),
                 ",".join(f"{label}={value!r}" for label, value in rest))


def assembled(requests: Mapping[Key, Histogram], gauges: Gauges, counters: Counters, *,
              measures: bool, age_s: float = 0.0) -> Reading:
    """A reading from histograms, the gauges of each family with the labels of `GAUGES`, and the series
    of each family of `COUNTERS`.

    NaN is how a target says that it does not know: such a gauge is left out. A counter that is no
    count raises ValueError, because one that is left out would come back as if counted from zero.
    """
    return Reading(
        measures=measures,
        requests=requests,
        in_flight=_sums(gauges[ACTIVE]),
        weights=_agreed(gauges[WEIGHT]),
        versions=_agreed((tag[:2], tag[2]) for tag, value in gauges[INFO] if value == 1),
        leases=_least((service, value) for (service,), value in gauges[LEASE]),
        units=_counts(UNITS, counters),
        unit_failures=_counts(UNIT_FAILURES, counters),
        predictions=_counts(PREDICTIONS, counters),
        age_s=age_s,
    )


def _sums(values: Iterable[tuple[tuple[str, ...], float]]) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for tag, value in values:
        if not isnan(value):
            found[tag] = found.get(tag, 0.0) + value
    return found


def _counts(name: str, counters: Counters) -> dict[Tally, float]:
    for tally, value in counters[name]:
        if not isfinite(value) or value < 0:
            raise ValueError(f"{name} of {tally.service!a} {tally.variant!a} is {value}, no count")
    return dict(counters[name])


def _least(values: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for tag, value in values:
        if not isnan(value):
            found[tag] = min(value, found.get(tag, inf))
    return found


def _agreed(values: Iterable[tuple[tuple[str, ...], Any]]) -> dict[Any, Any]:
    """What all say of a pair; where they contradict each other it is unknown, and left out."""
    found: dict[Any, set[Any]] = {}
    for tag, value in values:
        if value == value:
            found.setdefault(tag, set()).add(value)
    return {tag: said.pop() for tag, said in found.items() if len(said) == 1}
