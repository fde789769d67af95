"""Features that know the answer. Pure.

A feature is tried alone: its values (numbers in up to 256 bins of equal counts; missing is a value too) get
the mean label of one half of the sample, and are judged on the other half, so that no number of different
values can learn by heart. For two classes the judge is the area under the ROC curve; for more the mean of
the areas of each class against the rest, weighted by their rows; for quantities |r|, of the values or of the
binned means, whichever is more.

`LIMIT` waits for a person: honest features come close in rare tasks, such as a meter that is one of the two
being compared. A feature that is the label itself under another name (one value for each class and one class
for each value, or the label times a constant plus another) is hard: no honest one ever is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.pipeline.expectations.kinds import NUMBERS, WORDS, family
from engine.pipeline.expectations.measuring import floats
from engine.pipeline.expectations.model import Finding
from engine.pipeline.stages.data.naming import found

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SAMPLE = 50_000  # rows
LIMIT = 0.99
FEWEST, FEWEST_OF_A_CLASS = 200, 20  # rows below which a near-perfect area comes by chance
FEWEST_THE_SAME = 30
BINS, MOST_TRIED = 256, 20  # classes tried against the rest, the most common ones
EXACT = 1e-9  # of a straight line: the share of variance it leaves


def leaks(sample: Any, features: list[str], labels: Floats, task: str, label: str, name: str,
          rng: np.random.Generator) -> list[Finding]:
    """What is found in a `sample` (an Arrow table of n rows), `labels` (n,) as of `labels.Labels`."""
    import numpy as np

    there = ~np.isnan(labels)
    y = labels[there]
    if len(y) < FEWEST_THE_SAME or y.min() == y.max():
        return []
    half = rng.random(len(y)) < 0.5
    problems = []
    for feature in features:
        column = sample[feature].combine_chunks()
        if not there.all():
            column = column.filter(np.asarray(there))
        one = _judge(column, y, half, task)
        if one is None:
            continue
        power, same = one
        if same:
            problems.append(found(
                "leak", feature, f"The feature {feature} of {name} is the label {label} itself: each of its "
                "values stands for one label. Remove it from data.features.", hard=True,
                expected="a feature known before the label", seen="the label",
                measure=measure(task), effect=power, margin=LIMIT, rows=len(y)))
        elif power >= LIMIT and _enough(y, task):
            problems.append(found(
                "leak", feature, f"The feature {feature} of {name} alone predicts the label {label} almost "
                f"perfectly: {measure(task)} {power:.4f}. Is it known before the label is?", hard=False,
                expected=f"{measure(task)} below {LIMIT}", seen=f"{power:.4f}", measure=measure(task),
                effect=power, margin=LIMIT, rows=len(y)))
    return problems


def measure(task: str) -> str:
    return "area under the ROC curve" if task in ("binary", "multiclass") else "|r|"


def _enough(y: Floats, task: str) -> bool:
    import numpy as np

    if len(y) < FEWEST:
        return False
    if task not in ("binary", "multiclass"):
        return True
    return bool(np.sort(np.unique(y, return_counts=True)[1])[-2] >= FEWEST_OF_A_CLASS)


def _judge(column: Any, y: Floats, half: Any, task: str) -> tuple[float, bool] | None:
    """How well a feature predicts alone, and whether it is the label; None for one that says nothing."""
    import numpy as np

    kind = family(str(column.type))
    numbers = floats(column) if kind in NUMBERS else None
    codes = _codes(column, kind, numbers)
    if codes is None or codes.max() == 0:
        return None
    if task in ("binary", "multiclass"):
        same = _one_to_one(codes, y) if kind in NUMBERS or kind in WORDS else False
        return _areas(codes, y, half, task), same
    power, same = _means(codes, y, half), False
    if numbers is not None:
        there = np.isfinite(numbers)
        if there.sum() >= FEWEST_THE_SAME and np.ptp(numbers[there]) > 0 and np.ptp(y[there]) > 0:
            r = abs(float(np.corrcoef(numbers[there], y[there])[0, 1]))
            power = max(power, r)
            same = bool(there.all() and 1 - r * r < EXACT)
    return power, same


def _codes(column: Any, kind: str, numbers: Floats | None) -> Ints | None:
    """A small whole number for each value or bin, (n,), from 0."""
    import numpy as np
    import pyarrow as pa

    if numbers is not None:
        kinds, at = np.unique(numbers, return_inverse=True)
        if len(kinds) <= BINS:
            return np.asarray(at, dtype=np.int64)
        edges = np.unique(np.quantile(numbers[np.isfinite(numbers)], np.linspace(0, 1, BINS + 1)[1:-1]))
        binned: Ints = np.searchsorted(edges, numbers).astype(np.int64)
        binned[np.isnan(numbers)] = len(edges) + 1
        return binned
    if kind in WORDS:
        encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        found_at: Ints = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(
            zero_copy_only=False).astype(np.int64)
        return found_at
    if kind == "nothing":
        return None
    there: Ints = column.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
    return there


def _one_to_one(codes: Ints, y: Floats) -> bool:
    """Whether each value stands for one label and each label for one value."""
    import numpy as np

    kinds, labels = len(np.unique(codes)), len(np.unique(y))
    if kinds != labels:
        return False
    pairs = np.unique(codes * (int(y.max()) + 1) + y.astype(np.int64))
    return len(pairs) == labels


def _fitted(codes: Ints, target: Floats, half: Any) -> Floats:
    """The mean target of each code in the half, told of the rows of the other half; the mean of all of it
    where a code was not seen."""
    import numpy as np

    size = int(codes.max()) + 1
    counts = np.bincount(codes[half], minlength=size)
    sums = np.bincount(codes[half], weights=target[half], minlength=size)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), target[half].mean() if half.any() else 0.0)
    told: Floats = means[codes[~half]]
    return told


def _areas(codes: Ints, y: Floats, half: Any, task: str) -> float:
    import numpy as np

    kinds, counts = np.unique(y, return_counts=True)
    most = kinds[np.argsort(-counts, kind="stable")][:1 if task == "binary" else MOST_TRIED]
    total, weight = 0.0, 0
    for one in most:
        target = (y == one).astype(np.float64)
        area = _area(_fitted(codes, target, half), target[~half])
        if area is not None:
            number = int(target.sum())
            total, weight = total + area * number, weight + number
    return total / weight if weight else 0.5


def _area(scores: Floats, target: Floats) -> float | None:
    """The area under the ROC curve, ties counted half (Mann and Whitney 1947)."""
    import numpy as np

    positive = int(target.sum())
    negative = len(target) - positive
    if not positive or not negative:
        return None
    kinds, at = np.unique(scores, return_inverse=True)
    ones = np.bincount(at, weights=target, minlength=len(kinds))
    zeros = np.bincount(at, minlength=len(kinds)) - ones
    below = np.cumsum(zeros) - zeros
    return float((ones * (below + zeros / 2)).sum() / positive / negative)


def _means(codes: Ints, y: Floats, half: Any) -> float:
    import numpy as np

    told, target = _fitted(codes, y, half), y[~half]
    if len(target) < 3 or np.ptp(told) == 0 or np.ptp(target) == 0:
        return 0.0
    return abs(float(np.corrcoef(told, target)[0, 1]))
