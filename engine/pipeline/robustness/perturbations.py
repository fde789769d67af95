"""How a model bears input that is not as it was trained on: what its score and its metric lose. Pure.

    - {name: noisy weather, try: {kind: noise, columns: [temp, wind], scale: 0.2}, mean_shift: 0.02,
       metric: log_loss, drop: 0.01}
    - {name: no wind, try: {kind: missing, columns: [wind]}, drop: 0.02, metric: log_loss}
    - {name: small lies, try: {kind: adversarial, columns: {temp: 0.5}, budget: 20000}, flips: 0.1}

In all of them the model must answer, with numbers: a traceback or a NaN fails whatever the limits are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from engine.errors import UsageError
from engine.fields import Model, Text
from engine.pipeline.robustness.adversary import Adversarial, search
from engine.pipeline.robustness.behaviour import Predict, answer, baseline, moved, said
from engine.pipeline.robustness.changes import (
    Extreme,
    Missing,
    Noise,
    Put,
    Shift,
    Shuffle,
    Table,
    Unseen,
    apply,
)
from engine.pipeline.statistics import metrics
from engine.pipeline.statistics.labelled import Labelled

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Bools, Floats

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Trial = Annotated[Noise | Missing | Unseen | Extreme | Put | Shift | Shuffle | Adversarial,
                  Field(discriminator="kind")]
SHOWN = 3


class Perturbation(Model):
    """`mean_shift` and `worst_shift` limit how far scores move; `flips` the share of rows that are called
    another class; `drop` how much worse `metric` gets (in its own unit), which needs labels. Of an
    adversarial search `metric` is not measured: it tries few rows."""

    name: Text
    try_: Trial = Field(alias="try")
    mean_shift: NotNegative | None = None
    worst_shift: NotNegative | None = None
    flips: Annotated[float, Field(ge=0, le=1)] | None = None
    metric: Text | None = None
    drop: NotNegative | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.metric is None) != (self.drop is None):
            raise ValueError("`metric` and `drop` go together")
        if isinstance(self.try_, Adversarial) and self.metric is not None:
            raise ValueError("an adversarial search has no metric; limit `flips` or a shift")
        return self


@dataclass(frozen=True)
class Outcome:
    """Of one perturbation of `rows` rows. `mean_shift`, `worst_shift`, `flips` (None for a task without
    classes) and the metric `before` and `after` are None where the model did not answer. `worst` are the rows
    whose scores moved most, the worst first; `says` is one sentence."""

    name: str
    kind: str
    passed: bool
    says: str
    rows: int
    mean_shift: float | None = None
    worst_shift: float | None = None
    flips: float | None = None
    before: float | None = None
    after: float | None = None
    worst: tuple[int, ...] = ()


def perturb(perturbations: Sequence[Perturbation], rows: Table, predict: Predict, *,
            rng: np.random.Generator, labels: Labelled | None = None) -> list[Outcome]:
    """Try each. `labels` are the rows' labels with the scores of the unchanged rows, for metrics and for the
    threshold of a class. Raises UsageError for a column that is not there, rows that cannot be scored as they
    are, or a metric without labels."""
    if labels is not None and len(labels) != rows.num_rows:
        raise UsageError(f"there are {rows.num_rows:,} rows and {len(labels):,} labels")
    before = baseline(predict, rows)
    found = []
    for one in perturbations:
        if one.metric is not None and labels is None:
            raise UsageError(f"{one.name} limits {one.metric}, and the rows have no labels")
        stream = rng.spawn(1)[0]  # so that one more perturbation changes no other's draws
        if isinstance(one.try_, Adversarial):
            found.append(_searched(one, one.try_, rows, predict, stream, labels))
            continue
        after = answer(predict, apply(one.try_, rows, stream))
        if isinstance(after, str):
            found.append(Outcome(one.name, one.try_.kind, False, f"{after[0].upper()}{after[1:]}.",
                                 rows.num_rows))
            continue
        found.append(_judged(one, before, after, labels))
    return found


def _judged(one: Perturbation, before: Floats, after: Floats, labels: Labelled | None) -> Outcome:
    import numpy as np

    shift = moved(before, after)
    flips = _flips(before, after, labels)
    values: tuple[float | None, float | None] = (None, None)
    if one.metric is not None and labels is not None:
        values = (metrics.measure(one.metric, replace(labels, scores=_as_scores(labels, before))),
                  metrics.measure(one.metric, replace(labels, scores=_as_scores(labels, after))))
    broken = list(_broken(one, float(shift.mean()), float(shift.max()), flips, labels, *values))
    told = f"scores moved by {shift.mean():.3g} on average and {shift.max():.3g} at most"
    if values[0] is not None:
        told += f", {one.metric} went from {values[0]:.4g} to {values[1]:.4g}"
    says = f"{'; '.join(broken)}: {told}." if broken else f"{told[0].upper()}{told[1:]}."
    worst = np.argsort(-shift, kind="stable")[:SHOWN]
    return Outcome(one.name, one.try_.kind, not broken, f"{says[0].upper()}{says[1:]}", len(before),
                   float(shift.mean()), float(shift.max()), flips, *values,
                   tuple(int(row) for row in worst if shift[row] > 0))


def _as_scores(labels: Labelled, scores: Floats) -> Floats:
    """Scores in the shape that the task has them."""
    return scores[:, 1] if labels.task == "binary" and scores.ndim == 2 else scores


def _broken(one: Perturbation, mean: float, most: float, flips: float | None, labels: Labelled | None,
            before: float | None, after: float | None) -> list[str]:
    found = []
    if one.mean_shift is not None and mean > one.mean_shift:
        found.append(f"more than {one.mean_shift:g} on average")
    if one.worst_shift is not None and most > one.worst_shift:
        found.append(f"more than {one.worst_shift:g} at most")
    if one.flips is not None:
        if flips is None:
            raise UsageError(f"{one.name} limits flips, and this task has no classes")
        if flips > one.flips:
            found.append(f"{flips:.1%} of the rows are called another class, {one.flips:.1%} allowed")
    if one.metric is not None and one.drop is not None and labels is not None:
        if before is None or after is None:
            return found
        lost = metrics.find(one.metric, labels.task).sign * (before - after)
        if lost > one.drop:
            found.append(f"the metric {one.metric} is worse by {lost:.3g}, {one.drop:g} allowed")
    return found


def _flips(before: Floats, after: Floats, labels: Labelled | None) -> float | None:
    if labels is not None and labels.task not in ("binary", "multiclass"):
        return None
    threshold = 0.5 if labels is None else labels.threshold

    def called(scores: Floats) -> Bools:
        if scores.ndim == 2:
            return scores.argmax(axis=1) if scores.shape[1] > 2 else scores[:, 1] >= threshold
        return scores >= threshold

    return float((called(before) != called(after)).mean())


def _searched(one: Perturbation, spec: Adversarial, rows: Table, predict: Predict,
              rng: np.random.Generator, labels: Labelled | None) -> Outcome:
    found = search(spec, rows, predict, rng)
    if found.failed:
        return Outcome(one.name, spec.kind, False, f"On an input that the search tried, {found.failed}.",
                       len(found.rows))
    made = _judged(one, found.before, found.after, labels)
    worst = tuple(found.rows[row] for row in made.worst)
    told = ""
    if made.worst:
        at = made.worst[0]
        changed = [f"{name} {_value(found.original, name, at)} to {_value(found.worst, name, at)}"
                   for name in [*spec.columns, *spec.categories]
                   if _value(found.original, name, at) != _value(found.worst, name, at)]
        told = (f" Worst is row {worst[0]}, from {said(found.before[at])} to {said(found.after[at])}: "
                f"{', '.join(changed)}.")
    return replace(made, worst=worst, says=f"{made.says}{told} {found.scored:,} inputs were tried.")


def _value(rows: Table, name: str, at: int) -> str:
    value = rows[name][at].as_py()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
