"""Which rows are trained on, which are held out, and what each weighs. Pure.

A random holdout goes by hashes, so that a row, or a whole group, stays on its side when others are added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.pipeline.expectations.keys import mixed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Hashes = NDArray[np.uint64]
    Times = NDArray[np.int64]

SECOND = 1_000_000


def by_time(times: Times, last: float) -> Bools:
    """The rows of the newest `last` seconds. `times` (n,) are microseconds, the least int64 where missing."""
    held: Bools = times > int(times.max()) - int(last * SECOND)
    return held


def by_share(units: Hashes, share: float, seed: int) -> Bools:
    """About `share` of the units, with all rows of each. `units` (n,): a hash of each row's group, key or
    number. Of two units or more at least one lies on either side."""
    import numpy as np

    drawn = mixed(units ^ mixed(np.array([seed], dtype=np.uint64)))
    held: Bools = drawn < np.uint64(int(share * 2**64))
    if len(held) and held.all():
        held = drawn != drawn.max()
    elif len(held) and not held.any():
        held = drawn == drawn.min()
        held = held if not held.all() else np.zeros(len(held), dtype=bool)
    return held


def window(times: Times, train: Bools, last: float | None) -> Bools:
    """Of the rows of `train` those at most `last` seconds older than the newest of them."""
    if last is None or not train.any():
        return train
    kept: Bools = train & (times >= int(times[train].max()) - int(last * SECOND))
    return kept


def weights(times: Times, half_life: float) -> Floats:
    """(n,) 0.5 ** (age / half_life), with age the seconds to the newest row, scaled to a mean of 1.

    Exponential forgetting, e^(-λ age) with λ = ln 2 / half_life: Klinkenberg (2004), Learning drifting
    concepts: example selection vs. example weighting, Intelligent Data Analysis 8(3), 281-300. The scale
    keeps sums of losses, and so what a regularization weighs against them, as without weights.
    """
    import numpy as np

    if not len(times):
        return np.zeros(0)
    age = (int(times.max()) - times) / SECOND
    raw: Floats = np.exp2(-age / half_life)
    scaled: Floats = raw / raw.mean()
    return scaled
