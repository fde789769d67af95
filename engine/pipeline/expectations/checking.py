"""New data against what is expected of it: one pass over the table, then a verdict on the counts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.located import nearest
from engine.pipeline.expectations import columns as of_columns
from engine.pipeline.expectations import tables as of_tables
from engine.pipeline.expectations.kinds import NUMBERS, TIMES, WORDS, difference, family
from engine.pipeline.expectations.measuring import Measured, NumberPlan, Plan, measure
from engine.pipeline.expectations.model import Column, Expectations, Expected, Finding, Type
from engine.pipeline.expectations.source import Source, open_source

_ORDER = {"hard": 0, "suspicious": 1, "ignore": 2}


def check(expectations: Expectations, table: Any, *, now: datetime | None = None) -> list[Finding]:
    """Every way in which `table` (a path, an Arrow table, or several) is not as expected, the worst first.

    A shift is found where its effect is above the file's margin and its chance below `chance`, which all
    tests of the check share equally (Bonferroni). `now` is needed for `max_age` only. What is to be ignored
    is left out. Raises UsageError where the table cannot be read or has nested columns; an empty one is a
    finding.
    """
    source = open_source(table)
    found = _schema(expectations, source)
    plan = planned(expectations, source)
    measured = measure(source, plan)
    measured.rows = sum(source.rows_each()) if not measured.rows else measured.rows
    found += judge(expectations, plan, measured, now)
    return sorted((one for one in found if one.severity != "ignore"), key=_worst)


def judge(expectations: Expectations, plan: Plan, measured: Measured, now: datetime | None) -> list[Finding]:
    """What is found in the counts of a table with the columns of `plan`. Pure."""
    found = of_tables.rows(expectations, measured)
    if not measured.rows:
        return found
    level = expectations.chance / max(_tests(expectations, plan), 1)
    there = set(plan.columns())
    for name, column in expectations.columns.items():
        if name in there:
            found += of_columns.judge(name, column, expectations.margins, measured, level)
    return [
        *found,
        *of_tables.keys(expectations, measured),
        *of_tables.freshness(expectations, measured, now),
        *of_tables.periods(expectations, measured, level),
        *of_tables.correlations(expectations, measured, level),
    ]


def _worst(one: Finding) -> tuple[int, float, str, str]:
    over = (one.effect or 0.0) / one.margin if one.margin else float("inf")
    return _ORDER[one.severity], -abs(over), one.column, one.kind


def _tests(expectations: Expectations, plan: Plan) -> int:
    """How many of the findings could be chance: each gets its part of `chance`."""
    columns = [expectations.columns[name] for name in plan.columns() if name in expectations.columns]
    return (sum(one.missing is not None for one in columns)
            + sum(4 * (one.range is not None) + (one.distribution is not None) for one in columns)
            + sum(2 * (one.categories is not None) for one in columns)
            + len(plan.pairs) + 2 * (expectations.period is not None))


def planned(expectations: Expectations, source: Source) -> Plan:
    """What to count of a table, of the columns that have the kind that is expected."""
    fit = {one.name: one for one in source.schema
           if one.name in expectations.columns and _comparable(expectations, source, one.name)}
    numbers, categories, plain = {}, {}, []
    for name, arrow in fit.items():
        column = expectations.columns[name]
        # A column of nothing but nulls has no kind of its own: it is counted as what is expected.
        kind = family(column.type.name if family(str(arrow.type)) == "nothing" else str(arrow.type))
        if kind in NUMBERS and (column.distribution or column.range or column.allowed or column.infinite):
            numbers[name] = _number(column)
        elif kind in WORDS and column.categories is not None:
            categories[name] = [value for value, _ in column.categories.shares]
        else:
            plain.append(name)
    time = _time(expectations, source, fit)
    return Plan(numbers, categories, plain,
                [one.columns for one in expectations.correlations
                 if all(name in numbers for name in one.columns) and one.severity != "ignore"],
                [tuple(key.columns) for key in expectations.keys
                 if all(name in source.schema.names for name in key.columns) and key.severity != "ignore"],
                time)


def _number(column: Column) -> NumberPlan:
    import numpy as np

    edges = column.distribution.at if column.distribution else []
    low, high = (column.range.min, column.range.max) if column.range else (-np.inf, np.inf)
    allowed = column.allowed
    return NumberPlan(np.asarray(edges, dtype=float), low, high, allowed.min if allowed else None,
                      allowed.max if allowed else None)


def _time(expectations: Expectations, source: Source, fit: dict[str, Any]) -> str | None:
    """The time column, if it is there and holds times."""
    wanted = expectations.freshness or expectations.period
    if wanted is None or wanted.column not in fit:
        return None
    kind = family(str(source.schema.field(wanted.column).type))
    return wanted.column if kind in (*TIMES, "nothing") else None


def _comparable(expectations: Expectations, source: Source, name: str) -> bool:
    """Whether the values can be compared: they are of one kind, or numbers both, whole or not."""
    expected, seen = expectations.columns[name].type.name, str(source.schema.field(name).type)
    if family(expected) in NUMBERS and family(seen) in NUMBERS:
        return True
    return difference(expected, seen, source.typed) != "kind"


def _schema(expectations: Expectations, source: Source) -> list[Finding]:
    """Columns that are gone, new or of another type."""
    seen = {one.name: str(one.type) for one in source.schema}
    new = [name for name in seen if name not in expectations.columns]
    found = []
    for name, column in expectations.columns.items():
        if name not in seen:
            like = nearest(name, new)
            perhaps = f" The new column {like} has a name like it: was it renamed?" if like else ""
            found.append(
                Finding(
                    column=name,
                    kind="missing column",
                    severity=column.type.severity,
                    sentence=f"The column {name} is missing.{perhaps}",
                    expected=column.type.name,
                    seen="no such column",
                    place=["columns", name],
                    before=column.model_dump(mode="json"),
                )
            )
            continue
        changed = difference(column.type.name, seen[name], source.typed)
        if changed != "none" and column.type.severity != "ignore":
            found.append(_retyped(name, column.type, seen[name], changed))
    for name in new:
        fresh = Column(type=Type(severity="hard", name=seen[name]))
        found.append(Finding(
            column=name, kind="new column", severity=expectations.new_columns.severity,
            sentence=f"The column {name} ({seen[name]}) is new.", expected="no such column", seen=seen[name],
            place=["columns", name], after=fresh.model_dump(mode="json")))
    return found


def _retyped(name: str, expected: Expected, seen: str, changed: str) -> Finding:
    before = expected.model_dump(mode="json")
    old = before["name"]
    if changed == "width":
        sentence = f"The column {name} is stored as {seen}, not {old}; the values are of the same kind."
    else:
        sentence = f"The column {name} holds {family(seen)} ({seen}), where {family(old)} ({old}) was."
    return Finding(
        column=name,
        kind="type",
        severity="suspicious" if changed == "width" else expected.severity,
        sentence=sentence,
        expected=old,
        seen=seen,
        place=["columns", name, "type"],
        before=before,
        after={**before, "name": seen, "accepted": None},
    )
