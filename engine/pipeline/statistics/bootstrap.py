"""Bootstrap replicates of prepared metrics, and intervals from them that are honest about n. Pure.

Resamples take whole units (rows, or groups of dependent rows), within strata where those are given. All
metrics of one evaluation see the same resamples. Up to 20,000 units each resample draws n of n with
replacement; beyond, each unit's count is Poisson(1) by itself, which has the same limit, needs no second
pass over the data, and differs by less than the Monte Carlo error there (Hanley and MacGibbon 2006;
Chamandy, Muralidharan, Najmi and Naidu 2012). Its draws are 16 random bits each, so probabilities are
rounded to 1.5e-5.

Intervals are BCa (Efron 1987), not percentile: log loss, AUC near 1 and PR AUC are skewed, and a percentile
interval then misses mostly on one side, which is the side a gate looks at. The acceleration comes from a
jackknife over at most 200 groups of units. The normal quantiles in it are widened to those of Student's t
and by √(n/(n - 1)) (Hesterberg 2015, expanded percentiles), since a bootstrap of few units is too narrow
by just that. n is the number of units that carry the value: for a difference that hardly any unit makes,
not all that were looked at but those few (`differing`).

Beyond the outermost resample a difference's interval goes on in a straight line, as a normal distribution
of the resamples' standard deviation would: few units make few values, whose range is no bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Floats, Ints
    from engine.pipeline.statistics.plans import Plan

POISSON_FROM = 20_000
JACKKNIFE_GROUPS = 200
MOST_UNDEFINED = 0.05  # of the replicates
CELLS = 1 << 17  # counts held at once: about what a core's cache holds


@dataclass(frozen=True, eq=False)
class Replicates:
    """Of one metric: its `estimate`, its value in each resample (b,), and without each jackknife group (g,).
    Undefined ones are left out and counted. `carrying`: how many of the units carry it, where not all do."""

    estimate: float
    values: Floats
    jackknife: Floats
    units: int
    undefined: int
    carrying: int | None = None

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """The two-sided BCa interval; None where the replicates cannot give one (see `doubt`)."""
        if self.doubt() is not None:
            return None
        tail = (1 - confidence) / 2
        return self._quantile(tail), self._quantile(1 - tail)

    @property
    def error(self) -> float:
        """The standard error."""
        return float(self.values.std(ddof=1)) if len(self.values) > 1 else float("nan")

    def p_at_least(self, threshold: float) -> float:
        """The p-value of "the metric is at least `threshold`"."""
        return replace(self, estimate=-self.estimate, values=-self.values,
                       jackknife=-self.jackknife).p_at_most(-threshold)

    def p_at_most(self, threshold: float) -> float:
        """The p-value of "the metric is at most `threshold`": the level whose lower bound is just there
        (Efron and Tibshirani 1993, ch. 14). Never below 1 / (resamples + 1). 1 where there is doubt."""
        import numpy as np
        from scipy import special

        if self.doubt() is not None:
            return 1.0
        ordered = np.sort(self.values)
        count = len(ordered)
        share = float(np.interp(threshold + self._rounding, ordered, np.linspace(0, 1, count)))
        beyond = float(min(threshold - ordered[0], 0.0) + max(threshold - ordered[-1], 0.0))
        z0, a = self._bias(), self._acceleration()
        w = float(special.ndtri(min(max(share, 1 / (count + 1)), count / (count + 1))))
        w += (0.0 if self.carrying is None else beyond / self.error) - z0
        bottom = 1 + a * w
        z = (w / bottom if bottom > 0 else w) - z0
        return max(float(special.stdtr(self._carry - 1, z / _widening(self._carry))), 1 / (count + 1))

    def doubt(self) -> str | None:
        """Why these replicates give no interval, as a sentence; None when they do."""
        import numpy as np

        total = len(self.values) + self.undefined
        if self.units < 2:
            return "one unit says nothing about another"
        if self.undefined > MOST_UNDEFINED * total:
            return (f"the metric is undefined in {self.undefined:,} of {total:,} resamples: "
                    "too few rows of some class")
        if not np.ptp(self.values) > 1e-12 * max(abs(self.estimate), 1e-300):
            return "every resample gives the same value, so the rows cannot show how sure it is"
        return None

    def _quantile(self, level: float) -> float:
        """The bound that is exceeded downwards with probability `level`."""
        import numpy as np
        from scipy import special

        z = float(special.stdtrit(self._carry - 1, level)) * _widening(self._carry)
        z0, a = self._bias(), self._acceleration()
        bottom = 1 - a * (z0 + z)
        shifted = z0 + (z0 + z) / bottom if bottom > 0 else z0 + z
        found = float(np.quantile(self.values, float(special.ndtr(shifted))))
        if self.carrying is None:
            return found
        last = float(special.ndtri(len(self.values) / (len(self.values) + 1)))
        return found + (min(shifted + last, 0.0) + max(shifted - last, 0.0)) * self.error

    @property
    def _carry(self) -> int:
        """At least two: what one unit makes alone has no spread to be seen."""
        return max(self.units if self.carrying is None else self.carrying, 2)

    @property
    def _rounding(self) -> float:
        """Values of few units are often equal but for how they were added up."""
        import numpy as np

        return 1e-9 * float(np.ptp(self.values))

    def _bias(self) -> float:
        import numpy as np
        from scipy import special

        near = np.abs(self.values - self.estimate) <= self._rounding
        below = np.mean((self.values < self.estimate) & ~near) + np.mean(near) / 2
        least = 1 / (len(self.values) + 1)
        return float(special.ndtri(min(max(below, least), 1 - least)))

    def _acceleration(self) -> float:
        """Skewness of the jackknife over six (Efron 1987, eq. 6.6)."""
        import numpy as np

        d = self.jackknife.mean() - self.jackknife if len(self.jackknife) else np.zeros(1)
        square = float((d**2).sum())
        return float((d**3).sum() / (6 * square**1.5)) if square > 0 else 0.0


def replicate(plans: Sequence[Plan], rng: np.random.Generator, resamples: int, *,
              strata: Ints | None = None) -> list[Replicates]:
    """Of each plan, all over the same units. `strata` (units,): numbers; units are drawn within each."""
    import numpy as np

    units = plans[0].units
    drawn: list[list[Floats]] = [[] for _ in plans]
    left: list[list[Floats]] = [[] for _ in plans]
    for counts in _counts(rng, units, resamples, strata):
        for at, plan in enumerate(plans):
            drawn[at].append(plan.values(counts))
    for counts in _leaving_out(units):
        for at, plan in enumerate(plans):
            left[at].append(plan.values(counts))
    found = []
    for plan, values, without in zip(plans, drawn, left, strict=True):
        all_, jackknife = np.concatenate(values), np.concatenate(without)
        defined = np.isfinite(all_)
        estimate = float(plan.values(np.ones((1, units)))[0])
        found.append(Replicates(estimate, all_[defined], jackknife[np.isfinite(jackknife)], units,
                                int((~defined).sum())))
    return found


def _counts(rng: np.random.Generator, units: int, resamples: int, strata: Ints | None) -> Iterator[Floats]:
    """Blocks of (k, units)."""
    import numpy as np

    block = max(CELLS // units, 1)
    table = _poisson_table() if strata is None and units > POISSON_FROM else None
    members = ([np.arange(units)] if strata is None
               else [np.flatnonzero(strata == at) for at in range(int(strata.max()) + 1)])
    for begun in range(0, resamples, block):
        k = min(block, resamples - begun)
        if table is not None:
            yield table[rng.integers(0, 1 << 16, (k, units), dtype=np.uint16)]
            continue
        counts = np.zeros((k, units))
        rows = (np.arange(k) * units)[:, None]
        flat = counts.reshape(-1)
        for inside in members:
            taken = inside[rng.integers(0, len(inside), (k, len(inside)), dtype=np.int32)] + rows
            flat += np.bincount(taken.ravel(), minlength=k * units)
        yield counts


def _poisson_table() -> Floats:
    """From 16 random bits to a count that is Poisson(1)."""
    import numpy as np
    from scipy import special

    bounds = special.pdtr(np.arange(12), 1.0) * (1 << 16)
    return np.searchsorted(bounds, np.arange(1 << 16) + 0.5).astype(np.float64)


def _leaving_out(units: int) -> Iterator[Floats]:
    """Blocks of counts, each row without one group of units; every 200th unit is in the same group, so that
    rows that were near each other are spread."""
    import numpy as np

    groups = min(units, JACKKNIFE_GROUPS)
    number = np.arange(units) % groups
    block = max(CELLS // units, 1)
    for begun in range(0, groups, block):
        yield (number[None, :] != np.arange(begun, min(begun + block, groups))[:, None]).astype(np.float64)


def _widening(units: int) -> float:
    return float((units / (units - 1)) ** 0.5)


def proportion_interval(hits: float, of: float, confidence: float) -> tuple[float, float]:
    """The interval of a proportion that covers at every n (Clopper and Pearson 1934)."""
    from scipy import special

    tail = (1 - confidence) / 2
    low = 0.0 if hits <= 0 else float(special.betaincinv(hits, of - hits + 1, tail))
    high = 1.0 if hits >= of else float(special.betaincinv(hits + 1, of - hits, 1 - tail))
    return low, high
