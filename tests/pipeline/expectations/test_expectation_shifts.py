"""What is found in simulation: hardly anything without a shift, and every real one. Seeds are fixed."""

from __future__ import annotations

import numpy as np
import pytest

from engine.pipeline.expectations import Finding, check, learn
from tests.pipeline.expectations.made import START, replaced, table

# Of 200 checks two may find something: at a true rate of 3 % that is red in 94 cases of 100, at 5 % in 998
# of 1000. The soak run asks 500.
RUNS = 200
# A column with one gap in a thousand may well have none in a thousand rows of history; that gaps are hard
# from then on is the rule, and not a matter of chance. The tables have no such column.


def found(findings: list[Finding]) -> set[tuple[str, str]]:
    return {(one.column, one.kind) for one in findings}


@pytest.mark.parametrize(("old", "new", "runs"), [
    (1000, 1000, RUNS), pytest.param(1000, 1000, 500, marks=pytest.mark.soak), (60, 60, 100), (5000, 300, 40),
    (300, 5000, 40)])
def test_at_most_one_check_in_a_hundred_finds_something_where_nothing_changed(
        old: int, new: int, runs: int) -> None:
    alarms = []
    for run in range(runs):
        rng = np.random.default_rng([old, new, run])
        expectations = learn(table(rng, old, days=30))
        # Rows a day are as many, and the days are later ones.
        days = max(1, round(30 * new / old))
        findings = check(expectations, table(rng, new, day=30, days=days))
        alarms += [str(one) for one in findings[:1] if one.kind != "rows"]
    assert len(alarms) <= max(1, runs / 100), alarms


def test_a_million_rows_do_not_fail_on_a_meaningless_shift() -> None:
    rng = np.random.default_rng(7)
    old, new = table(rng, 200_000), table(rng, 200_000, day=30)
    moved = replaced(
        new, normal=new["normal"].to_numpy() + 0.1,
        skewed=np.where(rng.random(new.num_rows) < 0.02, "b", new["skewed"].to_numpy(zero_copy_only=False)))
    assert check(learn(old), moved) == []


@pytest.mark.parametrize("rows", [500, 20_000])
def test_every_real_shift_is_found_with_its_kind(rows: int) -> None:
    rng = np.random.default_rng(rows)
    expectations = learn(table(rng, rows))
    plain = table(rng, rows, day=30)
    sparse, half = rng.random(rows) < 0.25, rng.random(rows) < 0.5

    def seen(**columns: object) -> set[tuple[str, str]]:
        return found(check(expectations, replaced(plain, **columns)))

    assert check(expectations, plain) == []
    assert ("normal", "distribution") in seen(normal=plain["normal"].to_numpy() + 0.5)
    assert ("normal", "distribution") in seen(normal=plain["normal"].to_numpy() * 2)
    assert ("uniform", "range") in seen(uniform=plain["uniform"].to_numpy() * 1.2)
    assert ("zero", "distribution") in seen(zero=np.where(half, 0.0, plain["zero"].to_numpy()))
    assert ("normal × related", "correlation") in seen(related=rng.permutation(plain["related"].to_numpy()))
    assert ("normal × related", "correlation") in seen(related=-plain["related"].to_numpy())
    assert ("gaps", "missing values") in seen(gaps=np.where(sparse, np.nan, plain["gaps"].to_numpy()))
    assert ("skewed", "categories") in seen(
        skewed=np.where(sparse, "b", plain["skewed"].to_numpy(zero_copy_only=False)))
    assert ("many", "categories") in seen(
        many=np.where(sparse, "z250", plain["many"].to_numpy(zero_copy_only=False)))
    assert ("even", "categories") in seen(
        even=np.where(sparse, "new", plain["even"].to_numpy(zero_copy_only=False)))
    assert ("flag", "categories") in seen(flag=sparse)


def test_one_sentinel_among_many_rows_is_found() -> None:
    rng = np.random.default_rng(5)
    expectations = learn(table(rng, 5000))
    new = table(rng, 5000, day=30)
    values = new["normal"].to_numpy().copy()
    values[17] = -9999.0
    [finding] = check(expectations, replaced(new, normal=values))
    assert (finding.column, finding.kind, finding.severity) == ("normal", "range", "suspicious")
    assert "-9999" in finding.sentence


def test_a_few_rows_of_a_new_category_are_found_in_many() -> None:
    rng = np.random.default_rng(6)
    expectations = learn(table(rng, 20_000))
    new = table(rng, 20_000, day=30)
    words = new["even"].to_numpy(zero_copy_only=False).astype("U9")
    words[:40] = "newcomer"
    [finding] = check(expectations, replaced(new, even=words))
    assert (finding.column, finding.kind, finding.severity) == ("even", "unknown category", "suspicious")
    assert "newcomer" in finding.sentence


def test_days_with_far_fewer_or_more_rows_than_ever_are_found() -> None:
    rng = np.random.default_rng(9)
    expectations = learn(table(rng, 6000))
    new = table(rng, 6000, day=30)
    day = (new["at"].to_numpy().astype("M8[s]") - START).astype(int) // 86_400
    few = new.filter((day != 41) | (rng.random(new.num_rows) < 0.1))
    [finding] = check(expectations, few)
    assert (finding.kind, finding.severity) == ("period", "hard")
    assert "2026-02-11" in finding.sentence
    [gone] = check(expectations, new.filter(day != 41))
    assert "2026-02-11 has only 0 rows" in gone.sentence
    twice = new.take(np.sort(np.concatenate([np.arange(6000), *[np.flatnonzero(day == 41)] * 2])))
    kinds = {(one.kind, one.severity) for one in check(expectations, twice)}
    assert kinds == {("period", "suspicious"), ("key", "hard")}
