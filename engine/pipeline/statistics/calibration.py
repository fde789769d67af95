"""Whether probabilities mean what they say, and how a model's predictions are distributed. Pure.

A reliability table puts rows into bins of equal counts by their score and sets the mean score beside the
share that came true. ECE is the mean gap, weighted by the bins (Naeini, Cooper and Hauskrecht 2015). It is
above 0 even for a perfect model, by chance alone: `ece_by_chance` says by how much, so that nobody
recalibrates noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import UsageError
from engine.pipeline.statistics.bootstrap import proportion_interval
from engine.pipeline.statistics.labelled import Labelled
from engine.pipeline.statistics.metrics import called

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Bin:
    """Rows scored from `low` to `high`: the mean score `said`, the share that came true `seen`, and its 95 %
    interval (Clopper and Pearson 1934); None where rows have weights or groups, or there are none."""

    low: float
    high: float
    rows: int
    said: float
    seen: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Calibration:
    """`ece` and `worst_gap` (also called MCE) over `bins`. `ece_by_chance`: the ECE that a perfectly
    calibrated model would show on so many rows, on average. `bias`: mean score less share that came true."""

    bins: tuple[Bin, ...]
    ece: float
    ece_by_chance: float
    worst_gap: float
    bias: float
    says: str


@dataclass(frozen=True)
class Distribution:
    """Of the scores (of more than two classes, of the highest): mean, standard deviation, least, most, and
    `quantiles` by level. `shares`: how many rows each class was said to be."""

    mean: float
    deviation: float
    least: float
    most: float
    quantiles: dict[float, float]
    shares: dict[str, float]


def calibration(data: Labelled, bins: int = 10) -> Calibration:
    """Of class 1, or of more classes of the one said (Guo, Pleiss, Sun and Weinberger 2017). Bins hold equal
    numbers of rows; rows with equal scores stay together, so there may be fewer. Raises UsageError for a task
    without probabilities."""
    import numpy as np

    if data.task not in ("binary", "multiclass"):
        raise UsageError(f"a {data.task} task has no probabilities to calibrate")
    if data.task == "binary":
        said, true = data.scores, data.labels
    else:
        said, true = data.scores.max(axis=1), (called(data) == data.labels).astype(np.float64)
    weights = np.ones(len(data)) if data.weights is None else data.weights
    edges = np.unique(np.quantile(said, np.linspace(0, 1, bins + 1)))
    number = np.clip(np.searchsorted(edges, said, "right") - 1, 0, max(len(edges) - 2, 0))
    exact = data.weights is None and data.groups is None
    found, gaps, by_chance = [], [], []
    for at in range(int(number.max()) + 1):
        inside = number == at
        if not weights[inside].sum() > 0:
            continue
        weight = weights[inside]
        rows, s, y = int(inside.sum()), said[inside], true[inside]
        found.append(Bin(float(s.min()), float(s.max()), rows, float(np.average(s, weights=weight)),
                         float(np.average(y, weights=weight)),
                         proportion_interval(float(y.sum()), rows, 0.95) if exact else None))
        gaps.append((float(weight.sum()), abs(found[-1].said - found[-1].seen)))
        by_chance.append(float((2 / np.pi * (weight**2 * s * (1 - s)).sum()) ** 0.5))  # mean of a half-normal
    total = float(weights.sum())
    ece = sum(weight * gap for weight, gap in gaps) / total
    expected = sum(by_chance) / total
    bias = float(np.average(said - true, weights=weights))
    return Calibration(tuple(found), ece, expected, max(gap for _, gap in gaps), bias,
                       _says(ece, expected, bias, len(data)))


def _says(ece: float, expected: float, bias: float, rows: int) -> str:
    beginning = f"Scores are off by {ece:.2g} on average (ECE over {rows:,} rows)"
    if ece <= 1.5 * expected:
        return f"{beginning}; a perfectly calibrated model would show about {expected:.2g} by chance."
    way = f", too {'high' if bias > 0 else 'low'} by {abs(bias):.2g} overall" if abs(bias) > ece / 2 else ""
    return f"{beginning}{way}; a perfectly calibrated model would show about {expected:.2g}."


def distribution(data: Labelled) -> Distribution:
    """Of the predictions as they are, without weights."""
    import numpy as np

    scores: Floats = data.scores.max(axis=1) if data.task == "multiclass" else data.scores
    shares = {}
    if data.classes:
        counts = np.bincount(called(data).astype(int), minlength=len(data.classes)) / len(data)
        shares = {name: float(share) for name, share in zip(data.classes, counts, strict=True)}
    at = np.quantile(scores, QUANTILES)
    return Distribution(float(scores.mean()), float(scores.std()), float(scores.min()), float(scores.max()),
                        {level: float(q) for level, q in zip(QUANTILES, at, strict=True)}, shares)
