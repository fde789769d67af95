"""Tests of two models on the same rows. Pure.

Each takes plain arrays or counts and returns a `Tested`: its statistic and a two-sided p of "no difference".
`PairedProportions` also gives an interval and one-sided p-values of a difference of accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Bools, Floats


@dataclass(frozen=True)
class Tested:
    """`difference` is second less first, where the test has one; `error` its standard error."""

    name: str
    statistic: float
    p: float
    difference: float | None = None
    error: float | None = None


def mcnemar(first_alone: int, second_alone: int) -> Tested:
    """McNemar's exact test from the rows that only one of the two got right: binomial, two-sided by doubling
    (McNemar 1947; exact: Edwards 1948). The statistic is the second's share of them."""
    from scipy import special

    n = first_alone + second_alone
    if n == 0:
        return Tested("McNemar, exact", 0.5, 1.0)
    p = min(1.0, 2 * float(special.bdtr(min(first_alone, second_alone), n, 0.5)))
    return Tested("McNemar, exact", second_alone / n, p)


def delong(positive: Bools, first: Floats, second: Floats) -> Tested:
    """The difference of two areas under ROC curves on the same rows (DeLong, DeLong and Clarke-Pearson 1988),
    from placement values in O(n log n) (Sun and Xu 2014). `positive`, `first`, `second` (n,). Needs two rows
    of each class. The statistic is z; where the two rank alike it is 0."""
    import numpy as np
    from scipy import special

    both = [placements(positive, scores) for scores in (first, second)]
    areas = [float(of_positive.mean()) for of_positive, _ in both]
    variance = sum(float(np.var(one[1] - one[0], ddof=1)) / len(one[0])
                   for one in ([both[0][side], both[1][side]] for side in (0, 1)))
    difference, error = areas[1] - areas[0], variance**0.5
    if not error > 0:
        return Tested("DeLong", 0.0, 1.0 if difference == 0 else 0.0, difference, 0.0)
    z = difference / error
    return Tested("DeLong", z, float(2 * special.ndtr(-abs(z))), difference, error)


def placements(positive: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """Of each positive the share of negatives below it, of each negative the share of positives above it."""
    import numpy as np

    up, down = scores[positive], scores[~positive]
    sorted_up, sorted_down = np.sort(up), np.sort(down)
    of_up = np.searchsorted(sorted_down, up, "left") + np.searchsorted(sorted_down, up, "right")
    of_down = np.searchsorted(sorted_up, down, "left") + np.searchsorted(sorted_up, down, "right")
    return of_up / (2 * len(down)), 1 - of_down / (2 * len(up))


def paired_t(first: Floats, second: Floats, weights: Floats) -> Tested:
    """Student's t of the difference of two means Σ losses / Σ weights over the same units; all (units,). With
    weights of 1 the usual paired t; else of the ratio's linearisation, by units (Cochran 1977, eq. 6.13)."""
    import numpy as np
    from scipy import special

    units, total = len(weights), float(weights.sum())
    difference = float((second - first).sum()) / total
    rest = second - first - difference * weights
    error = float(np.sqrt((rest**2).sum() * units / max(units - 1, 1))) / total
    if not error > 1e-300 or units < 2:
        return Tested("paired t", 0.0, 1.0, difference, error)
    t = difference / error
    return Tested("paired t", t, float(2 * special.stdtr(units - 1, -abs(t))), difference, error)


def wilcoxon(first: Floats, second: Floats) -> Tested:
    """Wilcoxon's signed ranks (1945) of paired losses (units,), zeros dropped; exact up to 50 pairs without
    ties. It asks whether losses are shifted, and is not moved by a few huge ones as the mean is."""
    import numpy as np
    from scipy import stats

    differences = second - first
    if not np.any(differences):
        return Tested("Wilcoxon", 0.0, 1.0)
    found = stats.wilcoxon(differences)
    return Tested("Wilcoxon", float(found.statistic), float(found.pvalue))


@dataclass(frozen=True)
class PairedProportions:
    """The gain in accuracy of the second over the first on the same `n` independent rows, of which
    `second_alone` were right by the second alone, and `first_alone` by the first alone.

    Its score interval (Tango 1998) does not collapse where the two agree on every row, as a bootstrap does.
    """

    second_alone: int
    first_alone: int
    n: int

    @property
    def estimate(self) -> float:
        return (self.second_alone - self.first_alone) / self.n

    @property
    def error(self) -> float:
        spread = self.second_alone + self.first_alone - self.n * self.estimate**2
        return float(max(spread, 1.0) ** 0.5 / self.n)

    def doubt(self) -> str | None:
        return None

    def p_at_most(self, threshold: float) -> float:
        """The p-value of "the gain is at most `threshold`"."""
        from scipy import special

        return float(special.ndtr(-self._score(threshold)))

    def p_at_least(self, threshold: float) -> float:
        from scipy import special

        return float(special.ndtr(self._score(threshold)))

    def interval(self, confidence: float) -> tuple[float, float]:
        from scipy import special

        z = float(special.ndtri((1 + confidence) / 2))
        return self._where(z), self._where(-z)

    def _where(self, z: float) -> float:
        """The threshold whose score is z: it falls from one end to the other, so halving finds it."""
        low, high = -1.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if self._score(middle) > z:
                low = middle
            else:
                high = middle
        return (low + high) / 2

    def _score(self, threshold: float) -> float:
        """Tango (1998), eq. 3.5: the maximum of the likelihood under the threshold has a closed form."""
        b, c, n, d = self.second_alone, self.first_alone, self.n, min(max(threshold, -1.0), 1.0)
        middle = -b - c + (2 * n - b + c) * d
        root = max(middle**2 + 8 * n * c * d * (1 - d), 0.0) ** 0.5
        other = (root - middle) / (4 * n)
        variance = n * (2 * other + d * (1 - d))
        if not variance > 1e-12:
            return 0.0 if b - c == n * d else float("inf" if b - c > n * d else "-inf")
        return float((b - c - n * d) / variance**0.5)


def holm(ps: list[float]) -> list[float]:
    """Adjusted p-values, in the order given: those at most α are true with the chance of any error at most α
    (Holm 1979)."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, worst = [0.0] * len(ps), 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, ps[at] * (len(ps) - rank)))
        adjusted[at] = worst
    return adjusted
