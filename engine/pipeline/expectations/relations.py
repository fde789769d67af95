"""Which pairs of columns go together most. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEAST_R = 0.1  # weaker correlations are no expectation


def strongest(columns: dict[str, Floats], most: int) -> list[tuple[str, str]]:
    """The at most `most` pairs with the largest |r|, at least LEAST_R, sorted by name.

    `columns` are of one length, NaN where there is no value; a pair is compared over the rows that have both.
    """
    import numpy as np

    names = sorted(columns)
    if len(names) < 2 or not len(columns[names[0]]):
        return []
    values = np.stack([columns[name] for name in names])
    there = np.isfinite(values)
    x = np.where(there, values, 0.0)
    mask = there.astype(float)
    n = mask @ mask.T
    with np.errstate(divide="ignore", invalid="ignore"):
        first, second = x @ mask.T, (x * x) @ mask.T  # sums over the rows of the pair
        spread = second - first ** 2 / n
        r = (x @ x.T - first * first.T / n) / np.sqrt(spread * spread.T)
    flat = spread <= 1e-9 * n  # what is left of a column that does not vary is rounding
    r[(n < 10) | flat | flat.T] = 0.0
    found = [(-round(abs(float(r[i, j])), 9), names[i], names[j])
             for i in range(len(names)) for j in range(i + 1, len(names)) if abs(r[i, j]) >= LEAST_R]
    return sorted((a, b) for _, a, b in sorted(found)[:most])
