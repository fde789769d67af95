"""How large a difference is, and how likely one as large is by chance. Pure: numbers in, numbers out.

A finding wants both: an effect above its margin (so that a million rows do not fail on a meaningless shift)
and a chance below its share of `chance` (so that fifty rows do not fail on an unlucky draw).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LARGEST_Z = math.atanh(0.9999)  # two columns that are one have no finite Fisher z
FEWEST_EXPECTED = 20.0  # Cochran (1954) asks for 5; the far tail that is used here wants more


def ks_distance(expected: Floats, seen: Floats) -> float:
    """The largest difference of two cumulative distributions at common points, shape (points,) each.

    Over given points it is at most the Kolmogorov-Smirnov distance over all of them.
    """
    import numpy as np

    return float(np.abs(np.asarray(expected) - np.asarray(seen)).max())


def ks_chance(distance: float, n: int, m: int) -> float:
    """About a bound of the chance that samples of n and m rows of one distribution are so far apart.

    The Dvoretzky-Kiefer-Wolfowitz inequality for two samples. Wei and Dudley (2012, Statistics and
    Probability Letters 82) prove it with the constant 2 for n = m from 458 rows on, and conjecture it for
    nearly all other sizes; e is taken here, to be on the safe side of small ones. The distance over fewer
    points, or with ties, is no larger than the one it holds for.
    """
    return min(1.0, math.e * math.exp(-2 * distance * distance * n * m / (n + m)))


def standardized_difference(mean: float, deviation: float, mean2: float, deviation2: float) -> float:
    """(mean2 - mean) over the root of the mean variance (Austin 2009, Statistics in Medicine 28, p. 3086).

    0 where both are constant and equal, infinite where both are constant and differ.
    """
    pooled = math.hypot(deviation, deviation2) / math.sqrt(2)
    if pooled == 0:
        return 0.0 if mean == mean2 else math.copysign(math.inf, mean2 - mean)
    return (mean2 - mean) / pooled


def stability_index(expected: Floats, seen: Floats) -> float:
    """The population stability index of two shares over the same cells: sum of (q - p) ln(q / p).

    It is Jeffreys' divergence; 0.1 and 0.25 are the usual bounds (Siddiqi 2006, Credit Risk Scorecards).
    An empty cell counts as 0.0001, for the logarithm.
    """
    import numpy as np

    p, q = np.maximum(np.asarray(expected, float), 1e-4), np.maximum(np.asarray(seen, float), 1e-4)
    return float(((q - p) * np.log(q / p)).sum())


def cramers_v(expected: Floats, seen: Floats) -> float:
    """Cramér's V of two shares over the same cells, in a table whose two rows weigh the same; 0 to 1.

    V² = ½ Σ (p - q)² / (p + q). The V of the raw counts goes to zero as the history outgrows the new data
    (Cramér 1946, p. 282: it depends on the margins), and would hide any shift.
    """
    import numpy as np

    p, q = np.asarray(expected, float), np.asarray(seen, float)
    total = p + q
    some = total > 0
    return math.sqrt(float(((p - q)[some] ** 2 / total[some]).sum()) / 2)


def homogeneity_chance(expected: Floats, seen: Floats) -> float:
    """The chance that two rows of counts, shape (cells,), differ so much and are of one kind.

    Twice the smaller p-value of two tests (Bonferroni): Pearson's chi-square over all cells together, and the
    exact test of the cell that differs most, times the number of cells. Rare cells are for the second.
    """
    import numpy as np

    a, b = np.asarray(expected, float), np.asarray(seen, float)
    if a.sum() == 0 or b.sum() == 0:
        return 1.0
    return min(1.0, 2 * min(chi_square(a, b), cell_chance(a, b)))


def cell_chance(a: Floats, b: Floats) -> float:
    """The p-value of the cell that differs most. Of a cell's a + b rows, b are binomial with probability
    m / (n + m) (Przyborowski and Wilenski 1940, Biometrika 31); two-sided, and times the number of cells."""
    import numpy as np
    from scipy.special import bdtr, bdtrc

    part, both = float(b.sum() / (a.sum() + b.sum())), a + b
    some = both > 0
    low = bdtr(b[some], both[some].astype(np.int64), part)
    high = np.where(b[some] > 0, bdtrc(np.maximum(b[some] - 1, 0), both[some].astype(np.int64), part), 1.0)
    return min(1.0, 2 * int(some.sum()) * float(np.minimum(low, high).min()))


def chi_square(a: Floats, b: Floats) -> float:
    """The p-value of Pearson's test of homogeneity. Cells that expect fewer than FEWEST_EXPECTED rows in
    either row are put together, the rarest first (Cochran 1954, Biometrics 10)."""
    import numpy as np
    from scipy.special import chdtrc

    n, m = float(a.sum()), float(b.sum())
    both = a + b
    least = FEWEST_EXPECTED * (n + m) / min(n, m)
    order = np.argsort(both, kind="stable")
    cells = _together(both[order], least)
    first: Floats = np.bincount(cells, weights=a[order]).astype(float)
    second: Floats = np.bincount(cells, weights=b[order]).astype(float)
    if len(first) < 2:
        return 1.0
    gap = math.sqrt(m / n) * first - math.sqrt(n / m) * second
    return float(chdtrc(len(first) - 1, float((gap ** 2 / (first + second)).sum())))


def _together(rising: Floats, least: float) -> NDArray[Any]:
    """The new cell of each cell, so that every one has at least `least` rows."""
    import numpy as np

    cells, cell, held = [], 0, 0.0
    for count in rising:
        cells.append(cell)
        held += float(count)
        if held >= least:
            cell, held = cell + 1, 0.0
    if held and cell:
        cells = [min(one, cell - 1) for one in cells]
    return np.array(cells, dtype=np.int64)


def cohens_h(share: float, share2: float) -> float:
    """2 arcsin √share2 - 2 arcsin √share (Cohen 1988, p. 181)."""
    return 2 * math.asin(math.sqrt(share2)) - 2 * math.asin(math.sqrt(share))


def h_chance(h: float, n: int, m: int) -> float:
    """The chance of so large an h either way: it is normal with variance 1/n + 1/m (Cohen 1988, p. 213)."""
    return two_sided(abs(h) / math.sqrt(1 / n + 1 / m))


def two_sided(z: float) -> float:
    """P(|Z| > z) of a standard normal Z."""
    return math.erfc(z / math.sqrt(2))


def exceedance_chance(k: int, n: int, m: int) -> float:
    """The chance that k or more of m new rows lie beyond the largest (or below the least) of n rows.

    Without ties it is exact: the k largest of all n + m rows must be new ones (Rosenbaum 1954, Annals of
    Mathematical Statistics 25), which has the chance C(m, k) / C(n + m, k). Ties make it an upper bound.
    """
    if k <= 0:
        return 1.0
    if k > m:
        return 0.0
    return math.exp(_log_choose(m, k) - _log_choose(n + m, k))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def far_chance(beyond: float, end: float, inner: tuple[float, float], middle: tuple[float, float], n: int,
               m: int, *, span: float) -> float:
    """About the chance that one of m rows lies as far out as `beyond`, when `end` is the farthest of n rows.

    Values are distances from the median, outwards. `inner` and `middle` are points of the tail, each with the
    share of rows farther out: (3.1, 0.01) and (1.6, 0.05). The tail is taken as Pareto's, which no usual one
    outreaches: a row is beyond x with the chance (x / end)^(-1/ξ) / n (Weissman 1978, JASA 73). ξ is the
    larger of the slopes that the points give in logarithms, and more than that where few rows lie beyond
    `inner`. Within one more `span` of all values no single value is far; where `inner` is the median itself,
    the tail is exponential with a quarter of the span. A column that never varied has no tail.
    """
    if beyond - end <= span or span <= 0:
        return 1.0
    if inner[0] <= 0 or end <= inner[0]:
        return min(1.0, m / n * math.exp(-(beyond - end) / (span / 4)))
    rows = max(inner[1] * n, math.e)
    slope = math.log(end / inner[0]) / math.log(rows)
    if 0 < middle[0] < inner[0] and middle[1] > inner[1]:
        slope = max(slope, math.log(inner[0] / middle[0]) / math.log(middle[1] / inner[1]))
    return min(1.0, m / n * math.exp(-math.log(beyond / end) / (slope * (1 + 2 / math.sqrt(rows)))))


def unseen_chance(k: int, m: int, once: int, n: int, level: float) -> float:
    """The chance of k or more of m rows in categories that n rows did not show, of which `once` were seen
    once.

    The share of what was not seen is about once / n (Good 1953, Biometrika 40); its upper bound at `level`
    is that of a Poisson count (Garwood 1936), and k is a Poisson count with that mean.
    """
    from scipy.special import gammaincinv, pdtrc

    share = min(1.0, float(gammaincinv(once + 1, 1 - level)) / n)
    return float(pdtrc(k - 1, share * m)) if k > 0 else 1.0


def fewer_chance(count: int, mean: float) -> float:
    """P(N <= count) of a Poisson count N."""
    from scipy.special import pdtr

    return float(pdtr(count, mean))


def more_chance(count: int, mean: float) -> float:
    """P(N >= count) of a Poisson count N."""
    from scipy.special import pdtrc

    return float(pdtrc(count - 1, mean)) if count > 0 else 1.0


def grade_correlation(table: NDArray[Any], rows: Floats, columns: Floats) -> tuple[float, float, int]:
    """The correlation of two columns' grades, the standard error of its Fisher z, and the rows.

    `table` counts rows by the bins of both, shape (a, b); `rows` (a,) and `columns` (b,) are the bins'
    grades, the middle of their cumulative shares, so that r is Spearman's but for the width of the bins.
    The error is the larger of the distribution-free one (the influence function of r; Steiger and Hakstian
    1982, British Journal of Mathematical and Statistical Psychology 35) and √((1 + r²/2) / (n - 3)) of
    Bonett and Wright (2000, Psychometrika 65). r is 0 with an infinite error where a column does not vary
    or n < 10.
    """
    import numpy as np

    n = int(table.sum())
    if n < 10:
        return 0.0, math.inf, n
    weight = table / n
    x = rows - float(weight.sum(axis=1) @ rows)
    y = columns - float(weight.sum(axis=0) @ columns)
    xx, yy = float(weight.sum(axis=1) @ x ** 2), float(weight.sum(axis=0) @ y ** 2)
    if xx <= 1e-15 or yy <= 1e-15:
        return 0.0, math.inf, n
    zx, zy = x / math.sqrt(xx), y / math.sqrt(yy)
    r = min(1.0, max(-1.0, float(zx @ weight @ zy)))
    influence = np.outer(zx, zy) - r / 2 * (zx[:, None] ** 2 + zy[None, :] ** 2)
    free = math.sqrt(float((weight * influence ** 2).sum()) / n) / max(1 - r * r, 1e-4)
    return r, max(free, math.sqrt((1 + r * r / 2) / (n - 3))), n


def cohens_q(r: float, r2: float) -> float:
    """atanh r2 - atanh r (Cohen 1988, p. 110); each within ±atanh 0.9999."""
    return _z(r2) - _z(r)


def _z(r: float) -> float:
    return max(-LARGEST_Z, min(LARGEST_Z, math.atanh(max(-0.99999, min(0.99999, r)))))


def q_chance(q: float, error: float, error2: float) -> float:
    """The chance of so large a q either way, from the standard errors of both."""
    return two_sided(abs(q) / math.hypot(error, error2))
