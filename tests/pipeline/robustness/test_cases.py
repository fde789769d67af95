"""Hard cases: what failed once and was fixed must never fail again, and their files are read strictly."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Conflict, DocumentError, UsageError
from engine.pipeline.robustness import case_files
from engine.pipeline.robustness.cases import Case, after, run

NOW = datetime(2026, 11, 24, 3, 14, 7, tzinfo=UTC)
ROWS = pa.table({"delay": [50, 55], "carrier": ["HA", "HA"]})
RNG = np.random.default_rng


def good(rows: pa.Table) -> np.ndarray:
    return rows["delay"].to_numpy() / 60


def bad(rows: pa.Table) -> np.ndarray:
    return 1 - good(rows)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cases"


def added(folder, id_="late-night", **more) -> Case:
    given_ = {"title": "Hawaiian flights after midnight", "why": "scored 0.1; all of them were late",
              "source": "request 4f2a", "by": "maria", "now": NOW, **more}
    expect = given_.pop("expect", [{"kind": "between", "low": 0.7}])
    return case_files.add(folder, id_, given_.pop("rows", ROWS), expect, **given_)


def verdict(folder, predict):
    library = case_files.read(folder)
    return run(library.cases, library.rows, predict, RNG(0))


def kept(folder, predict, later: timedelta):
    """A model is kept: its results are recorded."""
    library = case_files.read(folder)
    found = run(library.cases, library.rows, predict, RNG(0))
    for case, result in zip(library.cases, found.results, strict=True):
        case_files.record(folder, case, result.passed, NOW + later)
    return found


def test_a_case_is_read_as_it_was_added(folder):
    case = added(folder, expect=[{"kind": "between", "low": 0.7}, {
        "kind": "directional", "change": {"kind": "shift", "column": "delay", "by": 10}, "goes": "up"}])
    library = case_files.read(folder)
    assert library.cases == (case,) and library.rows["late-night"] == ROWS
    assert case.standing == "new" and case.added_at == "2026-11-24T03:14:07Z"
    assert sorted(path.name for path in folder.iterdir()) == ["late-night.parquet", "late-night.yaml"]


def test_no_folder_is_no_cases(folder):
    assert verdict(folder, good).passed and verdict(folder, good).says == "There are no hard cases yet."


def test_a_case_that_was_never_passed_is_a_known_weakness_and_refuses_nobody(folder):
    added(folder)
    found = verdict(folder, bad)
    assert found.passed and found.results[0].status == "fails, and is new"
    assert found.says == "0 of 1 hard cases pass; 1 new and failing: late-night."
    assert "No registered model has been tried on it before." in found.results[0].says
    kept(folder, bad, timedelta(hours=1))
    again = verdict(folder, bad)
    assert again.passed and again.says == "0 of 1 hard cases pass; 1 known to fail: late-night."
    assert again.results[0].says.startswith("Failed before, last at 2026-11-24T04:14:07Z. Scores are")
    assert "not so in 2 of 2 rows (row 0 0.167, row 1 0.0833)" in found.results[0].says


def test_a_case_that_must_pass_refuses_from_the_first_day(folder):
    added(folder, must=True)
    found = verdict(folder, bad)
    assert not found.passed
    assert found.says.startswith("The case late-night fails. Must pass. Scores are at least 0.7")


def test_a_case_that_failed_and_was_fixed_must_never_fail_again(folder):
    added(folder)
    assert kept(folder, bad, timedelta(hours=1)).passed
    assert case_files.read(folder).cases[0].standing == "known to fail"
    fixed = kept(folder, good, timedelta(hours=2))
    assert fixed.passed and fixed.results[0].status == "fixed now" and "1 of them fixed now" in fixed.says
    assert case_files.read(folder).cases[0].fixed_at == "2026-11-24T05:14:07Z"
    again = verdict(folder, bad)
    assert not again.passed and again.results[0].status == "came back"
    assert "Fixed at 2026-11-24T05:14:07Z, and must never fail again." in again.says
    assert verdict(folder, good).results[0].status == "passed"


def test_even_a_model_that_was_kept_in_spite_of_it_leaves_the_case_guarded(folder):
    added(folder)
    for hour, predict in enumerate((bad, good, bad), 1):
        kept(folder, predict, timedelta(hours=hour))
    assert not verdict(folder, bad).passed
    assert kept(folder, good, timedelta(hours=9)).results[0].status == "fixed now"
    assert not verdict(folder, bad).passed


def test_a_case_that_always_passed_must_not_break(folder):
    added(folder)
    kept(folder, good, timedelta(hours=1))
    found = verdict(folder, bad)
    assert not found.passed and found.results[0].status == "broke"
    assert "Passed since 2026-11-24T04:14:07Z" in found.says


def test_a_candidate_that_is_only_tried_leaves_no_trace(folder):
    added(folder)
    before = (folder / "late-night.yaml").read_bytes()
    verdict(folder, good), verdict(folder, bad)
    assert (folder / "late-night.yaml").read_bytes() == before


@given(st.lists(st.booleans(), max_size=8))
def test_whatever_happened_a_case_that_was_once_passed_is_guarded(history):
    case = Case.model_validate({
        "case": 1, "id": "a", "title": "t", "why": "w", "source": "s", "added_by": "m", "rows": "a.parquet",
        "added_at": "2026-11-24T03:14:07Z", "sha256": "0" * 64, "expect": [{"kind": "called", "as": 1}]})
    for passed, hours in zip(history, itertools.count(1), strict=False):
        case = after(case, passed, NOW + timedelta(hours=hours))
    found = run([case], {"a": pa.table({"x": [1.0]})}, lambda rows: [0.1], RNG(0))
    assert found.passed is (not any(history))


def test_a_model_that_cannot_answer_a_case_fails_it(folder):
    added(folder, must=True)

    def broken(rows):
        raise KeyError("dep_time")
    assert "The model failed: KeyError: 'dep_time'." in verdict(folder, broken).says
    assert not verdict(folder, lambda rows: np.full(2, np.nan)).passed


def test_recording_keeps_the_comments_and_the_order_of_the_file(folder):
    added(folder)
    path = folder / "late-night.yaml"
    path.write_text("# seen in the incident of 23 November\n" + path.read_text() + "failed_at:  # not yet\n")
    case = case_files.read(folder).cases[0]
    case_files.record(folder, case, False, NOW + timedelta(hours=1))
    text = path.read_text()
    assert text.startswith("# seen in the incident")
    assert text.endswith("failed_at: 2026-11-24T04:14:07Z  # not yet\n")
    assert sorted(p.name for p in folder.iterdir()) == ["late-night.parquet", "late-night.yaml"]


def test_a_case_that_was_edited_meanwhile_is_not_written_over(folder):
    case = added(folder)
    path = folder / "late-night.yaml"
    path.write_text(path.read_text().replace("low: 0.7", "low: 0.8"))
    with pytest.raises(Conflict, match="late-night has changed since it was run"):
        case_files.record(folder, case, True, NOW)


def edited(folder, old, new):
    added(folder)
    path = folder / "late-night.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("old, new, line, said", [
    ("low: 0.7", "low: 0.7\n  high: 0.2", 11, "low is 0.7, above high, which is 0.2"),
    ("low: 0.7", "lowest: 0.7", 12, "unknown key `lowest`"),
    ("kind: between", "kind: betwen", 11, "there is no `betwen`"),
    ("- kind: between\n  low: 0.7", "- kind: near\n  column: wanted\n  within: 0.1", 11,
     "the rows have no column wanted"),
    ("- kind: between\n  low: 0.7",
     "- kind: invariant\n  within: 0.1\n  change: {kind: shift, column: dely, by: 1}", 11,
     "the rows have no column dely"),
    ("id: late-night", "id: late", 2, "the id is late, and the file is called late-night.yaml"),
    ("title: Hawaiian flights after midnight", "title:", 3, "`title` must be"),
    ("added_by: maria", "added_by: maria\nfixed_at: 2026-11-25T00:00:00Z", 7, "has never failed"),
    ("added_by: maria", "added_by: maria\npassed_at: 2026-11-20T00:00:00Z", 7, "is before the case"),
    ("added_by: maria", "added_by: maria\npassed_at: yesterday", 7, "`passed_at` must be text that matches"),
    ("rows: late-night.parquet", "rows: ../late-night.parquet", 8, "the name of a Parquet file beside this"),
    ("rows: late-night.parquet", "rows: other.parquet", 8, "there is no file other.parquet"),
])
def test_every_problem_of_a_case_has_its_line(folder, old, new, line, said):
    edited(folder, old, new)
    with pytest.raises(DocumentError) as refused:
        case_files.read(folder)
    assert any(f"late-night.yaml:{line}: " in one and said in one for one in refused.value.problems), \
        refused.value.problems


def test_all_problems_of_all_files_are_told_at_once(folder):
    edited(folder, "id: late-night", "id: late\nsurprise: 1")
    (folder / "empty.yaml").write_text("")
    (folder / "not-yaml.yaml").write_text("a: [")
    pq.write_table(ROWS, folder / "stray.parquet")
    with pytest.raises(DocumentError) as refused:
        case_files.read(folder)
    told = "\n".join(refused.value.problems)
    for said in ("the file is empty", "not-yaml.yaml:1:", "unknown key `surprise`",
                 "stray.parquet: no case is written for these rows"):
        assert said in told


def test_rows_that_were_changed_or_are_damaged_are_told(folder):
    added(folder)
    pq.write_table(pa.table({"delay": [1], "carrier": ["AA"]}), folder / "late-night.parquet")
    with pytest.raises(DocumentError) as refused:
        case_files.read(folder)
    assert "late-night.parquet is not the file this case was written for" in refused.value.problems[0]


@pytest.mark.parametrize("more, said", [
    ({"id_": "Late Night"}, "cannot be a case's id"), ({"id_": "../x"}, "cannot be a case's id"),
    ({"id_": "x\n"}, "cannot be a case's id"), ({"rows": ROWS.slice(0, 0)}, "needs at least one row"),
    ({"expect": []}, "cannot be written"), ({"expect": [{"kind": "between"}]}, "between wants `low`"),
    ({"expect": [{"kind": "near", "column": "x", "within": 1}]}, "the rows have no column x"),
    ({"title": ""}, "cannot be written")])
def test_a_case_that_is_wrong_is_not_written_at_all(folder, more, said):
    with pytest.raises(UsageError, match=said):
        added(folder, **more)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_case_is_never_written_over(folder):
    added(folder)
    with pytest.raises(Conflict, match="there is a case late-night already"):
        added(folder, title="another")


def test_cases_with_columns_for_expected_scores_are_run_without_them(folder):
    rows = ROWS.append_column("expected", pa.array([50 / 60, 55 / 60]))
    added(folder, rows=rows, expect=[{"kind": "near", "column": "expected", "within": 0.01}], must=True)
    assert verdict(folder, good).passed and not verdict(folder, bad).passed
