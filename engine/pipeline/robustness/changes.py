"""Changes of a model's input, as data, and applied to a table: noise, missing values, unseen categories,
extreme values, and the ones that expectations are made of. Pure.

    {kind: noise, columns: [temp, wind], scale: 0.1}     # in standard deviations of each column
    {kind: missing, columns: [wind], share: 0.5}
    {kind: unseen, columns: [carrier]}
    {kind: extreme, columns: [distance], factor: 10}
    {kind: put, column: carrier, to: AA}
    {kind: shift, column: dep_delay, by: 30}
    {kind: shuffle, columns: [flight]}

Without `columns` all are taken that the change applies to. Tables are pyarrow's; a column keeps its type,
so that what is tried is what a caller could send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from engine.errors import UsageError
from engine.fields import Model, Text
from engine.words import nearest

if TYPE_CHECKING:
    import numpy as np

Table = Any  # pyarrow.Table
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
UNSEEN = "never-seen-before"


class Noise(Model):
    """Normal noise of `scale` standard deviations of the column; whole numbers are rounded."""

    kind: Literal["noise"] = "noise"
    columns: list[Text] = []
    scale: Positive = 0.1


class Missing(Model):
    """Null in this share of the rows."""

    kind: Literal["missing"] = "missing"
    columns: list[Text] = []
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class Unseen(Model):
    """A value that does not occur: of texts a new one, of whole numbers the one after the largest."""

    kind: Literal["unseen"] = "unseen"
    columns: list[Text] = []


class Extreme(Model):
    """Beyond the largest or the smallest value by `factor` times their distance, up or down by chance."""

    kind: Literal["extreme"] = "extreme"
    columns: list[Text] = []
    factor: Positive = 10.0


class Put(Model):
    """One value in every row."""

    kind: Literal["put"] = "put"
    column: Text
    to: str | int | float | bool | None


class Shift(Model):
    """Every number plus `by`, or times `times`."""

    kind: Literal["shift"] = "shift"
    column: Text
    by: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    times: Annotated[float, Field(allow_inf_nan=False)] = 1.0


class Shuffle(Model):
    """The values of each column dealt to other rows."""

    kind: Literal["shuffle"] = "shuffle"
    columns: list[Text] = Field(min_length=1)


Change = Annotated[Noise | Missing | Unseen | Extreme | Put | Shift | Shuffle, Field(discriminator="kind")]
AnyChange = Noise | Missing | Unseen | Extreme | Put | Shift | Shuffle


def apply(change: AnyChange, rows: Table, rng: np.random.Generator) -> Table:
    """The changed table, of the same schema. Raises UsageError for a column that is not there or that the
    change does not apply to."""
    match change:
        case Noise():
            return _numbers(change, rows, lambda values: values + change.scale * _spread(values) * rng.normal(
                size=len(values)))
        case Extreme():
            return _numbers(change, rows, lambda values: _beyond(values, change.factor, rng))
        case Shift():
            return _numbers(change, rows, lambda values: values * change.times + change.by)
        case Missing():
            return _missing(change, rows, rng)
        case Unseen():
            return _unseen(change, rows)
        case Put():
            return _put(change, rows)
        case Shuffle():
            for name in _chosen(change, rows, lambda _: True):
                rows = replaced(rows, name, rows[name].take(rng.permutation(rows.num_rows)))
            return rows


def replaced(rows: Table, name: str, column: Any) -> Table:
    """The table with another column of this name, cast to the type it had."""
    at = rows.schema.get_field_index(name)
    return rows.set_column(at, rows.schema.field(at), column.cast(rows.schema.field(at).type))


def is_number(type_: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(type_) or types.is_floating(type_))


def is_text(type_: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(type_) or types.is_large_string(type_)
                or (types.is_dictionary(type_) and is_text(type_.value_type)))


def numbers(rows: Table, name: str) -> Any:
    """A column as floats (n,), null as NaN."""
    import numpy as np
    import pyarrow as pa

    return np.array(rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def put_numbers(rows: Table, name: str, values: Any) -> Table:
    """The table with these numbers in a column, rounded and held within its type; NaN as null."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.types as types

    kind = rows.schema.field(name).type
    null = np.isnan(values)
    if types.is_integer(kind):
        bounds = np.iinfo(kind.to_pandas_dtype())
        low, high = max(int(bounds.min), -(2**53)), min(int(bounds.max), 2**53)
        whole = np.clip(np.rint(np.where(null, 0, values)), low, high).astype(np.int64)
        return replaced(rows, name, pa.chunked_array([pa.array(whole, mask=null)]))
    largest = float(np.finfo(kind.to_pandas_dtype()).max)
    held = np.clip(np.where(null, 0, values), -largest, largest)
    return replaced(rows, name, pa.chunked_array([pa.array(held, mask=null)]))


def _chosen(change: AnyChange, rows: Table, applies: Callable[[Any], bool]) -> list[str]:
    """The columns that a change names, or all it applies to."""
    named: Sequence[str] = [change.column] if isinstance(change, Put | Shift) else change.columns
    for name in named:
        if name not in rows.column_names:
            raise UsageError(f"there is no column {name} to change ({change.kind})",
                             hint=nearest(name, rows.column_names))
        if not applies(rows.schema.field(name).type):
            raise UsageError(f"{change.kind} does not apply to the column {name}, which is "
                             f"{rows.schema.field(name).type}")
    found = list(named) or [f.name for f in rows.schema if applies(f.type)]
    if not found:
        raise UsageError(f"there is no column that {change.kind} applies to")
    return found


def _numbers(change: Noise | Extreme | Shift, rows: Table, made: Callable[[Any], Any]) -> Table:
    for name in _chosen(change, rows, is_number):
        rows = put_numbers(rows, name, made(numbers(rows, name)))
    return rows


def _spread(values: Any) -> float:
    import numpy as np

    known = values[~np.isnan(values)]
    return float(known.std()) if len(known) else 0.0


def _beyond(values: Any, factor: float, rng: np.random.Generator) -> Any:
    import numpy as np

    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
    far = factor * max(high - low, abs(high), 1.0)
    return np.where(rng.random(len(values)) < 0.5, high + far, low - far)


def _missing(change: Missing, rows: Table, rng: np.random.Generator) -> Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in _chosen(change, rows, lambda _: True):
        gone = pa.array(rng.random(rows.num_rows) < change.share)
        rows = replaced(rows, name, pc.if_else(gone, pa.scalar(None, rows[name].type), rows[name]))
    return rows


def _unseen(change: Unseen, rows: Table) -> Table:
    import pyarrow as pa
    import pyarrow.types as types

    def applies(kind: Any) -> bool:
        return is_text(kind) or (bool(change.columns) and bool(types.is_integer(kind)))

    for name in _chosen(change, rows, applies):
        if is_text(rows.schema.field(name).type):
            new: Any = UNSEEN
            while new in set(rows[name].unique().to_pylist()):
                new += "-"
            rows = replaced(rows, name, pa.chunked_array([pa.array([new] * rows.num_rows, pa.string())]))
        else:
            known = numbers(rows, name)
            rows = put_numbers(rows, name, known * 0 + known[known == known].max(initial=0) + 1)
    return rows


def _put(change: Put, rows: Table) -> Table:
    import pyarrow as pa

    [name] = _chosen(change, rows, lambda _: True)
    kind = rows.schema.field(name).type
    try:
        column = pa.array([change.to] * rows.num_rows)
        return replaced(rows, name, pa.chunked_array([column]))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise UsageError(f"the column {name} is {kind}, which cannot hold {change.to!r}") from None
