"""Which of the fixed bins a prediction falls into. Pure.

The bins are the config's and never move, so that two variants, and a variant now and an hour ago, can be
compared count by count. Of a score, with edges e1 < e2 < … < en:

    ..e1    e1..e2    …    en..    invalid

a bin holds its lower edge and not its upper one. Of a class: one bin each, then "other" and "invalid".
Invalid is what is no finite number (score), no text, number or truth value (class), or not there; an
answer without predictions is one such. Each row of an answer counts.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

OTHER = "other"
INVALID = "invalid"


class Bins:
    """The bins of one output: its name, or its place among the outputs of a row."""

    def __init__(self, output: str | int, *, edges: Sequence[float] = (),
                 classes: Sequence[str | int] = ()) -> None:
        """Either `edges`, increasing, or `classes`."""
        self._output = output
        self._edges = [float(edge) for edge in edges]
        self._classes = {_class(one) for one in classes}
        texts = [_number(edge) for edge in self._edges]
        scores = [f"{low}..{high}" for low, high in zip(["", *texts], [*texts, ""], strict=True)]
        own = [str(_class(one)) for one in classes] + [OTHER] if classes else scores
        self._scores = scores
        self.names: tuple[str, ...] = (*own, INVALID)

    def __call__(self, predictions: Any) -> list[str]:
        """The bin of each prediction in what an answer says under "predictions"."""
        of = self._of_class if self._classes else self._of_score
        return [of(value) for value in self._values(predictions)]

    def _values(self, predictions: Any) -> list[Any]:
        """The output's value in each row, None where it is not there."""
        if isinstance(predictions, dict):  # by column
            column = self._in(predictions)
            return column if isinstance(column, list) else [column]
        rows = predictions if isinstance(predictions, list) else [predictions]
        return [self._in(row) for row in rows]

    def _in(self, row: Any) -> Any:
        output = self._output
        if isinstance(row, dict):
            if isinstance(output, str):
                return row.get(output)
            row = list(row.values())
        if isinstance(output, str):
            return None
        if isinstance(row, list):
            return row[output] if output < len(row) else None
        return row if output == 0 else None

    def _of_score(self, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return INVALID
        if isinstance(value, float) and not math.isfinite(value):
            return INVALID
        return self._scores[bisect_right(self._edges, value)]

    def _of_class(self, value: Any) -> str:
        name = _class(value)
        if name is None:
            return INVALID
        return name if name in self._classes else OTHER


def _class(value: Any) -> str | None:
    """A class as text: 1, 1.0 and "1" are one class, true is another; None for what names none."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float() if math.isfinite(value):
            return _number(value)
    return None


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
