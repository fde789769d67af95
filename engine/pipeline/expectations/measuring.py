"""One pass over a table: everything that learning and checking count, batch by batch.

Memory is bounded by a batch and the sample, but for keys: eight bytes a row for each key.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.keys import KeyTally, hashes
from engine.pipeline.expectations.sampling import Sample
from engine.pipeline.expectations.source import Source
from engine.pipeline.expectations.times import HOUR
from engine.pipeline.expectations.words import Words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]



@dataclass(frozen=True)
class NumberPlan:
    """Count the values up to each of `edges`, outside `low` to `high`, and beyond what is allowed."""

    edges: Floats
    low: float
    high: float
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Plan:
    """What to count. `plain` columns are looked at for missing values only."""

    numbers: dict[str, NumberPlan] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    plain: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    keys: list[tuple[str, ...]] = field(default_factory=list)
    time: str | None = None
    sample: int = 20_000

    def columns(self) -> list[str]:
        return list(dict.fromkeys([*self.numbers, *self.categories, *self.plain,
                                   *(name for key in self.keys for name in key),
                                   *([self.time] if self.time else [])]))


@dataclass
class NumberTally:
    """`bins[i]` counts the finite values in (edges[i-1], edges[i]], the last those above all edges."""

    plan: NumberPlan | None = None
    rows: int = 0
    missing: int = 0
    infinite: int = 0
    finite: int = 0
    min: float = float("inf")
    max: float = float("-inf")
    mean: float = 0.0
    squares: float = 0.0
    below: int = 0
    above: int = 0
    forbidden: int = 0
    bins: Any = None

    def add(self, values: Floats) -> tuple[Any, Any]:
        """Count values, NaN where missing; their bins and which are finite (None: all)."""
        import numpy as np

        self.rows += len(values)
        mask = np.isfinite(values)
        finite, some = values, None
        if not mask.all():
            missing = int(np.isnan(values).sum())
            self.missing += missing
            finite, some = values[mask], mask
            self.infinite += len(values) - len(finite) - missing
        index: Any = None if self.plan is None else np.searchsorted(self.plan.edges, values)
        if len(finite):
            self._moments(finite)
            if self.plan is not None:
                self._bounds(finite)
                bins = index if some is None else index[some]
                found = np.bincount(bins, minlength=len(self.plan.edges) + 1)
                self.bins = found if self.bins is None else self.bins + found
        return index, some

    def _moments(self, finite: Floats) -> None:
        """Chan, Golub and LeVeque (1983): means and sums of squares merge without loss."""
        import numpy as np

        with np.errstate(over="ignore", invalid="ignore"):
            n, mean = len(finite), float(finite.mean())
            squares = float(((finite - mean) ** 2).sum())
            total, gap = self.finite + n, mean - self.mean
            self.mean += gap * n / total
            self.squares += squares + gap * gap * self.finite * n / total
        self.finite = total
        self.min, self.max = min(self.min, float(finite.min())), max(self.max, float(finite.max()))

    def _bounds(self, finite: Floats) -> None:
        plan = self.plan
        assert plan is not None
        if self.min < plan.low:
            self.below += int((finite < plan.low).sum())
        if self.max > plan.high:
            self.above += int((finite > plan.high).sum())
        if plan.least is not None and self.min < plan.least:
            self.forbidden += int((finite < plan.least).sum())
        if plan.most is not None and self.max > plan.most:
            self.forbidden += int((finite > plan.most).sum())

    @property
    def deviation(self) -> float:
        return float(max(self.squares, 0.0) / (self.finite - 1)) ** 0.5 if self.finite > 1 else 0.0


@dataclass
class CategoryTally:
    """Rows by listed value, and of the others, which `strangers` counts by value."""

    values: list[str]
    counts: Any = None
    missing: int = 0
    others: int = 0
    strangers: Words = field(default_factory=Words)
    _known: Any = None

    def add(self, words: Any) -> None:
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        if self._known is None:
            self._known = pa.array(self.values, type=words.type)
        self.missing += words.null_count
        at = (
            pc.index_in(words, value_set=self._known)
            .fill_null(len(self.values))
            .to_numpy(zero_copy_only=False)
        )
        found = np.bincount(at, minlength=len(self.values) + 1)
        others = int(found[-1]) - words.null_count
        if others:
            self.others += others
            self.strangers.add(words.filter(pa.array(at == len(self.values))).drop_null())
        self.counts = found[:-1] if self.counts is None else self.counts + found[:-1]


@dataclass
class Measured:
    rows: int
    numbers: dict[str, NumberTally]
    categories: dict[str, CategoryTally]
    missing: dict[str, int]
    pairs: dict[tuple[str, str], Any]
    keys: dict[tuple[str, ...], KeyTally]
    hours: Counter[int]
    newest: int | None
    sample: Sample


def measure(source: Source, plan: Plan) -> Measured:
    """Count what `plan` asks for, in one pass. Raises UsageError where the table cannot be read."""
    found = Measured(
        0, {name: NumberTally(one) for name, one in plan.numbers.items()},
        {name: CategoryTally(values) for name, values in plan.categories.items()}, {}, {},
        {key: KeyTally() for key in plan.keys}, Counter(), None, Sample(plan.sample))
    for batch in source.batches(plan.columns()):
        _count(batch, plan, found)
        found.rows += batch.num_rows
    return found


def _count(batch: Any, plan: Plan, found: Measured) -> None:
    import numpy as np

    index: dict[str, tuple[Any, Any]] = {}
    sampled: dict[str, Floats] = {}
    for name, tally in found.numbers.items():
        values = floats(batch.column(name))
        sampled[name] = values
        index[name] = tally.add(values)
    found.sample.add(sampled, batch.num_rows)
    for name, words_tally in found.categories.items():
        words_tally.add(words(batch.column(name)))
    for name in plan.plain:
        found.missing[name] = found.missing.get(name, 0) + int(batch.column(name).null_count)
    for a, b in plan.pairs:
        (at, some), (bt, some2) = index[a], index[b]
        width = len(plan.numbers[b].edges) + 1
        cells = at * width + bt
        mask = some if some2 is None else some2 if some is None else some & some2
        size = (len(plan.numbers[a].edges) + 1) * width
        table = np.bincount(cells if mask is None else cells[mask], minlength=size).reshape(-1, width)
        found.pairs[a, b] = table if (a, b) not in found.pairs else found.pairs[a, b] + table
    for key, keys in found.keys.items():
        keys.add(hashes([batch.column(name) for name in key]))
    if plan.time is not None:
        count_times(batch.column(plan.time), found)


def count_times(column: Any, found: Measured) -> None:
    """Add a column of times to `hours` and `newest`."""
    import numpy as np

    at = seconds(column)
    if len(at):
        newest = int(at.max())
        found.newest = newest if found.newest is None else max(found.newest, newest)
        hours, counts = np.unique(at // HOUR, return_counts=True)
        found.hours.update(dict(zip(hours.tolist(), counts.tolist(), strict=True)))


def floats(column: Any) -> Floats:
    """A numeric column as float64, NaN where there is no value."""
    import pyarrow as pa

    if column.type != pa.float64():
        if pa.types.is_null(column.type):
            column = pa.nulls(len(column), pa.float64())
        else:
            column = column.cast(pa.float64(), safe=False)
    values: Floats = column.to_numpy(zero_copy_only=False)
    return values


def words(column: Any) -> Any:
    """A column of texts, or of true and false, as an Arrow array of texts."""
    import pyarrow as pa

    plain = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    wanted = pa.large_string() if pa.types.is_large_string(plain) else pa.string()
    return column if column.type == wanted else column.cast(wanted)


def seconds(column: Any) -> NDArray[np.int64]:
    """The times of a column in whole seconds since the epoch, UTC; those that are missing are left out."""
    import numpy as np
    import pyarrow as pa

    times = column.drop_null()
    if pa.types.is_null(times.type):
        return np.zeros(0, dtype=np.int64)
    if pa.types.is_date(times.type):
        times = times.cast(pa.timestamp("s"))
    zone = times.type.tz
    if times.type.unit != "s":
        # Arrow rounds towards zero; a second more or less before 1970 changes no hour that matters here.
        times = times.cast(pa.timestamp("s", zone), safe=False)
    found: NDArray[np.int64] = times.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return found


def grades(bins: Any) -> Floats:
    """The grade of each bin: the middle of its cumulative shares, shape of `bins`."""
    import numpy as np

    total = max(int(bins.sum()), 1)
    upper = np.cumsum(bins) / total
    found: Floats = upper - bins / total / 2
    return found
