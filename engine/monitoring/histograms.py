"""Arithmetic of cumulative bucket histograms, as Prometheus exposes them.

Pure: no I/O and no clock. A histogram is a mergeable summary: adding the counts of two replicas
gives exactly the histogram of all their requests, which no average of percentiles does.

How far off a quantile is. The answer lies in the bucket (lo, hi] that holds the sample of rank
ceil(q·n), and so does that sample, so the two differ by a factor below hi/lo: with bounds that grow
by a factor r, the relative error is below r - 1 whatever the distribution is. Interpolation takes a
share of the bucket's ratio rather than of its width (geometric), which is exact when the
logarithms are spread evenly inside the bucket, and far closer than the bound for the long tails
that latencies have. Below the first bound there is no ratio and it is linear from zero. Above the
last finite bound nothing is known but that: the answer is that bound, to be read as "at least".
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf, log
from operator import add, le, lt, sub

from engine.errors import OpsdeckError

NONE_YET = 1e-9  # a rank above zero but below any count: the 0-quantile is in the first used bucket


class BoundsMismatch(OpsdeckError):
    """Two histograms have different buckets, so that their counts cannot be added."""

    code = "bounds_mismatch"


@dataclass(frozen=True, slots=True)
class Histogram:
    """`bounds`: finite upper bounds, increasing, in seconds. `counts`: cumulative, one more than
    the bounds, the last over all observations. Never changed in place."""

    bounds: tuple[float, ...]
    counts: array[float]

    @classmethod
    def of(cls, bounds: Iterable[float], counts: Iterable[float]) -> Histogram:
        return cls(tuple(bounds), array("d", counts))

    @property
    def total(self) -> float:
        """The number of observations."""
        return self.counts[-1]


def well_formed(histogram: Histogram) -> str | None:
    """What is wrong with a histogram that came from outside, as half a sentence, or None."""
    bounds, counts = histogram.bounds, histogram.counts
    if len(counts) != len(bounds) + 1:
        return f"has {len(counts)} counts for {len(bounds)} bounds"
    if not all(map(lt, bounds, (*bounds[1:], inf))):
        return "has bounds that do not increase"
    if not counts[0] >= 0 or not all(map(le, counts, counts[1:])) or counts[-1] == inf:
        return "has counts that fall from one bucket to the next"
    return None


def delta(old: Histogram | None, new: Histogram) -> Histogram:
    """What was observed between two scrapes of one series; `old` None for one that was not there.

    A counter only falls when its process has restarted. If the count of any one bucket fell, the
    whole series began again at zero, and the new value is what was observed since; a series that
    comes back with other bounds is taken the same way. The result is never negative. A restart that
    counts past every old bucket between two scrapes cannot be told from traffic, and loses what was
    counted before it.
    """
    if old is None or old.bounds != new.bounds:
        return new
    if old.counts == new.counts:
        return Histogram(new.bounds, array("d", bytes(8 * len(new.counts))))
    grown = array("d", map(sub, new.counts, old.counts))
    # cumulative growth that is not itself cumulative means that some bucket's own count fell
    if grown[0] < 0 or not all(map(le, grown, grown[1:])):
        return new
    return Histogram(new.bounds, grown)


def merge(histograms: Iterable[Histogram]) -> Histogram | None:
    """The histogram of all observations together, None of none. Raises BoundsMismatch."""
    merged: Histogram | None = None
    for histogram in histograms:
        merged = histogram if merged is None else plus(merged, histogram)
    return merged


def plus(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of the observations of both. Raises BoundsMismatch."""
    _same_bounds(a, b)
    return Histogram(a.bounds, array("d", map(add, a.counts, b.counts)))


def minus(a: Histogram, b: Histogram) -> Histogram:
    """What is left of `a` without `b`, which was merged into it before. Raises BoundsMismatch."""
    _same_bounds(a, b)
    return Histogram(a.bounds, array("d", map(sub, a.counts, b.counts)))


def quantile(histogram: Histogram, q: float) -> float | None:
    """The q-quantile (0 ≤ q ≤ 1) in seconds, None without observations. Its error: see the module.

    The rank is q·n, as in Prometheus' histogram_quantile; the geometric interpolation is the one
    its native histograms use.
    """
    counts, bounds = histogram.counts, histogram.bounds
    rank = max(q * histogram.total, NONE_YET)
    if histogram.total <= 0:
        return None
    at = bisect_left(counts, rank)
    if at >= len(bounds):
        return bounds[-1] if bounds else None
    before = counts[at - 1] if at else 0.0
    share = (rank - before) / (counts[at] - before)
    high = bounds[at]
    low = bounds[at - 1] if at else 0.0
    # rounding may carry the power a hair past the bucket's own bound
    return min(high, low * (high / low) ** share) if low > 0 else high * share


def count_above(histogram: Histogram, value: float) -> float:
    """How many observations were above `value` seconds: the inverse of `quantile`."""
    bounds, counts = histogram.bounds, histogram.counts
    at = bisect_left(bounds, value)
    if at >= len(bounds):
        return histogram.total - counts[len(bounds) - 1] if bounds else histogram.total
    high = bounds[at]
    low = bounds[at - 1] if at else 0.0
    before = counts[at - 1] if at else 0.0
    share = _share(low, high, value)
    return histogram.total - before - share * (counts[at] - before)


def sparse(histogram: Histogram) -> list[float]:
    """The buckets that hold something as [index, count, index, count, …]: what storage keeps."""
    flat: list[float] = []
    before = 0.0
    for index, count in enumerate(histogram.counts):
        if count != before:
            own = count - before
            flat += (index, int(own) if own == int(own) else own)
            before = count
    return flat


def from_sparse(bounds: tuple[float, ...], flat: Iterable[Sequence[float]]) -> Histogram:
    """The merged histogram of several `sparse` lists over the same bounds.

    Raises IndexError when an index is outside the bounds.
    """
    own = [0.0] * (len(bounds) + 1)
    for pairs in flat:
        for at in range(0, len(pairs), 2):
            own[int(pairs[at])] += pairs[at + 1]
    return Histogram(bounds, array("d", accumulate(own)))


def _share(low: float, high: float, value: float) -> float:
    if value <= low:
        return 0.0
    if low <= 0:
        return value / high
    return log(value / low) / log(high / low)


def _same_bounds(a: Histogram, b: Histogram) -> None:
    if a.bounds is not b.bounds and a.bounds != b.bounds:
        raise BoundsMismatch(
            f"two histograms of {len(a.bounds)} and {len(b.bounds)} bounds cannot be merged",
            hint="give every replica and variant of the service the same latency buckets")
