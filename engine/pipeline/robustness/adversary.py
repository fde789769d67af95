"""A search for the small change of an input that moves a model's score most, seeing scores alone. Pure.

Each row is searched within a box: so many standard deviations round its numbers (never beyond what was
observed), and the observed values of named categories. First the columns go in turn to the end of the box
that moves the score most, once upwards and once downwards, which is the optimum of a model that is additive
and monotone there; then the best so far is varied at random, in fewer columns and by smaller steps as the
budget goes (a (1+1) evolution strategy for each row; Rechenberg 1973). All rows take a step in one call.
The budget counts scored rows, and the same rng finds the same.

It finds weak spots; that it found none proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from engine.errors import UsageError
from engine.fields import Model, Text
from engine.pipeline.robustness.behaviour import Predict, answer, baseline, moved
from engine.pipeline.robustness.changes import Table, is_number, is_text, numbers, put_numbers, replaced
from engine.words import nearest

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Floats


class Adversarial(Model):
    """`columns`: how far each number may move, in its standard deviations. `categories`: texts that may
    become any other observed one, at most `swaps` of them in a row. `rows`: how many are tried, drawn at
    random. `budget`: rows to be scored in all."""

    kind: Literal["adversarial"] = "adversarial"
    columns: dict[Text, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    categories: list[Text] = []
    swaps: Annotated[int, Field(ge=1)] = 1
    rows: Annotated[int, Field(ge=1)] = 100
    budget: Annotated[int, Field(ge=10)] = 10_000


@dataclass(frozen=True, eq=False)
class Found:
    """The worst input found for each row tried: `rows` are their numbers in the table given, `worst` the
    changed table, `before` and `after` the scores, `shift` (n,) how far they moved. `scored` rows of the
    budget were used. `failed` says how the model failed on one of them, and then the search ended."""

    rows: tuple[int, ...]
    original: Table
    worst: Table
    before: Floats
    after: Floats
    shift: Floats
    scored: int
    failed: str = ""


@dataclass
class _State:
    """The best so far: numbers by column (n,), places in the observed values by category (n,)."""

    numbers: dict[str, Any]
    places: dict[str, Any]

    def copy(self) -> _State:
        return _State({k: v.copy() for k, v in self.numbers.items()},
                      {k: v.copy() for k, v in self.places.items()})


def search(spec: Adversarial, rows: Table, predict: Predict, rng: np.random.Generator) -> Found:
    """Raises UsageError for a column that is not there or of the wrong kind, nothing to change, or a budget
    that is below one score for each row."""
    import numpy as np

    _check(spec, rows)
    count = min(spec.rows, rows.num_rows)
    if spec.budget < 2 * count:
        raise UsageError(f"a budget of {spec.budget:,} is below two scores for each of {count:,} rows")
    picked = np.sort(rng.choice(rows.num_rows, count, replace=False)) if count < rows.num_rows \
        else np.arange(rows.num_rows)
    hunt = _Hunt(spec, rows, picked, predict, rng)
    hunt.run()
    return Found(tuple(int(row) for row in picked), hunt.original, hunt.table(hunt.best), hunt.before,
                 hunt.after, hunt.shift, hunt.scored, hunt.failed)


class _Hunt:
    def __init__(self, spec: Adversarial, rows: Table, picked: Any, predict: Predict,
                 rng: np.random.Generator) -> None:
        import numpy as np

        self.spec, self.predict, self.rng = spec, predict, rng
        self.original = rows.take(picked)
        self.before = baseline(predict, self.original)
        self.after, self.shift = self.before.copy(), np.zeros(len(picked))
        self.scored, self.failed = len(picked), ""
        self.values: dict[str, list[Any]] = {}
        self.start = _State({}, {})
        self.low: dict[str, Any] = {}
        self.high: dict[str, Any] = {}
        for name, reach in spec.columns.items():
            known, here = numbers(rows, name), numbers(self.original, name)
            step = reach * float(np.nanstd(known)) if np.isfinite(known).any() else 0.0
            self.low[name] = np.maximum(here - step, np.nanmin(known, initial=np.inf))
            self.high[name] = np.minimum(here + step, np.nanmax(known, initial=-np.inf))
            self.start.numbers[name] = here
        for name in spec.categories:
            self.values[name] = [one for one in rows[name].unique().to_pylist() if one is not None]
            number = {one: at for at, one in enumerate(self.values[name])}
            own = self.original[name].to_pylist()
            self.start.places[name] = np.array([number.get(one, -1) for one in own])
        self.best = self.start.copy()

    def run(self) -> None:
        for sign in (1.0, -1.0) if self.before.ndim == 1 else (1.0,):
            self._climb(sign)
        steps = max(self.spec.budget // len(self.before), 2)
        while self._left():
            left = 1 - self.scored / self.spec.budget
            self._try(self._varied(size=0.5 * left + 0.02, share=max(0.5 * left, 1 / steps)))

    def _left(self) -> bool:
        return not self.failed and self.scored + len(self.before) <= self.spec.budget

    def _climb(self, sign: float) -> None:
        """Each column in turn to the end that moves the score most that way, the others as they are."""
        import numpy as np

        state, gained = self.start.copy(), np.zeros(len(self.before))
        for name in self.spec.columns:
            for end in (self.low, self.high):
                if not self._left():
                    return
                tried = state.copy()
                tried.numbers[name] = end[name].copy()
                gain = sign * self._try(tried)
                state.numbers[name] = np.where(gain > gained, end[name], state.numbers[name])
                gained = np.maximum(gain, gained)

    def _varied(self, size: float, share: float) -> _State:
        import numpy as np

        state = self.best.copy()
        n = len(self.before)
        for name in state.numbers:
            low, high = self.low[name], self.high[name]
            step = state.numbers[name] + size * (high - low) * self.rng.normal(size=n)
            ends = np.where(self.rng.random(n) < 0.5, low, high)
            moved_to = np.clip(np.where(self.rng.random(n) < 0.3, ends, step), low, high)
            state.numbers[name] = np.where(self.rng.random(n) < share, moved_to, state.numbers[name])
        if self.values:
            names = list(self.values)
            for _ in range(1 + int(self.rng.random() < 0.5)):
                name = names[int(self.rng.integers(len(names)))]
                if not self.values[name]:
                    continue
                other = self.rng.integers(0, len(self.values[name]), n)
                places = np.where(self.rng.random(n) < 0.7, other, self.start.places[name])
                state.places[name] = places
            swapped = sum((state.places[k] != self.start.places[k]).astype(int) for k in names)
            too_many = swapped > self.spec.swaps
            for name in names:
                state.places[name] = np.where(too_many, self.best.places[name], state.places[name])
        return state

    def _try(self, state: _State) -> Any:
        """Score a candidate of each row, keep those that are better; returns how far each moved, with its
        sign where a row has one score."""
        import numpy as np

        scores = answer(self.predict, self.table(state))
        self.scored += len(self.before)
        if isinstance(scores, str):
            self.failed, self.best = scores, state
            return np.zeros(len(self.before))
        shift = moved(self.before, scores)
        better = shift > self.shift
        for own, new in ((self.best.numbers, state.numbers), (self.best.places, state.places)):
            for name in own:
                own[name] = np.where(better, new[name], own[name])
        shape = better.reshape(-1, *[1] * (self.after.ndim - 1))
        self.after = np.where(shape, scores, self.after)
        self.shift = np.where(better, shift, self.shift)
        return scores - self.before if scores.ndim == 1 else shift

    def table(self, state: _State) -> Table:
        import numpy as np
        import pyarrow as pa

        rows = self.original
        for name, values in state.numbers.items():
            rows = put_numbers(rows, name, values)
        for name, places in state.places.items():
            known = self.values[name]
            column = [known[at] if at >= 0 else None for at in np.asarray(places)]
            rows = replaced(rows, name, pa.chunked_array([pa.array(column, pa.string())]))
        return rows


def _check(spec: Adversarial, rows: Table) -> None:
    if not spec.columns and not spec.categories:
        raise UsageError("an adversarial search is given no column to change",
                         hint="name `columns` with their reach, or `categories`")
    for name in [*spec.columns, *spec.categories]:
        if name not in rows.column_names:
            raise UsageError(f"there is no column {name} to search in", hint=nearest(name, rows.column_names))
        kind = rows.schema.field(name).type
        if not (is_number if name in spec.columns else is_text)(kind):
            raise UsageError(f"the column {name} is {kind}, and is searched as "
                             f"{'a number' if name in spec.columns else 'a category'}")
