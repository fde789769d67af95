"""Distributions as cumulative shares at a few points. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.model import Distribution

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVELS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8,
          0.85, 0.9, 0.95, 0.98, 0.99)
FEW_LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


def points(sample: Floats, low: float, high: float, most: int) -> Floats:
    """At most `most` rising points at quantiles of a sample (NaN and infinities are left out), with the
    least and the largest of all values at the ends. They are values that occur, so that ties keep their
    share."""
    import numpy as np

    finite = sample[np.isfinite(sample)]
    levels = LEVELS if most >= len(LEVELS) + 2 else FEW_LEVELS
    inner = np.quantile(finite, levels, method="inverted_cdf") if len(finite) else np.zeros(0)
    # Adding 0.0 turns -0.0 into 0.0: they are equal, and only one of them can be written.
    found: Floats = np.unique(np.concatenate([[low], inner, [high]]) + 0.0)
    return found


def shares(bins: Any) -> list[float]:
    """Cumulative shares at the edges, from counts of the bins between them (the last bin, above all, is
    empty)."""
    import numpy as np

    total = int(bins.sum())
    return [int(n) / total for n in np.cumsum(bins[:-1])]


def of_sample(sample: Floats, severity: Any, mean: float, deviation: float) -> Distribution | None:
    """The distribution of a sample; None without a finite value."""
    import numpy as np

    finite = np.sort(sample[np.isfinite(sample)])
    if not len(finite):
        return None
    at = points(finite, float(finite[0]), float(finite[-1]), len(LEVELS) + 2)
    upto = np.searchsorted(finite, at, side="right")
    return Distribution(severity=severity, rows=len(finite), mean=plain(mean), deviation=plain(deviation),
                        at=[float(one) for one in at], share=[int(n) / len(finite) for n in upto])


def plain(number: float) -> float | None:
    """A number that can be written; None for an overflow."""
    return float(number) if math.isfinite(number) else None


def graded(sample: Floats) -> Floats:
    """The grades of a sample's values, ties at their middle; NaN where a value is not finite."""
    import numpy as np

    finite = np.isfinite(sample)
    values = np.sort(sample[finite])
    found = np.full(len(sample), np.nan)
    if len(values):
        low = np.searchsorted(values, sample[finite], side="left")
        high = np.searchsorted(values, sample[finite], side="right")
        found[finite] = (low + high) / 2 / len(values)
    return found


def quantile(distribution: Distribution, level: float) -> float:
    """The least point whose cumulative share reaches `level`."""
    for at, share in zip(distribution.at, distribution.share, strict=True):
        if share >= level - 1e-12:
            return at
    return distribution.at[-1]


def tail(distribution: Distribution, level: float, *, upper: bool) -> tuple[float, float]:
    """The outermost point with at least the share `level` of rows beyond it (at or below it for the lower
    tail), and that share; the median with a half where there is none."""
    shares = list(zip(distribution.at, distribution.share, strict=True))
    if not upper:
        return next((at, share) for at, share in shares if share >= level)
    found = [(at, 1 - share) for at, share in shares if 1 - share >= level]
    return found[-1] if found else (quantile(distribution, 0.5), 0.5)
