"""Latency and memory of two models: quantiles with bounds that need no distribution. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Floats

DRAWS = 4000


@dataclass(frozen=True, eq=False)
class Measured:
    """Of one model: `latencies_ms` (n,) of single requests, taken as independent; `memory_mb`, its peak."""

    latencies_ms: Floats | None = None
    memory_mb: float | None = None


def measured(latencies_ms: Any = None, memory_mb: float | None = None) -> Measured:
    """Raises UsageError for a latency or a memory that is NaN, infinite or below 0."""
    import numpy as np

    latencies: Floats | None = None
    if latencies_ms is not None:
        latencies = np.asarray(latencies_ms, dtype=np.float64)
        wrong = ~(np.isfinite(latencies) & (latencies >= 0))
        if latencies.ndim != 1 or not len(latencies) or wrong.any():
            first = int(wrong.argmax()) if wrong.any() else 0
            at = f": request {first:,} is {latencies[first]:g} ms" if wrong.any() else ""
            raise UsageError(f"latencies are one number of milliseconds for each request{at}")
    if memory_mb is not None and not (math.isfinite(memory_mb) and memory_mb > 0):
        raise UsageError(f"a peak memory is more than 0 MB, not {memory_mb:g}")
    return Measured(latencies, memory_mb)


def quantile_bound(values: Floats, quantile: float, alpha: float) -> float | None:
    """The upper bound of a quantile that holds with the chance 1 - alpha, whatever the distribution: an order
    statistic, since the number of values below a quantile is binomial (David and Nagaraja 2003, sec. 7.1).
    None where there are fewer values than `least_for`."""
    import numpy as np
    from scipy import special

    n = len(values)
    ranks = np.arange(1, n + 1)
    below = special.bdtr(ranks - 1.0, n, quantile)  # the chance that fewer than `rank` values lie below it
    enough = np.flatnonzero(below >= 1 - alpha)
    return float(np.sort(values)[enough[0]]) if len(enough) else None


def least_for(quantile: float, alpha: float) -> int:
    """How many values an upper bound of a quantile needs."""
    return math.ceil(math.log(alpha) / math.log(quantile))


def ratio_bound(first: Floats, second: Floats, quantile: float, alpha: float,
                rng: np.random.Generator) -> float:
    """The upper bound of second / first of a quantile, by the bootstrap: a resampled quantile is an order
    statistic whose place is beta distributed, so that it is drawn without resampling (Efron 1979, sec. 3)."""
    import numpy as np

    drawn = [_quantiles(np.sort(values), quantile, rng) for values in (first, second)]
    return float(np.quantile(drawn[1] / np.maximum(drawn[0], 1e-300), 1 - alpha))


def _quantiles(ordered: Floats, quantile: float, rng: np.random.Generator) -> Floats:
    import numpy as np

    n = len(ordered)
    rank = min(max(math.ceil(quantile * n), 1), n)
    place = np.ceil(rng.beta(rank, n - rank + 1, DRAWS) * n).astype(int) - 1
    return np.asarray(ordered[np.clip(place, 0, n - 1)])
