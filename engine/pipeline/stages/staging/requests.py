"""The held-out rows as requests, and whether an answer is what the evaluation had for them."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, UsageError
from engine.pipeline.releasing.served import Signature
from engine.pipeline.scoring.asking import CHUNK
from engine.pipeline.stages.staging.asking import Answer, rows_body, short, strict


@dataclass(frozen=True)
class Match:
    """How answers agree with what was predicted: `wrong` says in words how they do not, `apart` is the
    largest difference of those that do, in the answers' `output`."""

    wrong: str | None
    apart: float = 0.0
    output: str = ""


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that may be sent, `expected` the evaluation's predictions of them: (n,) or (n, classes), of which
    the model was asked for `at_once` rows at once, None where nobody knows."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    expected: Any
    gaps: frozenset[str]  # columns that have missing values in the data
    edges: dict[str, tuple[float, float]]  # by number: the smallest and largest of all held-out rows
    at_once: int | None
    rounding: float  # of the size of a prediction, see `served.ROUNDING`

    @property
    def strange(self) -> str | None:
        """A column of text, which may hold what no row had."""
        return next((name for name, kind in zip(self.columns, self.types, strict=True) if kind == "string"),
                    None)

    def changed(self, name: str, value: Any) -> list[Any]:
        """The first row with another value in a column."""
        return [value if column == name else own
                for column, own in zip(self.columns, self.rows[0], strict=True)]

    def body(self, at: Sequence[int]) -> bytes:
        return rows_body(self.columns, [self.rows[one] for one in at])

    def exact(self, at: Sequence[int]) -> bool:
        """Whether the evaluation asked for just these rows at once, so that no bit may differ."""
        return self.at_once == len(at) == len(self.rows)

    def matches(self, answer: Answer, at: Sequence[int], output: str = "") -> Match:
        """Whether this output of an answer, or any, is what the evaluation predicted of these rows: bit for
        bit where it asked for just as many at once, else but for rounding, since sums of another number of
        rows are added in another order."""
        import numpy as np

        if answer.status != 200:
            return Match(answer.words())
        try:
            given = outputs(answer)
        except ValueError as error:
            return Match(str(error))
        wanted = np.asarray(self.expected[list(at)], dtype=np.float64)
        others: list[tuple[float, str]] = []
        for name, values in given.items():
            if output and name != output:
                continue
            for seen in _shapes(values, len(at)):
                if seen.shape != wanted.shape:
                    continue
                apart = np.where((seen == wanted) | (np.isnan(seen) & np.isnan(wanted)), 0.0,
                                 np.abs(seen - wanted))
                allowed = 0.0 if self.exact(at) else self.rounding * np.maximum(np.abs(wanted), self._size)
                if bool((apart <= allowed).all()):
                    return Match(None, float(apart.max(initial=0.0)), name)
                others.append(_off(name, seen, wanted, apart, at))
        return Match(min(others)[1] if others else "it has no number for each row")

    @functools.cached_property
    def _size(self) -> float:
        """Of a usual prediction: where sums cancel, rounding is by the size of what was added."""
        import numpy as np

        sizes = np.abs(self.expected[np.isfinite(self.expected)])
        return float(np.median(sizes)) if sizes.size else 0.0


def same(answer: Answer, before: Answer) -> str | None:
    """None where two answers of one server to one row are one, else how they differ."""
    for what, one in (("", answer), ("by itself the row is answered with ", before)):
        if one.status != 200:
            return f"{what}{one.words()}"
    try:
        given, known = outputs(answer), outputs(before)
    except ValueError as error:
        return str(error)
    differ = [name for name in known if given.get(name) != known[name]]
    if not differ:
        return None
    name = differ[0]
    return f"{name} is {_short(given.get(name))}, and by itself the row has {_short(known[name])}"


def outputs(answer: Answer) -> dict[str, list[Any]]:
    """Values by output, a list as long as the answer. Raises ValueError for another form."""
    said = strict(answer.body)
    found = said.get("predictions") if isinstance(said, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("the answer is not {\"predictions\": [{output: value, …}, …]}")
    return {name: [one.get(name) for one in found] for name in (found[0] if found else {})}


def held(data: Path, evaluate: Path, told: Signature, most: int, *, own: bool = False) -> Held:
    """The first `most` held-out rows with their predictions, which the project's `own` code has made or the
    engine, all of them at once. Raises UsageError for a column that the model
    takes and the data lacks, ActionFailed where the evaluation's predictions are not of these rows."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(data / "test.parquet")
    names = [one["name"] for one in told.inputs]
    if lacking := [name for name in names if name not in table.column_names]:
        raise UsageError(f"The model takes {', '.join(lacking)}, which the held-out rows do not have.",
                         where=str(data / "test.parquet"),
                         hint=f"The columns are: {', '.join(table.column_names)}.")
    expected = np.load(evaluate / "predictions.npy", allow_pickle=False)
    if len(expected) != table.num_rows or not table.num_rows:
        raise ActionFailed(f"There are {len(expected):,} predictions of {table.num_rows:,} held-out rows.",
                           where=str(evaluate / "predictions.npy"), hint="Run the pipeline again.")
    chosen = table.select(names).slice(0, most)
    kinds = [one["type"] for one in told.inputs]
    columns = [[_cell(value, kind) for value in chosen[name].to_pylist()]
               for name, kind in zip(names, kinds, strict=True)]
    gaps = frozenset(name for name in names if table[name].null_count)
    return Held(names, kinds, [list(row) for row in zip(*columns, strict=True)], expected[:most], gaps,
                _edges(table, names, kinds), None if own or table.num_rows > CHUNK else table.num_rows,
                told.rounding)


def _edges(table: Any, names: list[str], kinds: list[str]) -> dict[str, tuple[float, float]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = {}
    for name, kind in zip(names, kinds, strict=True):
        column = table[name]
        if kind == "string" or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
            continue
        if pa.types.is_floating(column.type):
            column = column.filter(pc.is_finite(column))
        ends = pc.min_max(column).as_py()
        if ends["min"] is not None:
            found[name] = (_cell(ends["min"], kind), _cell(ends["max"], kind))
    return found


def _cell(value: Any, kind: str) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind in ("double", "float"):
        return float(value)
    return str(value) if kind == "string" and not isinstance(value, str) else value


def _off(name: str, seen: Any, wanted: Any, apart: Any, at: Sequence[int]) -> tuple[float, str]:
    """By how much an output is off at most, and in words where."""
    import numpy as np

    known = np.nan_to_num(apart, nan=math.inf)
    place = np.unravel_index(int(known.argmax()), known.shape)
    return float(known[place]), (f"{name} is off by up to {known[place]:.3g}: {seen[place]:.9g} and not "
                                 f"{wanted[place]:.9g} in row {at[int(place[0])]:,}")


def _short(values: Any) -> str:
    return "nothing" if values is None else short(", ".join(map(str, values)), 60)


def _shapes(values: list[Any], rows: int) -> list[Any]:
    """What an output's values may be: a number a row, several, or one of several."""
    import numpy as np

    try:
        array = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError):
        return []
    if array.ndim == 1 and rows and len(array) > rows and len(array) % rows == 0:
        array = array.reshape(rows, -1)  # as MLflow flattens the only output that there is
    if array.ndim == 1:
        return [array]
    return [array, *(array[:, at] for at in range(array.shape[1]))] if array.ndim == 2 else []
