"""A reader of Prometheus' text format for just the families the collector needs.

Written because the general parser of prometheus_client takes some twenty times as long, and a fleet
shows tens of thousands of lines a second. What a line *is* does not change from scrape to scrape,
only its value does: everything before the last space is looked up among the lines seen before, and
only a new one is taken apart.

A line of ours that cannot be read makes the whole text rubbish: half a reading would look like a
counter that fell. Lines of other families are passed over unread.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from engine.errors import OpsdeckError
from engine.monitoring.histograms import Histogram, well_formed
from engine.monitoring.sources.assembly import (
    BUCKET,
    COUNTERS,
    GAUGES,
    assembled,
    key_of,
    tally_of,
)
from engine.monitoring.sources.source import DURATION, Key, Reading

PREFIXES = (BUCKET, *GAUGES, *COUNTERS)
REMEMBERED = 200_000  # a target whose labels never repeat must not fill the memory

_LINE = re.compile(r"""(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)[ \t]*
                       (?:\{(?P<labels>(?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]*
                       (?P<value>[^\s{}]+)(?:[ \t]+-?[0-9]+)?[ \t]*(?:\#.*)?""", re.VERBOSE)
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_ESCAPE = re.compile(r'\\([\\n"])')


class Rubbish(OpsdeckError):
    """The text is not an exposition that can be trusted."""

    code = "rubbish"


@dataclass(slots=True)
class _Lines:
    """The values of one series or family in this text, each with its tag: a bucket's upper bound, or
    what tells one gauge or counter from the next."""

    tags: list[Any] = field(default_factory=list)
    values: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Buckets(_Lines):
    """A duration series, with the layout and the values it had the last time."""

    layout: list[float] = field(default_factory=list)
    bounds: tuple[float, ...] = ()
    order: list[int] | None = None
    before: list[str] = field(default_factory=list)
    histogram: Histogram | None = None


class Parser:
    """Reads the texts of one target. It remembers their lines: every target wants its own."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[_Lines, Any]] = {}
        self._series: dict[Key, _Buckets] = {}
        self._gauges = {name: _Lines() for name in GAUGES}
        self._counters = {name: _Lines() for name in COUNTERS}
        self._ignored = _Lines()

    def parse(self, text: str) -> Reading | None:
        """The reading in an exposition, None if none of its lines is ours. Raises Rubbish."""
        if text and not text.endswith("\n"):
            raise Rubbish("the text ends in the middle of a line")
        if len(self._known) > REMEMBERED:
            self.__init__()  # type: ignore[misc]
        self._clear()
        known = self._known
        for line in text.split("\n"):
            head, _, value = line.rpartition(" ")
            place = known.get(head)
            if place is None:
                if not line.startswith(PREFIXES):
                    continue
                place, value = self._learn(line, head)
            lines, tag = place
            lines.tags.append(tag)
            lines.values.append(value)
        requests = {key: _histogram(key, series)
                    for key, series in self._series.items() if series.values}
        gauges, counters = _numbers(self._gauges), _numbers(self._counters)
        if not requests and not any(gauges.values()):
            return None
        try:
            return assembled(requests, gauges, counters,
                             measures=bool(requests) or f"# TYPE {DURATION} " in text)
        except ValueError as error:
            raise Rubbish(str(error)) from None

    def _clear(self) -> None:
        for lines in (*self._series.values(), *self._gauges.values(), *self._counters.values(),
                      self._ignored):
            lines.tags.clear()
            lines.values = []

    def _learn(self, line: str, head: str) -> tuple[tuple[_Lines, Any], str]:
        """Take a line apart: where its value goes, and the value. Remembers it if it is plain."""
        match = _LINE.fullmatch(line)
        if match is None:
            raise Rubbish(f"the line {line[:80]!a} is not a metric with labels and a value")
        name, labels = match["name"], _labels(match["labels"] or "", line)
        place: tuple[_Lines, Any] = (self._ignored, None)
        if name == BUCKET and "le" not in labels:
            raise Rubbish(f"the line {line[:80]!a} is a bucket without its bound")
        if name == BUCKET and {"service", "variant"} <= labels.keys():
            upper = _number(line, labels["le"])
            place = (self._series.setdefault(key_of(labels), _Buckets()), upper)
        elif name in self._gauges and labels.keys() >= set(GAUGES[name]):
            place = (self._gauges[name], tuple(labels[one] for one in GAUGES[name]))
        elif name in self._counters and labels.keys() >= set(COUNTERS[name]):
            place = (self._counters[name], tally_of(name, labels))
        if head.endswith("}") and match.end("labels") + 1 == len(head):
            self._known[head] = place
        return place, match["value"]


def _numbers(families: Mapping[str, _Lines]) -> dict[str, list[tuple[Any, float]]]:
    return {name: [(tag, _number(name, value))
                   for tag, value in zip(lines.tags, lines.values, strict=True)]
            for name, lines in families.items()}


def _labels(text: str, line: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    text, at = text.rstrip(), 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None or match[1] in labels:
            raise Rubbish(f"the labels of {line[:80]!a} cannot be read")
        labels[match[1]] = _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], match[2])
        at = match.end()
    return labels


def _histogram(key: Key, series: _Buckets) -> Histogram:
    if series.tags != series.layout:
        _settle(key, series)
    elif series.values == series.before and series.histogram is not None:
        return series.histogram
    values = series.values if series.order is None else [series.values[at] for at in series.order]
    try:
        counts = array("d", map(float, values))
    except ValueError:
        raise Rubbish(f"{_named(key)} has a count that is not a number") from None
    histogram = Histogram(series.bounds, counts)
    if wrong := well_formed(histogram):
        raise Rubbish(f"{_named(key)} {wrong}")
    series.before, series.histogram = series.values, histogram
    return histogram


def _settle(key: Key, series: _Buckets) -> None:
    order = sorted(range(len(series.tags)), key=series.tags.__getitem__)
    uppers = [series.tags[at] for at in order]
    if uppers[-1] != inf:
        raise Rubbish(f"{_named(key)} has no +Inf bucket")
    series.layout = list(series.tags)
    series.bounds = tuple(uppers[:-1])
    series.order = None if order == list(range(len(order))) else order
    series.histogram = None


def _number(where: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Rubbish(f"{text[:40]!a} in {where[:80]!a} is not a number") from None


def _named(key: Key) -> str:
    error = f" {key.error_type}" if key.error_type else ""
    return f"the histogram of {key.service!a} {key.variant!a}{error}"
