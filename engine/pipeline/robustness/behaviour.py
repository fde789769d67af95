"""What a model is expected to do with certain rows, as data, and whether it does. Pure.

    {kind: between, low: 0.7, high: 1.0}
    {kind: near, column: expected, within: 0.05}
    {kind: called, as: 1}
    {kind: invariant, change: {kind: shuffle, columns: [flight]}, within: 0.01}
    {kind: directional, change: {kind: shift, column: dep_delay, by: 30}, goes: up}

A model is anything from a table of rows to scores (n,) or (n, classes). Invariant and directional are the
metamorphic tests of Ribeiro, Wu, Guestrin and Singh (2020): they need no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from engine.errors import OpsdeckError, UsageError
from engine.fields import Model, Text
from engine.pipeline.robustness.changes import Change, Table, apply

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Bools, Floats

Predict = Callable[[Table], Any]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
SHOWN = 3  # rows that a sentence names
ROUNDING = 1e-9  # scores that differ by less are the same


class Between(Model):
    """Every score lies between `low` and `high`; `of` is the column of the scores where there are several."""

    kind: Literal["between"] = "between"
    low: Finite | None = None
    high: Finite | None = None
    of: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("between wants `low`, `high` or both")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high, which is {self.high:g}")
        return self


class Near(Model):
    """Every score is within so much of the one in a column of the rows, which the model does not see."""

    kind: Literal["near"] = "near"
    column: Text
    within: NotNegative
    of: Annotated[int, Field(ge=0)] = 0


class Called(Model):
    """Every row is called this class: of one score from `threshold` on 1, of several the highest."""

    kind: Literal["called"] = "called"
    as_: Annotated[int, Field(ge=0, alias="as")]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Invariant(Model):
    """The change moves no score by more than `within`, but for this share of the rows."""

    kind: Literal["invariant"] = "invariant"
    change: Change
    within: NotNegative
    but_for: Share = 0.0


class Directional(Model):
    """The change moves scores up (or down), the wrong way by at most `slack`, but for this share of rows."""

    kind: Literal["directional"] = "directional"
    change: Change
    goes: Literal["up", "down"]
    slack: NotNegative = 0.0
    of: Annotated[int, Field(ge=0)] = 0
    but_for: Share = 0.0


Expectation = Annotated[Between | Near | Called | Invariant | Directional, Field(discriminator="kind")]
AnyExpectation = Between | Near | Called | Invariant | Directional


class Behaviour(Model):
    """An expectation of a project about its held-out rows, by name."""

    name: Text
    expect: Expectation


@dataclass(frozen=True)
class Finding:
    """Whether an expectation is met; `wrong` are the first rows where it is not, of `rows` tried."""

    passed: bool
    says: str
    rows: int
    wrong: tuple[int, ...] = ()
    wrong_share: float = 0.0


def answer(predict: Predict, rows: Table) -> Floats | str:
    """The scores (n,) or (n, classes) as floats, or in a sentence why there are none: the model raised, gave
    another number of scores, or gave NaN. Whatever a model raises is a finding, not an error of ours."""
    import numpy as np

    try:
        scores = np.asarray(predict(rows), dtype=np.float64)
    except OpsdeckError as error:
        return error.message
    except Exception as error:
        text = str(error).strip().splitlines() or [""]
        return f"the model failed: {type(error).__name__}: {text[0][:200]}"
    if scores.ndim not in (1, 2) or len(scores) != rows.num_rows:
        return f"the model gave scores of shape {scores.shape} for {rows.num_rows:,} rows"
    bad = np.asarray(~np.isfinite(scores).all(axis=tuple(range(1, scores.ndim))))
    if bad.any():
        return (f"the score of {int(bad.sum()):,} of {len(bad):,} rows is not a number, "
                f"first of row {int(bad.argmax()):,}")
    return scores


def baseline(predict: Predict, rows: Table) -> Floats:
    """The scores of rows as they are. Raises UsageError when there are none: nothing could be compared."""
    scores = answer(predict, rows)
    if isinstance(scores, str):
        raise UsageError(f"the unchanged rows cannot be scored: {scores}",
                         hint="look at the rows and at the model's input schema")
    if not len(scores):
        raise UsageError("there are no rows to try a model on")
    return scores


def moved(before: Floats, after: Floats) -> Floats:
    """How far each row's score moved (n,): of several scores the one that moved most."""
    import numpy as np

    return np.asarray(np.abs(after - before).reshape(len(before), -1).max(axis=1))


def check(expected: AnyExpectation, rows: Table, predict: Predict, rng: np.random.Generator) -> Finding:
    """Raises UsageError for a column that is not there, or scores that are not of the kind expected."""
    seen, wanted = rows, None
    if isinstance(expected, Near):
        if expected.column not in rows.column_names:
            raise UsageError(f"there is no column {expected.column} with the expected scores")
        seen, wanted = rows.drop_columns([expected.column]), rows[expected.column]
    if isinstance(expected, Invariant | Directional):
        before = baseline(predict, seen)
        after = answer(predict, apply(expected.change, seen, rng))
        if isinstance(after, str):
            return Finding(False, f"After the change ({expected.change.kind}) {after}.", len(before))
        return _changed(expected, before, after)
    scores = answer(predict, seen)
    if isinstance(scores, str):
        return Finding(False, f"{scores[0].upper()}{scores[1:]}.", seen.num_rows)
    return _as_they_are(expected, scores, wanted)


def check_all(behaviours: Sequence[Behaviour], rows: Table, predict: Predict,
              rng: np.random.Generator) -> dict[str, Finding]:
    """Each by its name, with draws of its own. Raises UsageError as `check` does, and for a name twice."""
    if len({one.name for one in behaviours}) < len(behaviours):
        raise UsageError("two expectations have the same name")
    return {one.name: check(one.expect, rows, predict, stream)
            for one, stream in zip(behaviours, rng.spawn(len(behaviours)), strict=True)}


def _changed(expected: Invariant | Directional, before: Floats, after: Floats) -> Finding:
    if isinstance(expected, Invariant):
        wrong = moved(before, after) > expected.within + ROUNDING
        rule = f"moves no score by more than {expected.within:g}"
    else:
        step = _one(after, expected.of) - _one(before, expected.of)
        step = step if expected.goes == "up" else -step
        wrong = step < -expected.slack - ROUNDING
        rule = f"moves scores {expected.goes}"
    return _finding(f"The change ({expected.change.kind}) {rule}", wrong, before, after, expected.but_for)


def _as_they_are(expected: Between | Near | Called, scores: Floats, wanted: Any) -> Finding:
    import numpy as np
    import pyarrow as pa

    if isinstance(expected, Called):
        called = scores.argmax(axis=1) if scores.ndim == 2 else scores >= expected.threshold
        return _finding(f"Rows are called {expected.as_}", called != expected.as_, scores)
    one = _one(scores, expected.of)
    if isinstance(expected, Near):
        target = np.asarray(wanted.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
        return _finding(f"Scores are within {expected.within:g} of the column {expected.column}",
                        ~(np.abs(one - target) <= expected.within + ROUNDING), one, target)
    low = -np.inf if expected.low is None else expected.low
    high = np.inf if expected.high is None else expected.high
    outside = (one < low - ROUNDING) | (one > high + ROUNDING)
    rule = f"Scores lie between {low:g} and {high:g}" if np.isfinite(low) and np.isfinite(high) else \
        f"Scores are at least {low:g}" if np.isfinite(low) else f"Scores are at most {high:g}"
    return _finding(rule, outside, one)


def _one(scores: Floats, of: int) -> Floats:
    if scores.ndim == 1 and of == 0:
        return scores
    if scores.ndim != 2 or of >= scores.shape[1]:
        raise UsageError(f"an expectation is about score {of}, and the scores' shape is {scores.shape}")
    return scores[:, of]


def _finding(rule: str, wrong: Bools, first: Floats, second: Floats | None = None,
             but_for: float = 0.0) -> Finding:
    """The rows that break a rule, told with their scores."""
    import numpy as np

    share = float(wrong.mean())
    at = tuple(int(row) for row in np.flatnonzero(wrong)[:SHOWN])
    if share <= but_for:
        but = f", but for {int(wrong.sum()):,} of {len(wrong):,} rows" if share else ""
        return Finding(True, f"{rule}{but}.", len(wrong), at, share)
    told = ", ".join(f"row {row} {said(first[row])}"
                     + (f" and {said(second[row])}" if second is not None else "") for row in at)
    return Finding(False, f"{rule}: not so in {int(wrong.sum()):,} of {len(wrong):,} rows ({told}).",
                   len(wrong), at, share)


def said(score: Any) -> str:
    """A score, or several, in few digits."""
    import numpy as np

    return " ".join(f"{one:.3g}" for one in np.atleast_1d(score)[:4])
