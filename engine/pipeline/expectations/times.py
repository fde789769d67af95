"""Times as seconds since the epoch, and rows by period. Pure."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from engine.errors import UsageError
from engine.pipeline.expectations.model import PERIODS

HOUR = 3600
MOST_PERIODS = 100_000


def stamp(seconds: int) -> str:
    """Seconds since the epoch as 2013-12-31T23:00:00Z. Raises UsageError for a year that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError) as error:
        raise UsageError(
            f"The newest time, {seconds} seconds since 1970, is in no year of the calendar.",
            hint="Look at the unit of the time column: milliseconds read as seconds, perhaps.",
        ) from error


def seconds_of(text: str) -> float:
    """Seconds since the epoch of a time such as 2013-12-31T23:00:00Z, UTC where it names no zone."""
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def grouped(hours: Counter[int], unit: str) -> dict[int, int]:
    """Rows by period, in order, from rows by hour since the epoch."""
    totals: Counter[int] = Counter()
    for hour, count in hours.items():
        totals[hour * HOUR // PERIODS[unit]] += count
    return dict(sorted(totals.items()))


def whole_periods(hours: Counter[int], unit: str) -> dict[int, int]:
    """Rows of each period between the first and the last one, which may be there in part. Periods without
    rows count too, unless there would be more than MOST_PERIODS of them."""
    counts = grouped(hours, unit)
    first, last = min(counts), max(counts)
    if last - first > MOST_PERIODS:
        return {at: n for at, n in counts.items() if first < at < last}
    return {at: counts.get(at, 0) for at in range(first + 1, last)}
