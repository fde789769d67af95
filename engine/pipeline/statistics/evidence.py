"""How much better a challenger is than the champion in one metric on one set of rows. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import UsageError
from engine.pipeline.statistics import metrics as metrics_
from engine.pipeline.statistics.bootstrap import replicate
from engine.pipeline.statistics.evaluation import TOO_SMALL, few, units_in_words
from engine.pipeline.statistics.labelled import Labelled
from engine.pipeline.statistics.paired_tests import (
    PairedProportions,
    Tested,
    delong,
    mcnemar,
    paired_t,
    wilcoxon,
)
from engine.pipeline.statistics.plans import Gain, Sums, value

if TYPE_CHECKING:
    import numpy as np

    from engine.pipeline.statistics.labelled import Bools


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models' scores of the same rows, made by `paired`."""

    champion: Labelled
    challenger: Labelled

    def only(self, rows: Bools) -> Pair:
        return Pair(self.champion.only(rows), self.challenger.only(rows))

    @property
    def same(self) -> bool:
        """Whether both score every row alike."""
        import numpy as np

        return bool(np.array_equal(self.champion.scores, self.challenger.scores))


def paired(champion: Labelled, challenger: Labelled, *, ids: tuple[Any, Any] | None = None) -> Pair:
    """Check that the two are of the same rows. `ids`: the rows' keys of each, where they have some. Raises
    UsageError naming the first row that differs."""
    import numpy as np

    if champion.task != challenger.task or champion.classes != challenger.classes:
        raise UsageError("the champion and the challenger are not of the same task and classes",
                         hint=f"{champion.task} {', '.join(champion.classes)}; "
                              f"{challenger.task} {', '.join(challenger.classes)}")
    if len(champion) != len(challenger):
        raise UsageError(f"the champion scored {len(champion):,} rows, the challenger {len(challenger):,}",
                         hint="both must score the same rows, in the same order")
    checks: list[tuple[str, Any, Any]] = [("label", champion.labels, challenger.labels)]
    if ids is not None:
        checks.insert(0, ("key", np.asarray(ids[0]), np.asarray(ids[1])))
    for what, one, other in [*checks, ("weight", champion.weights, challenger.weights),
                             ("group", champion.groups, challenger.groups)]:
        if (one is None) != (other is None):
            raise UsageError(f"only one of the two has {what}s")
        if one is None:
            continue
        if len(one) != len(champion) or len(other) != len(champion):
            raise UsageError(f"there are {len(champion):,} rows, and {len(one):,} and {len(other):,} {what}s")
        if (differ := one != other).any():
            at = int(differ.argmax())
            raise UsageError(f"row {at:,} has the {what} {one[at]} for the champion and {other[at]} for the "
                             f"challenger; {int(differ.sum()):,} rows differ",
                             hint="both must score the same rows, in the same order")
    if champion.threshold != challenger.threshold:
        raise UsageError(f"the champion calls 1 from {champion.threshold:g} on, the challenger from "
                         f"{challenger.threshold:g}", hint="compare them at one threshold")
    return Pair(champion, challenger)


class Evidence(Protocol):
    """What can be said about a gain: p-values of "at most" and "at least", and an interval."""

    @property
    def error(self) -> float: ...
    def doubt(self) -> str | None: ...
    def interval(self, confidence: float) -> tuple[float, float] | None: ...
    def p_at_most(self, threshold: float) -> float: ...
    def p_at_least(self, threshold: float) -> float: ...


@dataclass(frozen=True)
class Same:
    """The two score every row alike, so that no row can tell them apart."""

    error: float = 0.0

    def doubt(self) -> str | None:
        return None

    def interval(self, confidence: float) -> tuple[float, float]:
        return 0.0, 0.0

    def p_at_most(self, threshold: float) -> float:
        return 0.0 if threshold < 0 else 1.0

    def p_at_least(self, threshold: float) -> float:
        return 0.0 if threshold > 0 else 1.0


@dataclass(frozen=True)
class Nothing:
    """No evidence, and `why`."""

    why: str
    error: float = float("nan")

    def doubt(self) -> str | None:
        return self.why

    def interval(self, confidence: float) -> None:
        return None

    def p_at_most(self, threshold: float) -> float:
        return 1.0

    def p_at_least(self, threshold: float) -> float:
        return 1.0


@dataclass(frozen=True)
class Comparison:
    """One metric on all rows (`segment` None) or on a segment's. `gain` is positive when the challenger is
    better; its interval from `low` to `high`, None where there is none, and then `why` says the reason.
    `method`: bca, score, same (both score every row alike) or none."""

    metric: str
    better: str
    segment: str | None
    rows: int
    units: int
    amount: str
    champion: float | None
    challenger: float | None
    gain: float | None
    low: float | None
    high: float | None
    method: str
    tests: tuple[Tested, ...]
    why: str = ""


@dataclass(frozen=True, eq=False)
class Weighed:
    """A comparison with what its gates are decided from."""

    shown: Comparison
    evidence: Evidence


def compared(pair: Pair, chosen: Sequence[metrics_.Metric], segment: str | None, rng: np.random.Generator,
             resamples: int, confidence: float) -> list[Weighed]:
    """Each metric, all over the same resamples."""
    reasons = {metric.name: metrics_.undefined(metric, pair.champion) or metrics_.undefined(
        metric, pair.challenger) for metric in chosen}
    gains = {m.name: Gain(m.plan(pair.champion), m.plan(pair.challenger), m.sign)
             for m in chosen if reasons[m.name] is None}
    evidence: dict[str, Evidence] = {}
    drawn = []
    for name, gain in gains.items():
        if pair.same:
            evidence[name] = Same()
        elif name == "accuracy" and isinstance(gain.first, Sums) and gain.first.counted:
            evidence[name] = _proportions(gain)
        elif gain.units < TOO_SMALL:
            evidence[name] = Nothing(f"{units_in_words(pair.champion)} are too few to compare on")
        else:
            drawn.append(name)
    if drawn:
        made = replicate([gains[name] for name in drawn], rng, resamples)
        evidence |= dict(zip(drawn, made, strict=True))
    return [_comparison(metric, pair, segment, gains.get(metric.name),
                        evidence.get(metric.name) or Nothing(reasons[metric.name] or ""), confidence)
            for metric in chosen]


def _proportions(gain: Gain) -> PairedProportions:
    assert isinstance(gain.first, Sums) and isinstance(gain.second, Sums)
    first, second = gain.first.features[:, 0] > 0, gain.second.features[:, 0] > 0
    return PairedProportions(int((second & ~first).sum()), int((first & ~second).sum()), len(first))


def _comparison(metric: metrics_.Metric, pair: Pair, segment: str | None, gain: Gain | None,
                evidence: Evidence, confidence: float) -> Weighed:
    low, high = evidence.interval(confidence) or (None, None)
    method = {Same: "same", PairedProportions: "score", Nothing: "none"}.get(type(evidence), "bca")
    doubt = evidence.doubt()
    shown = Comparison(
        metric.name, metric.better, segment, len(pair.champion), pair.champion.units, few(pair.champion)[1],
        None if gain is None else value(gain.first), None if gain is None else value(gain.second),
        None if gain is None else value(gain), low, high, "none" if doubt else method,
        () if gain is None else tuple(_tests(metric, pair, gain)), doubt or "")
    return Weighed(shown, evidence)


def _tests(metric: metrics_.Metric, pair: Pair, gain: Gain) -> list[Tested]:
    """Those that apply; differences are challenger less champion, in the metric itself."""
    one, other = pair.champion, pair.challenger
    plain = one.weights is None and one.groups is None
    found = []
    if metric.name == "accuracy" and plain:
        both = _proportions(gain)
        found.append(mcnemar(both.first_alone, both.second_alone))
    elif metric.losses and isinstance(gain.first, Sums) and isinstance(gain.second, Sums) and gain.units > 1:
        first, second = gain.first.features, gain.second.features
        found.append(paired_t(first[:, 0], second[:, 0], first[:, 1]))
        if (first[:, 1] == first[0, 1]).all():
            found.append(wilcoxon(first[:, 0], second[:, 0]))
    elif (metric.name == "roc_auc" and one.task == "binary" and plain
          and 2 <= one.labels.sum() <= len(one) - 2):
        found.append(delong(one.labels == 1, one.scores, other.scores))
    return found
