"""Tables with known distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

WORDS = np.array(["a", "b", "c", "d", "e", "f", "g"])
SHARES = [0.85, 0.08, 0.03, 0.02, 0.01, 0.006, 0.004]
START = np.datetime64("2026-01-01", "s")


def table(rng: np.random.Generator, rows: int, *, day: int = 0, days: int = 30) -> pa.Table:
    """Light and heavy tails, atoms, gaps, a correlation, even, skewed and many categories, a key, a time."""
    common = rng.normal(size=rows)
    many = np.array([f"z{i}" for i in range(300)])
    zipf = 1 / np.arange(1, 301) ** 1.5
    seconds = np.sort(rng.integers(0, days * 86_400, rows)) + day * 86_400
    return pa.table({
        "normal": common, "related": common + rng.normal(size=rows), "cauchy": rng.standard_cauchy(rows),
        "pareto": rng.pareto(1, rows) + 1, "student": rng.standard_t(3, rows),
        "lognormal": rng.lognormal(0, 1.5, rows), "uniform": rng.random(rows),
        "count": rng.poisson(0.5, rows), "rare": (rng.random(rows) < 0.002).astype(int),
        "zero": np.where(rng.random(rows) < 0.6, 0.0, rng.gamma(2, 1, rows)),
        "gaps": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.03),
        "even": rng.choice(WORDS, rows), "skewed": rng.choice(WORDS, rows, p=SHARES),
        "many": rng.choice(many, rows, p=zipf / zipf.sum()), "flag": rng.random(rows) < 0.01,
        "id": np.arange(rows) + day * 1_000_000,
        "at": pa.array(START + seconds.astype("m8[s]"), pa.timestamp("us", "UTC"))})


def replaced(made: pa.Table, **columns: Any) -> pa.Table:
    """The table with other values in some columns."""
    for name, values in columns.items():
        made = made.set_column(made.schema.get_field_index(name), name, pa.array(values))
    return made
