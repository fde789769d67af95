"""Times of a column as microseconds since the epoch, UTC, and what is wrong with them.

A column of times without a zone is taken as UTC. Texts are read as ISO 8601; a column may have a zone in
every row or in none: of a mixture nothing says when the rows without one were.
"""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.kinds import TIMES, family
from engine.pipeline.expectations.model import Finding
from engine.pipeline.stages.data.naming import counted, first_row, found

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Times = NDArray[np.int64]

MISSING = -(2**63)  # no value, as Arrow's own NaT
SECOND = 1_000_000
ZONED = r":\d\d(?:\.\d+)?\s?(?P<zone>Z|[+-]\d\d(?::?\d\d)?)$"
# Clocks run apart by minutes; a time without a zone may be of the zone furthest ahead of UTC.
AHEAD, AHEAD_WITHOUT_ZONE = dt.timedelta(minutes=15), dt.timedelta(hours=14)
_UNREAD = re.compile(r"Failed to parse string: '(.*?)' as", re.S)


@dataclass
class Clock:
    """Reads one column of times batch by batch, and remembers what it saw."""

    column: str
    kind: str
    text: bool = False
    zoned: int = 0
    naive: int = 0
    missing: int = 0
    offsets: Counter[str] = field(default_factory=Counter)
    unreadable: str | None = None
    rows: int = 0
    first: dict[str, int] = field(default_factory=dict)  # by what is wrong, the index of the first row
    newest: int = MISSING
    oldest: int = 2**63 - 1

    @classmethod
    def of(cls, column: str, type_: Any) -> Clock | None:
        """None for a column that cannot hold times."""
        kind = family(str(type_))
        if kind in TIMES or kind in ("text", "nothing"):
            return cls(column, kind)
        return None

    def read(self, values: Any) -> Times:
        """The times of an Arrow array, MISSING where there is none or it cannot be read."""
        import numpy as np
        import pyarrow as pa

        self.missing += values.null_count
        before, self.rows = self.rows, self.rows + len(values)
        self._first("missing", values.is_null() if values.null_count else None, before)
        if pa.types.is_null(values.type):
            return np.full(len(values), MISSING, dtype=np.int64)
        self.text = self.text or is_text(values.type)
        micros = self._of_text(values, before) if is_text(values.type) else self._of_times(values, before)
        there = micros[micros != MISSING]
        if len(there):
            self.newest, self.oldest = max(self.newest, int(there.max())), min(self.oldest, int(there.min()))
        return micros

    def _first(self, what: str, mask: Any | None, before: int) -> None:
        """Remember the first row of a mask, of rows that begin at `before`."""
        if mask is not None and what not in self.first:
            at = mask.fill_null(False).to_numpy(zero_copy_only=False)
            if at.any():
                self.first[what] = before + int(at.argmax())

    def _of_times(self, values: Any, before: int) -> Times:
        import pyarrow as pa

        if pa.types.is_date(values.type):
            values = values.cast(pa.timestamp("s"))
        zone = values.type.tz
        if zone is None:
            self.naive += len(values) - values.null_count
            self._first("naive", values.is_valid(), before)
        else:
            there = len(values) - values.null_count
            self.zoned += there
            self.offsets["Z" if zone in ("UTC", "+00:00", "Etc/UTC") else zone] += there
        return _micros(values.cast(pa.timestamp("us", zone), safe=False))

    def _of_text(self, values: Any, before: int) -> Times:
        import pyarrow as pa
        import pyarrow.compute as pc

        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        zones = _zones(values)
        zoned = pc.is_valid(zones)
        self.offsets += _counted(zones)
        naive_mask = pc.and_(pc.invert(zoned), pc.is_valid(values))
        self.zoned += int(pc.sum(zoned).as_py() or 0)
        self.naive += int(pc.sum(naive_mask).as_py() or 0)
        self._first("naive", naive_mask, before)
        first = _micros(self._parsed(pc.if_else(zoned, values, None), pa.timestamp("us", "UTC")))
        second = _micros(self._parsed(pc.if_else(naive_mask, values, None), pa.timestamp("us")))
        first[first == MISSING] = second[first == MISSING]
        if self.unreadable is not None:
            self._first("unreadable", pc.equal(values, self.unreadable), before)
        return first

    def written_as(self, texts: Iterable[Any]) -> None:
        """Take the offsets from the column's own texts, where what reads them has taken all to UTC."""
        offsets: Counter[str] = Counter()
        for values in texts:
            offsets += _counted(_zones(values))
        self.offsets = offsets or self.offsets

    def _parsed(self, values: Any, type_: Any) -> Any:
        import pyarrow as pa

        try:
            return values.cast(type_)
        except pa.ArrowInvalid as error:
            if self.unreadable is None:
                read = _UNREAD.search(str(error))
                self.unreadable = read[1] if read else str(values.drop_null()[0])
            return pa.nulls(len(values), type_)

    def column_of(self, values: Any) -> Any:
        """The column as it is written (see `written`)."""
        import pyarrow as pa

        plain = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
        wanted = self.written(plain.type)
        return plain if plain.type == wanted else plain.cast(wanted, safe=False)

    def written(self, type_: Any) -> Any:
        """The type of the column as it is written: texts, and times of several zones, become timestamps."""
        import pyarrow as pa

        if not self.text and len(self.offsets) < 2:
            return type_
        return pa.timestamp("us", "UTC") if self.zoned else pa.timestamp("us")

    def problems(self, name: str, now: dt.datetime, *, counted_from: bool) -> list[Finding]:
        """What is wrong with all that was read. `counted_from`: whether a holdout or a window counts from
        the newest time. Hard is what leaves the order of the rows unknown, or would empty such a holdout."""
        problems = []
        column = self.column
        if self.kind == "nothing" or not (self.zoned or self.naive):
            return [found("time", column, f"The time {column} of {name} has no value in any row.", hard=True,
                          expected="times", seen="nothing")]
        if self.unreadable is not None:
            problems.append(found(
                "time", column, f"{self.unreadable!r} in the time {column} of {name} is no time"
                f"{first_row(self.first.get('unreadable'))}. Write times in ISO 8601.", hard=True,
                expected="times such as 2026-11-24T03:14:07Z", seen=repr(self.unreadable)))
        if self.zoned and self.naive:
            problems.append(found(
                "time", column, f"The time {column} of {name} has a zone in {counted(self.zoned, 'row')} and "
                f"none in {counted(self.naive, 'row')}{first_row(self.first.get('naive'))}: when those were "
                "is not known. Write the zone in every row.", hard=True,
                expected="a zone in every row, or in none", seen="both",
                effect=self.naive / (self.naive + self.zoned), measure="share of rows"))
        elif len(self.offsets) > 1:
            most = ", ".join(f"{zone} in {number:,}" for zone, number in self.offsets.most_common(4))
            problems.append(found(
                "time", column, f"The time {column} of {name} is in {len(self.offsets)} zones: {most} rows. "
                "They are all taken to UTC.", hard=False, expected="one zone", seen=most,
                effect=1 - self.offsets.most_common(1)[0][1] / self.offsets.total(),
                measure="share of rows in another zone than most"))
        if self.missing and counted_from:
            problems.append(found(
                "time", column, f"The time {column} of {name} has no value in "
                f"{counted(self.missing, 'row')}{first_row(self.first.get('missing'))}: whether they are "
                "held out cannot be told. Give them a time, or leave them out.", hard=True,
                expected="a time in every row", seen=counted(self.missing, "row") + " without"))
        problems += self._ahead(name, now, counted_from)
        return problems

    def _ahead(self, name: str, now: dt.datetime, counted_from: bool) -> list[Finding]:
        """Times that are yet to come: their outcomes cannot be known, unless the column is of a plan."""
        limit = now + (AHEAD if self.zoned else AHEAD_WITHOUT_ZONE)
        if self.newest <= int(limit.timestamp() * SECOND):
            return []
        newest = shown(self.newest)
        said = f"The newest time {self.column} of {name} is {newest}, which is yet to come"
        said += ": the rows to be held out are counted from it." if counted_from else "."
        return [found("time", self.column, said, hard=counted_from, expected=f"up to {shown_now(now)}",
                      seen=newest)]


def _zones(values: Any) -> Any:
    """Of each text its zone, null where it has none."""
    import pyarrow.compute as pc

    return pc.struct_field(pc.extract_regex(values, ZONED), "zone")


def _counted(zones: Any) -> Counter[str]:
    counted: Counter[str] = Counter()
    for one in zones.drop_null().value_counts().to_pylist():
        counted["Z" if one["values"] in ("Z", "+00:00", "+0000", "+00") else one["values"]] += one["counts"]
    return counted


def across(clocks: Sequence[Clock], name: str) -> list[Finding]:
    """Times with a zone in one column and without in another: their difference may be off by hours."""
    zoned = [one.column for one in clocks if one.zoned and not one.naive]
    naive = [one.column for one in clocks if one.naive and not one.zoned and one.kind != "date"]
    if not zoned or not naive:
        return []
    return [found("time", f"{naive[0]} and {zoned[0]}", f"In {name} the times {naive[0]} have no zone and "
                  f"those of {zoned[0]} have one. The first are taken as UTC.", hard=False,
                  expected="all with a zone, or all without", seen="both")]


def shown(micros: int) -> str:
    """Microseconds since the epoch as 2013-12-31T23:00:00Z; of a year beyond the calendar the number."""
    try:
        at = dt.datetime.fromtimestamp(micros / SECOND, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return f"{micros // SECOND} s after 1970"
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def shown_now(now: dt.datetime) -> str:
    return now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def is_text(type_: Any) -> bool:
    return family(str(type_)) == "text"


def _micros(values: Any) -> Times:
    import numpy as np
    import pyarrow as pa

    plain: Times = values.cast(pa.int64()).fill_null(MISSING).to_numpy(zero_copy_only=False)
    return np.array(plain, dtype=np.int64)
