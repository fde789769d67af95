"""Metrics prepared so that thousands of resamples of the same rows cost little each. Pure.

A plan is made once from the labels and scores; `values(counts)` then gives the metric of every resample
from how often each of it took each unit (a row, or a group of rows that are dependent). Two kinds carry
all metrics: sums of features of the rows, which are a product of matrices, and areas under curves, whose
rows are sorted once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Bools, Floats, Ints, Labelled


class Plan(Protocol):
    """`values`: from counts (k, units) to the metric of each (k,), NaN where undefined."""

    @property
    def units(self) -> int: ...

    def values(self, counts: Floats) -> Floats: ...


@dataclass(frozen=True, eq=False)
class Sums:
    """A function of weighted sums. `features` (units, m); `combine` from sums (k, m) to (k,). `counted`: the
    features are successes and trials of independent rows of weight 1, so that exact intervals hold."""

    features: Floats
    combine: Callable[[Floats], Floats]
    counted: bool = False

    @property
    def units(self) -> int:
        return len(self.features)

    def values(self, counts: Floats) -> Floats:
        return self.combine(counts @ self.features)


def sums(data: Labelled, columns: Sequence[Floats], combine: Callable[[Floats], Floats] | None = None, *,
         counted: bool = False) -> Sums:
    """Of columns (n,) or (n, m) by row; without `combine` the first sum over the second."""
    import numpy as np

    features = np.column_stack(columns)
    if data.weights is not None:
        features = features * data.weights[:, None]
    if data.groups is not None:
        features = np.column_stack([np.bincount(data.groups, column, data.units) for column in features.T])
    plain = data.weights is None and data.groups is None
    return Sums(np.ascontiguousarray(features), combine or ratio, counted and plain)


def ratio(totals: Floats) -> Floats:
    """The first sum over the second."""
    return over(totals[:, 0], totals[:, 1])


def over(top: Floats, bottom: Floats) -> Floats:
    """Elementwise; NaN where the bottom is 0."""
    import numpy as np

    found = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=found, where=bottom > 0)
    return found


@dataclass(frozen=True, eq=False)
class Auc:
    """The area under the ROC curve: the share of pairs of a positive and a negative that are in order, ties
    counting half (Hanley and McNeil 1982, which is the Mann-Whitney statistic). Each positive knows how many
    of the sorted negatives are `below` it, and `upto` it with its ties."""

    units: int
    positives: Ints
    negatives: Ints  # the units of the positives, and of the negatives in the order of their scores
    below: Ints
    upto: Ints
    positive_weights: Floats | None
    negative_weights: Floats | None

    def values(self, counts: Floats) -> Floats:
        import numpy as np

        positive = _taken(counts, self.positives, self.positive_weights)
        negative = _taken(counts, self.negatives, self.negative_weights)
        upto = np.zeros((len(counts), negative.shape[1] + 1))
        np.cumsum(negative, axis=1, out=upto[:, 1:])
        halves = np.take(upto, self.below, axis=1)
        halves += np.take(upto, self.upto, axis=1)
        ordered = np.einsum("ij,ij->i", positive, halves) / 2
        return over(ordered, positive.sum(axis=1) * upto[:, -1])


def auc(data: Labelled, positive: Bools, scores: Floats) -> Auc:
    """`positive` (n,) and `scores` (n,) by row; the higher the more positive."""
    import numpy as np

    units = np.arange(len(data)) if data.groups is None else data.groups
    order = np.argsort(scores[~positive], kind="stable")
    negatives = np.flatnonzero(~positive)[order]
    positives = np.flatnonzero(positive)
    positives = positives[np.argsort(scores[positives], kind="stable")]  # near in memory, so faster
    sorted_negatives = scores[negatives]
    weigh = None if data.weights is None else data.weights
    return Auc(data.units, units[positives], units[negatives],
               np.searchsorted(sorted_negatives, scores[positives], "left"),
               np.searchsorted(sorted_negatives, scores[positives], "right"),
               None if weigh is None else weigh[positives], None if weigh is None else weigh[negatives])


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """The area under the precision-recall curve as a sum of steps, Σ (Rₙ - Rₙ₋₁) Pₙ over thresholds. Not by
    trapezoids, which are too favourable (Davis and Goadrich 2006). `rows` are the units of the rows from the
    highest score down, `positives` the places of positives among them. Of each distinct score that a positive
    has, `ends` is the place of its last row, `hits` the number of positives down to it, from 0."""

    units: int
    rows: Ints
    positives: Ints
    ends: Ints
    hits: Ints
    weights: Floats | None

    def values(self, counts: Floats) -> Floats:
        import numpy as np

        if not len(self.positives):
            return np.full(len(counts), np.nan)
        taken = _taken(counts, self.rows, self.weights)
        hits = np.take(np.cumsum(np.take(taken, self.positives, axis=1), axis=1), self.hits, axis=1)
        all_ = np.take(np.cumsum(taken, axis=1), self.ends, axis=1)
        steps = np.diff(hits, axis=1, prepend=0)
        area = np.einsum("ij,ij->i", steps, np.divide(hits, all_, out=np.zeros_like(hits), where=all_ > 0))
        return over(area, hits[:, -1])


def average_precision(data: Labelled, positive: Bools, scores: Floats) -> AveragePrecision:
    """As `auc`."""
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    rows = order if data.groups is None else data.groups[order]
    positives = np.flatnonzero(positive[order])
    hits = np.flatnonzero(np.diff(scores[order[positives]], append=np.nan) != 0)
    ends = np.searchsorted(-scores[order], -scores[order[positives[hits]]], "right") - 1
    return AveragePrecision(data.units, rows, positives, ends, hits,
                            None if data.weights is None else data.weights[order])


@dataclass(frozen=True, eq=False)
class Mean:
    """The plain mean of several plans, as of one AUC for each class."""

    plans: tuple[Plan, ...]

    @property
    def units(self) -> int:
        return self.plans[0].units

    def values(self, counts: Floats) -> Floats:
        import numpy as np

        return np.asarray(np.mean([plan.values(counts) for plan in self.plans], axis=0))


@dataclass(frozen=True, eq=False)
class Gain:
    """How much better the second is than the first on the same rows, positive when it is better."""

    first: Plan
    second: Plan
    sign: float  # 1 where higher is better, -1 where lower is

    @property
    def units(self) -> int:
        return self.first.units

    def values(self, counts: Floats) -> Floats:
        return self.sign * (self.second.values(counts) - self.first.values(counts))


def value(plan: Plan) -> float:
    """The metric of the rows themselves; NaN where undefined."""
    import numpy as np

    return float(plan.values(np.ones((1, plan.units)))[0])


def _taken(counts: Floats, rows: Ints, weights: Floats | None) -> Floats:
    import numpy as np

    taken = np.take(counts, rows, axis=1)
    return taken if weights is None else taken * weights
