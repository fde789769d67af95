"""Rows that are trained on and held out at once. By 64-bit hashes: of two million rows, two that differ
share one with a chance of 1e-7.

The same key on both sides is the same row twice. Without one, rows that agree in every feature and the label
are counted, whatever key or time they have. In a table of few different rows many agree that are no copies:
`copies` tells how many of them chance brings, and they are a finding where that is the smaller part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.keys import hashes, mixed
from engine.pipeline.expectations.model import Finding
from engine.pipeline.stages.data import copies
from engine.pipeline.stages.data.naming import counted, first_row, found

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Hashes = NDArray[np.uint64]

LEAST = 0.01  # of the rows held out: fewer copies change no figure that is looked at
FEWEST = 3
CHANCE = 1 / 3  # of what is alike: where it brings more, copies cannot be told from it
MOST = 0.5  # of the rows held out, each kind of row once: from there on the evaluation is of what was learned
_NULL = 0x5851F42D4C957F2D
_SPREAD = 0x2545F4914F6CDD1D


def hashed(column: Any) -> Hashes:
    """A hash for each value of an Arrow array, (n,); missing ones have the same."""
    import numpy as np

    if not column.null_count:
        return hashes([column])
    total: Hashes = np.full(len(column), _NULL, dtype=np.uint64)
    if column.null_count < len(column):
        there = column.is_valid().to_numpy(zero_copy_only=False)
        total[there] = hashes([column])
    return total


def together(parts: list[Hashes]) -> Hashes:
    """A hash for each row of several columns' hashes, (n,): a sum, so that a column can be taken out."""
    import numpy as np

    total: Hashes = np.zeros(len(parts[0]), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for at, part in enumerate(parts):
            total = total + share(part, at)
    return total


def share(part: Hashes, at: int) -> Hashes:
    """What column `at` adds to `together`."""
    import numpy as np

    with np.errstate(over="ignore"):
        own: Hashes = mixed(part ^ np.uint64((_SPREAD * (2 * at + 1)) % 2**64))
        return own


def of_keys(keys: Hashes, train: Bools, held: Bools, columns: list[str], name: str) -> list[Finding]:
    """Rows that repeat a key, and keys on both sides. `keys` (n,) of all rows."""
    import numpy as np

    used = keys[train | held]
    kinds, counts = np.unique(used, return_counts=True)
    repeated = int((counts - 1).sum())
    if not repeated:
        return []
    key = " + ".join(columns)
    both = np.isin(keys[held], keys[train])
    _, firsts = np.unique(used, return_index=True)
    again = int(np.flatnonzero(train | held)[np.setdiff1d(np.arange(len(used)), firsts)[0]])
    said = (f"The key {key} of {name} is not one row's alone: {counted(repeated, 'row')} "
            f"{'repeats' if repeated == 1 else 'repeat'} it{first_row(again)}")
    if both.any():
        said += f", and {counted(int(both.sum()), 'row')} held out {'is' if both.sum() == 1 else 'are'} " \
                "trained on too"
    return [found("overlap" if both.any() else "key", key,
                  f"{said}. Remove the copies, or name a key of more columns.", hard=True,
                  expected="one row for each key",
                  seen=f"{counted(len(used), 'row')}, {counted(len(kinds), 'key')}",
                  measure="share of rows", effect=repeated / len(used), rows=len(used))]


def of_groups(groups: Hashes, train: Bools, held: Bools, column: str, name: str, task: str,
              by_column: bool) -> list[Finding]:
    """Groups on both sides. For a ranking it is hard: a query is ranked whole. A holdout by a column waits
    for a person; one by time is asked on purpose how known groups go on, and a random one keeps groups
    whole."""
    import numpy as np

    if not by_column and task != "ranking":
        return []
    ours = np.unique(groups[held])
    both = np.isin(ours, groups[train])
    if not both.any():
        return []
    number = int(both.sum())
    return [found("group", column, f"{counted(number, 'group')} of {column} in {name} "
                  f"{'has' if number == 1 else 'have'} rows that are trained on and rows that are held out.",
                  hard=task == "ranking", expected="whole groups on one side",
                  seen=f"{number:,} of the {len(ours):,} groups held out", measure="share of groups",
                  effect=number / len(ours))]


def of_rows(train: Hashes, held: Hashes, columns: list[str],
            column_hashes: Callable[[str], tuple[Hashes, Hashes]], sample: Any, name: str) -> list[Finding]:
    """Copies of rows on both sides. `train` and `held` are `together` of `columns` for each row;
    `column_hashes(column)` reads one column's hashes of both again, for the few times that it is needed.
    `sample`, an Arrow table of some rows to train on, says which columns have the most values."""
    import numpy as np
    import pyarrow.compute as pc

    sides = np.sort(train)
    at = np.minimum(np.searchsorted(sides, held), len(sides) - 1)
    same = held[sides[at] == held]
    number, alike = len(same), len(np.unique(same))
    if alike < FEWEST or number < LEAST * len(held):
        return []
    kinds = copies.Kinds(train, held)

    @functools.cache
    def part(column: str) -> Hashes:
        return share(np.concatenate(column_hashes(column))[kinds.first], columns.index(column))

    varied = sorted(columns, key=lambda one: (-pc.count_distinct(sample[one], mode="all").as_py(), one))
    if copies.by_chance(kinds, part, varied) >= CHANCE:
        return []
    of_all = number / len(held)
    return [found("overlap", "every column", f"{counted(number, 'row')} of {name} "
                  f"{'is' if number == 1 else 'are'} held out and trained on too, alike in every feature and "
                  f"the label: {of_all:.1%} of the rows held out. Remove the copies.",
                  hard=alike >= MOST * len(held), expected=f"less than {LEAST:.0%}", seen=f"{of_all:.1%}",
                  measure="share of rows held out", effect=of_all, margin=LEAST, rows=len(held))]
