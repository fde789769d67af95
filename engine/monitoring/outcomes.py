"""What became of predictions: the join of predictions with the labels that come later. Pure.

Both are known by the correlation id of their request. They may come in either order, and each waits for
the other for `within` seconds. A label counts once: a second one for the same prediction is a duplicate.
One that comes when its prediction is forgotten, or that belongs to none, ends as unmatched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

POSITIVE_FROM = 0.5  # the score from which a probability says yes


class Predicted(NamedTuple):
    """A prediction that waits: `answers` has one value a row, None where there was no answer."""

    at: float
    variant: str
    answers: list[Any] | None


class Labelled(NamedTuple):
    """A label that waits for its prediction, read at `at`."""

    at: float
    label: Any


@dataclass
class Tally:
    """What was read since the start, in lines. `counted` labels went into (n, y); the rest says why not.

    `unusable`: the label and the answer cannot be compared, or the request had no answer. `before`: its
    prediction is older than what is counted. `forgotten` predictions made room for newer ones.
    """

    predictions: int = 0
    labels: int = 0
    counted: int = 0
    duplicate: int = 0
    unusable: int = 0
    unmatched: int = 0
    before: int = 0
    forgotten: int = 0


@dataclass
class Join:
    """The predictions and labels of one service.

    `within`: seconds. `waiting`: the most predictions, and the most labels, that are kept (a prediction
    of one number takes some 400 bytes); beyond it the oldest are forgotten. `tolerance`: see `wrong`.
    """

    within: float
    waiting: int
    tolerance: float = 0.0
    tally: Tally = field(default_factory=Tally)
    _since: float = -math.inf
    # In the order of reading. A prediction whose label was counted leaves its time, so that a second
    # label is known to be one.
    _predictions: dict[int, Predicted | float] = field(default_factory=dict)
    _labels: dict[int, Labelled] = field(default_factory=dict)
    _fresh: dict[int, dict[str, tuple[int, int]]] = field(default_factory=dict)  # by second of prediction

    def begin(self, since: float) -> None:
        """Count only predictions made from `since` on (UTC seconds), from zero."""
        self._since = since
        self._fresh.clear()

    def take(self) -> list[dict[str, tuple[int, int]]]:
        """How many rows were labelled since the last call, and how many of them were wrong, by variant, for
        each second in which predictions were made, oldest first: those of other times cannot be compared."""
        taken, self._fresh = self._fresh, {}
        return [taken[second] for second in sorted(taken)]

    def predicted(self, id: str, prediction: Predicted) -> None:
        """A line of the prediction log. Of several answers to one id the last before the label counts."""
        self.tally.predictions += 1
        key = _key(id)
        before = self._predictions.get(key)
        if isinstance(before, float) or (before is not None and prediction.answers is None):
            return
        label = self._labels.pop(key, None)
        # Put at the end: this one is younger than the one that it replaces.
        self._predictions.pop(key, None)
        self._predictions[key] = prediction
        if label is not None:
            self._match(key, prediction, label.label)
        if len(self._predictions) > self.waiting:
            gone = self._predictions.pop(next(iter(self._predictions)))
            self.tally.forgotten += isinstance(gone, Predicted)

    def labelled(self, id: str, label: Labelled) -> None:
        """A line of the labels."""
        self.tally.labels += 1
        key = _key(id)
        found = self._predictions.get(key)
        if isinstance(found, float) or key in self._labels:
            self.tally.duplicate += 1
        elif found is not None:
            self._match(key, found, label.label)
        else:
            self._labels[key] = label
            if len(self._labels) > self.waiting:
                del self._labels[next(iter(self._labels))]
                self.tally.unmatched += 1

    def expire(self, now: float) -> None:
        """Let go of what has waited longer than `within`."""
        until = now - self.within
        while self._predictions:
            key, oldest = next(iter(self._predictions.items()))
            if (oldest if isinstance(oldest, float) else oldest.at) >= until:
                break
            del self._predictions[key]
        while self._labels:
            key = next(iter(self._labels))
            if self._labels[key].at >= until:
                break
            del self._labels[key]
            self.tally.unmatched += 1

    def _match(self, key: int, prediction: Predicted, label: Any) -> None:
        self._predictions[key] = float(prediction.at)
        if prediction.at < self._since:
            self.tally.before += 1
            return
        verdicts = judged(prediction.answers, label, self.tolerance)
        if verdicts is None:
            self.tally.unusable += 1
            return
        self.tally.counted += 1
        counted = self._fresh.setdefault(math.floor(prediction.at), {})
        n, y = counted.get(prediction.variant, (0, 0))
        counted[prediction.variant] = (n + len(verdicts), y + sum(verdicts))


def answers_of(predictions: Any, output: str | None = None) -> list[Any] | None:
    """One answer a row of what a scoring response predicts, None where it does not say.

    `output` names one of several outputs; a model with a single one needs no name.
    """
    if isinstance(predictions, Mapping):
        predictions = _one(predictions, output)
    if predictions is None:
        return None
    rows = predictions if isinstance(predictions, list) else [predictions]
    found = [_scalar(_one(row, output) if isinstance(row, Mapping) else row) for row in rows]
    return None if not found or any(value is None for value in found) else found


def judged(answers: list[Any] | None, label: Any, tolerance: float) -> list[bool] | None:
    """Row by row, whether the answer was wrong; None where they cannot be compared.

    A request of several rows wants a list of as many labels.
    """
    labels = label if isinstance(label, list) else [label]
    if answers is None or len(answers) != len(labels):
        return None
    found = [wrong(answer, one, tolerance) for answer, one in zip(answers, labels, strict=True)]
    return None if any(one is None for one in found) else [one is True for one in found]


def wrong(answer: Any, label: Any, tolerance: float) -> bool | None:
    """Whether an answer differs from its label; None where the two cannot be compared.

    Numbers differ where they are more than `tolerance` apart. Without a tolerance, an answer between 0 and
    1 to a label that is 0 or 1 is a probability: it says 1 from `POSITIVE_FROM` on. Words are compared as
    they are, and never with numbers.
    """
    if isinstance(answer, str) and isinstance(label, str):
        return answer != label
    if not (isinstance(answer, int | float) and isinstance(label, int | float)):
        return None
    if not (math.isfinite(answer) and math.isfinite(label)):
        return None
    if tolerance == 0 and label in (0, 1) and 0 <= answer <= 1:
        return (answer >= POSITIVE_FROM) != (label == 1)
    return abs(answer - label) > tolerance


def _one(outputs: Mapping[str, Any], output: str | None) -> Any:
    if output is not None:
        return outputs.get(output)
    return next(iter(outputs.values())) if len(outputs) == 1 else None


def _scalar(value: Any) -> Any:
    """A row's value; a row of shape [1] is its one value."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return None if isinstance(value, list | Mapping) else value


def _key(id: str) -> int:
    """64 bits of an id: a third of the memory, and among a million no two alike but once in 10⁷ times."""
    return int.from_bytes(blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest())
