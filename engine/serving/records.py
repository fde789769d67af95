"""What one line of the prediction log says, and what it must not say.

Features are kept by column whatever form the request had, `{"carrier": ["UA"], "hour": [7]}`, and
leave here only after redaction: `"name"` in `redact` drops a column, `"hash:name"` replaces each
value by a keyed hash (BLAKE2b, 64 bits), so that equal values stay equal and the key alone opens
them. Where columns have no names, nothing can be redacted by name, so nothing is kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

# Bodies above this are logged without their content: a line must stay a line.
CONTENT_LIMIT = 65536


class Record(msgspec.Struct):
    """One request. `at`: UTC seconds since the epoch; `key_hash`: 16 hex digits, as in `split`.

    `omitted` says why features or predictions are not there, when they are not.
    """

    at: float
    correlation_id: str
    trace_id: str
    service: str
    variant: str
    version: str | None
    key_hash: str
    latency_ms: float
    status: int
    error_type: str
    features: dict[str, list[Any]] | None = None
    predictions: Any = None
    omitted: str | None = None


class Unreadable(ValueError):
    """A body whose columns cannot be told."""


class Redaction:
    """Which columns are kept, dropped or hashed. `fields`: all, none, or only those named."""

    def __init__(self, redact: Iterable[str], fields: bool | Collection[str], key: bytes) -> None:
        rules = list(redact)
        self._hashed = {rule.removeprefix("hash:") for rule in rules if rule.startswith("hash:")}
        self._dropped = {rule for rule in rules if not rule.startswith("hash:")}
        self._only = None if isinstance(fields, bool) else frozenset(fields)
        self.keeps_any = fields is True or bool(self._only)
        self._key = key
        self._encoder = msgspec.json.Encoder(order="deterministic")

    @property
    def needs_names(self) -> bool:
        return bool(self._hashed or self._dropped or self._only)

    def __call__(self, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The columns that may be logged, in their order."""
        return {name: self._column(name, values) for name, values in columns.items()
                if name not in self._dropped and (self._only is None or name in self._only)}

    def _column(self, name: str, values: list[Any]) -> list[Any]:
        if name not in self._hashed:
            return values
        return [hashlib.blake2b(self._encoder.encode(value), digest_size=8,
                                key=self._key).hexdigest() for value in values]


def columns_of(content_type: str, body: bytes) -> dict[str, list[Any]]:
    """The columns of a scoring request; one named "" where the form has no names.

    Raises Unreadable when the body is neither of MLflow's JSON forms nor CSV with a header.
    """
    if content_type.partition(";")[0].strip().lower() == "text/csv":
        return _from_csv(body)
    document = _decode(body)
    if not isinstance(document, dict):
        raise Unreadable("not a JSON object")
    if isinstance(split := document.get("dataframe_split"), dict):
        return _from_split(split)
    for form in ("dataframe_records", "instances", "inputs"):
        if form in document:
            return _from_values(document[form])
    raise Unreadable("none of MLflow's forms")


def predictions_of(body: bytes) -> Any:
    """What a scoring response predicts, None where it does not say."""
    try:
        document = _decode(body)
    except Unreadable:
        return None
    return document.get("predictions") if isinstance(document, dict) else None


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        # The scoring contract is Python's JSON, which also has NaN and Infinity.
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise Unreadable("not JSON") from None
    except RecursionError:
        raise Unreadable("nested too deep") from None


def _from_split(split: dict[str, Any]) -> dict[str, list[Any]]:
    names, rows = split.get("columns"), split.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise Unreadable("no rows")
    if names is None:
        return {"": rows}
    if not isinstance(names, list) or not all(len(row) == len(names) for row in rows):
        raise Unreadable("rows that do not fit their columns")
    return {str(name): [row[i] for row in rows] for i, name in enumerate(names)}


def _from_values(values: Any) -> dict[str, list[Any]]:
    if isinstance(values, dict):
        return {name: value if isinstance(value, list) else [value]
                for name, value in values.items()}
    if not isinstance(values, list):
        return {"": [values]}
    if values and all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: [value.get(name) for value in values] for name in names}
    return {"": values}


def _from_csv(body: bytes) -> dict[str, list[Any]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode(), newline="")) if row]
    except (UnicodeDecodeError, csv.Error):
        raise Unreadable("not CSV") from None
    if not rows or not all(len(row) == len(rows[0]) for row in rows):
        raise Unreadable("rows that do not fit their columns")
    return {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
