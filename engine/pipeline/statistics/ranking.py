"""How well each query's rows are ranked, per query, so that the mean over queries is a sum. Pure.

Rows that a model scores alike have no order, so none is invented: NDCG is the mean over all orders of the
tied rows (McSherry and Najork 2008), and for precision and reciprocal rank a tie counts against the model,
as if it put the relevant row last. A query with nothing relevant has no value and counts nowhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.pipeline.statistics.plans import over

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats, Ints


def ndcg(labels: Floats, scores: Floats, queries: Ints, k: int | None = None) -> Floats:
    """Normalised discounted cumulative gain at `k`, gains linear in the label (Järvelin and Kekäläinen 2002).

    `labels`, `scores` (n,), `queries` (n,) from 0 to q - 1. Returns (q,), NaN without a relevant row.
    """
    import numpy as np

    order, _, place = _ranked(scores, queries)
    discounts = _discount(place, k)
    ties = _ties(scores[order], queries[order])
    starts = np.flatnonzero(np.diff(ties, prepend=-1))
    size = np.diff(np.append(starts, len(ties)))
    mean_gain = np.add.reduceat(labels[order], starts) / size
    count = int(queries.max()) + 1
    gained = _by_query(queries[order][starts], mean_gain * np.add.reduceat(discounts, starts), count)
    best, _, ideal_place = _ranked(labels, queries)
    ideal = _by_query(queries[best], labels[best] * _discount(ideal_place, k), count)
    return over(gained, ideal)


def average_precisions(labels: Floats, scores: Floats, queries: Ints, k: int | None = None) -> Floats:
    """Average precision at `k` of each query (q,): the mean, over its relevant rows (at most k), of the
    precision down to each. A row is relevant when its label is above 0. NaN without one."""
    import numpy as np

    order, grouped, place = _ranked(scores, queries)
    relevant = (labels[order] > 0).astype(np.float64)
    last = _last_of_tie(scores[order], grouped)
    hits = np.cumsum(relevant)
    before = hits - relevant
    first_row = np.flatnonzero(np.diff(grouped, prepend=-1))
    within = hits[last] - before[first_row][grouped]
    rank = place[last] + 1.0
    counted = relevant * (rank <= (k or len(labels)))
    count = int(queries.max()) + 1
    total = _by_query(grouped, counted * within / rank, count)
    possible = _by_query(grouped, relevant, count)
    possible = possible if k is None else np.minimum(possible, k)
    return over(total, possible)


def reciprocal_ranks(labels: Floats, scores: Floats, queries: Ints, k: int | None = None) -> Floats:
    """1 / the rank of the first relevant row of each query (q,), 0 when it is below `k`; NaN without one."""
    import numpy as np

    order, grouped, place = _ranked(scores, queries)
    rank = place[_last_of_tie(scores[order], grouped)] + 1.0
    count = int(queries.max()) + 1
    relevant = labels[order] > 0
    best = np.full(count, np.inf)
    np.minimum.at(best, grouped[relevant], rank[relevant])
    found = np.where(best <= (k or len(labels)), 1 / best, 0.0)
    found[np.bincount(grouped, relevant, count) == 0] = np.nan
    return found


def _by_query(queries: Ints, values: Floats, count: int) -> Floats:
    import numpy as np

    return np.bincount(queries, values, count).astype(np.float64)


def _ranked(scores: Floats, queries: Ints) -> tuple[Ints, Ints, Ints]:
    """The order by query and falling score; the query of each row in it, and its place there from 0."""
    import numpy as np

    order = np.lexsort((-scores, queries))
    grouped = queries[order]
    starts = np.searchsorted(grouped, np.arange(int(queries.max()) + 1))
    return order, grouped, np.arange(len(order)) - starts[grouped]


def _discount(place: Ints, k: int | None) -> Floats:
    import numpy as np

    discounts: Floats = 1 / np.log2(place + 2.0)
    return discounts if k is None else np.where(place < k, discounts, 0.0)


def _ties(scores: Floats, queries: Ints) -> Ints:
    """Numbers of the runs of equal score in one query, of rows in order."""
    import numpy as np

    new = (np.diff(scores, prepend=np.nan) != 0) | (np.diff(queries, prepend=-1) != 0)
    return np.cumsum(new) - 1


def _last_of_tie(scores: Floats, queries: Ints) -> Ints:
    import numpy as np

    ties = _ties(scores, queries)
    ends = np.flatnonzero(np.append(np.diff(ties) != 0, True))
    return ends[ties]
