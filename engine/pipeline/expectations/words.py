"""The common words of a column, in memory that its rare ones do not fill."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

COUNTED = 50_000  # different words of a column that are counted at once
LONGEST_WORD = 200


@dataclass
class Words:
    """Lossy counting (Manku and Motwani 2002): of too many different words, the rare ones are dropped."""

    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    missing: int = 0
    whole: bool = True
    _batches: int = 0

    def add(self, column: Any) -> None:
        self.missing += column.null_count
        self.rows += len(column)
        for entry in column.drop_null().value_counts().to_pylist():
            self.counts[entry["values"]] += entry["counts"]
        self._batches += 1
        if len(self.counts) > COUNTED:
            self.whole = False
            self.counts = Counter({word: n for word, n in self.counts.items() if n > self._batches})

    def common(self, most: int) -> list[str]:
        """The commonest words that fit into a file; none where most rows have one of their own."""
        present = self.rows - self.missing
        if self.whole and len(self.counts) > max(most, present // 2):
            return []
        chosen = sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
        return [word for word, n in chosen if len(word) <= LONGEST_WORD and n > (0 if self.whole else 1)]
