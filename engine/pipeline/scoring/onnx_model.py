"""An ONNX model as a callable from a table: the form `evaluate.entry` has when a project gives none.

A model has an input for each column, by name (as the flights' model and skl2onnx's have), or one input that
is the matrix of all features in their order. Numbers may be missing where the tensor holds fractions, and are
NaN there; a text may not be missing, since a model server refuses it too. One thread, so that sums are added
in one order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMPY = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(int64)": "int64",
         "tensor(int32)": "int32", "tensor(bool)": "bool", "tensor(float16)": "float16"}
TEXT = "tensor(string)"
SCORES = ("tensor(float)", "tensor(double)", "tensor(float16)")
MAPS = "seq(map("


class Unfit(ValueError):
    """Rows or a model that do not fit each other, said in a sentence."""

    plain = True


def load(model: Path) -> OnnxModel:
    """`model` is model.onnx, or a folder with one. Raises Unfit."""
    return OnnxModel(model / "model.onnx" if model.is_dir() else model)


class OnnxModel:
    """`columns`: those it takes by name; None where it takes the matrix of whatever it is given."""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), options,
                                                         providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise Unfit(f"{path.name} is not a model that ONNX Runtime can load: "
                        f"{' '.join(str(error).split())[:200]}") from error
        self._inputs = self._session.get_inputs()
        for one in self._inputs:
            if one.type not in NUMPY and one.type != TEXT:
                raise Unfit(f"the input {one.name} of {path.name} is {one.type}, which no column can be")
        self._matrix = len(self._inputs) == 1 and len(self._inputs[0].shape) == 2 \
            and self._inputs[0].shape[1] != 1
        self.columns = None if self._matrix else [one.name for one in self._inputs]
        self._output = _scores_of(self._session.get_outputs(), path.name)

    def __call__(self, rows: Any) -> NDArray[Any]:
        """Scores (n,) or (n, classes). Raises Unfit with the column and the row that do not fit."""
        import numpy as np

        feed = self._as_matrix(rows) if self._matrix else {
            one.name: _column(rows, one.name, one.type).reshape(_shape(one, rows.num_rows))
            for one in self._inputs}
        [found] = self._session.run([self._output.name], feed)
        if self._output.type.startswith(MAPS):
            keys = sorted(found[0]) if found else []
            return np.array([[row[key] for key in keys] for row in found], dtype=np.float64)
        scores = np.asarray(found)
        return scores[:, 0] if scores.ndim == 2 and scores.shape[1] == 1 else scores

    def _as_matrix(self, rows: Any) -> dict[str, NDArray[Any]]:
        import numpy as np

        one = self._inputs[0]
        width = one.shape[1]
        if isinstance(width, int) and width != rows.num_columns:
            raise Unfit(f"the model takes {width} columns, and the rows have {rows.num_columns}: "
                        f"{', '.join(rows.column_names)}")
        return {one.name: np.column_stack([_column(rows, name, one.type) for name in rows.column_names])}


def _shape(one: Any, rows: int) -> tuple[int, ...]:
    return (rows, 1) if len(one.shape) == 2 else (rows,)


def _scores_of(outputs: list[Any], name: str) -> Any:
    """The output that holds the scores. A classifier has the class beside them, which is not asked for."""
    numbers = [one for one in outputs if one.type in SCORES or one.type.startswith(MAPS)]
    if len(numbers) > 1:
        numbers = [one for one in numbers if "prob" in one.name.lower()] or numbers
    found = numbers or outputs
    if len(found) != 1:
        raise Unfit(f"{name} has {len(found)} outputs that may be its scores: "
                    f"{', '.join(one.name for one in found)}; give it one, or write `evaluate.entry`")
    return found[0]


def _column(rows: Any, name: str, wanted: str) -> NDArray[Any]:
    """One column as the tensor wants it, (n,)."""
    import numpy as np
    import pyarrow as pa

    if name not in rows.column_names:
        raise Unfit(f"the model wants the column {name}, which the rows do not have")
    column = rows.column(name)
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if wanted == TEXT:
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise Unfit(f"the column {name} is {kind}, and the model wants a text there")
        if column.null_count:
            raise Unfit(f"the column {name} is missing in row {_first(column.is_null()):,}, and the model "
                        "wants a text in every row")
        return np.asarray(column.to_numpy(), dtype=object)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
            or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
        raise Unfit(f"the column {name} is {kind}, and the model wants a number there")
    into = np.dtype(NUMPY[wanted])
    if into.kind != "f":
        if (at := _first(column.is_null(nan_is_null=True))) >= 0:
            raise Unfit(f"the column {name} is missing in row {at:,}, and the model wants a whole number in "
                        "every row")
        return np.asarray(column.to_numpy()).astype(into)
    if pa.types.is_boolean(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        column = column.cast(pa.float64())
    with np.errstate(over="ignore"):  # a number beyond float32 is infinite there, as in a model server
        return np.asarray(column.to_numpy()).astype(into)


def _first(true: Any) -> int:
    """The first row where it is true, -1 where it never is."""
    import numpy as np

    rows = np.flatnonzero(true.to_numpy())
    return int(rows[0]) if len(rows) else -1
