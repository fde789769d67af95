"""Expectations learned again: what people decided about the old ones is kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.pipeline.expectations.kinds import TIMES, family
from engine.pipeline.expectations.learning import learn
from engine.pipeline.expectations.model import Column, Expectations, Expected, Infinite, Missing
from engine.pipeline.expectations.source import open_source

PARTS = ("type", "missing", "infinite", "range", "distribution", "categories")


def relearn(expectations: Expectations, tables: Any, *, now: datetime | None = None) -> Expectations:
    """A proposal: learned from `tables` (as `learn`), with what people decided kept for everything still
    there.

    Kept are severities, reasons, allowed bounds, closed categories, declared keys, margins, the age limit
    and the least rows. Types, shares, ranges, distributions, counts and correlations are the new ones;
    columns that are gone are left out, and so are keys of such columns. Raises UsageError as `learn` does.
    """
    schema = open_source(tables).schema
    timed = expectations.freshness or expectations.period
    column = timed.column if timed else None
    if column not in schema.names or family(str(schema.field(column).type)) not in TIMES:
        column = None
    fresh = learn(tables, time_column=column, now=now)
    freshness = _decided(expectations.freshness, fresh.freshness)
    if freshness is not None and expectations.freshness is not None:
        freshness = freshness.model_copy(update={"max_age": expectations.freshness.max_age})
    old_pairs = {one.columns: one for one in expectations.correlations}
    return fresh.model_copy(
        update={
            "chance": expectations.chance,
            "margins": expectations.margins,
            "new_columns": expectations.new_columns,
            "rows": expectations.rows.model_copy(update={"learned": fresh.rows.learned}),
            "freshness": freshness,
            "period": _decided(expectations.period, fresh.period),
            "keys": _keys(expectations, fresh),
            "columns": {
                name: _kept(expectations.columns[name], column) if name in expectations.columns else column
                for name, column in fresh.columns.items()
            },
            "correlations": [_decided(old_pairs.get(one.columns), one) for one in fresh.correlations],
            "known": expectations.known,
        }
    )


def _keys(old: Expectations, fresh: Expectations) -> list[Any]:
    """Every key that a person named or decided on, and those that are found now."""
    before = {tuple(key.columns): key for key in old.keys}
    kept = [key for key in old.keys
            if (key.declared or key.accepted or key.severity == "ignore") and all(name in fresh.columns
                                                                                   for name in key.columns)]
    have = {tuple(key.columns) for key in kept}
    return kept + [_decided(before.get(tuple(key.columns)), key) for key in fresh.keys
                   if tuple(key.columns) not in have]


def _kept(old: Column, fresh: Column) -> Column:
    """The fresh column with what was decided about the old one. Bounds fit only what is still a number."""
    update: dict[str, Any] = {part: _decided(getattr(old, part), getattr(fresh, part)) for part in PARTS}
    if old.categories is not None and fresh.categories is not None:
        update["categories"] = update["categories"].model_copy(update={"closed": old.categories.closed})
    if old.allowed is not None and fresh.range is not None:
        update["allowed"] = old.allowed
    return fresh.model_copy(update=update)


def _decided(old: Expected | None, fresh: Any) -> Any:
    """`fresh` with the severity and the reason of `old`, unless that had the severity that is learned."""
    if old is None or fresh is None or (old.accepted is None and _as_learned(old)):
        return fresh
    return fresh.model_copy(update={"severity": old.severity, "accepted": old.accepted})


def _as_learned(old: Expected) -> bool:
    """Whether a severity that depends on what was seen is the one that learning gives."""
    return isinstance(old, Missing | Infinite) and old.severity == ("suspicious" if old.share else "hard")
