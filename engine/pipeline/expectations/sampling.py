"""The same rows for every run: each 2^k-th, as many as fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Sample:
    """At most `limit` rows of several columns, evenly spread over all rows that were added: row 0 and every
    `stride`-th after it. When too many are kept, the stride doubles."""

    def __init__(self, limit: int) -> None:
        self._limit = max(limit, 1)
        self._parts: dict[str, list[Floats]] = {}
        self._kept = 0
        self._rows = 0
        self.stride = 1

    def add(self, columns: dict[str, Floats], rows: int) -> None:
        """Columns of `rows` rows each; the same columns every time."""
        first = -self._rows % self.stride
        for name, values in columns.items():
            self._parts.setdefault(name, []).append(values[first::self.stride].copy())
        self._kept += len(range(first, rows, self.stride))
        self._rows += rows
        while self._kept > self._limit:
            self._halve()

    def _halve(self) -> None:
        import numpy as np

        self._parts = {name: [np.concatenate(parts)[::2].copy()] for name, parts in self._parts.items()}
        self._kept = (self._kept + 1) // 2
        self.stride *= 2

    def values(self, name: str) -> Floats:
        """What was kept of a column, shape (kept,); the rows of all columns are the same ones."""
        import numpy as np

        parts = self._parts.get(name)
        return np.concatenate(parts) if parts else np.zeros(0)
