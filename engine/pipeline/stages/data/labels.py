"""The labels: read into numbers, and whether a model can be learned from them. Pure.

Of classes each label becomes the number of its value, in the order of the values; of quantities it stays
what it is. Missing is -1, and NaN.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.kinds import NUMBERS, WORDS, family
from engine.pipeline.expectations.model import Finding
from engine.pipeline.stages.data.naming import counted, first_row, found, listed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]

MOST_CLASSES = 1000
CLASSES = ("binary", "multiclass")


@dataclass
class Labels:
    """Of a column `column`, read batch by batch. `values` (n,) after `done`: class numbers or quantities as
    floats, NaN where missing. `classes`: the values of a task with classes, in order."""

    column: str
    task: str
    kind: str
    missing: int = 0
    nan: int = 0
    infinite: int = 0
    first_bad: int | None = None
    too_many: bool = False
    rows: int = 0
    classes: list[Any] = field(default_factory=list)
    _codes: dict[Any, int] = field(default_factory=dict)
    _parts: list[Any] = field(default_factory=list)

    @classmethod
    def of(cls, column: str, task: str, type_: Any) -> Labels:
        return cls(column, task, family(str(type_)))

    @property
    def classed(self) -> bool:
        return self.task in CLASSES

    def usable(self, name: str) -> Finding | None:
        """Why a column of this kind cannot be the label, as a finding; None where it can."""
        if self.kind in NUMBERS or self.kind == "nothing" or (self.classed and self.kind in WORDS) or (
                self.kind == "true or false"):
            return None
        wanted = "classes, as texts or numbers" if self.classed else "numbers"
        return found("label", self.column, f"The label {self.column} of {name} holds {_plural(self.kind)}; a "
                     f"{self.task} task learns {wanted}.", hard=True, expected=wanted, seen=self.kind)

    def read(self, values: Any) -> None:
        """Add an Arrow array."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        self.missing += values.null_count
        if pa.types.is_null(values.type):
            self._bad(np.ones(len(values), dtype=bool))
            self._parts.append(np.full(len(values), np.nan))
        elif family(str(values.type)) in WORDS:
            encoded = (values if pa.types.is_dictionary(values.type) else values.dictionary_encode())
            at = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
            numbers = np.array([self._code(one) for one in encoded.dictionary.to_pylist()] + [np.nan])
            self._bad(at < 0)
            self._parts.append(numbers[at])
        else:
            plain = values.cast(pa.float64(), safe=False)
            numbers = np.array(plain.to_numpy(zero_copy_only=False), dtype=np.float64)
            self.nan += int(pc.sum(pc.is_nan(plain)).as_py() or 0)
            self.infinite += int(np.isinf(numbers).sum())
            numbers[np.isinf(numbers)] = np.nan
            self._bad(np.isnan(numbers))
            self._parts.append(self._numbered(numbers) if self.classed else numbers)
        self.rows += len(values)

    def _bad(self, mask: Bools) -> None:
        if self.first_bad is None and mask.any():
            self.first_bad = self.rows + int(mask.argmax())

    def _numbered(self, numbers: Floats) -> Floats:
        import numpy as np

        kinds, at = np.unique(numbers, return_inverse=True)
        if len(kinds) + len(self._codes) > 100 * MOST_CLASSES:
            self.too_many = True
            return np.full(len(numbers), np.nan)
        codes = np.array([np.nan if math.isnan(one) else self._code(_whole(one)) for one in kinds.tolist()])
        numbered: Floats = codes[at]
        return numbered

    def _code(self, value: Any) -> int:
        return self._codes.setdefault(value, len(self._codes))

    def done(self) -> Floats:
        """Every label read, (n,) floats. Class numbers follow the order of the values."""
        import numpy as np

        whole: Floats = np.concatenate(self._parts) if self._parts else np.zeros(0)
        self._parts = [whole]
        if self.classed and self._codes:
            self.classes = sorted(self._codes, key=lambda one: (str(type(one)), one))
            place = {value: at for at, value in enumerate(self.classes)}
            order = np.array([place[value] for value in self._codes], dtype=np.float64)
            there = ~np.isnan(whole)
            whole[there] = order[whole[there].astype(np.int64)]
            self._codes = place
        return whole


def problems(labels: Labels, values: Floats, name: str, allowed: list[str]) -> list[Finding]:
    """What is wrong with the labels of all rows. `allowed`: the classes that the project file lists."""
    import numpy as np

    column, problems = labels.column, []
    bad = labels.missing + labels.nan + labels.infinite
    if bad:
        parts = [f"{number:,} {what}" for number, what in (
            (labels.missing, "empty"), (labels.nan, "NaN"), (labels.infinite, "infinite")) if number]
        problems.append(found(
            "label", column, f"The label {column} of {name} has no value in {counted(bad, 'row')} "
            f"({', '.join(parts)}){first_row(labels.first_bad or 0)}. Give them a label, or leave them out.",
            hard=True,
            expected="a label in every row", seen=", ".join(parts), effect=bad / max(labels.rows, 1),
            measure="share of rows", rows=labels.rows))
    there = values[~np.isnan(values)]
    if not len(there):
        return problems
    if not labels.classed:
        if there.min() == there.max():
            problems.append(_single(column, name, f"{there[0]:g}", "all rows"))
        return problems
    if labels.too_many or len(labels.classes) > MOST_CLASSES or (
            labels.task == "multiclass" and any(isinstance(one, float) for one in labels.classes)):
        problems.append(found(
            "label", column, f"The label {column} of {name} has more than {MOST_CLASSES:,} values or "
            "fractions, such as quantities have. Write task: regression, or make classes of it.", hard=True,
            expected="classes",
            seen=listed([str(one) for one in labels.classes[:4]])))
    elif len(labels.classes) == 1:
        problems.append(_single(column, name, str(labels.classes[0]), "all rows"))
    elif labels.task == "binary" and len(labels.classes) > 2:
        problems.append(found(
            "label", column, f"The label {column} of {name} has {len(labels.classes)} values, "
            f"{listed([str(one) for one in labels.classes], 4)}; a binary task has two. Write "
            "task: multiclass, or make two classes of them.", hard=True,
            expected="two values", seen=f"{len(labels.classes)} values"))
    return problems + _strange(labels, name, allowed)


def _strange(labels: Labels, name: str, allowed: list[str]) -> list[Finding]:
    """Labels that the project file's `evaluate.classes` does not have: texts by name, numbers by place."""
    if not allowed:
        return []
    if labels.kind == "text":
        strange = [str(one) for one in labels.classes if one not in allowed]
    else:
        strange = [str(one) for one in labels.classes if one not in range(len(allowed))]
    if not strange:
        return []
    return [found("label", labels.column, f"The label {labels.column} of {name} has the value "
                  f"{listed(strange)}, which evaluate.classes does not have. Name it there, or correct the "
                  "rows.", hard=True,
                  expected=listed(allowed, 6), seen=listed(strange, 6))]


def of_parts(labels: Labels, values: Floats, train: Bools, held: Bools, name: str) -> list[Finding]:
    """A part that has one class or value only, and classes that are held out but never trained on."""
    import numpy as np

    problems: list[Finding] = []
    counts: dict[str, Counter[float]] = {}
    for part, mask in (("the rows to train on", train), ("the rows held out", held)):
        there = values[mask & ~np.isnan(values)]
        kinds, numbers = np.unique(there, return_counts=True)
        counts[part] = Counter(dict(zip(kinds.tolist(), numbers.tolist(), strict=True)))
        if len(kinds) == 1:
            value = str(labels.classes[int(kinds[0])]) if labels.classed else f"{kinds[0]:g}"
            problems.append(_single(labels.column, name, value, part))
    if labels.classed and not problems:
        trained, tested = counts["the rows to train on"], counts["the rows held out"]
        never = sorted(set(tested) - set(trained))
        if never:
            names = [str(labels.classes[int(one)]) for one in never]
            share = sum(tested[one] for one in never) / max(tested.total(), 1)
            problems.append(found(
                "label", labels.column, f"The label {listed(names)} of {name} is held out but never trained "
                "on: no model can know it.", hard=False, expected="every class on both sides",
                seen=listed(names, 6), effect=share, measure="share of the rows held out"))
    return problems


def _single(column: str, name: str, value: str, part: str) -> Finding:
    return found("label", column, f"The label {column} of {name} is {value} in {part}: there is one class "
                 "only, and nothing to tell apart. Take rows of more time, or hold out others.", hard=True,
                 expected="two values or more", seen=value)


def _plural(kind: str) -> str:
    words = {"date": "dates", "true or false": kind, "other": "something else", "text": "texts"}
    return words.get(kind, kind.replace("number", "numbers").replace("time", "times", 1))


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
