"""What data must look like, learned from data that was good. Two passes; the same tables, the same result.

Pass one sees every row for types, missing values, extremes, times, possible keys and common words, and
keeps an even sample of numbers. Pass two counts every row at the points and words that pass one chose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.located import did_you_mean
from engine.pipeline.expectations import distributions
from engine.pipeline.expectations.effects import grade_correlation
from engine.pipeline.expectations.keys import KeyTally, hashes
from engine.pipeline.expectations.kinds import NUMBERS, TIMES, WORDS, family
from engine.pipeline.expectations.measuring import (
    Measured,
    NumberPlan,
    NumberTally,
    Plan,
    count_times,
    floats,
    grades,
    measure,
    words,
)
from engine.pipeline.expectations.model import (
    Allowed,
    Categories,
    Column,
    Correlation,
    Distribution,
    Expectations,
    Freshness,
    Infinite,
    Key,
    Missing,
    Period,
    Range,
    Rows,
    Type,
)
from engine.pipeline.expectations.relations import LEAST_R, strongest
from engine.pipeline.expectations.sampling import Sample
from engine.pipeline.expectations.source import Source, open_source
from engine.pipeline.expectations.times import HOUR, stamp, whole_periods
from engine.pipeline.expectations.words import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST_CATEGORIES, MOST_POINTS, MOST_PAIRS = 50, 25, 20
VALUES = 18_500  # of the 20,000 that a file may hold; people add to it
SAMPLE = 100_000
FEWEST_FOR_KEY, SURE = 100, 8.0
FEWEST_FOR_ZERO, ZERO_SHARE = 100, 0.05  # rows at exactly 0, with none below, that make 0 a bound


@dataclass
class _Explored:
    rows: int
    numbers: dict[str, NumberTally]
    words: dict[str, Words]
    missing: dict[str, int]
    keys: dict[str, KeyTally]
    times: dict[str, Measured]
    sample: Sample
    named: set[str] = field(default_factory=set)


def learn(tables: Any, *, keys: Sequence[Sequence[str]] = (), time_column: str | None = None,
          max_age: float | None = None, now: datetime | None = None) -> Expectations:
    """Expectations of data like `tables`: a path, an Arrow table, or several, each one delivery.

    `keys` are the groups of columns by which rows are unique; columns of whole numbers or texts that never
    repeat are found without being named. `time_column` says when a row happened; if it is not given, it is
    the only column of times, if there is just one that is always filled. `max_age` in seconds makes older
    data stale; with `now`, and without `max_age`, it is twice the age that the history has. A tenth of the
    smallest delivery are the least rows; a hundredth where there is a time column, by which rows are counted
    more closely. Raises UsageError where a table cannot be read, is empty, or lacks a column that is named.
    """
    source = open_source(tables)
    _refuse_unknown(source, [name for key in keys for name in key], "a key")
    _refuse_unknown(source, [time_column] if time_column else [], "the time column")
    explored = _explore(source)
    if not explored.rows:
        raise UsageError("The table has no rows; there is nothing to learn from.", where=source.names[0])
    time_column = time_column or _only_time(source, explored)
    if time_column is not None and time_column not in explored.times:
        kind = source.schema.field(time_column).type
        raise UsageError(f"The time column {time_column} holds {kind}, not times.", where=source.names[0],
                         hint="Store it as a timestamp or a date.")
    found_keys = _keys(explored, keys)
    # Where a number is in its span says nothing of a row that it only names.
    for key in found_keys:
        if len(key.columns) == 1:
            explored.named.add(key.columns[0])
    plan = _plan(source, explored)
    counted = measure(source, plan)
    return Expectations(
        rows=Rows(severity="hard", least=min(source.rows_each()) // (100 if time_column else 10),
                  learned=explored.rows),
        freshness=_freshness(explored, time_column, max_age, now),
        period=_period(explored, time_column),
        keys=found_keys,
        columns={name: _column(name, source, explored, counted) for name in sorted(source.schema.names)},
        correlations=_correlations(plan, counted))


def _refuse_unknown(source: Source, names: list[str], what: str) -> None:
    for name in names:
        if name not in source.schema.names:
            raise UsageError(f"There is no column {name}, which {what} names.", where=source.names[0],
                             hint=did_you_mean(name, source.schema.names))


def _explore(source: Source) -> _Explored:
    kinds = {one.name: family(str(one.type)) for one in source.schema}
    numbers = [name for name, kind in kinds.items() if kind in NUMBERS]
    found = _Explored(
        0, {name: NumberTally() for name in numbers},
        {name: Words() for name, kind in kinds.items() if kind in WORDS},
        {name: 0 for name, kind in kinds.items() if kind not in (*NUMBERS, *WORDS)},
        {name: KeyTally() for name, kind in kinds.items() if kind in ("whole number", "text")},
        {name: Measured(0, {}, {}, {}, {}, {}, Counter(), None, Sample(1))
         for name, kind in kinds.items() if kind in TIMES},
        Sample(min(SAMPLE, 8_000_000 // max(len(numbers), 1))))
    for batch in source.batches():
        _explore_batch(batch, found)
        found.rows += batch.num_rows
    return found


def _explore_batch(batch: Any, found: _Explored) -> None:
    sampled: dict[str, Floats] = {}
    for name, tally in found.numbers.items():
        sampled[name] = floats(batch.column(name))
        tally.add(sampled[name])
    found.sample.add(sampled, batch.num_rows)
    for name, counter in found.words.items():
        counter.add(words(batch.column(name)))
    for name in found.missing:
        found.missing[name] += batch.column(name).null_count
    for name, times in found.times.items():
        count_times(batch.column(name), times)
    for name in list(found.keys):
        here = hashes([batch.column(name)])
        alone = KeyTally()
        alone.add(here)
        if alone.duplicates():
            del found.keys[name]
        else:
            found.keys[name].add(here)


def _only_time(source: Source, explored: _Explored) -> str | None:
    filled = [name for name in explored.times if not explored.missing[name]]
    return filled[0] if len(explored.times) == 1 and filled else None


def _plan(source: Source, explored: _Explored) -> Plan:
    varied = {name: tally for name, tally in explored.numbers.items()
              if tally.finite and name not in explored.named}
    # What the file can hold, less what every column takes, in equal parts.
    others = len(source.schema.names) - len(varied) - len(explored.words)
    free = VALUES - 50 * len(varied) - 32 * len(explored.words) - 16 * others
    part = free // max(len(varied) + len(explored.words), 1)
    points, most = min(MOST_POINTS, part // 2), max(5, min(MOST_CATEGORIES, part // 3))
    numbers = {}
    for name, tally in varied.items():
        edges = distributions.points(explored.sample.values(name), tally.min, tally.max, points)
        numbers[name] = NumberPlan(edges, tally.min, tally.max)
    categories = {name: found for name, one in explored.words.items()
                  if name not in explored.named and (found := one.common(most))}
    pairs = strongest({name: distributions.graded(explored.sample.values(name)) for name in sorted(numbers)},
                      MOST_PAIRS)
    return Plan(numbers, categories, [], pairs, sample=1)


def _column(name: str, source: Source, explored: _Explored, counted: Measured) -> Column:
    kind = Type(severity="hard", name=str(source.schema.field(name).type))
    rows = explored.rows
    if name in explored.numbers:
        return _number(kind, explored.numbers[name], counted.numbers.get(name))
    if name in explored.words:
        found = explored.words[name]
        return Column(type=kind, missing=_missing(found.missing, rows),
                      categories=_categories(found, counted, name))
    return Column(type=kind, missing=_missing(explored.missing[name], rows))


def _number(kind: Type, seen: NumberTally, counted: NumberTally | None) -> Column:
    missing = _missing(seen.missing, seen.rows)
    infinite = None
    if family(kind.name) == "number":
        infinite = Infinite(
            severity="suspicious" if seen.infinite else "hard", share=seen.infinite / seen.rows
        )
    if counted is None or counted.plan is None:
        return Column(type=kind, missing=missing, infinite=infinite)
    edges, bins = counted.plan.edges, counted.bins
    zero = edges[0] == 0.0 and bins[0] >= max(FEWEST_FOR_ZERO, ZERO_SHARE * seen.finite)
    return Column(
        type=kind, missing=missing, infinite=infinite,
        allowed=Allowed(severity="hard", min=0.0) if zero else None,
        range=Range(severity="suspicious", min=seen.min, max=seen.max),
        distribution=Distribution(
            severity="suspicious", rows=seen.finite, mean=distributions.plain(seen.mean),
            deviation=distributions.plain(seen.deviation), at=[float(edge) for edge in edges],
            share=distributions.shares(bins)))


def _missing(count: int, rows: int) -> Missing:
    return Missing(severity="suspicious" if count else "hard", share=count / rows, rows=rows)


def _categories(found: Words, counted: Measured, name: str) -> Categories | None:
    tally = counted.categories.get(name)
    if tally is None:
        return None
    rows = found.rows - found.missing
    pairs = sorted(
        zip(tally.values, tally.counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])
    )
    return Categories(
        severity="suspicious", rows=rows, distinct=len(found.counts) if found.whole else None,
        once=sum(n == 1 for n in found.counts.values()) if found.whole else None,
        shares=[(value, n / rows) for value, n in pairs])


def _keys(explored: _Explored, declared: Sequence[Sequence[str]]) -> list[Key]:
    """Those that were named, and single columns that never repeat.

    Whole numbers are a key beyond doubt if n of them, drawn from their span with repetition, would repeat:
    the chance that they do not is about exp(-n² / 2 span). Texts have no span; theirs is suspicious only.
    """
    keys = [Key(severity="hard", columns=list(key), declared=True) for key in declared]
    for name, tally in sorted(explored.keys.items()):
        if tally.rows < explored.rows or tally.duplicates():
            continue
        if any(key.columns == [name] for key in keys):
            continue
        number = explored.numbers.get(name)
        sure = number is not None and tally.rows ** 2 / (2 * (number.max - number.min + 1)) > SURE
        if not sure and tally.rows < FEWEST_FOR_KEY:
            continue
        keys.append(Key(severity="hard" if sure else "suspicious", columns=[name]))
    return keys


def _freshness(explored: _Explored, column: str | None, max_age: float | None,
               now: datetime | None) -> Freshness | None:
    newest = explored.times[column].newest if column else None
    if column is None or newest is None:
        return None
    if max_age is None and now is not None:
        max_age = 2 * max(now.timestamp() - newest, HOUR)
    return Freshness(severity="hard", column=column, newest=stamp(newest), max_age=max_age)


def _period(explored: _Explored, column: str | None) -> Period | None:
    """Days if they hold 20 rows or more on average and there are 14; else hours or weeks. The first and the
    last period are left out, for they may be in part."""
    if column is None or not explored.times[column].hours:
        return None
    hours = explored.times[column].hours
    days = (max(hours) - min(hours)) / 24 + 1
    unit: Any = "day" if days >= 14 else "hour"
    if unit == "day" and explored.rows / days < 20:
        unit = "week"
    counts = whole_periods(hours, unit)
    if len(counts) < 3:
        return None
    ordered = sorted(counts.values())
    middle = (ordered[len(ordered) // 2] + ordered[(len(ordered) - 1) // 2]) / 2
    return Period(
        severity="hard",
        column=column,
        unit=unit,
        periods=len(ordered),
        fewest=ordered[0],
        median=middle,
        most=ordered[-1],
    )


def _correlations(plan: Plan, counted: Measured) -> list[Correlation]:
    found = []
    for a, b in plan.pairs:
        r, error, rows = grade_correlation(counted.pairs[a, b], grades(counted.numbers[a].bins),
                                           grades(counted.numbers[b].bins))
        if error < 1 and abs(r) > max(LEAST_R, 4 * error):
            found.append(Correlation(severity="suspicious", columns=(a, b), r=r, rows=rows, error=error))
    return sorted(found, key=lambda one: one.columns)
