"""The data stage splits, weighs and learns; and what is bad is named with its file and column."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest

from engine.errors import DocumentError, UsageError
from engine.pipeline.expectations import accept, dumps, loads
from engine.pipeline.expectations.model import Finding
from engine.pipeline.stages.data.looking import look
from engine.reproduce import canonical
from tests.pipeline.stages.working import NOW, findings, looked, project, table, work

START = np.datetime64("2026-01-01T00:00:00", "us")


def times(rows: int = 2000, zone: str | None = "UTC") -> Any:
    """One row an hour."""
    return pa.array(START + np.arange(rows) * np.timedelta64(3600, "s"), pa.timestamp("us", zone))


def read(tmp: Path, name: str, number: int = 0) -> Any:
    return pq.read_table(tmp / f"output{number}" / name)


# What it makes


def test_good_data_is_split_and_what_to_expect_is_learned_from_the_training_rows(tmp_path: Path) -> None:
    done = looked(tmp_path, project(), table())
    assert done.passed and done.result["learned"] and done.result["suspicious"] == 0
    assert done.result["train"] + done.result["test"] == 2000
    assert done.result["features"] == ["a", "b", "word"]
    learned = loads(tmp_path / "output0" / "expectations.yaml")
    assert learned.rows.learned == done.result["train"] == read(tmp_path, "train.parquet").num_rows
    assert read(tmp_path, "test.parquet").schema.names == ["a", "b", "word", "y"]
    assert findings(tmp_path) == []


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    for number in (0, 1):
        looked(tmp_path, project(), table(), number)
    for name in ("train.parquet", "test.parquet", "dataset.json", "expectations.yaml"):
        assert (tmp_path / "output0" / name).read_bytes() == (tmp_path / "output1" / name).read_bytes()


def test_a_second_run_over_the_same_data_finds_nothing(tmp_path: Path) -> None:
    rows = table(at=times())
    given = project(time="at", holdout={"last": "15d"})
    assert looked(tmp_path, given, rows).passed
    (tmp_path / "folder" / "expectations.yaml").write_bytes(
        (tmp_path / "output0" / "expectations.yaml").read_bytes())
    again = looked(tmp_path, given, rows, 1)
    assert again.passed and not again.result["learned"] and again.result["findings"] == []


def test_the_newest_rows_are_held_out_by_time(tmp_path: Path) -> None:
    looked(tmp_path, project(time="at", holdout={"last": "10d"}), table(at=times()))
    train, test = read(tmp_path, "train.parquet"), read(tmp_path, "test.parquet")
    assert test.num_rows == 240
    assert max(train["at"].to_pylist()) < min(test["at"].to_pylist())


def test_a_random_holdout_keeps_groups_whole_and_rows_on_their_side_when_others_come(tmp_path: Path) -> None:
    rows = table(4000, group=np.repeat(np.arange(400), 10))
    looked(tmp_path, project(group="group"), rows.slice(0, 3000))
    looked(tmp_path, project(group="group"), rows, 1)
    sides = [[set(read(tmp_path, name, number)["group"].to_pylist())
              for name in ("train.parquet", "test.parquet")] for number in (0, 1)]
    for train, test in sides:
        assert train & test == set() and 0.1 < len(test) / (len(train) + len(test)) < 0.3
    assert sides[0][0] <= sides[1][0] and sides[0][1] <= sides[1][1]


def test_another_seed_holds_out_other_rows(tmp_path: Path) -> None:
    looked(tmp_path, project(), table())
    looked(tmp_path, project().model_copy(update={"seed": 7}), table(), 1)
    first, second = (read(tmp_path, "test.parquet", number)["a"].to_pylist() for number in (0, 1))
    assert first != second


def test_a_column_says_what_is_held_out_and_is_no_feature(tmp_path: Path) -> None:
    marks = pa.array(["train", "test", "train", "train"] * 500)
    done = looked(tmp_path, project(holdout={"column": "split", "is": "test"}), table(split=marks))
    assert done.result["test"] == 500 and "split" not in done.result["features"]
    assert "split" not in read(tmp_path, "train.parquet").schema.names


def test_weights_halve_with_every_half_life_and_have_a_mean_of_one(tmp_path: Path) -> None:
    given = project(time="at", holdout={"last": "10d"}, window={"last": "30d", "half_life": "10d"})
    looked(tmp_path, given, table(at=times()))
    train, test = read(tmp_path, "train.parquet"), read(tmp_path, "test.parquet")
    weight = train["sample_weight"].to_numpy()
    assert train.num_rows == 30 * 24 + 1 and weight.mean() == pytest.approx(1)
    assert weight[-1 - 240] / weight[-1] == pytest.approx(0.5)
    assert set(test["sample_weight"].to_pylist()) == {1.0}


def test_a_csv_file_is_read_with_its_times(tmp_path: Path) -> None:
    rows = table(at=times())
    lines = ["at,a,b,word,y"] + [f"{one['at'].isoformat()},{one['a']!r},{one['b']!r},{one['word']},{one['y']}"
                                 for one in rows.to_pylist()]
    done = looked(tmp_path, project(time="at", source={"path": "rows.csv"}, holdout={"last": "10d"}),
                  "\n".join(lines) + "\n")
    assert done.passed and done.result["test"] == 240
    assert str(read(tmp_path, "train.parquet").schema.field("at").type).endswith("tz=UTC]")


def test_a_folder_of_files_of_slightly_different_types_is_one_table(tmp_path: Path) -> None:
    folder = tmp_path / "folder" / "rows" / "day=1"
    folder.mkdir(parents=True)
    first, second = table(1000), table(1000, seed=1)
    pq.write_table(first, folder / "a.parquet")
    pq.write_table(second.set_column(3, "y", second["y"].cast("int32")), folder.parent / "b.parquet")
    done = looked(tmp_path, project(source={"path": "rows"}), None)
    assert done.passed and done.result["rows"] == 2000


def test_regression_and_ranking_have_their_own_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = table(y=rng.normal(size=2000), query=np.repeat(np.arange(100), 20))
    assert looked(tmp_path, project("regression", features=["a", "b"]), rows).passed
    graded = table(y=rng.integers(0, 4, 2000), query=np.repeat(np.arange(100), 20))
    done = looked(tmp_path, project("ranking", group="query", features=["a", "b"]), graded, 1)
    assert done.passed and done.result["findings"] == []


# What is bad


def hard(tmp_path: Path, given: Any, rows: Any, *said: str, now: dt.datetime = NOW) -> None:
    """The stage stops, and names file, column and stage; nothing is there to be trained on by accident."""
    done = looked(tmp_path, given, rows, now=now)
    assert not done.passed and done.result["hard"] >= 1
    for one in ("rows.", "stage data", *said):
        assert one in done.says, done.says
    told = findings(tmp_path)
    assert told[0]["severity"] == "hard" and told[0]["beside"] and told[0]["file"] == given.data.source.path


def suspicious(tmp_path: Path, given: Any, rows: Any, *said: str) -> None:
    """The stage passes with something that waits for a person; once accepted, it is quiet."""
    done = looked(tmp_path, given, rows)
    assert done.passed and done.result["suspicious"] >= 1, done
    for one in said:
        assert one in done.result["beside"].replace("\n", " "), done.result["beside"]
    assert "wait" in done.says
    accepted = loads(tmp_path / "output0" / "expectations.yaml")
    for one in findings(tmp_path):
        plain = Finding.model_validate({key: one[key] for key in Finding.model_fields})
        accepted = accept(accepted, plain, by="anna", reason="known", at="2026-11-24T12:00:00Z")
    (tmp_path / "folder" / "expectations.yaml").write_text(dumps(accepted))
    again = looked(tmp_path, given, rows, 1)
    assert again.passed and again.result["findings"] == []


@pytest.mark.parametrize(("name", "text", "said"), [
    ("rows.csv", "", "The file is empty"), ("rows.parquet", "", "The file is empty"),
    ("rows.parquet", "not parquet at all", "not a Parquet file"),
    ("rows.csv", "a,a,y\n1,2,0\n", "The column a is there twice"),
])
def test_a_file_that_is_no_table_names_itself_and_the_stage(tmp_path: Path, name: str, text: str,
                                                            said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        looked(tmp_path, project(source={"path": name}), text)
    assert error.value.where == f"{name}, stage data"


def test_a_file_that_is_not_there_names_itself_and_the_stage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no rows\.parquet") as error:
        looked(tmp_path, project(), None)
    assert error.value.where == "rows.parquet, stage data" and error.value.hint


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    hard(tmp_path, project(), table().slice(0, 0), "columns and no rows")


def test_a_renamed_label_is_named_with_the_column_that_was_meant(tmp_path: Path) -> None:
    rows = table().rename_columns(["a", "b", "word", "late_"])
    hard(tmp_path, project(label="late"), rows, "no column late", "data.label", "Did you mean `late_`?")


def test_a_missing_feature_is_named_with_the_key_that_names_it(tmp_path: Path) -> None:
    hard(tmp_path, project(features=["a", "bb"]), table(), "no column bb", "data.features",
         "Did you mean `b`?")


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_labels_without_a_value_are_counted(tmp_path: Path, bad: float | None) -> None:
    y = [bad, bad, *[0.0, 1.0] * 999]
    hard(tmp_path, project(), table(y=pa.array(y, pa.float64())), "The label y", "no value in 2 rows",
         "first in row 1", "leave them out")


def test_one_class_only_is_refused(tmp_path: Path) -> None:
    hard(tmp_path, project(), table(y=np.ones(2000, dtype=int)), "The label y", "is 1 in all rows")


def test_one_class_among_the_rows_held_out_is_refused(tmp_path: Path) -> None:
    y = np.where(np.arange(2000) < 1760, np.arange(2000) % 2, 0)
    hard(tmp_path, project(time="at", holdout={"last": "10d"}), table(y=y, at=times()),
         "is 0 in the rows held out", "one class")


def test_a_class_that_is_never_trained_on_waits_for_a_person(tmp_path: Path) -> None:
    y = [("c" if at > 1900 else "ab"[at % 2]) for at in range(2000)]
    suspicious(tmp_path, project("multiclass", time="at", holdout={"last": "10d"}, features=["b"]),
               table(y=pa.array(y), at=times()), "c of rows.parquet is held out but never trained on")


def test_three_values_are_no_binary_label(tmp_path: Path) -> None:
    hard(tmp_path, project(), table(y=np.arange(2000) % 3), "3 values, 0, 1, 2", "binary",
         "Write task: multiclass")


def test_quantities_are_no_classes(tmp_path: Path) -> None:
    hard(tmp_path, project("multiclass"), table(y=np.random.default_rng(0).normal(size=2000)), "The label y",
         "quantities")


def test_texts_are_no_quantity(tmp_path: Path) -> None:
    hard(tmp_path, project("regression"), table(y=pa.array(["1"] * 2000)), "The label y", "holds texts")


def test_a_label_that_the_classes_of_the_project_lack_is_refused(tmp_path: Path) -> None:
    hard(tmp_path, project(classes=["no", "yes"]), table(y=pa.array(["no", "yess"] * 1000)), "yess",
         "evaluate.classes")


def test_a_feature_that_is_the_label_is_refused(tmp_path: Path) -> None:
    rows = table()
    copy = pa.array(["late" if one else "on time" for one in rows["y"].to_pylist()])
    hard(tmp_path, project(), rows.append_column("status", copy), "status", "is the label y itself")


def test_a_feature_that_is_the_label_in_another_unit_is_refused(tmp_path: Path) -> None:
    y = np.random.default_rng(4).normal(size=2000)
    hard(tmp_path, project("regression"), table(y=y, seconds=y * 60 + 7), "seconds", "is the label y itself")


def test_a_feature_that_predicts_almost_perfectly_waits_for_a_person(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = table()
    y = rows["y"].to_numpy()
    suspicious(tmp_path, project(), rows.append_column("delay", pa.array(y * 6 + rng.normal(size=2000))),
               "The feature delay", "area under the ROC curve")


def test_a_leak_by_what_is_missing_is_seen(tmp_path: Path) -> None:
    rows = table()
    y = rows["y"].to_pylist()
    ended = pa.array([float(at % 9) if one and at % 97 else None for at, one in enumerate(y)], pa.float64())
    suspicious(tmp_path, project(), rows.append_column("ended", ended), "The feature ended")


def test_strong_honest_features_and_few_rows_are_no_leak(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = table()
    strong = pa.array(rows["y"].to_numpy() * 2 + rng.normal(size=2000))
    assert looked(tmp_path, project(), rows.append_column("strong", strong)).result["findings"] == []
    few = pa.table({"a": np.arange(24.0), "y": np.arange(24) // 12})
    assert looked(tmp_path, project(), few, 1).result["findings"] == []


def test_a_row_number_is_no_leak_and_a_target_with_structure_is_no_copy(tmp_path: Path) -> None:
    rows = table(id=np.random.default_rng(5).permutation(2000))
    assert looked(tmp_path, project(), rows).result["findings"] == []


def test_text_times_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    at = [one.isoformat()[:19] + ("Z" if number % 2 else "")
          for number, one in enumerate(times().to_pylist())]
    hard(tmp_path, project(time="at", holdout={"last": "10d"}), table(at=pa.array(at)),
         "The time at", "has a zone in 1,000 rows and none in 1,000 rows, first in row")


def test_files_with_and_without_a_zone_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder" / "rows."
    folder.mkdir(parents=True)
    for name, zone in (("a", "UTC"), ("b", None)):
        pq.write_table(table(at=times(zone=zone)), folder / f"{name}.parquet")
    hard(tmp_path, project(time="at", source={"path": "rows."}, holdout={"last": "10d"}), None,
         "has a zone in 2,000 rows and none in 2,000 rows, first in row 2,001")


def test_offsets_of_a_csv_are_seen_though_its_reader_takes_them_to_utc(tmp_path: Path) -> None:
    at = [f"{one.isoformat()[:19]}{'+05:30' if number % 4 == 0 else '+00:00'}"
          for number, one in enumerate(times().to_pylist())]
    folder = tmp_path / "folder"
    folder.mkdir(parents=True)
    csv.write_csv(table(at=pa.array(at)), folder / "rows.csv")
    done = looked(tmp_path, project(time="at", source={"path": "rows.csv"}, holdout={"last": "10d"}), None)
    assert done.passed and "in 2 zones: Z in 1,500, +05:30 in 500 rows" in str(done.result["findings"]), done


def test_times_of_several_zones_wait_for_a_person_and_are_taken_to_utc(tmp_path: Path) -> None:
    at = [f"{one.isoformat()[:19]}{'+01:00' if number % 2 else 'Z'}"
          for number, one in enumerate(times().to_pylist())]
    suspicious(tmp_path, project(time="at", holdout={"last": "10d"}), table(at=pa.array(at)), "2 zones",
               "UTC")
    written = read(tmp_path, "train.parquet")["at"]
    assert str(written.type) == "timestamp[us, tz=UTC]"
    assert written[1].as_py().hour == 0


def test_two_columns_of_times_of_which_one_has_no_zone_wait_for_a_person(tmp_path: Path) -> None:
    suspicious(tmp_path, project(time="at", holdout={"last": "10d"}),
               table(at=times(), booked=times(zone=None)), "booked have no zone")


def test_what_is_no_time_is_refused(tmp_path: Path) -> None:
    given = project(time="at", holdout={"last": "10d"})
    hard(tmp_path, given, table(at=np.arange(2000)), "The time at", "holds int64, not times")
    with pytest.raises(AssertionError):
        hard(tmp_path / "x", given, table(at=times()), "not times")


def test_a_text_that_is_no_time_is_named(tmp_path: Path) -> None:
    at = [one.isoformat() for one in times().to_pylist()]
    at[7] = "yesterday"
    hard(tmp_path, project(time="at", holdout={"last": "10d"}), table(at=pa.array(at)), "'yesterday'",
         "is no time, first in row 8", "ISO 8601")


def test_a_time_to_come_is_refused_where_the_holdout_counts_from_it(tmp_path: Path) -> None:
    early = dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    hard(tmp_path, project(time="at", holdout={"last": "10d"}), table(at=times()), "yet to come",
         "2026-03-25T07:00:00Z", now=early)
    done = looked(tmp_path, project(time="at"), table(at=times()), 1, now=early)
    assert done.passed and done.result["suspicious"] == 1


def test_rows_without_a_time_are_refused_where_the_holdout_counts_by_it(tmp_path: Path) -> None:
    at = times().to_pylist()
    at[3] = None
    hard(tmp_path, project(time="at", holdout={"last": "10d"}),
         table(at=pa.array(at, pa.timestamp("us", "UTC"))), "no value in 1 row, first in row")


def test_a_key_that_repeats_is_refused(tmp_path: Path) -> None:
    key = np.arange(2000)
    key[5] = 4
    hard(tmp_path, project(key=["id"]), table(id=key), "The key id", "1 row repeats it, first in row")


def test_a_key_on_both_sides_is_refused(tmp_path: Path) -> None:
    marks = pa.array(["train", "test"] * 1000)
    hard(tmp_path, project(key=["id"], holdout={"column": "split", "is": "test"}),
         table(id=np.arange(2000) // 2, split=marks), "The key id", "held out are trained on too")


def test_a_key_without_a_value_is_refused(tmp_path: Path) -> None:
    key = pa.array([None, *range(1999)])
    hard(tmp_path, project(key=["id"]), table(id=key), "The key id", "no value in 1 row, first in row")


def test_copied_rows_on_both_sides_wait_for_a_person_and_are_refused_when_most_are(tmp_path: Path) -> None:
    rows = table()
    some = pa.concat_tables([rows, rows.slice(0, 300)])
    suspicious(tmp_path, project(), some, "held out and trained on too")
    every = pa.concat_tables([rows, rows, rows])
    hard(tmp_path / "all", project(), every, "held out and trained on too", "alike in every feature")


def test_rows_that_meet_by_chance_in_a_table_of_few_categories_are_no_copies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = {name: pa.array(rng.choice(["a", "b", "c"], 3000)) for name in ("p", "q", "r")}
    rows = pa.table({**few, "y": rng.integers(0, 2, 3000)})
    assert looked(tmp_path, project(), rows).result["findings"] == []


def test_a_query_on_both_sides_is_refused_and_a_group_waits(tmp_path: Path) -> None:
    marks = pa.array(["train", "test"] * 1000)
    rows = table(query=np.arange(2000) // 20, split=marks)
    by_column = {"group": "query", "holdout": {"column": "split", "is": "test"}, "features": ["a", "b"]}
    hard(tmp_path, project("ranking", **by_column), rows, "100 groups of query")
    suspicious(tmp_path / "b", project(**by_column), rows, "100 groups of query")


def test_infinite_numbers_are_refused(tmp_path: Path) -> None:
    rows = table()
    b = rows["b"].to_numpy().copy()
    b[:3] = np.inf
    hard(tmp_path, project(), rows.set_column(1, "b", pa.array(b)), "The column b", "infinite in 3 rows")


def test_a_holdout_that_leaves_nothing_says_why(tmp_path: Path) -> None:
    hard(tmp_path, project(time="at", holdout={"last": "365d"}), table(at=times()), "within 83 d",
         "nothing is left to train on")


def test_a_value_that_the_holdouts_column_never_has_is_named_with_those_it_has(tmp_path: Path) -> None:
    marks = pa.array(["train", "test"] * 1000)
    hard(tmp_path, project(holdout={"column": "split", "is": "tset"}), table(split=marks), "No row",
         "train, test", "Did you mean `test`?")


def test_one_group_cannot_be_split(tmp_path: Path) -> None:
    hard(tmp_path, project(group="g"), table(g=np.zeros(2000, dtype=int)), "one group", "cannot be split")


def test_several_problems_are_told_at_once_the_hard_ones_first(tmp_path: Path) -> None:
    rows = table(id=np.arange(2000) // 2, b=[float("inf")] * 5 + [1.5] * 1995)
    done = looked(tmp_path, project(key=["id"]), rows)
    assert done.result["hard"] >= 2 and "more problem" in done.says
    assert [one["severity"] for one in findings(tmp_path)][:2] == ["hard", "hard"]


# Against what is expected


def learned(tmp_path: Path, given: Any, rows: Any) -> None:
    looked(tmp_path, given, rows, 9)
    (tmp_path / "folder" / "expectations.yaml").write_bytes(
        (tmp_path / "output9" / "expectations.yaml").read_bytes())


def test_a_shift_waits_for_a_person_side_by_side(tmp_path: Path) -> None:
    learned(tmp_path, project(), table(5000))
    rows = table(5000, seed=1)
    done = looked(tmp_path, project(), rows.set_column(1, "b", pa.array(rows["b"].to_numpy() + 1)))
    assert done.passed and done.result["suspicious"] >= 1 and "before" in done.result["beside"]
    assert not (tmp_path / "output0" / "expectations.yaml").exists()


def test_a_column_of_another_kind_stops_the_stage(tmp_path: Path) -> None:
    learned(tmp_path, project(), table(5000))
    rows = table(5000, seed=1)
    hard(tmp_path, project(), rows.set_column(1, "b", rows["b"].cast("string")), "The column b holds text")


def test_a_feature_that_is_named_and_new_waits_and_one_no_longer_named_is_quiet(tmp_path: Path) -> None:
    learned(tmp_path, project(features=["a", "b"]), table())
    done = looked(tmp_path, project(features=["a", "word"]), table())
    assert done.passed and [one["kind"] for one in findings(tmp_path)] == ["new column"]


def test_expectations_with_mistakes_are_refused_with_their_lines(tmp_path: Path) -> None:
    learned(tmp_path, project(), table())
    path = tmp_path / "folder" / "expectations.yaml"
    path.write_text(path.read_text().replace("margins:", "margin:"))
    with pytest.raises(DocumentError) as error:
        looked(tmp_path, project(), table())
    assert "expectations.yaml:" in error.value.problems[0]


def test_what_was_accepted_is_told_again_when_it_grows(tmp_path: Path) -> None:
    rows = table()
    suspicious(tmp_path, project(), pa.concat_tables([rows, rows.slice(0, 300)]), "trained on too")
    done = looked(tmp_path, project(), pa.concat_tables([rows, rows.slice(0, 550)]), 2)
    assert [one["kind"] for one in findings(tmp_path, 2)] == ["overlap"]
    assert "accepted by anna" in done.result["beside"].replace("\n", " ")


def test_data_that_a_command_makes_is_derived_from_its_sources(tmp_path: Path) -> None:
    given = project(source={"command": ["python", "make.py"], "sources": ["seed.txt", "raw/*.txt"]})
    one = work(tmp_path, given)
    (one.folder / "seed.txt").write_text("5")
    (one.folder / "raw").mkdir()
    (one.folder / "raw" / "a.txt").write_text("6")
    (one.folder / "beside.py").write_text("what the key does not cover has no say in what is recorded")
    (one.folder / "make.py").write_text(
        "import os, pathlib, random\n"
        "random.seed(int(pathlib.Path('seed.txt').read_text()))\n"
        "rows = [(random.random(), i % 2) for i in range(500)]\n"
        "out = pathlib.Path(os.environ['OPSDECK_OUTPUT']) / 'rows.csv'\n"
        "out.write_text('a,y\\n' + ''.join(f'{a},{y}\\n' for a, y in rows))\n")
    done = look(one, NOW)
    assert done.passed and done.result["rows"] == 500
    import json

    dataset = json.loads((one.output / "dataset.json").read_text())
    assert dataset["kind"] == "derived" and list(dataset["derived"]["sources"]) == ["raw/a.txt", "seed.txt"]
    covered = {name: hashlib.sha256((one.folder / name).read_bytes()).hexdigest()
               for name in ("make.py", "raw/a.txt", "seed.txt")}
    assert dataset["derived"]["code"] == canonical.digest(covered)
