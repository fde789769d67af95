"""Rows with their labels and a model's scores: what every metric is computed from, checked once. Pure.

Whatever is wrong with them is refused in a sentence that names the first row at fault (rows count from 0),
because a metric over NaN labels, weights below zero or scores that are no probabilities is a number that
means nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from engine.errors import UsageError
from engine.words import nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

Task = Literal["binary", "multiclass", "regression", "ranking"]
SUM_SLACK = 1e-3  # probabilities of float32 models add up to 1 within this


@dataclass(frozen=True, eq=False)
class Labelled:
    """`n` rows of one task. Made by `labelled`, which checks them.

    `labels` (n,): 0 or 1; the number of the class; a quantity; a relevance of 0 or more.
    `scores` (n,): the probability of class 1; (n, classes) probabilities; a quantity; a score to sort by.
    `weights` (n,) count rows more or less. `groups` (n,), from 0 to g - 1, tells which rows are dependent
    (one customer's, one day's): a resample takes a whole group or leaves it. For ranking a group is a query.
    `threshold`: from which probability a binary row is called 1.
    """

    task: Task
    labels: Floats
    scores: Floats
    classes: tuple[str, ...] = ()
    weights: Floats | None = None
    groups: Ints | None = None
    threshold: float = 0.5

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def units(self) -> int:
        """How many independent things there are: groups, or rows without groups."""
        return len(self) if self.groups is None else int(self.groups.max()) + 1

    def only(self, rows: Bools) -> Labelled:
        """Those rows; groups are numbered anew. Raises UsageError when none is left."""
        import numpy as np

        if not rows.any():
            raise UsageError("no row is left", hint="a segment needs rows to be measured")
        groups = self.groups
        if groups is not None:
            groups = np.unique(groups[rows], return_inverse=True)[1].astype(np.int64)
        weights = None if self.weights is None else self.weights[rows]
        return replace(self, labels=self.labels[rows], scores=self.scores[rows], weights=weights,
                       groups=groups)


def labelled(task: str, labels: Any, scores: Any, *, classes: Sequence[str] = (), weights: Any = None,
             groups: Any = None, threshold: float = 0.5) -> Labelled:
    """Check and make. `classes` names them in the order of the scores' columns (binary: 0's, then 1's);
    labels are then those names, or their numbers. `groups` are any values, equal for rows that are
    dependent. Raises UsageError for whatever is wrong, with its first row."""
    if task not in get_args(Task):
        raise UsageError(f"there is no task {task}", hint=nearest(task, get_args(Task)))
    values, labels = _array(scores, "score"), _array(labels, "label")
    if labels.size == 0:
        raise UsageError("there are no rows to measure", hint="is the held-out data empty?")
    if len(values) != len(labels):
        raise UsageError(f"there are {len(labels):,} labels and {len(values):,} scores",
                         hint="the two must be of the same rows, in the same order")
    values = _numbers(values, "score")
    found = Labelled(_task(task), _labels(_task(task), labels, classes, values), _scores(_task(task), values),
                     _classes(_task(task), classes, values), _weights(weights, len(values)),
                     _groups(groups, len(values)), threshold)
    if task == "ranking" and groups is None:
        raise UsageError("a ranking needs the query of each row", hint="give them as groups")
    if task == "binary" and not 0 < threshold < 1:
        raise UsageError(f"a threshold lies between 0 and 1, not at {threshold:g}")
    return found


def _task(task: str) -> Task:
    return next(known for known in get_args(Task) if known == task)


def _array(values: Any, what: str) -> NDArray[Any]:
    """(n, …), whatever was given. Raises UsageError for lists of different lengths."""
    import numpy as np

    try:
        return np.atleast_1d(np.asarray(values))
    except ValueError:
        raise UsageError(f"the {what}s of the rows are not of one shape") from None


def _numbers(values: Any, what: str) -> Floats:
    import numpy as np

    given = _array(values, what)
    try:
        numbers: Floats = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise UsageError(f"the {what}s are not numbers", hint=f"the first is {given.flat[0]!r}") from None
    rows = np.asarray(~np.isfinite(numbers).all(axis=tuple(range(1, numbers.ndim))))
    if rows.any():
        raise UsageError(f"the {what} of row {int(rows.argmax()):,} is {_said(numbers[rows.argmax()])}, "
                         f"and of {int(rows.sum()):,} of {len(rows):,} rows",
                         hint=f"rows without a {what} say nothing about a model: find out why")
    return numbers


def _said(value: Any) -> str:
    import numpy as np

    return "NaN" if np.isnan(value).any() else "infinite"


def _scores(task: Task, scores: Floats) -> Floats:
    import numpy as np

    if task == "multiclass":
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise UsageError("scores of a multiclass task have a column for each class",
                             hint=f"their shape is {scores.shape}")
        off = np.abs(scores.sum(axis=1) - 1) > SUM_SLACK
        if off.any():
            at = int(off.argmax())
            raise UsageError(f"the probabilities of row {at:,} add up to {scores[at].sum():.6g}, not to 1")
    elif scores.ndim == 2 and task == "binary" and scores.shape[1] == 2:
        scores = scores[:, 1]
    elif scores.ndim != 1:
        raise UsageError(f"scores of a {task} task are one number a row",
                         hint=f"their shape is {scores.shape}")
    if task in ("binary", "multiclass"):
        outside = (scores < 0) | (scores > 1)
        rows = outside if outside.ndim == 1 else outside.any(axis=1)
        if rows.any():
            at = int(rows.argmax())
            raise UsageError(f"the score of row {at:,} is no probability: {np.round(scores[at], 6)}",
                             hint="give probabilities between 0 and 1, not margins or logits")
    return scores


def _labels(task: Task, labels: Any, classes: Sequence[str], scores: Floats) -> Floats:
    import numpy as np

    given = np.asarray(labels)
    if task in ("binary", "multiclass") and given.dtype.kind in "OUS":
        return _numbered(given, classes)
    numbers = _numbers(given, "label")
    if numbers.ndim != 1:
        raise UsageError("labels are one number a row", hint=f"their shape is {numbers.shape}")
    if task == "regression":
        return numbers
    if task == "ranking":
        wrong, hint = numbers < 0, "relevance is 0 or more"
    else:
        count = 2 if task == "binary" else len(classes) or (scores.shape[1] if scores.ndim == 2 else 2)
        wrong = (numbers < 0) | (numbers >= count) | (numbers != np.floor(numbers))
        hint = f"labels are 0 to {count - 1}, or the classes' names"
    if wrong.any():
        at = int(wrong.argmax())
        raise UsageError(f"the label of row {at:,} is {numbers[at]:g}", hint=hint)
    return numbers


def _numbered(labels: NDArray[Any], classes: Sequence[str]) -> Floats:
    import numpy as np

    numbers = {name: at for at, name in enumerate(classes)}
    for at, label in enumerate(labels):
        if label is None or label != label:
            raise UsageError(f"row {at:,} has no label",
                             hint="rows without a label say nothing about a model: find out why")
        if str(label) not in numbers:
            known = ", ".join(classes) or "none were named"
            raise UsageError(f"the label of row {at:,} is {label}, which is no class",
                             hint=f"Classes: {known}.")
    return np.array([numbers[str(label)] for label in labels], dtype=np.float64)


def _classes(task: Task, classes: Sequence[str], scores: Floats) -> tuple[str, ...]:
    if task not in ("binary", "multiclass"):
        return ()
    count = 2 if task == "binary" else scores.shape[1]
    if classes and (len(classes) != count or len(set(classes)) != count):
        raise UsageError(f"{len(set(classes))} different classes are named, and there are scores of {count}")
    return tuple(classes) or tuple(str(at) for at in range(count))


def _weights(weights: Any, rows: int) -> Floats | None:
    if weights is None:
        return None
    numbers = _numbers(weights, "weight")
    if numbers.shape != (rows,):
        raise UsageError(f"there are {rows:,} rows and {len(numbers):,} weights")
    if (numbers < 0).any():
        at = int((numbers < 0).argmax())
        raise UsageError(f"the weight of row {at:,} is {numbers[at]:g}", hint="a weight is 0 or more")
    if not numbers.sum() > 0:
        raise UsageError("every weight is 0", hint="nothing would be counted")
    return numbers


def _groups(groups: Any, rows: int) -> Ints | None:
    import numpy as np

    if groups is None:
        return None
    values = _array(groups, "group")
    if values.ndim != 1 or len(values) != rows:
        raise UsageError(f"there are {rows:,} rows and {len(values):,} groups")
    missing = np.array([one is None or one != one for one in values]) if values.dtype.kind in "fO" \
        else np.zeros(rows, dtype=bool)
    if missing.any():
        raise UsageError(f"the group of row {int(missing.argmax()):,} is not known",
                         hint="give rows that depend on no other a group of their own")
    if values.dtype.kind == "O":  # of several kinds, which have no order
        values = np.array([f"{type(one).__name__} {one}" for one in values])
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
