"""Rows held out that were learned are found however few their columns; a table of few kinds of rows is not
mistaken for copies. Each table is drawn with fixed seeds, and a share of its held-out rows is copied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from engine.pipeline.stages.data import overlap
from tests.pipeline.stages.working import findings, looked, project

Columns = dict[str, Any]
SEEDS = range(4)


def two_numbers(rng: np.random.Generator, rows: int) -> Columns:
    """As the starter project's: to four and two places, which meet by chance in thousands of pairs each."""
    size = np.round(rng.normal(size=rows), 4)
    return {"size": size, "warmth": np.round(rng.normal(20, 5, rows), 2),
            "y": (rng.random(rows) < 1 / (1 + np.exp(-2 * size))).astype(int)}


def of_categories(kinds: int) -> Callable[[np.random.Generator, int], Columns]:
    def made(rng: np.random.Generator, rows: int) -> Columns:
        return {**{name: rng.integers(0, kinds, rows) for name in "pqr"}, "y": rng.integers(0, 2, rows)}

    return made


def flights(rng: np.random.Generator, rows: int) -> Columns:
    return {"month": rng.integers(1, 13, rows), "hour": rng.integers(0, 24, rows),
            "miles": rng.integers(0, 100, rows) * 10, "carrier": rng.integers(0, 12, rows),
            "day": rng.integers(1, 8, rows), "y": (rng.random(rows) < 0.2).astype(int)}


def sums(rng: np.random.Generator, rows: int) -> Columns:
    """A column that two others determine."""
    a, b = rng.integers(0, 60, rows), rng.integers(0, 60, rows)
    return {"a": a, "b": b, "total": a + b, "y": (rng.random(rows) < 0.3).astype(int)}


def cities(rng: np.random.Generator, rows: int) -> Columns:
    """Columns that one determines, with few common values and many rare ones."""
    city = np.minimum(rng.zipf(1.3, rows), 3000)
    return {"city": city, "code": city * 7 + 1, "country": city % 40,
            "y": (rng.random(rows) < 0.3).astype(int)}


def types_of_users(rng: np.random.Generator, rows: int) -> Columns:
    """Eight columns that all follow what a row is of, so that where some agree the others do too."""
    of = rng.integers(0, 50, rows)
    made = {f"c{at}": np.where(rng.random(rows) < 0.95, of * 3 % (7 + at * 9), rng.integers(0, 60, rows))
            for at in range(8)}
    return {**made, "y": (rng.random(rows) < of % 10 / 10).astype(int)}


def mostly_idle(rng: np.random.Generator, rows: int) -> Columns:
    """Sixty per cent of the rows are nothing but zeros."""
    active = rng.random(rows) < 0.4
    made = {f"x{at}": np.where(active, rng.poisson(1.5, rows), 0) for at in range(5)}
    return {**made, "y": (rng.random(rows) < np.where(active, 0.3, 0.05)).astype(int)}


def judged(columns: Columns, share: float, seed: int) -> str | None:
    """How severe the stage finds it that `share` of the held-out fifth is copied; None: not at all."""
    rng = np.random.default_rng(1000 + seed)
    rows = len(columns["y"])
    first = rows * 4 // 5
    copied = round(share * (rows - first))
    at = np.arange(rows)
    at[first:first + copied] = rng.integers(0, first, copied)
    whole = pa.table({name: values[at] for name, values in columns.items()})
    hashed = {name: overlap.hashed(whole[name].combine_chunks()) for name in whole.column_names}
    every = overlap.together(list(hashed.values()))
    found = overlap.of_rows(every[:first], every[first:], whole.column_names,
                            lambda name: (hashed[name][:first], hashed[name][first:]), whole.slice(0, first),
                            "rows")
    return found[0].severity if found else None


@pytest.mark.parametrize("make", [two_numbers, flights])
@pytest.mark.parametrize(("share", "severity"), [(0, None), (0.05, "suspicious"), (0.62, "hard")])
def test_copies_are_told_from_chance(make: Any, share: float, severity: str | None) -> None:
    for seed in SEEDS:
        assert judged(make(np.random.default_rng(seed), 5000), share, seed) == severity


def test_one_in_a_hundred_is_told_where_rows_hardly_meet_by_chance() -> None:
    for seed in SEEDS:
        assert judged(two_numbers(np.random.default_rng(seed), 5000), 0.01, seed) == "suspicious"


@pytest.mark.parametrize("make", [
    of_categories(3), of_categories(12), of_categories(30), sums, cities, types_of_users, mostly_idle])
@pytest.mark.parametrize("rows", [300, 5000])
def test_rows_that_meet_by_chance_are_no_copies(make: Any, rows: int) -> None:
    for seed in SEEDS:
        assert judged(make(np.random.default_rng(seed), rows), 0, seed) is None


@pytest.mark.parametrize("make", [of_categories(30), sums, two_numbers])
def test_most_rows_copied_are_hard_though_some_meet_by_chance(make: Any) -> None:
    for seed in SEEDS:
        assert judged(make(np.random.default_rng(seed), 1000), 0.62, seed) == "hard"


def test_a_rare_class_that_was_repeated_before_the_split_waits_for_a_person() -> None:
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        plain = two_numbers(rng, 4000)
        plain["y"] = (rng.random(4000) < 0.05).astype(int)
        at = rng.permutation(np.concatenate([np.arange(4000), np.repeat(np.flatnonzero(plain["y"]), 18)]))
        assert judged({name: values[at] for name, values in plain.items()}, 0, seed) == "suspicious"


def test_copies_with_another_key_and_time_stop_the_stage(tmp_path: Path) -> None:
    made = two_numbers(np.random.default_rng(1), 1500)
    again = np.concatenate([np.arange(1500), np.arange(400)])
    at = np.concatenate([np.arange(1500), 1500 + np.arange(400) % 7]) * np.timedelta64(3600, "s")
    when = np.datetime64("2026-01-01T00:00:00", "us") + at
    rows = pa.table({"id": np.arange(1900), "at": pa.array(when, pa.timestamp("us", "UTC")),
                     **{name: values[again] for name, values in made.items()}})
    done = looked(tmp_path, project(time="at", key=["id"], holdout={"last": "10d"}), rows)
    assert not done.passed and "400 rows of rows.parquet are held out and trained on too" in done.says
    assert [(one["kind"], one["severity"]) for one in findings(tmp_path)] == [("overlap", "hard")]
