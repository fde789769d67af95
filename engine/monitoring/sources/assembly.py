"""From labelled numbers to a reading: what the adapters share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import inf, isnan
from typing import Any

from engine.monitoring.histograms import Histogram
from engine.monitoring.sources.source import (
    ACTIVE,
    DURATION,
    INFO,
    LEASE,
    WEIGHT,
    Key,
    Reading,
)

BUCKET = f"{DURATION}_bucket"
GAUGES: Mapping[str, tuple[str, ...]] = {
    ACTIVE: ("service", "variant"), WEIGHT: ("service", "variant"), LEASE: ("service",),
    INFO: ("service", "variant", "version")}

_TOLD = {"__name__", "service", "variant", "error_type", "le"}

Gauges = Mapping[str, Sequence[tuple[tuple[str, ...], float]]]


def key_of(labels: Mapping[str, str]) -> Key:
    """The series of these labels, the bound left out. An absent error_type is an empty one."""
    rest = sorted((name, value) for name, value in labels.items() if name not in _TOLD)
    return Key(labels["service"], labels["variant"], labels.get("error_type", ""),
               ",".join(f"{name}={value!r}" for name, value in rest))


def assembled(requests: Mapping[Key, Histogram], gauges: Gauges, *, measures: bool,
              age_s: float = 0.0) -> Reading:
    """A reading from histograms, and the gauges of each family with the labels of `GAUGES`.

    NaN is how a target says that it does not know: such a value is left out.
    """
    return Reading(
        measures=measures,
        requests=requests,
        in_flight=_sums(gauges[ACTIVE]),
        weights=_agreed(gauges[WEIGHT]),
        versions=_agreed((tag[:2], tag[2]) for tag, value in gauges[INFO] if value == 1),
        leases=_least((service, value) for (service,), value in gauges[LEASE]),
        age_s=age_s,
    )


def _sums(values: Iterable[tuple[tuple[str, ...], float]]) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for tag, value in values:
        if not isnan(value):
            found[tag] = found.get(tag, 0.0) + value
    return found


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
