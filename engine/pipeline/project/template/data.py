"""Make the data: rows.csv in the folder that OPSDECK_OUTPUT names. Put your own in its place."""

from __future__ import annotations

import csv
import datetime as dt
import math
import os
import random
from collections.abc import Iterator
from pathlib import Path

FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def rows(count: int, seed: int) -> Iterator[dict[str, object]]:
    """One row an hour. What is large happens more often; warmth says nothing."""
    draw = random.Random(seed)
    for number in range(count):
        size, warmth = draw.gauss(0, 1), draw.gauss(20, 5)
        happened = draw.random() < 1 / (1 + math.exp(-2 * size))
        yield {"id": number, "at": (FIRST + dt.timedelta(hours=number)).isoformat(), "size": round(size, 4),
               "warmth": round(warmth, 2), "happened": int(happened)}


def main() -> None:
    made = list(rows(3000, seed=1))
    path = Path(os.environ["OPSDECK_OUTPUT"]) / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(made[0]))
        writer.writeheader()
        writer.writerows(made)
    print(f"{len(made):,} rows made")


if __name__ == "__main__":
    main()
