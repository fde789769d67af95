"""What stops a run, what waits for a person, and what is let pass."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from engine.errors import UsageError
from engine.pipeline.expectations import Expectations, Finding, check, dumps, learn, loads

ROWS = 2_000


def table(day: int = 0, **columns: Any) -> pa.Table:
    rng = np.random.default_rng(abs(day))
    seconds = np.sort(rng.integers(0, 20 * 86_400, ROWS)) + day * 86_400
    made: dict[str, Any] = {
        "id": np.arange(ROWS) + day * ROWS, "amount": rng.normal(50, 5, ROWS),
        "items": np.maximum(rng.poisson(1, ROWS), 0), "shop": rng.choice(["north", "south"], ROWS),
        "at": pa.array(np.datetime64("2026-01-01") + seconds.astype("m8[s]"), pa.timestamp("us", "UTC"))}
    return pa.table({name: value for name, value in (made | columns).items() if value is not None})


@pytest.fixture(scope="module")
def expectations() -> Expectations:
    return learn(table())


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [str(one) for one in findings]
    return findings[0]


def test_data_like_the_history_passes(expectations: Expectations) -> None:
    assert check(expectations, table(20)) == []


def test_learning_twice_gives_the_same_bytes(expectations: Expectations) -> None:
    assert dumps(learn(table())) == dumps(expectations)


def test_a_missing_column_is_hard_and_a_renamed_one_is_guessed(expectations: Expectations) -> None:
    new = table(20).rename_columns(["id", "amount", "items", "shops", "at"])
    findings = check(expectations, new)
    assert [(one.column, one.kind, one.severity) for one in findings] == [
        ("shop", "missing column", "hard"), ("shops", "new column", "hard")]
    assert "shops has a name like it" in findings[0].sentence


def test_another_kind_of_value_is_hard(expectations: Expectations) -> None:
    finding = only(check(expectations, table(20, amount=[f"{i}" for i in range(ROWS)])))
    assert (finding.kind, finding.severity) == ("type", "hard")
    assert "holds text (string), where number (double) was" in finding.sentence


def test_another_width_of_the_same_kind_is_suspicious(expectations: Expectations) -> None:
    narrow = table(20)["amount"].cast(pa.float32())
    finding = only(check(expectations, table(20, amount=narrow)))
    assert (finding.kind, finding.severity) == ("type", "suspicious")


def test_a_time_without_its_zone_is_hard(expectations: Expectations) -> None:
    naive = table(20)["at"].cast(pa.timestamp("us"))
    finding = only(check(expectations, table(20, at=naive)))
    assert (finding.kind, finding.severity) == ("type", "hard")
    assert "without a zone" in finding.sentence


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_a_missing_value_where_there_was_none_is_hard(expectations: Expectations, nothing: Any) -> None:
    values = table(20)["amount"].to_pylist()
    values[5] = nothing
    finding = only(check(expectations, table(20, amount=values)))
    assert (finding.kind, finding.severity) == ("missing values", "hard")
    assert finding.sentence == "In amount 1 row has no value, where all 2,000 had one."


def test_a_missing_value_after_a_short_history_may_be_chance() -> None:
    short = table().slice(0, 40)
    values = [None, *table(20)["amount"].to_pylist()[1:40]]
    new = table(20).slice(0, 40).set_column(1, "amount", pa.array(values))
    assert check(learn(short), new) == []
    gone = table(20).slice(0, 40).set_column(1, "amount", pa.array([None] * 30 + values[30:]))
    assert {one.kind for one in check(learn(short), gone)} == {"missing values"}


def test_infinite_values_are_hard_where_there_were_none(expectations: Expectations) -> None:
    values = table(20)["amount"].to_numpy().copy()
    values[:3] = np.inf
    finding = only(check(expectations, table(20, amount=values)))
    assert (finding.kind, finding.severity) == ("infinite", "hard")


def test_a_count_that_was_never_negative_may_not_be(expectations: Expectations) -> None:
    assert expectations.columns["items"].allowed is not None
    assert expectations.columns["amount"].allowed is None  # never negative too, but by no plain bound
    values = table(20)["items"].to_numpy().copy()
    values[5] = -1
    finding = only(check(expectations, table(20, items=values)))
    assert (finding.kind, finding.severity) == ("allowed", "hard")


def test_bounds_that_a_person_set_are_hard(expectations: Expectations) -> None:
    found = "    range: {severity: suspicious, min: 3"
    text = dumps(expectations).replace(found, "    allowed: {severity: hard, max: 60}\n" + found, 1)
    finding = only(check(loads(text), table(20)))
    assert (finding.column, finding.kind, finding.severity) == ("amount", "allowed", "hard")
    assert "at most 60" in finding.sentence


def test_a_closed_set_of_categories_lets_no_other_in(expectations: Expectations) -> None:
    closed = loads(dumps(expectations).replace("closed: false", "closed: true"))
    words = table(20)["shop"].to_pylist()
    words[0] = "west"
    assert check(expectations, table(20, shop=words)) == []
    finding = only(check(closed, table(20, shop=words)))
    assert (finding.kind, finding.severity) == ("unknown category", "hard")
    assert "west" in finding.sentence


def test_a_repeated_key_is_hard(expectations: Expectations) -> None:
    ids = table(20)["id"].to_numpy().copy()
    ids[9] = ids[8]
    finding = only(check(expectations, table(20, id=ids)))
    assert (finding.kind, finding.severity) == ("key", "hard")
    assert finding.sentence == "1 row repeats the id of another row; no two rows had the same."


def test_keys_of_several_columns_are_those_that_were_named() -> None:
    day = np.repeat(np.arange(50), 40)
    shop = np.tile([f"s{i}" for i in range(40)], 50)
    old = pa.table({"day": day, "shop": shop})
    named = learn(old, keys=[("day", "shop")])
    assert check(named, pa.table({"day": day + 50, "shop": shop}))[0].kind != "key"
    twice = pa.table({"day": day, "shop": np.where(np.arange(2000) == 7, "s0", shop)})
    finding = only([one for one in check(named, twice) if one.kind == "key"])
    assert finding.column == "day + shop" and "1 row repeats" in finding.sentence


def test_numbers_drawn_at_random_are_no_key() -> None:
    wide = np.random.default_rng(1).choice(10**12, ROWS, replace=False)
    key = only_key = learn(pa.table({"wide": wide})).keys
    assert [(one.columns, one.severity) for one in key] == [(["wide"], "suspicious")]
    only_key = learn(pa.table({"dense": np.random.default_rng(1).permutation(ROWS)})).keys
    assert [(one.columns, one.severity) for one in only_key] == [(["dense"], "hard")]


def test_data_older_than_the_history_is_stale(expectations: Expectations) -> None:
    finding = only(check(expectations, table(-30)))
    assert (finding.kind, finding.severity) == ("stale", "hard")
    assert "older than the history" in finding.sentence


def test_data_that_has_grown_too_old_is_stale() -> None:
    limited = learn(table(), max_age=2 * 86_400)
    end = datetime(2026, 2, 10, tzinfo=UTC)
    assert check(limited, table(20), now=end) == []
    finding = only(check(limited, table(20), now=end.replace(day=13)))
    assert finding.kind == "stale" and "3 d" in finding.sentence and "at most 2 d" in finding.sentence


def test_the_age_limit_is_learned_from_the_age_of_the_history() -> None:
    learned = learn(table(), now=datetime(2026, 1, 22, tzinfo=UTC))
    assert learned.freshness is not None and learned.freshness.max_age is not None
    assert 2 * 86_400 < learned.freshness.max_age < 2.1 * 86_400


def test_far_too_few_rows_are_hard_and_none_are_too(expectations: Expectations) -> None:
    few = only(check(learn(table(at=None)), table(20, at=None).slice(0, 100)))
    assert (few.kind, few.severity) == ("rows", "hard")
    assert "only 100 rows; at least 200 are expected" in few.sentence
    none = only(check(expectations, table(20).slice(0, 0)))
    assert none.sentence == "The table has no rows." and none.severity == "hard"


def test_a_shorter_time_is_not_far_too_few_rows(expectations: Expectations) -> None:
    days = table(20).slice(0, ROWS // 10)
    assert check(expectations, days) == []


def test_a_column_of_nothing_is_missing_values_not_another_type(expectations: Expectations) -> None:
    finding = only(check(expectations, table(20, amount=pa.nulls(ROWS))))
    assert (finding.kind, finding.severity) == ("missing values", "hard")


def test_a_column_that_was_always_empty_may_stay_so_and_is_found_when_it_fills() -> None:
    empty = learn(table(note=pa.nulls(ROWS)))
    assert check(empty, table(20, note=pa.nulls(ROWS))) == []
    finding = only(check(empty, table(20, note=["x"] * ROWS)))
    assert (finding.kind, finding.severity) == ("missing values", "suspicious")


def test_what_is_ignored_is_not_found(expectations: Expectations) -> None:
    text = dumps(expectations)
    ignored = loads(text.replace("new_columns: {severity: hard}", "new_columns: {severity: ignore}"))
    assert only(check(expectations, table(20, extra=np.arange(ROWS)))).kind == "new column"
    assert check(ignored, table(20, extra=np.arange(ROWS))) == []


def test_one_row_can_be_learned_from_and_says_little() -> None:
    one = learn(table().slice(0, 1))
    assert {finding.kind for finding in check(one, table(20))} <= {"range"}
    assert check(learn(table()), table(20).slice(5, 1))[0].kind == "rows"


def test_nothing_can_be_learned_from_an_empty_table() -> None:
    with pytest.raises(UsageError, match="no rows"):
        learn(table().slice(0, 0))


def test_several_deliveries_are_one_history_and_the_smallest_says_how_few_rows_are_too_few() -> None:
    learned = learn([table(), table(20).slice(0, 500)])
    assert (learned.rows.learned, learned.rows.least) == (2_500, 5)


def test_findings_survive_json(expectations: Expectations) -> None:
    for finding in check(expectations, table(20, amount=np.full(ROWS, 70.0), shop=["north"] * ROWS)):
        assert Finding.model_validate_json(finding.model_dump_json()) == finding


@pytest.mark.parametrize("gappy", ["x", "y", "both"])
def test_a_correlation_is_that_of_the_rows_that_have_both(gappy: str) -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=ROWS)
    y = x + rng.normal(size=ROWS)
    gone = {name: (rng.random(ROWS) < 0.3) & (gappy in (name, "both")) for name in ("x", "y")}
    there = ~gone["x"] & ~gone["y"]
    made = pa.table({"x": pa.array(x, mask=gone["x"]), "y": pa.array(y, mask=gone["y"])})
    [found] = learn(made).correlations
    assert found.rows == there.sum()
    assert found.r == pytest.approx(stats.spearmanr(x[there], y[there]).statistic, abs=0.01)
