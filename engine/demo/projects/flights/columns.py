"""The columns of a flight, and what the model sees of them as numbers.

Everything here is known an hour before a flight leaves: the schedule, and the weather at the airport. The
delay at departure is not, so it is not among the features, however well it would predict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LABEL = "late"
LATE_MINUTES = 30  # a flight is late when it arrives more than this many minutes after its schedule
TIME = "scheduled"
GROUP = "airport_hour"
KEY = ("scheduled", "carrier", "flight")
CATEGORIES = ("carrier", "origin")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
NUMBERS = ("hour", "weekday", "distance", *WEATHER)
FEATURES = (*CATEGORIES, *NUMBERS)

Floats = NDArray[np.float32]


def known(table: pa.Table) -> dict[str, list[str]]:
    """The values of each category, sorted. A category's number is its place in this list."""
    return {name: sorted(value for value in table[name].unique().to_pylist() if value is not None)
            for name in CATEGORIES}


def matrix(table: pa.Table, categories: Mapping[str, Sequence[str]]) -> Floats:
    """The features as float32 (rows, 12) in the order of FEATURES.

    A category is its number in `categories`; an unknown one is NaN, like anything that is missing. The
    model's first nodes in ONNX do the same, see `to_onnx`. Raises KeyError for a column that is not there.
    """
    columns: list[Floats] = []
    for name in FEATURES:
        if name in CATEGORIES:
            number = {value: float(at) for at, value in enumerate(categories[name])}
            values = [number.get(value, np.nan) for value in table[name].to_pylist()]
            columns.append(np.array(values, dtype=np.float32))
        else:
            columns.append(numbers(table, name).astype(np.float32))
    return np.stack(columns, axis=1) if len(table) else np.empty((0, len(FEATURES)), np.float32)


def numbers(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column as float64 (rows,), null as NaN."""
    return np.asarray(table[name].cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def feed(table: pa.Table) -> dict[str, NDArray[Any]]:
    """The exported model's inputs by name: texts as they are, numbers as float32, each (rows,)."""
    return {name: (np.array(table[name].fill_null("").to_pylist(), dtype=object) if name in CATEGORIES
                   else numbers(table, name).astype(np.float32)) for name in FEATURES}
