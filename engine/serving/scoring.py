"""MLflow's scoring contract without MLflow: a request's body to columns, outputs to a body.

What `mlflow models serve` (3.17) answers for an ONNX model with one input per column and a column
signature is answered the same here, byte for byte, including what it makes of types: numbers in
strings are numbers, missing numbers are NaN, fractions in whole-number columns are cut off, columns
that are not in the signature are ignored. It differs on purpose where MLflow fails or guesses:

- text columns work (MLflow with pandas 3 hands onnxruntime an array that it does not know), and
  a number or null in one is refused rather than spelled out;
- inputs of shape [rows, 1], and outputs of different lengths, work;
- a CSV row with more fields than the header is refused, where pandas would shift all its values.

The forms are those of `mlflow/pyfunc/scoring_server/__init__.py`: dataframe_split,
dataframe_records, instances, inputs, and CSV with a header.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_REQUIRED = ("The input must be a JSON dictionary with exactly one of the input fields "
             f"{', '.join(FORMS)}")
# What pandas.read_csv takes for a missing value.
_MISSING = frozenset({"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan",
                      "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a",
                      "nan", "null"})
# A whole number written as a fraction, which pandas takes too; digits beyond 2**53 stay exact.
_WHOLE = re.compile(r"[+-]?\d{1,15}\.0*")
_NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32",
          "double": "float64", "string": "object"}
TENSORS = {"tensor(bool)": "bool", "tensor(int32)": "int32", "tensor(int64)": "int64",
           "tensor(float)": "float32", "tensor(double)": "float64", "tensor(string)": "object"}

Columns = dict[str, Sequence[Any]]


class BadInput(ValueError):
    """A request that cannot be scored; `error_code` is MLflow's name for why."""

    def __init__(self, message: str, error_code: str = "INVALID_PARAMETER_VALUE") -> None:
        super().__init__(message)
        self.error_code = error_code


def from_json(body: bytes, names: Sequence[str]) -> Columns:
    """The columns of a JSON request; `names` are those of the signature. Raises BadInput."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"Ensure that input is a valid JSON formatted string. Error: '{error}'",
                       "BAD_REQUEST") from None
    if not isinstance(document, dict):
        raise BadInput(f"{_REQUIRED}. Received a {type(document).__name__}.", "BAD_REQUEST")
    given = [form for form in FORMS if form in document]
    if len(given) != 1:
        raise BadInput(f"{_REQUIRED}. Received dictionary with input fields: "
                       f"{', '.join(given) or 'none of them'}.", "BAD_REQUEST")
    form = given[0]
    values = document[form]
    if form == "dataframe_split":
        return _from_split(values)
    if form == "dataframe_records":
        if not isinstance(values, list):
            raise BadInput("Dataframe records format must be a list of records. "
                           f"Got {type(values).__name__}.")
        return _from_records(values, form)
    return _from_tensors(values, names, form)


def from_csv(body: bytes, types: Mapping[str, str]) -> Columns:
    """The columns of a CSV request with a header line. Raises BadInput."""
    try:
        text = body.decode()
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except UnicodeDecodeError as error:
        raise BadInput(f"Ensure that input is a valid UTF-8 encoded string. Error: '{error}'",
                       "BAD_REQUEST") from None
    except csv.Error as error:
        raise BadInput(f"The input is not valid CSV: {error}.", "BAD_REQUEST") from None
    if not rows:
        raise BadInput("The input has no header line.", "BAD_REQUEST")
    header, *data = rows
    for number, row in enumerate(data, start=1):
        if len(row) > len(header):
            raise BadInput(f"Row {number} has {len(row)} fields for {len(header)} columns.",
                           "BAD_REQUEST")
    padded = [row + [""] * (len(header) - len(row)) for row in data]
    return {name: [_csv_cell(row[i], name, types.get(name)) for row in padded]
            for i, name in enumerate(header)}


def to_arrays(columns: Columns, inputs: Sequence[tuple[str, str]]) -> dict[str, Array]:
    """One array of shape [rows] for each (name, type) of the signature; other columns are ignored.

    Raises BadInput that names the columns that are missing, or the one whose values do not fit.
    """
    missing = [name for name, _ in inputs if name not in columns]
    if missing:
        wanted = {name for name, _ in inputs}
        message = f"Model is missing inputs {missing}."
        if extra := [name for name in columns if name not in wanted]:
            message += f" Note that there were extra inputs: {extra}."
        raise BadInput(message)
    arrays = {name: _array(name, columns[name], kind) for name, kind in inputs}
    if len({len(array) for array in arrays.values()}) > 1:
        lengths = ", ".join(f"{name}: {len(array)}" for name, array in arrays.items())
        raise BadInput(f"The columns have different numbers of values ({lengths}).")
    return arrays


def to_body(names: Sequence[str], outputs: Sequence[Any], rows: int) -> bytes:
    """{"predictions": [{output: value, …}, …]}, as MLflow writes it.

    MLflow flattens every output and fails if that gives different lengths; there, an output of
    shape [rows, n] gives each row its n values as a list.
    """
    import numpy as np

    arrays = [np.asarray(output) for output in outputs]
    if len({array.size for array in arrays}) == 1:
        columns = [array.reshape(-1).tolist() for array in arrays]
    else:
        columns = [array.reshape(rows, -1).tolist() if array.size != rows
                   else array.reshape(-1).tolist() for array in arrays]
    predictions = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return json.dumps({"predictions": predictions}, default=_plain_value).encode()


def _plain_value(value: Any) -> Any:
    return value.item()


def _from_split(values: Any) -> Columns:
    if not isinstance(values, dict):
        raise BadInput("Dataframe split format must be a dictionary. "
                       f"Got {type(values).__name__}.")
    if "data" not in values or set(values) - {"columns", "data", "index"}:
        raise BadInput("Dataframe split format must have 'data' field and optionally 'columns' and "
                       f"'index' fields. Got {sorted(values)}.")
    names, data = values.get("columns"), values["data"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput("The field 'columns' must be the list of the columns' names.")
    if len(set(names)) != len(names):
        raise BadInput("The field 'columns' names a column twice.")
    if not isinstance(data, list):
        raise BadInput("The field 'data' must be a list of rows.")
    for number, row in enumerate(data, start=1):
        if not isinstance(row, list) or len(row) != len(names):
            raise BadInput(f"Row {number} of 'data' must be a list of {len(names)} values, one for "
                           "each column.")
    columns = list(zip(*data, strict=True)) or [()] * len(names)
    return dict(zip(names, columns, strict=True))


def _from_records(records: list[Any], form: str) -> Columns:
    names: dict[str, None] = {}
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise BadInput(f"Entry {number} of '{form}' is a {type(record).__name__}, not a record "
                           "of column names and values.")
        names.update(dict.fromkeys(record))
    return {name: [record.get(name) for record in records] for name in names}


def _from_tensors(values: Any, names: Sequence[str], form: str) -> Columns:
    if isinstance(values, list):
        if len(names) == 1 and not any(isinstance(value, dict) for value in values):
            return {names[0]: values}
        if form == "instances" and values and isinstance(values[0], dict):
            whole = _from_records(values, form)
            for name in names:
                absent = [n for n, record in enumerate(values, start=1) if name not in record]
                if name in whole and absent:
                    raise BadInput(f"Entry {absent[0]} of 'instances' has no value for {name}.")
            return whole
        return _from_records(values, form)
    if not isinstance(values, dict):
        raise BadInput(f"The field '{form}' must be a list of records, or a dictionary of column "
                       f"names and values. Got {type(values).__name__}.")
    # A single value beside lists stands for a column of that value.
    rows = max((len(value) for value in values.values() if isinstance(value, list)), default=1)
    return {name: value if isinstance(value, list) else [value] * rows
            for name, value in values.items()}


def _csv_cell(cell: str, name: str, kind: str | None) -> Any:
    if kind == "string" or kind is None:
        return cell
    if cell.strip() in _MISSING:
        return None
    try:
        if kind == "boolean":
            return {"true": True, "false": False}[cell.strip().lower()]
        if kind in ("float", "double"):
            return float(cell)
        return int(float(cell)) if _WHOLE.fullmatch(cell.strip()) else int(cell)
    except (ValueError, KeyError):
        raise BadInput(f"The column {name} has a value that is not a {kind}: {cell[:60]!r}.",
                       "BAD_REQUEST") from None


def _array(name: str, values: Sequence[Any], kind: str) -> Array:
    import numpy as np

    try:
        if kind == "string":
            return _strings(name, values)
        if kind == "boolean":
            return _booleans(name, values)
        array: Array = np.array(values, dtype=_NUMPY[kind])
    except (ValueError, TypeError, OverflowError):
        raise _wrong(name, values, kind) from None
    if array.ndim != 1:
        raise _wrong(name, values, kind)
    return array


def _strings(name: str, values: Sequence[Any]) -> Array:
    import numpy as np

    if not all(isinstance(value, str) for value in values):
        raise _wrong(name, values, "string")
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _booleans(name: str, values: Sequence[Any]) -> Array:
    import numpy as np

    if not all(isinstance(value, (bool, int)) and value in (0, 1) for value in values):
        raise _wrong(name, values, "boolean")
    return np.array(values, dtype=bool)


def _wrong(name: str, values: Sequence[Any], kind: str) -> BadInput:
    """The error for a column, showing its first value that does not fit."""
    import numpy as np

    for number, value in enumerate(values, start=1):
        try:
            if kind == "string":
                fits = isinstance(value, str)
            elif kind == "boolean":
                fits = isinstance(value, (bool, int)) and value in (0, 1)
            else:
                fits = np.array(value, dtype=_NUMPY[kind]).ndim == 0
        except (ValueError, TypeError, OverflowError):
            fits = False
        if not fits:
            return BadInput(f"The column {name} has a value that is not a {kind}, in row {number}: "
                            f"{json.dumps(value)[:60]}.")
    return BadInput(f"The column {name} does not hold values of type {kind}.")
