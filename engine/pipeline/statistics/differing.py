"""Which units two models differ on, and how much each of them moves the gain. Pure.

A gain is as sure as the number of units that make it up, not of all that were looked at: of 300 rows of which
four differ, four say which model is better. A unit differs in a metric of sums when the gain changes as the
challenger's answer there is replaced by the champion's; in a metric of order (areas under curves) when it is
among the least rows that have to be moved to turn one order into the other.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from engine.pipeline.statistics.paired_tests import placements
from engine.pipeline.statistics.plans import AveragePrecision, Gain, Mean, Sums

if TYPE_CHECKING:
    from engine.pipeline.statistics.evidence import Pair
    from engine.pipeline.statistics.labelled import Bools, Floats, Labelled

CARRIED = 0.99  # of the sum of squares: units with less than the rest of it do not make a gain any surer
ROUNDING = 1e-6  # of what a unit can do at most: what two ways to add up in float32 may differ by
BREAKS = 500  # neighbours out of order beyond which hundreds of rows are moved, and which is no matter


def differences(pair: Pair, gain: Gain, most: float) -> Floats:
    """(units,) what each unit changes of the gain, 0 where both models do the same to it. `most` is what a
    unit can do (`reach` over the units). Of curves it is by how many rows of the other class it moves."""
    import numpy as np

    if isinstance(gain.first, Sums) and isinstance(gain.second, Sums):
        first, second = gain.first.features, gain.second.features
        total = second.sum(axis=0, keepdims=True)
        by = gain.second.combine(total) - gain.second.combine(total - second + first)
        by[np.isnan(by)] = most  # undefined without it
        by[(first == second).all(axis=1)] = 0.0
    else:
        by = _reordered(pair.champion, pair.challenger)
    by[np.abs(by) <= ROUNDING * most] = 0.0
    return np.asarray(by)


def carrying(by: Floats) -> int:
    """How many units make up a gain: the fewest that have 99 % of the squares of what each changes. Of units
    that change it alike it is their number, and noise on all others adds none."""
    import numpy as np

    squares = np.sort(by**2)[::-1].cumsum()
    return int(np.searchsorted(squares, CARRIED * squares[-1]) + 1) if squares[-1] > 0 else 0


def reach(pair: Pair, gain: Gain, bounds: tuple[float, float]) -> float:
    """How much the gain would change at most, per share of the units on which the challenger did otherwise.

    Where the metric has bounds it is its whole range, times what the heaviest unit is of what is divided by
    (a positive, of all positives; 2 / (said + true) of F1). Where it has none it is the most that the error
    of a unit counts for among those seen, which is no bound of what may be still to come. A row that is
    moved in an order changes the precision at each positive below it, 1/1 + 1/2 + … + 1/k times at most.
    """
    import numpy as np

    plans = [gain.first, gain.second]
    wide = bounds[1] - bounds[0]
    if not np.isfinite(wide):
        return gain.units * max((_error(plan) for plan in plans if isinstance(plan, Sums)), default=np.inf)
    bases = [plan.features[:, plan.features.shape[1] // 2:] for plan in plans if isinstance(plan, Sums)]
    bases = bases or [_classes(pair.champion)]
    heaviest = max(float(np.max(base.max(axis=0) / np.maximum(base.sum(axis=0), np.finfo(float).tiny)))
                   for base in bases)
    steps = 1 + float(np.log(1 / heaviest)) if _precise(gain.first) else 1.0
    return wide * gain.units * heaviest * steps


def _precise(plan: object) -> bool:
    return isinstance(plan, AveragePrecision) or (isinstance(plan, Mean) and _precise(plan.plans[0]))


def _error(plan: Sums) -> float:
    """The most that a unit's first feature, which is its error, counts for when it is added."""
    import numpy as np

    total, perfect = plan.features.sum(axis=0), plan.features.copy()
    perfect[:, 0] = 0.0
    return float(np.nanmax(np.abs(plan.combine(total + plan.features) - plan.combine(total + perfect))))


def _classes(data: Labelled) -> Floats:
    """(units, classes): the weight of each unit's rows of each class."""
    import numpy as np

    rows: Floats = np.eye(len(data.classes))[data.labels.astype(int)]
    if data.weights is not None:
        rows = rows * data.weights[:, None]
    if data.groups is None:
        return rows
    return np.column_stack([np.bincount(data.groups, column, data.units) for column in rows.T])


def _reordered(one: Labelled, other: Labelled) -> Floats:
    """(units,) the share of the other class that rows are moved across, over the number of their own."""
    import numpy as np

    each = [(one.labels == 1, one.scores, other.scores)] if one.scores.ndim == 1 else [
        (one.labels == at, one.scores[:, at], other.scores[:, at]) for at in range(len(one.classes))]
    by = np.zeros(len(one))
    for positive, first, second in each:
        change = np.zeros(len(one))
        for rows, was, now in zip((positive, ~positive), placements(positive, first),
                                  placements(positive, second), strict=True):
            change[rows] = np.abs(now - was) / max(len(now), 1)
        by += np.where(moved(first, second), change, 0.0) / len(each)
    return by if one.groups is None else np.bincount(one.groups, by, one.units).astype(float)


def moved(first: Floats, second: Floats) -> Bools:
    """(n,) the rows that have to be moved to turn the order of `first` into that of `second`, as few as can
    be: those outside the longest subsequence that rises in both (Schensted 1961), rows that are equal in
    both counting as one. Of orders that have little in common all rows."""
    import numpy as np

    pairs, which, sizes = np.unique(np.column_stack([first, -second]), axis=0, return_inverse=True,
                                    return_counts=True)
    rising = (np.diff(pairs[:, 0]) > 0) & (np.diff(pairs[:, 1]) < 0)
    if (~rising).sum() > BREAKS:
        return np.ones(len(first), dtype=bool)
    kept = np.zeros(len(pairs), dtype=bool)
    kept[_heaviest((-pairs[:, 1]).tolist(), sizes.tolist())] = True
    return np.asarray(~kept[which.reshape(-1)])


def _heaviest(values: list[float], weights: list[int]) -> list[int]:
    """The places of the strictly rising subsequence with the greatest sum of weights, in O(n log n)."""
    ends: list[float] = []  # of the best subsequence that ends at most there, and its sum, which rises too
    best: list[int] = []
    places: list[int] = []
    before = [-1] * len(values)
    for at, (value, weight) in enumerate(zip(values, weights, strict=True)):
        i = bisect_left(ends, value)
        total = weight + (best[i - 1] if i else 0)
        before[at] = places[i - 1] if i else -1
        j = i
        while j < len(ends) and best[j] <= total:
            j += 1
        if j == i and i < len(ends) and ends[i] == value:
            continue
        ends[i:j], best[i:j], places[i:j] = [value], [total], [at]
    at, found = places[-1] if places else -1, []
    while at >= 0:
        found.append(at)
        at = before[at]
    return found
