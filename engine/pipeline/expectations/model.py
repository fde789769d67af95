"""What data must look like: the contents of `expectations.yaml`, and what is found against them.

Every expectation has a severity: `hard` stops before training is paid for, `suspicious` waits for a person,
`ignore` is not looked at. `accepted` says who took it as it is now, when and why.
"""

from __future__ import annotations

import itertools
import math
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engine.fields import Duration, Model, Text

Severity = Literal["hard", "suspicious", "ignore"]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
PERIODS = {
    "hour": 3600,
    "day": 86_400,
    "week": 604_800,
}  # seconds; a week begins on Thursday, as the epoch did


class Accepted(Model):
    """`at` is a time in UTC with a Z."""

    by: Text
    at: Text
    reason: Text


class Expected(Model):
    severity: Severity
    accepted: Accepted | None = None


class Type(Expected):
    """`name` is Arrow's, such as int64 or timestamp[us, tz=UTC]."""

    name: Text


class Missing(Expected):
    """The share of `rows` rows that have no value: null, or NaN."""

    share: Share
    rows: Count


class Infinite(Expected):
    """The share of rows that hold an infinity."""

    share: Share


class Allowed(Expected):
    """Bounds that no value may pass, ends included; they are never learned beyond a plain zero."""

    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Allowed:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"the least allowed value {self.min!r} is more than the largest, {self.max!r}")
        return self


class Range(Expected):
    """The least and the largest value seen."""

    min: Finite
    max: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.min > self.max:
            raise ValueError(f"the least value {self.min!r} is more than the largest, {self.max!r}")
        return self


class Distribution(Expected):
    """Of `rows` finite values the share `share[i]` is at most `at[i]`; the last share is 1.

    `mean` and `deviation` (of the sample, n - 1) are shown to people; nothing is decided by them.
    """

    rows: Annotated[int, Field(ge=1)]
    mean: Finite | None = None
    deviation: Finite | None = None
    at: Annotated[list[Finite], Field(min_length=1)]
    share: list[Share]

    @model_validator(mode="after")
    def _rising(self) -> Distribution:
        if len(self.at) != len(self.share):
            raise ValueError(f"`at` has {len(self.at)} values and `share` has {len(self.share)}")
        if any(b <= a for a, b in itertools.pairwise(self.at)):
            raise ValueError("the values of `at` must rise")
        if any(b < a for a, b in itertools.pairwise(self.share)):
            raise ValueError("the values of `share` must not fall")
        if not math.isclose(self.share[-1], 1.0):
            raise ValueError(f"the last value of `share` must be 1.0, not {self.share[-1]!r}")
        return self


class Categories(Expected):
    """The commonest values with their shares of `rows` rows; the others together have what is left.

    `distinct` is how many values there were and `once` how many of them were seen once; both None where they
    were too many to count. `closed` makes any value that is not listed a hard finding.
    """

    rows: Annotated[int, Field(ge=1)]
    distinct: Count | None = None
    once: Count | None = None
    closed: bool = False
    shares: list[tuple[str, Share]]

    @property
    def complete(self) -> bool:
        """Whether every value that was seen is listed."""
        return self.distinct == len(self.shares)

    @model_validator(mode="after")
    def _sums(self) -> Categories:
        values = [value for value, _ in self.shares]
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"the value {twice[0]!r} is listed twice")
        if sum(share for _, share in self.shares) > 1 + 1e-9:
            raise ValueError("the shares add up to more than 1")
        return self


class Column(Model):
    type: Type
    missing: Missing | None = None
    infinite: Infinite | None = None
    allowed: Allowed | None = None
    range: Range | None = None
    distribution: Distribution | None = None
    categories: Categories | None = None


class Key(Expected):
    """No two rows have the same values in `columns`. `declared` keys were named by a person."""

    columns: Annotated[list[Text], Field(min_length=1)]
    declared: bool = False


class Freshness(Expected):
    """The newest time must reach `newest`, that of the history; older than `max_age` it is stale."""

    column: Text
    newest: Text
    max_age: Duration | None = None

    @model_validator(mode="after")
    def _a_time(self) -> Freshness:
        try:
            datetime.fromisoformat(self.newest)
        except ValueError:
            raise ValueError(f"{self.newest!r} is not a time; write it like 2026-11-24T03:14:07Z") from None
        return self


class Period(Expected):
    """Rows in each `unit` of UTC time, over the `periods` whole ones of the history."""

    column: Text
    unit: Literal["hour", "day", "week"]
    periods: Annotated[int, Field(ge=1)]
    fewest: Count
    median: Annotated[float, Field(ge=0)]
    most: Count


class Rows(Expected):
    """`least` rows must be there; `learned` were seen."""

    least: Count
    learned: Count


class Correlation(Expected):
    """The grade correlation `r` of two columns over `rows` rows; `error` is the standard error of its
    Fisher z."""

    columns: tuple[Text, Text]
    r: Annotated[float, Field(ge=-1, le=1)]
    rows: Count
    error: Annotated[float, Field(ge=0)]


class Known(Expected):
    """What a stage of a pipeline found about the data, which a person took as it is: quiet up to `effect`, in
    the finding's own measure."""

    effect: Finite | None = None


class Margins(Model):
    """The least effects that count: a shift that is certain but smaller is no finding.

    `distribution` is a Kolmogorov-Smirnov distance; `categories` Cramér's V of a table whose two rows weigh
    the same; `missing` Cohen's h (0.2 is his small); `correlation` Cohen's q (0.3 is his medium);
    `outside` the share of rows beyond the range or in unknown categories; `count` a ratio of row counts.
    """

    categories: Annotated[float, Field(ge=0, le=1)] = 0.1
    correlation: Annotated[float, Field(ge=0)] = 0.3
    count: Annotated[float, Field(ge=1)] = 2.0
    distribution: Annotated[float, Field(ge=0, le=1)] = 0.1
    missing: Annotated[float, Field(ge=0)] = 0.2
    outside: Annotated[float, Field(ge=0, le=1)] = 0.0005


class Expectations(Model):
    """All of a file. `chance` is how often a whole check of data without any change may find a shift.
    `known`: what was found beside these expectations, such as a leak, and was accepted, by its name."""

    opsdeck_expectations: Literal[1] = 1
    chance: Annotated[float, Field(gt=0, le=0.5)] = 0.002
    margins: Margins = Margins()
    new_columns: Expected = Expected(severity="hard")
    rows: Rows
    freshness: Freshness | None = None
    period: Period | None = None
    keys: list[Key] = []
    columns: Annotated[dict[Text, Column], Field(min_length=1)]
    correlations: list[Correlation] = []
    known: dict[Text, Known] = {}


Kind = Literal[
    "missing column",
    "new column",
    "type",
    "missing values",
    "infinite",
    "allowed",
    "range",
    "distribution",
    "categories",
    "unknown category",
    "key",
    "stale",
    "rows",
    "period",
    "correlation",
]
# What a stage of a pipeline finds, which knows what the columns are for.
StageKind = Literal["label", "leak", "overlap", "group", "time", "holdout"]


class Finding(Model):
    """One way in which data is not as expected.

    `place` is the expectation's path in the file; `before` is what stands there and `after` what would make
    the data expected (None: nothing). `effect` is in the units of `measure` and `margin`; `chance` is how
    likely as large an effect is without any change, None where nothing is left to chance. `more` holds other
    measures by name, `shares` what share of the new values is at most each point of an expected distribution.
    """

    column: str
    kind: Kind | StageKind
    severity: Severity
    sentence: str
    expected: str
    seen: str
    measure: str = ""
    effect: float | None = None
    margin: float | None = None
    chance: float | None = None
    more: dict[str, float] = {}
    shares: list[float] = []
    place: list[str | int]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    rows: int = 0

    def __str__(self) -> str:
        return f"{self.severity}: {self.sentence}"
