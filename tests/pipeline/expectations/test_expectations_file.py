"""The file that people review: the same bytes every time, every mistake at its line, decisions kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Conflict, DocumentError, UsageError
from engine.pipeline.expectations import Expectations, Finding, accept, check, dumps, learn, loads, relearn
from engine.pipeline.expectations.model import Kind
from engine.pipeline.expectations.writing import scalar
from tests.pipeline.expectations.made import START, replaced, table

ANNA: dict[str, Any] = {"by": "anna", "reason": "the new terminal opened", "at": "2026-11-24T03:14:07Z"}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
columns = st.one_of(
    st.lists(st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.integers(-2**63, 2**63 - 1)), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), texts), min_size=3, max_size=3),
    st.lists(st.one_of(st.none(), st.booleans()), min_size=3, max_size=3))


@pytest.fixture(scope="module")
def learned() -> Expectations:
    return learn(table(np.random.default_rng(1), 2000))


@pytest.fixture(scope="module")
def shifted() -> pa.Table:
    rng = np.random.default_rng(2)
    new = table(rng, 2000, day=30)
    return replaced(new, normal=new["normal"].to_numpy() + 1, even=["a"] * 1000 + ["new"] * 1000,
                    gaps=np.where(rng.random(2000) < 0.4, np.nan, new["gaps"].to_numpy()))


def lines_of(error: pytest.ExceptionInfo[DocumentError]) -> list[str]:
    return [problem.splitlines()[0] for problem in error.value.problems]


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(names, columns, min_size=1, max_size=4))
def test_what_is_learned_reads_back_and_is_written_byte_for_byte_the_same(made: dict[str, list[Any]]) -> None:
    expectations = learn(pa.table(made))
    text = dumps(expectations)
    assert loads(text) == expectations
    assert dumps(loads(text)) == text


@settings(deadline=None)
@given(texts)
def test_any_text_is_one_scalar_without_invisible_characters(text: str) -> None:
    from engine.located import load

    located = load(f"key: [{scalar(text)}]\n", "x")
    assert located.problems == [] and located.value == {"key": [text]}


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_written_so_that_not_a_bit_is_lost(number: float) -> None:
    assert scalar(number) == repr(number)


def test_columns_are_sorted_and_lines_fit_a_screen(learned: Expectations) -> None:
    text = dumps(learned)
    names = [line.strip(" :\"") for line in text.splitlines() if line.startswith("  ") and line[2] != " "
             and line.endswith(":") and "severity" not in line]
    assert names == sorted(names)
    assert max(len(line) for line in text.splitlines()) <= 110
    assert "hard stops the run" in text


def test_every_problem_of_a_file_comes_with_its_line(learned: Expectations) -> None:
    lines = dumps(learned).splitlines()

    def at(start: str) -> int:
        return next(i for i, line in enumerate(lines) if line.startswith(start))

    lines[at("chance")] = "chance: much"
    lines[at("rows")] = "rows: {severity: hrd, least: 10, learned: 2000}"
    lines[at("  cauchy:") + 1] = "    typ: {severity: hard, name: double}"
    with pytest.raises(DocumentError) as error:
        loads("\n".join(lines) + "\n", "expectations.yaml")
    found = lines_of(error)
    assert len(found) == 4, found
    assert found[0] == f"expectations.yaml:{at('chance') + 1}: `chance` must be a number, not \"much\""
    assert f"expectations.yaml:{at('rows') + 1}: " in found[1] and "`hard`" in found[1]
    assert found[2].startswith(f"expectations.yaml:{at('  cauchy:') + 1}: `type` is missing")
    assert found[3].startswith(f"expectations.yaml:{at('  cauchy:') + 2}: unknown key `typ`")


@pytest.mark.parametrize(("old", "new", "said"), [
    ("share: [0.6", "share: [0.99", "must not fall"),
    ("columns: [normal, related]", "columns: [normal, gone]", "there is no column gone under `columns`"),
    ("    columns: [id]", "    columns: [idd]", "there is no column idd under `columns`"),
    ("name: string", "name: double", "`categories` does not fit the column"),
    ("newest: \"2026", "newest: \"soon 2026", "is not a time"),
    ("        - [a,", "        - [b,", "is listed twice"),
])
def test_what_cannot_be_meant_is_refused(learned: Expectations, old: str, new: str, said: str) -> None:
    text = dumps(learned)
    assert old in text
    with pytest.raises(DocumentError) as error:
        loads(text.replace(old, new))
    assert any(said in problem for problem in error.value.problems), error.value.problems


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"1 problem") as error:
        loads(tmp_path / "expectations.yaml")
    assert "there is no such file" in error.value.problems[0]


def test_what_a_person_accepts_is_expected_from_then_on(learned: Expectations, shifted: pa.Table) -> None:
    findings = check(learned, shifted)
    kinds = {(one.column, one.kind) for one in findings}
    assert {("normal", "distribution"), ("even", "categories"), ("gaps", "missing values")} <= kinds
    accepted = learned
    for finding in findings:
        assert finding.severity == "suspicious"
        accepted = accept(accepted, finding, **ANNA)
    assert check(loads(dumps(accepted)), shifted) == []
    decided = accepted.columns["normal"].distribution
    assert decided is not None and decided.accepted is not None
    assert decided.accepted.model_dump() == ANNA
    assert 'reason: "the new terminal opened"' in dumps(accepted)
    assert [one.kind for one in check(accepted, table(np.random.default_rng(3), 2000, day=60))] != []


def test_whatever_is_found_can_be_accepted_where_it_is_not_hard() -> None:
    rng = np.random.default_rng(1)
    loose = loads(dumps(learn(table(rng, 2000))).replace("severity: hard", "severity: suspicious"))
    new = table(rng, 2000, day=0)
    day = new["at"].to_numpy().astype("M8[D]").astype(int)
    new = new.filter((day != day[1000]) & (np.arange(2000) > 100))
    n = new.num_rows
    wrong = replaced(
        new, normal=np.where(np.arange(n) == 5, np.inf, new["normal"].to_numpy() + 2),
        related=rng.permutation(new["related"].to_numpy()), id=np.zeros(n, dtype=int),
        zero=new["zero"].to_numpy() - 1, uniform=[None] * 50 + new["uniform"].to_pylist()[50:],
        cauchy=new["cauchy"].to_numpy().astype("f4"), pareto=[1e15, *new["pareto"].to_pylist()[1:]],
        skewed=["b"] * n, even=["novel"] * 26 + new["even"].to_pylist()[26:])
    wrong = wrong.drop_columns(["count"]).append_column("extra", pa.array(np.arange(n)))
    wrong = wrong.filter(pa.array(wrong["at"].to_numpy() < START + np.timedelta64(28, "D")))
    accepted, kinds = loose, set()
    for _ in range(40):
        if not (findings := check(accepted, wrong)):
            break
        kinds |= {one.kind for one in findings}
        accepted = loads(dumps(accept(accepted, findings[0], **ANNA)))
    assert check(accepted, wrong) == []
    assert kinds == set(get_args(Kind)) - {"rows"}


def test_a_hard_finding_cannot_be_waved_through(learned: Expectations, shifted: pa.Table) -> None:
    [finding] = [one for one in check(learned, shifted.drop_columns(["even"])) if one.severity == "hard"]
    with pytest.raises(UsageError, match="hard and cannot be accepted"):
        accept(learned, finding, **ANNA)


@pytest.mark.parametrize("gap", ["by", "reason", "at"])
def test_accepting_wants_a_name_a_reason_and_a_time(learned: Expectations, shifted: pa.Table,
                                                    gap: str) -> None:
    with pytest.raises(UsageError, match="is accepted with"):
        accept(learned, check(learned, shifted)[0], **(ANNA | {gap: "  "}))


def test_a_finding_against_expectations_that_have_changed_is_void(learned: Expectations,
                                                                  shifted: pa.Table) -> None:
    finding = check(learned, shifted)[0]
    once = accept(learned, finding, **ANNA)
    with pytest.raises(Conflict, match="was changed since"):
        accept(once, finding, **ANNA)


def test_a_finding_that_was_stored_can_be_accepted(learned: Expectations, shifted: pa.Table) -> None:
    finding = check(learned, shifted)[0]
    stored = Finding.model_validate_json(finding.model_dump_json())
    assert accept(loads(dumps(learned)), stored, **ANNA) == accept(learned, finding, **ANNA)


def test_a_column_that_may_go_is_forgotten_with_all_that_names_it() -> None:
    made = table(np.random.default_rng(1), 500)
    text = dumps(learn(made, keys=[("id", "at")]))
    at = text.index("  at:\n    type: {severity: hard")
    loose = loads(text[:at] + text[at:].replace("severity: hard", "severity: suspicious", 1))
    [finding] = check(loose, made.drop_columns(["at"]))
    after = accept(loose, finding, **ANNA)
    assert after.freshness is None and after.period is None and "at" not in after.columns
    assert [key.columns for key in after.keys] == [["id"]]
    assert loads(dumps(after)) == after


def test_learning_again_keeps_what_people_decided(learned: Expectations, shifted: pa.Table) -> None:
    text = dumps(learned)
    text = text.replace("chance: 0.002", "chance: 0.01").replace("new_columns: {severity: hard}",
                                                                "new_columns: {severity: ignore}")
    at = text.index("  even:\n")
    text = text[:at] + text[at:].replace("closed: false", "closed: true", 1)
    at = text.index("  uniform:\n")
    bound = "    allowed: {severity: hard, max: 1.0}\n    range: {severity: ignore"
    text = text[:at] + text[at:].replace("    range: {severity: suspicious", bound, 1)
    edited = loads(text)
    [finding] = [one for one in check(edited, shifted) if one.kind == "distribution"]
    edited = accept(edited, finding, **ANNA)
    later = table(np.random.default_rng(4), 3000, day=60)
    again = relearn(edited, later.append_column("extra", [[1.0] * 3000]))
    assert again.chance == 0.01 and again.new_columns.severity == "ignore"
    even, uniform, normal = (again.columns[name] for name in ("even", "uniform", "normal"))
    assert even.categories is not None and even.categories.closed
    assert uniform.allowed is not None and uniform.allowed.max == 1.0
    assert uniform.range is not None and uniform.range.severity == "ignore"
    assert normal.distribution is not None and normal.distribution.accepted is not None
    assert normal.distribution.accepted.reason == ANNA["reason"]
    # And learned what is new.
    assert normal.distribution.rows == 3000 and abs(normal.distribution.mean or 9) < 0.1
    assert "extra" in again.columns and again.rows.learned == 3000
    assert again.freshness is not None and learned.freshness is not None
    assert again.freshness.newest > learned.freshness.newest
    assert loads(dumps(again)) == again


def test_learning_the_same_again_changes_nothing(learned: Expectations) -> None:
    assert dumps(relearn(learned, table(np.random.default_rng(1), 2000))) == dumps(learned)


def test_gaps_that_are_new_in_the_history_are_not_hard_by_habit(learned: Expectations) -> None:
    made = table(np.random.default_rng(1), 2000)
    gappy = replaced(made, normal=[None] * 100 + made["normal"].to_pylist()[100:])
    missing = relearn(learned, gappy).columns["normal"].missing
    assert missing is not None and (missing.severity, missing.share) == ("suspicious", 0.05)
