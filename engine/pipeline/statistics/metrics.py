"""The metrics of binary, multiclass, regression and ranking tasks by name. Pure.

`find(name, task)` gives a metric; its `plan` prepares it for resampling; `measure` is the number alone.
Definitions are scikit-learn's where it has the metric, with one difference: a metric that is undefined
(no positive was predicted, say) is NaN, where scikit-learn returns 0 with a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from engine.errors import UsageError
from engine.pipeline.statistics import ranking
from engine.pipeline.statistics.labelled import Labelled, Task
from engine.pipeline.statistics.plans import Mean, Plan, Sums, auc, average_precision, over, sums, value
from engine.words import nearest

if TYPE_CHECKING:
    from engine.pipeline.statistics.labelled import Floats, Ints

Better = Literal["lower", "higher"]


@dataclass(frozen=True)
class Metric:
    """`bounds`: what values it can have. `classes`: it needs rows of every class. `units`: the metric is a
    mean over units of one value each (`losses`), so that tests of means apply."""

    name: str
    better: Better
    plan: Callable[[Labelled], Plan] = field(repr=False)
    bounds: tuple[float, float] = (0.0, float("inf"))
    classes: bool = False
    losses: bool = False

    @property
    def sign(self) -> float:
        return 1.0 if self.better == "higher" else -1.0


def names(task: Task) -> list[str]:
    """The metrics of a task; those of ranking also at a depth, as in ndcg@10."""
    return list(_TASKS[task])


def primary(task: Task) -> str:
    """What a task is judged by unless a project says otherwise: proper scores, and NDCG at 10."""
    return {"binary": "log_loss", "multiclass": "log_loss", "regression": "rmse", "ranking": "ndcg@10"}[task]


def find(name: str, task: Task) -> Metric:
    """Raises UsageError for a metric that this task does not have."""
    base, _, depth = name.partition("@")
    known = _TASKS[task]
    if task == "ranking" and base in _RANKED and re.fullmatch(r"[1-9][0-9]{0,5}", depth):
        return _ranked(base, int(depth))
    if name not in known:
        raise UsageError(f"there is no metric {name} of a {task} task", hint=nearest(name, known))
    return known[name]


def measure(name: str, data: Labelled) -> float:
    """One metric of the rows. Raises UsageError where it is undefined, saying why."""
    metric = find(name, data.task)
    if (why := undefined(metric, data)) is not None:
        raise UsageError(why)
    return value(metric.plan(data))


def undefined(metric: Metric, data: Labelled) -> str | None:
    """Why a metric has no value on these rows, as a sentence; None where it has one."""
    import numpy as np

    weighty = data.labels if data.weights is None else data.labels[data.weights > 0]
    if not len(weighty):
        return f"{metric.name} is undefined: every weight is 0"
    if metric.classes:
        seen = np.unique(weighty).astype(int)
        if len(seen) < len(data.classes):
            missing = ", ".join(c for at, c in enumerate(data.classes) if at not in seen)
            return (f"{metric.name} needs rows of every class, and of class {missing} there is none among "
                    f"{len(data):,}")
    if metric.name == "r2" and not np.ptp(weighty) > 0:
        return f"r2 is undefined: every label is {weighty[0]:g}"
    if data.task == "ranking" and not (weighty > 0).any():
        return f"{metric.name} is undefined: no row is relevant to its query"
    if not np.isfinite(value(metric.plan(data))):
        return f"{metric.name} is undefined on these {len(data):,} rows: it would divide by 0"
    return None


def called(data: Labelled) -> Floats:
    """The class that each row is said to be: from the threshold on, or the most probable one."""
    import numpy as np

    if data.task == "multiclass":
        return np.asarray(data.scores.argmax(axis=1), dtype=np.float64)
    return np.asarray(data.scores >= data.threshold, dtype=np.float64)


def _of(data: Labelled, column: Floats, *, root: bool = False, counted: bool = False) -> Sums:
    import numpy as np

    def rooted(totals: Floats) -> Floats:
        return np.sqrt(over(totals[:, 0], totals[:, 1]))

    return sums(data, [column, np.ones(len(data))], rooted if root else None, counted=counted)


def _log_loss(data: Labelled) -> Plan:
    """A probability of 0 for what happened costs 36 nats, not infinity: scores are clipped at 2.2e-16."""
    import numpy as np

    least = np.finfo(np.float64).eps
    if data.task == "binary":
        said = np.where(data.labels == 1, data.scores, 1 - data.scores)
    else:
        said = data.scores[np.arange(len(data)), data.labels.astype(int)]
    return _of(data, -np.log(np.clip(said, least, 1 - least)))


def _brier(data: Labelled) -> Plan:
    """Brier (1950): of two classes that of class 1, of more the sum over classes."""
    import numpy as np

    if data.task == "binary":
        return _of(data, (data.scores - data.labels) ** 2)
    return _of(data, ((data.scores - np.eye(len(data.classes))[data.labels.astype(int)]) ** 2).sum(axis=1))


def _accuracy(data: Labelled) -> Plan:
    return _of(data, (called(data) == data.labels).astype(float), counted=True)


def _roc_auc(data: Labelled) -> Plan:
    """Of more than two classes the plain mean of one against the rest."""
    if data.task == "binary":
        return auc(data, data.labels == 1, data.scores)
    return Mean(tuple(auc(data, data.labels == at, data.scores[:, at]) for at in range(len(data.classes))))


def _pr_auc(data: Labelled) -> Plan:
    if data.task == "binary":
        return average_precision(data, data.labels == 1, data.scores)
    return Mean(tuple(average_precision(data, data.labels == at, data.scores[:, at])
                      for at in range(len(data.classes))))


def _table(data: Labelled) -> tuple[Floats, Floats, Floats]:
    """Per class (n, c): hits, rows called so, rows that are so."""
    import numpy as np

    eye = np.eye(len(data.classes))
    said, true = eye[called(data).astype(int)], eye[data.labels.astype(int)]
    return said * true, said, true


def _precision(data: Labelled) -> Plan:
    hits, said, _ = _table(data)
    return sums(data, [hits[:, 1], said[:, 1]], counted=True)


def _recall(data: Labelled) -> Plan:
    hits, _, true = _table(data)
    return sums(data, [hits[:, 1], true[:, 1]], counted=True)


def _f1(data: Labelled) -> Plan:
    """2 TP / (said + true); of more than two classes the plain mean over those that occur at all."""
    import numpy as np

    hits, said, true = _table(data)
    if data.task == "binary":
        return sums(data, [2 * hits[:, 1], said[:, 1] + true[:, 1]])
    count = len(data.classes)

    def macro(totals: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            each = over(totals[:, :count], totals[:, count:])
        there = np.isfinite(each)
        return over(np.where(there, each, 0).sum(axis=1), there.sum(axis=1).astype(float))

    return sums(data, [2 * hits, said + true], macro)


def _balanced_accuracy(data: Labelled) -> Plan:
    """The plain mean of the recalls of the classes."""
    import numpy as np

    hits, _, true = _table(data)
    count = len(data.classes)

    def mean(totals: Floats) -> Floats:
        recalls: Floats = np.mean(over(totals[:, :count], totals[:, count:]), axis=1)
        return recalls

    return sums(data, [hits, true], mean)


def _r2(data: Labelled) -> Plan:
    import numpy as np

    centred = data.labels - np.average(data.labels, weights=data.weights)

    def explained(totals: Floats) -> Floats:
        error, total, square, weight = totals.T
        return 1 - over(error, square - over(total**2, weight))

    return sums(data, [(data.labels - data.scores) ** 2, centred, centred**2, np.ones(len(data))], explained)


def _absolute(data: Labelled) -> Plan:
    return _of(data, abs(data.scores - data.labels))


def _squared(data: Labelled) -> Plan:
    return _of(data, (data.scores - data.labels) ** 2)


def _rmse(data: Labelled) -> Plan:
    return _of(data, (data.scores - data.labels) ** 2, root=True)


_RANKED: dict[str, Callable[[Floats, Floats, Ints, int | None], Floats]] = {
    "ndcg": ranking.ndcg, "map": ranking.average_precisions, "mrr": ranking.reciprocal_ranks}


def _ranked(base: str, depth: int | None = None) -> Metric:
    def plan(data: Labelled) -> Plan:
        import numpy as np

        assert data.groups is not None
        each = _RANKED[base](data.labels, data.scores, data.groups, depth)
        weights = np.ones(len(each))
        if data.weights is not None:  # a query weighs what its rows do on average
            weights = np.bincount(data.groups, data.weights) / np.bincount(data.groups)
        weights = np.where(np.isfinite(each), weights, 0.0)
        return Sums(np.column_stack([np.nan_to_num(each) * weights, weights]), _mean)

    return Metric(f"{base}@{depth}" if depth else base, "higher", plan, (0, 1), losses=True)


def _mean(totals: Floats) -> Floats:
    return over(totals[:, 0], totals[:, 1])


_CLASSES = [
    Metric("log_loss", "lower", _log_loss, losses=True),
    Metric("brier", "lower", _brier, (0, 2), losses=True),
    Metric("roc_auc", "higher", _roc_auc, (0, 1), classes=True),
    Metric("pr_auc", "higher", _pr_auc, (0, 1), classes=True),
    Metric("accuracy", "higher", _accuracy, (0, 1), losses=True),
    Metric("balanced_accuracy", "higher", _balanced_accuracy, (0, 1), classes=True),
    Metric("f1", "higher", _f1, (0, 1)),
]
_BINARY = [*_CLASSES, Metric("precision", "higher", _precision, (0, 1)),
           Metric("recall", "higher", _recall, (0, 1))]
_QUANTITIES = [Metric("rmse", "lower", _rmse), Metric("mae", "lower", _absolute, losses=True),
               Metric("mse", "lower", _squared, losses=True), Metric("r2", "higher", _r2, (float("-inf"), 1))]
_LISTED: dict[Task, list[Metric]] = {
    "binary": _BINARY, "multiclass": _CLASSES, "regression": _QUANTITIES,
    "ranking": [_ranked(base) for base in _RANKED]}
_TASKS = {task: {metric.name: metric for metric in metrics} for task, metrics in _LISTED.items()}
