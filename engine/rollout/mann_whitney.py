"""The Mann-Whitney judges: whether samples of a metric from a canary are higher or lower than those of
the baseline beside it. Pure.

`mann-whitney` decides as Kayenta, Spinnaker's judge, does: the confidence interval of the shift between
the two has to lie beyond `tolerance` of its estimate. It sees neither a metric that is usually zero and
no longer is (kayenta #426) nor one whose spread alone changed (kayenta #780).

`mann-whitney-strict` sees both, at a stated level α = 1 - confidence over all its tests, α/2 for each of
high and low:

  * *Sparse* samples, more than half of them at one value, get one test at α/2: whether departures from
    that value are more frequent in one of the two. Ranks that are mostly ties say little, and a test that
    is conditional on the ties cannot be significant in small samples; the unconditional one can.
  * Others get the shift and the spread, each at α/4 (Bonferroni). The spread is reported only where it at
    least doubled or halved: any difference is significant in samples that are large enough.

Its confidence is 0.90 unless given: three departures in six samples against none (kayenta #426) have a p
of 0.034, so no level near Kayenta's 0.98 can tell them from chance.

Where Kayenta stops a root search within 1e-4 of a jump, the interval here ends exactly on it. So a shift
of exactly zero passes here, which Kayenta's rounding may call high.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Label = Literal["pass", "high", "low", "nodata"]
Direction = Literal["increase", "decrease", "either"]

TOLERANCE = 0.25
SPREAD_RATIO = 2.0
DIGITS = 1e-12  # relative to the largest sample; what differs by less does so by rounding
LARGEST = 1e300
NUISANCE_STEPS = 512
MOST_PAIRS = 4_000_000  # the differences and the tables are held in memory at once


@dataclass(frozen=True)
class Classification:
    """`reason` is a sentence for a person; `ratio` is mean(canary) / mean(baseline), None without one."""

    label: Label
    reason: str
    ratio: float | None = None


@dataclass(frozen=True)
class Shift:
    """How much higher the canary is, in the metric's unit: Hodges and Lehmann's estimate, and the ends of
    its confidence interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Classifier:
    """A judge of one metric. `confidence` is what it takes when none is given, in (0, 1)."""

    name: str
    confidence: float
    decide: Callable[[Floats, Floats, Direction, float, float], Classification]

    def classify(self, canary: Sequence[float], baseline: Sequence[float], direction: Direction = "either",
                 *, confidence: float | None = None, tolerance: float = TOLERANCE) -> Classification:
        """Classify samples of any two lengths, both in the metric's unit. NaN is a sample that is missing.

        `direction` is where the metric gets worse: "increase" never says low, "decrease" never high. Samples
        that are equal to 12 digits are taken as equal. `tolerance` is the part of the estimated shift that
        the confidence interval has to stay clear of, from 0.

        Raises ValueError for infinite samples, for more than 4 million pairs of them (2,000 a side), for a
        confidence outside (0, 1) and for a negative tolerance."""
        import numpy as np

        level = self.confidence if confidence is None else confidence
        if not 0 < level < 1:
            raise ValueError(f"confidence is {level:g}, and has to be above 0 and below 1")
        if not 0 <= tolerance < np.inf:
            raise ValueError(f"tolerance is {tolerance:g}, and has to be 0 or a positive number")
        x, y = _alike(_present(canary, "canary"), _present(baseline, "baseline"))
        if not len(x) or not len(y):
            return Classification("nodata", f"the {'baseline' if len(x) else 'canary'} has no samples")
        if len(x) * len(y) > MOST_PAIRS:
            raise ValueError(f"{len(x):,} by {len(y):,} samples are too many: 2,000 a side are judged")
        if np.array_equal(np.sort(x), np.sort(y)):
            return Classification("pass", "canary and baseline have the same samples", 1.0)
        if len(np.unique(np.concatenate([x, y]))) == 1:
            return Classification("pass", "all samples are equal", 1.0)
        return self.decide(x, y, direction, level, tolerance)


def shift(canary: Sequence[float] | Floats, baseline: Sequence[float] | Floats, confidence: float) -> Shift:
    """The shift between two samples of lengths m and n, at least one each, finite.

    The estimate is the median of all m·n differences (Hodges and Lehmann, Annals of Mathematical
    Statistics 34, 1963). The interval holds the shifts that a two-sided Mann-Whitney test with the normal
    approximation, corrected for continuity and ties, does not reject (Bauer, JASA 67, 1972; as in R's
    wilcox.test with exact = FALSE). Between two neighbouring differences the statistic is constant, so
    each end is a difference."""
    import numpy as np
    from scipy.stats import norm

    x, y = np.asarray(canary, dtype=float), np.asarray(baseline, dtype=float)
    differences = np.sort(np.subtract.outer(x, y).ravel())
    pairs = len(differences)
    distinct, first = np.unique(differences, return_index=True)
    above = pairs - np.append(first[1:], pairs)  # differences beyond each distinct one
    surplus = above - pairs / 2
    z = (surplus - 0.5 * np.sign(surplus)) / _sigma(x, y)
    quantile = float(norm.ppf((1 + confidence) / 2))
    ends = [int(np.argmax(z <= bound)) for bound in (quantile, -quantile)]
    if z[-1] > -quantile:
        ends[1] = len(distinct) - 1
    return Shift(float(np.median(differences)), float(distinct[ends[0]]), float(distinct[ends[1]]))


def more_frequent(canary: tuple[int, int], baseline: tuple[int, int]) -> float:
    """The p-value of the canary's events, k of n each, not being more frequent than the baseline's.

    Barnard's unconditional exact test with the pooled z statistic (Suissa and Shuster, JRSS A 148, 1985):
    the largest probability, over every common frequency, of a result at least as far out. The search is
    on a grid of 512 frequencies. Raises ValueError unless 0 ≤ k ≤ n and n ≥ 1."""
    import numpy as np
    from scipy.stats import binom

    (k, m), (j, n) = canary, baseline
    if not (0 <= k <= m and 0 <= j <= n and m and n):
        raise ValueError(f"{k} of {m} and {j} of {n} are not counts")
    a, b = np.arange(m + 1)[:, None], np.arange(n + 1)[None, :]
    pooled = (a + b) / (m + n)
    variance = pooled * (1 - pooled) * (1 / m + 1 / n)
    z = np.where(variance > 0, (a / m - b / n) / np.sqrt(np.where(variance > 0, variance, 1)), 0.0)
    as_far = (z >= z[k, j] - 1e-9).astype(float)
    frequency = np.sin(np.linspace(0, np.pi / 2, NUISANCE_STEPS + 2)[1:-1])[:, None] ** 2
    chances = (binom.pmf(a.T, m, frequency) @ as_far) * binom.pmf(b, n, frequency)
    return float(min(1.0, chances.sum(axis=1).max()))


def _decide(x: Floats, y: Floats, direction: Direction, confidence: float,
            tolerance: float) -> Classification:
    found = shift(x, y, confidence)
    bound = max(tolerance * abs(found.estimate), DIGITS * float(max(abs(x).max(), abs(y).max())))
    said = (f"the canary is shifted by {found.estimate:.4g} ({found.low:.4g} to {found.high:.4g} at "
            f"{confidence:.4g} confidence)")
    if found.low > bound and direction != "decrease":
        return Classification("high", said, _ratio(x, y))
    if found.high < -bound and direction != "increase":
        return Classification("low", said, _ratio(x, y))
    return Classification("pass", said, _ratio(x, y))


def _decide_strictly(x: Floats, y: Floats, direction: Direction, confidence: float,
                     tolerance: float) -> Classification:
    import numpy as np

    level = (1 - confidence) / 2
    values, counts = np.unique(np.concatenate([x, y]), return_counts=True)
    most = int(np.argmax(counts))
    if counts[most] * 2 > len(x) + len(y):
        return _departures(x, y, direction, level, float(values[most]))
    by_shift = _decide(x, y, direction, 1 - level, tolerance)
    return by_shift if by_shift.label != "pass" else _spread(x, y, direction, level / 2, by_shift)


def _departures(x: Floats, y: Floats, direction: Direction, level: float, usual: float) -> Classification:
    upwards = bool((x > usual).sum() + (y > usual).sum() >= (x < usual).sum() + (y < usual).sum())
    in_canary, in_baseline = ((int((v > usual).sum() if upwards else (v < usual).sum()), len(v))
                              for v in (x, y))
    said = (f"{in_canary[0]} of {in_canary[1]} samples of the canary are {'above' if upwards else 'below'} "
            f"the usual {usual:.4g}, of the baseline {in_baseline[0]} of {in_baseline[1]}")
    p_more, p_fewer = more_frequent(in_canary, in_baseline), more_frequent(in_baseline, in_canary)
    p_high, p_low = (p_more, p_fewer) if upwards else (p_fewer, p_more)
    if p_high <= level and direction != "decrease":
        return Classification("high", f"{said} (p {p_high:.2g})", _ratio(x, y))
    if p_low <= level and direction != "increase":
        return Classification("low", f"{said} (p {p_low:.2g})", _ratio(x, y))
    return Classification("pass", said, _ratio(x, y))


def _spread(x: Floats, y: Floats, direction: Direction, level: float,
            otherwise: Classification) -> Classification:
    """A Mann-Whitney test of the distances to the common median, which are exchangeable where the two
    distributions are the same."""
    import numpy as np
    from scipy.stats import mannwhitneyu

    centre = np.median(np.concatenate([x, y]))
    far_x, far_y = np.abs(x - centre), np.abs(y - centre)
    wide_x, wide_y = (float(np.mean(np.abs(v - np.median(v)))) for v in (x, y))
    said = f"the canary's samples are {wide_x:.4g} from their median on average, the baseline's {wide_y:.4g}"
    if wide_x >= SPREAD_RATIO * wide_y and direction != "decrease":
        p = float(mannwhitneyu(far_x, far_y, alternative="greater").pvalue)
        if p <= level:
            return Classification("high", f"{said} (p {p:.2g})", otherwise.ratio)
    if wide_y >= SPREAD_RATIO * wide_x and direction != "increase":
        p = float(mannwhitneyu(far_x, far_y, alternative="less").pvalue)
        if p <= level:
            return Classification("low", f"{said} (p {p:.2g})", otherwise.ratio)
    return otherwise


def _sigma(x: Floats, y: Floats) -> float:
    """Of U, for a shift that ties no sample of one with a sample of the other."""
    import numpy as np

    m, n = len(x), len(y)
    ties = sum(float((counts.astype(float) ** 3 - counts).sum())
               for counts in (np.unique(v, return_counts=True)[1] for v in (x, y)))
    total = m + n
    return float(np.sqrt(m * n / 12 * (total + 1 - ties / (total * (total - 1)))))


def _present(samples: Sequence[float], side: str) -> Floats:
    import numpy as np

    given = np.asarray(samples, dtype=float)
    if (np.abs(given) > LARGEST).any():
        raise ValueError(f"the {side} has a sample that is infinite, or beyond {LARGEST:g}")
    present: Floats = given[~np.isnan(given)]
    return present


def _alike(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Equal where they differ by a rounding alone: 0.1 + 0.2 is no departure from 0.3."""
    import numpy as np

    scale = float(max((np.abs(v).max() for v in (x, y) if len(v)), default=0.0))
    if scale < 1 / LARGEST:
        return x, y
    unit = 2.0 ** np.floor(np.log2(scale))  # a power of two, so that whole numbers stay what they are
    return np.round(x / unit, 12) * unit, np.round(y / unit, 12) * unit


def _ratio(x: Floats, y: Floats) -> float | None:
    mean = float(y.mean())
    return float(x.mean()) / mean if mean else None


JUDGES: Mapping[str, Classifier] = {
    judge.name: judge for judge in (Classifier("mann-whitney", 0.98, _decide),
                                    Classifier("mann-whitney-strict", 0.90, _decide_strictly))}
