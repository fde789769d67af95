"""Whether what a model answered is scores of these rows, checked once for all who ask. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import ActionFailed
from engine.pipeline.statistics.labelled import SUM_SLACK, Task

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Bools, Floats


class ModelFailed(ActionFailed):
    """A model did not answer, or not with scores. `where` names the stage and the model."""

    code = "model_failed"


def checked(found: Any, rows: int, task: Task, classes: Sequence[str], where: str) -> Floats:
    """Scores as (rows,), of a multiclass task as (rows, classes). Of two columns of a binary task the second
    is kept. Raises ModelFailed naming the row, and the class where there are several."""
    import numpy as np

    scores: Floats = np.asarray(found, dtype=np.float64)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if len(scores) != rows:
        raise ModelFailed(f"the model gave {len(scores):,} scores for {rows:,} rows", where=where,
                          hint="it must give one for each row, in their order")
    _columns(scores, task, classes, where)
    finite = np.isfinite(scores)
    _all(finite, scores, classes, where, "is not a number",
         "a score that is NaN or infinite says nothing: look at what the model makes of that row")
    if task in ("binary", "multiclass"):
        _all((scores >= 0) & (scores <= 1), scores, classes, where, "is no probability",
             "a model of classes gives probabilities between 0 and 1, not margins or logits")
    if scores.ndim == 2:
        off = np.abs(scores.sum(axis=1) - 1) > SUM_SLACK
        if off.any():
            at = int(off.argmax())
            raise ModelFailed(
                f"the probabilities of row {at:,} add up to {scores[at].sum():.6g}, not to 1, and so in "
                f"{int(off.sum()):,} of {rows:,} rows", where=where, hint="give probabilities of all classes")
    return np.ascontiguousarray(scores[:, 1]) if task == "binary" and scores.ndim == 2 else scores


def _columns(scores: Floats, task: Task, classes: Sequence[str], where: str) -> None:
    count = 1 if scores.ndim == 1 else scores.shape[1]
    if task == "multiclass" and count != len(classes):
        said = "one score a row" if count == 1 else f"scores of {count} classes"
        raise ModelFailed(f"the model gave {said}, and there are {len(classes)} classes: "
                          f"{', '.join(classes)}", where=where,
                          hint="name the classes in the order of the scores' columns: `evaluate.classes`")
    if task == "binary" and count > 2:
        raise ModelFailed(f"the model gave scores of {count} classes, and the task is binary", where=where,
                          hint="`task: multiclass` is for more than two classes")
    if task in ("regression", "ranking") and count != 1:
        raise ModelFailed(f"the model gave {count} scores a row, and a {task} task has one", where=where,
                          hint="give one number for each row")


def _all(right: Bools, scores: Floats, classes: Sequence[str], where: str, what: str, hint: str) -> None:
    import numpy as np

    if right.all():
        return
    wrong = ~right
    rows: Bools = wrong if wrong.ndim == 1 else np.asarray(wrong.any(axis=1))
    at = int(rows.argmax())
    value, of = scores[at], ""
    if scores.ndim == 2:
        column = int(wrong[at].argmax())
        value = scores[at, column]
        of = f" of class {classes[column]}" if column < len(classes) else f" in column {column}"
    told = "NaN" if np.isnan(value) else f"{value:.6g}"
    raise ModelFailed(f"the score{of} of row {at:,} {what}: {told}; so in {int(rows.sum()):,} of "
                      f"{len(rows):,} rows", where=where, hint=hint)
