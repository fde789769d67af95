"""A whole table's counts against what is expected of it: rows, keys, times and correlations. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from engine.pipeline.expectations import effects
from engine.pipeline.expectations.measuring import Measured, grades
from engine.pipeline.expectations.model import PERIODS, Expectations, Finding, Freshness, Period
from engine.pipeline.expectations.times import seconds_of, stamp, whole_periods
from engine.words import span

LEAST_CHANGE = 0.1  # of a correlation


def rows(expectations: Expectations, measured: Measured) -> list[Finding]:
    """Far too few rows, or none."""
    expected = expectations.rows
    if measured.rows >= max(expected.least, 1):
        return []
    sentence = (f"There are only {measured.rows:,} rows; at least {expected.least:,} are expected."
                if measured.rows else "The table has no rows.")
    after = expected.model_copy(update={"least": measured.rows, "accepted": None})
    return [
        Finding(
            column="",
            kind="rows",
            severity=expected.severity,
            sentence=sentence,
            expected=f"{max(expected.least, 1):,} rows or more",
            seen=f"{measured.rows:,} rows",
            measure="rows",
            effect=measured.rows / max(expected.learned, 1),
            place=["rows"],
            before=expected.model_dump(mode="json"),
            after=after.model_dump(mode="json"),
            rows=measured.rows,
        )
    ]


def keys(expectations: Expectations, measured: Measured) -> list[Finding]:
    """Rows that repeat a key."""
    found = []
    for at, key in enumerate(expectations.keys):
        tally = measured.keys.get(tuple(key.columns))
        count = tally.duplicates() if tally else 0
        if tally is None or not count:
            continue
        name = " + ".join(key.columns)
        noun = "1 row repeats" if count == 1 else f"{count:,} rows repeat"
        after = {**key.model_dump(mode="json"), "severity": "ignore", "accepted": None}
        found.append(Finding(
            column=name, kind="key", severity=key.severity,
            sentence=f"{noun} the {name} of another row; no two rows had the same.", expected="unique",
            seen=f"{count:,} repeated of {tally.rows:,}", measure="share of rows", effect=count / tally.rows,
            place=["keys", at], before=key.model_dump(mode="json"), after=after, rows=tally.rows))
    return found


def freshness(expectations: Expectations, measured: Measured, now: datetime | None) -> list[Finding]:
    """Data that ends before the history did, or is older than `max_age` at `now`."""
    expected = expectations.freshness
    if expected is None:
        return []
    if measured.newest is None:
        # Without the column the schema says so already.
        if expected.column not in measured.missing and expected.column not in measured.categories:
            return []
        return [
            _stale(expected, None, None, f"No row has a time in {expected.column}.", "no time at all", 0.0)
        ]
    newest = stamp(measured.newest)
    since = seconds_of(expected.newest) - measured.newest
    if since > 0:
        return [
            _stale(
                expected,
                newest,
                expected.max_age,
                f"The newest row is of {newest}, older than the history, which reached {expected.newest}.",
                newest,
                since,
            )
        ]
    if expected.max_age is not None and now is not None:
        age = now.timestamp() - measured.newest
        if age > expected.max_age:
            return [_stale(expected, newest, age, f"The newest row is {span(age)} old (of {newest}); at most "
                           f"{span(expected.max_age)} is expected.", f"{span(age)} old", age)]
    return []


def _stale(expected: Freshness, newest: str | None, max_age: float | None, sentence: str, seen: str,
           effect: float) -> Finding:
    limit = f" and at most {span(expected.max_age)} old" if expected.max_age is not None else ""
    after = None
    if newest is not None:
        after = {**expected.model_dump(mode="json"), "newest": newest, "max_age": max_age, "accepted": None}
    return Finding(column=expected.column, kind="stale", severity=expected.severity, sentence=sentence,
                   expected=f"up to {expected.newest}{limit}", seen=seen, measure="seconds", effect=effect,
                   place=["freshness"], before=expected.model_dump(mode="json"), after=after)


def periods(expectations: Expectations, measured: Measured, level: float) -> list[Finding]:
    """Whole periods with far fewer rows than the emptiest of the history, or far more than the fullest.

    Far is the margin `count`; the chance is that of a Poisson count, shared by the periods that are looked
    at.
    """
    expected = expectations.period
    if expected is None or not measured.hours:
        return []
    counts = whole_periods(measured.hours, expected.unit)
    if not counts:
        return []
    ratio, level = expectations.margins.count, level / len(counts)
    few = {at: n for at, n in counts.items()
           if n * ratio < expected.fewest and effects.fewer_chance(n, expected.fewest) < level}
    many = {at: n for at, n in counts.items()
            if n > ratio * max(expected.most, 1) and effects.more_chance(n, max(expected.most, 1)) < level}
    found = []
    if few:
        found.append(_period(expected, few, min(few, key=lambda at: (few[at], at)), "fewest", ratio))
    if many:
        found.append(_period(expected, many, max(many, key=lambda at: (many[at], at)), "most", ratio))
    return found


def _period(expected: Period, counts: dict[int, int], worst: int, end: str, ratio: float) -> Finding:
    """The finding on too few (`end` is fewest) or too many rows in `counts`; `worst` is the period it
    names."""
    n, limit = counts[worst], getattr(expected, end)
    at = stamp(worst * PERIODS[expected.unit])
    at = at if expected.unit == "hour" else at[:10]
    also = f", and so have {len(counts) - 1} other {expected.unit}s" if len(counts) > 1 else ""
    few = end == "fewest"
    after = {**expected.model_dump(mode="json"), end: n, "accepted": None}
    return Finding(
        column=expected.column,
        kind="period",
        severity=expected.severity if few else _no_harder(expected.severity),
        sentence=f"The {expected.unit} of {at} has {'only ' if few else ''}{n:,} rows{also}; the "
        f"{'emptiest' if few else 'fullest'} before had {limit:,}.",
        expected=f"{expected.fewest:,} to {expected.most:,} rows a {expected.unit}",
        seen=f"{n:,} rows",
        measure="ratio of rows",
        effect=max(limit, 1) / max(n, 1) if few else n / max(limit, 1),
        margin=ratio,
        place=["period"],
        before=expected.model_dump(mode="json"),
        after=after,
        rows=sum(counts.values()),
    )


def _no_harder(severity: Any) -> Any:
    """More rows than ever make no training worthless: they wait for a person at most."""
    return "suspicious" if severity == "hard" else severity


def correlations(expectations: Expectations, measured: Measured, level: float) -> list[Finding]:
    """Pairs of columns that go together otherwise than they did.

    Near 1 a Fisher z is far from another whose r is much the same, so r must differ by LEAST_CHANGE too.
    """
    found = []
    for at, expected in enumerate(expectations.correlations):
        table = measured.pairs.get(expected.columns)
        if table is None:
            continue
        a, b = (measured.numbers[name] for name in expected.columns)
        if a.bins is None or b.bins is None:
            continue
        r, error, n = effects.grade_correlation(table, grades(a.bins), grades(b.bins))
        q = effects.cohens_q(expected.r, r)
        if error == float("inf") or abs(q) <= expectations.margins.correlation or (
                abs(r - expected.r) <= LEAST_CHANGE):
            continue
        chance = effects.q_chance(q, expected.error, error)
        if chance >= level:
            continue
        after = expected.model_copy(update={"r": r, "error": error, "rows": n, "accepted": None})
        name = " × ".join(expected.columns)
        found.append(
            Finding(
                column=name,
                kind="correlation",
                severity=expected.severity,
                sentence=f"{name} go together otherwise: correlation {r:.2f}, where it was {expected.r:.2f}.",
                expected=f"r {expected.r:.2f}",
                seen=f"r {r:.2f}",
                measure="Cohen's q",
                effect=q,
                margin=expectations.margins.correlation,
                chance=chance,
                place=["correlations", at],
                before=expected.model_dump(mode="json"),
                after=after.model_dump(mode="json"),
                rows=n,
            )
        )
    return found

