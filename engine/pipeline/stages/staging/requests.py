"""The held-out rows as requests, and whether an answer is what the evaluation had for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, UsageError
from engine.pipeline.releasing.served import Signature
from engine.pipeline.stages.staging.asking import Answer, rows_body, strict


@dataclass(frozen=True, eq=False)
class Held:
    """Rows that may be sent, `expected` the evaluation's predictions of them: (n,) or (n, classes)."""

    columns: list[str]
    types: list[str]
    rows: list[list[Any]]
    expected: Any
    gaps: frozenset[str]  # columns that have missing values in the data
    edges: dict[str, tuple[float, float]]  # by number: the smallest and largest of all held-out rows

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

    def matches(self, answer: Answer, at: Sequence[int]) -> str | None:
        """None where one of the answer's outputs is, bit for bit, what the evaluation predicted for these
        rows; else how it differs."""
        import numpy as np

        if answer.status != 200:
            return answer.words()
        try:
            given = outputs(answer)
        except ValueError as error:
            return str(error)
        wanted = np.asarray(self.expected[list(at)], dtype=np.float64)
        nearest, least = "it has no number for each row", math.inf
        for name, values in given.items():
            for seen in _shapes(values, len(at)):
                if seen.shape == wanted.shape:
                    if np.array_equal(seen, wanted, equal_nan=True):
                        return None
                    apart = float(np.nanmax(np.abs(seen - wanted))) if len(at) else 0.0
                    if apart < least:
                        least, nearest = apart, f"{name} is off by up to {apart:.3g}"
        return nearest


def outputs(answer: Answer) -> dict[str, list[Any]]:
    """Values by output, a list as long as the answer. Raises ValueError for another form."""
    said = strict(answer.body)
    found = said.get("predictions") if isinstance(said, dict) else None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise ValueError("the answer is not {\"predictions\": [{output: value, …}, …]}")
    return {name: [one.get(name) for one in found] for name in (found[0] if found else {})}


def held(data: Path, evaluate: Path, told: Signature, most: int) -> Held:
    """The first `most` held-out rows with their predictions. Raises UsageError for a column that the model
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
                _edges(table, names, kinds))


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
