"""How much of what is alike on both sides of a split chance alone would make so. Pure.

Rows are counted by kind: all that agree in every column are one, so that a row of nothing but zeros, which is
there a thousand times, does not outvote the others. For each kind that is held out, and each two columns, the
training rows that agree with it in all other columns are told apart by whether they agree in the one, the
other, both or neither; each kind has one vote, shared by those rows. Where the two agree by chance, and
independently of each other, the votes for both are (one alone) × (the other alone) / (neither): of a table of
two outcomes with an odds ratio of 1. A copy agrees in both and is in none of the other three counts, so that
the estimate stays what it was however many copies there are. It is taken for the two columns that explain
most, for others may go together, as a city and its country do.

Columns that say nothing beyond others are left out first: they would agree wherever those do, and make chance
look like copies. For the few counts of small tables there is one pair more in each of the three.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Hashes = NDArray[np.uint64]

REPEATED = 10  # rows of a kind, on average, from which on a table is of few kinds, and repeats itself
SAMPLE = 50_000  # kinds that a count is taken from
TRIED = 6  # columns of which every two are tried, those in which rows differ most


class Kinds:
    """The different rows of both sides. `total` (k,) their hashes, `first` (k,) where each is first in the
    training rows followed by those held out, `train` (k,) how many training rows each has, and `held` (k,)
    whether any is held out, 1 or 0."""

    def __init__(self, train: Hashes, held: Hashes) -> None:
        import numpy as np

        self.rows = len(train) + len(held)
        self.total, self.first, at = np.unique(np.concatenate([train, held]), return_index=True,
                                               return_inverse=True)
        size = len(self.total)
        self.train = np.bincount(at[:len(train)], minlength=size).astype(np.float64)
        self.held = (np.bincount(at[len(train):], minlength=size) > 0).astype(np.float64)


def by_chance(kinds: Kinds, part: Callable[[str], Hashes], columns: Sequence[str]) -> float:
    """The share, 0 to 1, that chance explains. `part(column)` (k,) are hashes of what each kind has there,
    such that the hash of several columns is their sum; `columns`: those with the most values first."""
    if kinds.rows >= REPEATED * len(kinds.total):
        return 1.0
    chosen, whole = _telling(kinds, part, columns)
    if len(chosen) < 2:
        return 1.0
    differ = {}
    for column in chosen:
        rest = whole - part(column)
        looked = _drawn(rest)
        alike = _pairs(kinds, whole, looked)
        differ[column] = _pairs(kinds, rest, looked) / alike if alike else 0.0
    tried = sorted(chosen, key=lambda one: -differ[one])[:TRIED]
    return min(1.0, max(_explained(kinds, whole, part(one), part(other))
                        for one, other in itertools.combinations(tried, 2)))


def _telling(kinds: Kinds, part: Callable[[str], Hashes], columns: Sequence[str]) -> tuple[list[str], Hashes]:
    """Columns in which rows that are not alike differ, none of which could be left out, but at least two;
    and the hashes of them together."""
    import numpy as np

    chosen: list[str] = []
    whole: Hashes = np.zeros(len(kinds.total), dtype=np.uint64)
    varied = [one for one in columns if not _same(part(one))]
    for column in varied:
        looked = _drawn(whole)
        before = _pairs(kinds, whole, looked)
        if chosen and before == float((kinds.train[looked] * kinds.held[looked]).sum()):
            break
        added = whole + part(column)
        if _pairs(kinds, added, looked) < before:
            chosen.append(column)
            whole = added
    for column in list(chosen):
        if len(chosen) > 2:
            rest = whole - part(column)
            looked = _drawn(rest)
            if _pairs(kinds, rest, looked) == _pairs(kinds, whole, looked):
                chosen.remove(column)
                whole = rest
    for column in varied:
        if len(chosen) < 2 and column not in chosen:
            chosen.append(column)
            whole = whole + part(column)
    return chosen, whole


def _explained(kinds: Kinds, whole: Hashes, one: Hashes, other: Hashes) -> float:
    """The part of the votes for both columns that independence explains (see the module)."""
    import numpy as np

    looked = _drawn(whole - one - other)
    whole, one, other = whole[looked], one[looked], other[looked]
    train, held = kinds.train[looked], kinds.held[looked]
    rest = _together(whole - one - other, train)
    met = (rest > 0) & (held > 0)
    vote = np.where(met, 1 / np.maximum(rest, 1), 0.0)
    both = float((vote * _together(whole, train)).sum())
    if not both:
        return 0.0
    alone = float((vote * _together(whole - other, train)).sum()) - both
    alone_other = float((vote * _together(whole - one, train)).sum()) - both
    neither = float(met.sum()) - both - alone - alone_other
    pair = float(met.sum()) / float(rest[met].sum())
    return (alone + pair) * (alone_other + pair) / max(neither, pair) / both


def _drawn(hashed: Hashes) -> Any:
    """An index of about SAMPLE kinds: all of those that agree in what `hashed` is of, or none."""
    import numpy as np

    bits = int(np.ceil(np.log2(max(len(hashed) / SAMPLE, 1))))
    if not bits or _same(hashed):
        return slice(None)
    return np.flatnonzero(hashed >> np.uint64(64 - bits) == 0)


def _same(hashed: Hashes) -> bool:
    return not len(hashed) or bool(hashed.min() == hashed.max())


def _pairs(kinds: Kinds, hashed: Hashes, looked: Any) -> float:
    """How many training rows, summed over the kinds held out, agree with them."""
    return float((_together(hashed[looked], kinds.train[looked]) * kinds.held[looked]).sum())


def _together(hashed: Hashes, train: Floats) -> Floats:
    """For each kind (k,) the training rows of all with its hash."""
    import numpy as np

    if _same(hashed):
        return np.full(len(hashed), train.sum())
    _, at = np.unique(hashed, return_inverse=True)
    summed: Floats = np.bincount(at, weights=train).astype(np.float64)
    return summed[at]
