"""Tables as they come: Parquet, CSV, folders, and everything that can be wrong with them."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import csv as pacsv

from engine.errors import UsageError
from engine.pipeline.expectations import check, dumps, learn, loads
from engine.pipeline.expectations.keys import KeyTally, hashes
from engine.pipeline.expectations.sampling import Sample
from engine.pipeline.expectations.source import open_source
from tests.pipeline.expectations.made import table


def refused(data: Any) -> str:
    with pytest.raises(UsageError) as error:
        learn(data)
    assert error.value.hint or error.value.where
    return str(error.value)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_parquet_and_a_folder_of_it_and_memory_say_the_same(tmp_path: Path) -> None:
    made = table(np.random.default_rng(1), 3000)
    pq.write_table(made.slice(0, 1000), tmp_path / "1.parquet", row_group_size=300)
    pq.write_table(made.slice(1000), tmp_path / "2.parquet")
    pq.write_table(made, (one := tmp_path / "one") .with_suffix(".pq"))
    assert dumps(learn(one.with_suffix(".pq"))) == dumps(learn(made))
    folder = learn(tmp_path)
    for name, column in learn(made).columns.items():
        again = folder.columns[name]
        assert again.categories == column.categories
        # But for the last digits of a mean, which is taken in parts.
        assert (again.distribution and again.distribution.share) == (
            column.distribution and column.distribution.share)
    assert folder.rows.least == 10  # a hundredth of the smaller delivery


def test_csv_is_read_with_its_types(tmp_path: Path) -> None:
    made = table(np.random.default_rng(1), 1000)
    pacsv.write_csv(made, tmp_path / "made.csv")
    (tmp_path / "made.csv.gz").write_bytes(gzip.compress((tmp_path / "made.csv").read_bytes()))
    learned = learn(tmp_path / "made.csv")
    assert learned.columns["normal"].distribution == learn(made).columns["normal"].distribution
    assert learned.freshness is not None
    assert learn(tmp_path / "made.csv.gz") == learned
    assert check(learned, tmp_path / "made.csv.gz") == []


def test_whole_numbers_in_a_csv_are_numbers_too(tmp_path: Path) -> None:
    learned = learn(written(tmp_path / "a.csv", "x\n" + "1.5\n2.5\n" * 50))
    findings = check(learned, written(tmp_path / "b.csv", "x\n" + "1\n2\n" * 50))
    assert "type" not in {one.kind for one in findings}


def test_a_csv_whose_fractions_come_late_is_read(tmp_path: Path) -> None:
    path = written(tmp_path / "late.csv", "x\n" + "1\n" * 3_000_000 + "2.5\n")
    assert learn(path).columns["x"].type.name == "double"


def test_a_csv_that_mixes_types_is_refused_with_column_and_value(tmp_path: Path) -> None:
    path = written(tmp_path / "mixed.csv", "x,delay\n" + "1,2\n" * 1_500_000 + "1,late\n")
    said = refused(path)
    assert "The column delay mixes types: it begins as whole numbers, and then holds 'late'" in said
    assert str(path) in said


@pytest.mark.parametrize(("name", "text", "said"), [
    ("empty.csv", "", "not even a header"),
    ("head.csv", "x,y\n", "no rows"),
    ("twice.csv", "x,x\n1,2\n", "The column x is there twice"),
    ("short.csv", "x,y\n1,2\n3\n", "cannot be read"),
    ("not.parquet", "hello", "not a Parquet file"),
    ("other.txt", "hello", "not a Parquet file"),
])
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, name: str, text: str,
                                                             said: str) -> None:
    assert said in refused(written(tmp_path / name, text))


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "gone.parquet")
    assert "no Parquet file in this folder" in refused(tmp_path)
    assert "No table was given" in refused([])
    assert "not a dict" in refused({"x": [1]})


def test_a_parquet_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    pq.write_table(table(np.random.default_rng(1), 1000), tmp_path / "whole.parquet")
    data = bytearray((tmp_path / "whole.parquet").read_bytes())
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    assert "not a Parquet file that can be read" in refused(tmp_path / "cut.parquet")
    data[4:60] = b"\xff" * 56
    (tmp_path / "holed.parquet").write_bytes(data)
    assert "could not be read to its end" in refused(tmp_path / "holed.parquet")


@pytest.mark.parametrize("nested", [
    pa.array([[1], [2]]), pa.array([{"a": 1}, {"a": 2}]),
    pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64()))])
def test_nested_columns_are_refused(nested: pa.Array) -> None:
    made = pa.table({"x": [1, 2], "deep": nested})
    assert "The column deep is nested" in refused(made)
    with pytest.raises(UsageError, match="deep is nested"):
        check(learn(pa.table({"x": [1, 2]})), made)


def test_tables_of_two_schemas_are_not_one_history() -> None:
    a, b = pa.table({"x": [1], "y": [2]}), pa.table({"x": [1.5], "y": [2]})
    assert "x is double, not int64" in refused([a, b])
    assert "y missing" in refused([a, a.select(["x"])])


def test_too_many_columns_are_refused_and_the_most_fit_into_one_file() -> None:
    rng = np.random.default_rng(1)
    wide = {f"a column with a longer name {i}": rng.normal(size=300) for i in range(150)}
    wide |= {f"words {i}": rng.choice([f"w{j}" for j in range(40)], 300) for i in range(100)}
    learned = learn(pa.table(wide))
    assert loads(dumps(learned)) == learned
    assert "251 columns" in refused(pa.table(wide | {"more": np.zeros(300)}))


def test_unicode_names_and_values_survive() -> None:
    words = ["é", "\u200b", "a\nb", '"quoted"'] * 10
    made = pa.table({"größe": [1.5] * 40, "漢字 — 名": words, "\t": [True] * 40})
    learned = learn(made)
    assert loads(dumps(learned)) == learned and check(learned, made) == []


def test_nan_is_missing_and_infinity_is_no_value_of_the_range() -> None:
    learned = learn(pa.table({"x": [1.0, float("nan"), None, float("inf"), 2.0]}))
    column = learned.columns["x"]
    assert column.missing is not None and column.missing.share == 0.4
    assert column.infinite is not None and column.infinite.share == 0.2
    assert column.range is not None and (column.range.min, column.range.max) == (1.0, 2.0)


def test_huge_numbers_overflow_nothing_that_is_written() -> None:
    learned = learn(pa.table({"x": [1.7e308, -1.7e308, 1e308] * 10}))
    assert loads(dumps(learned)) == learned
    check(learned, pa.table({"x": [1.7e308, -1.7e308, 1e308] * 10}))


def test_zones_are_times_in_utc() -> None:
    instants = pa.array([0, 3600, 7200], pa.timestamp("s", "America/New_York"))
    learned = learn(pa.table({"at": instants}))
    assert learned.freshness is not None and learned.freshness.newest == "1970-01-01T02:00:00Z"
    naive = learn(pa.table({"at": instants.cast(pa.timestamp("ns", "UTC"))}))
    assert naive.freshness == learned.freshness


def test_a_time_column_of_text_is_refused() -> None:
    made = pa.table({"at": ["2026-01-01T00:00:00+01:00", "2026-01-01T00:00:00Z"]})
    with pytest.raises(UsageError, match="The time column at holds string, not times"):
        learn(made, time_column="at")
    with pytest.raises(UsageError, match="no column att"):
        learn(made, time_column="att")


def test_a_year_of_no_calendar_is_refused() -> None:
    with pytest.raises(UsageError, match="no year of the calendar"):
        learn(pa.table({"at": pa.array([2**52], pa.timestamp("s"))}))


def test_categories_without_end_keep_their_head_and_take_no_memory() -> None:
    rng = np.random.default_rng(1)
    words = np.where(rng.random(200_000) < 0.3, "head", rng.integers(0, 10**9, 200_000).astype("U10"))
    learned = learn(pa.table({"word": words})).columns["word"].categories
    assert learned is not None and learned.distinct is None
    assert learned.shares[0][0] == "head" and learned.shares[0][1] == pytest.approx(0.3, abs=0.01)
    assert len(learned.shares) <= 50
    free = pa.table({"word": rng.integers(0, 10**9, 5000).astype("U10")})
    assert learn(free).columns["word"].categories is None


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(9, 2), pa.date32(),
                                  pa.time32("s"), pa.duration("s"), pa.binary(), pa.large_string(),
                                  pa.dictionary(pa.int8(), pa.string()), pa.null()])
def test_every_flat_type_can_be_learned_and_checked(kind: pa.DataType) -> None:
    plain = {pa.binary(): [b"x", b"y"], pa.large_string(): ["x", "y"], pa.null(): [None, None],
             pa.dictionary(pa.int8(), pa.string()): ["x", "y"]}.get(kind, [1, 2])
    whole = pa.array(plain, kind)
    made = pa.table({"x": pa.concat_arrays([whole] * 50)})
    learned = learn(made)
    assert loads(dumps(learned)) == learned and check(learned, made) == []


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=6), st.integers(-5, 5)), max_size=60))
def test_keys_repeat_exactly_when_their_values_do(rows: list[tuple[str, int]]) -> None:
    tally = KeyTally()
    for part in (rows[:20], rows[20:]):
        words, numbers = [word for word, _ in part], [number for _, number in part]
        tally.add(hashes([pa.array(words, pa.string()), pa.array(numbers, pa.int64())]))
    assert tally.duplicates() == len(rows) - len(set(rows))


def test_the_hash_of_a_text_does_not_depend_on_where_it_stands() -> None:
    words = pa.array([f"{i:x}" * (i % 5) for i in range(1000)] + [None])
    whole = hashes([words])
    assert np.array_equal(whole[300:500], hashes([words.slice(300, 200)]))
    assert len(whole) == 1000


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 70), max_size=12), st.integers(1, 20))
def test_a_sample_is_every_nth_row_however_the_rows_come(batches: list[int], limit: int) -> None:
    sample, at = Sample(limit), 0
    for rows in batches:
        sample.add({"x": np.arange(at, at + rows, dtype=float)}, rows)
        at += rows
    kept = sample.values("x")
    assert kept.tolist() == list(range(0, at, sample.stride)) and len(kept) <= limit
    assert at == 0 or len(kept) * 2 > min(limit, at) - 1


def test_a_source_is_read_in_batches() -> None:
    made = pa.table({"x": np.arange(200_000)})
    assert [batch.num_rows for batch in open_source(made).batches()] == [65_536] * 3 + [3_392]


def test_importing_the_chapter_loads_nothing_heavy() -> None:
    script = "import sys, engine.pipeline.expectations; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"numpy", "pyarrow", "scipy", "pandas"} & set(done.stdout.split())
