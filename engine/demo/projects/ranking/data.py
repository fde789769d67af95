"""Make ranking.parquet: for each query, a written digit, twenty others, of which four are the same digit.

    OPSDECK_OUTPUT=/some/folder python data.py --queries 900

Source: the digits of scikit-learn, pinned by requirements.lock (E. Alpaydin and C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; CC BY 4.0): 1,797 pictures, 8 x 8.

A third of the queries are whole, of a third the upper half is hidden, of a third the lower: what a torn form
looks like. No picture is in both parts, `learning` and `held-out`, neither as a query nor as a candidate.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from similarity import FEATURES, compare

SEED = 1998
LEARNING = 1200  # pictures; the 597 after them are held out, among them those of other writers
PARTS = {"learning": range(LEARNING), "held-out": range(LEARNING, 1797)}
DAMAGES = ("none", "upper half hidden", "lower half hidden")
CANDIDATES, SAME = 20, 4  # of so many candidates so many show the query's digit
HELD_OUT = 1 / 3  # of the queries


def rows(queries: int, pictures: NDArray[np.float64], digits: NDArray[np.int64]) -> pa.Table:
    """A row for each candidate of each query. Raises ValueError for fewer than 9 queries."""
    if queries < 9:
        raise ValueError(f"--queries is {queries}; at least 9 are needed, a few of each kind")
    rng = np.random.default_rng(SEED)
    made: list[dict[str, Any]] = []
    for part, of in PARTS.items():
        count = round(queries * HELD_OUT) if part == "held-out" else queries - round(queries * HELD_OUT)
        known = np.array(of)
        for at, one in enumerate(rng.choice(known, min(count, len(known)), replace=False)):
            same = known[(digits[known] == digits[one]) & (known != one)]
            other = known[digits[known] != digits[one]]
            shown = np.concatenate([rng.choice(same, SAME, replace=False),
                                    rng.choice(other, CANDIDATES - SAME, replace=False)])
            rng.shuffle(shown)
            damage = DAMAGES[at % len(DAMAGES)]
            alike = compare(damaged(pictures[one], damage), pictures[shown])
            made += [{"query": f"{part}-{at:04d}", "candidate": int(candidate), "part": part,
                      "damage": damage, **{name: float(alike[name][row]) for name in FEATURES},
                      "relevant": int(digits[candidate] == digits[one])}
                     for row, candidate in enumerate(shown)]
    return pa.Table.from_pylist(made)


def damaged(picture: NDArray[np.float64], how: str) -> NDArray[np.float64]:
    """The picture (8, 8) as the query shows it."""
    found = picture.copy()
    if how == "upper half hidden":
        found[:4] = 0
    elif how == "lower half hidden":
        found[4:] = 0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Make ranking.parquet in the folder OPSDECK_OUTPUT.")
    parser.add_argument("--queries", type=int, default=900, help="how many, a third of them held out")
    digits: Any = load_digits()
    table = rows(parser.parse_args().queries, digits.images, digits.target)
    pq.write_table(table, Path(os.environ["OPSDECK_OUTPUT"]) / "ranking.parquet")
    print(f"{table.num_rows:,} candidates of {len(table['query'].unique()):,} queries")


if __name__ == "__main__":
    main()
