"""How much better a challenger is than the champion in one metric on one set of rows. Pure.

What the evidence is goes by how many units differ at all (`differing`). So few that not even all of them on
one side would show which model is better (five at 2.5 %: 2^-5 is more, the exact sign test's least p) only
bound how many others may differ (`Few`). More of them are resampled, with as many degrees of freedom as
units carry the gain. A share of independent rows has Tango's score interval at any number. A model that is
the champion itself needs no evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from engine.errors import UsageError
from engine.pipeline.statistics import metrics as metrics_
from engine.pipeline.statistics.bootstrap import proportion_interval, replicate
from engine.pipeline.statistics.differing import carrying, differences, reach
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
    """The two are one model, so that no row can tell them apart."""

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
class Few:
    """Only `differing` of so many `units` differ. How many others may is bounded by that (Clopper and Pearson
    1934; for none of n the rule of three, 1 - α^(1/n)), and the gain by `reach` times the share of units that
    differ, and by `most`. Which model is better is never shown."""

    differing: int
    units: int
    reach: float
    most: float
    error: float = float("nan")

    def doubt(self) -> str | None:
        return None

    def interval(self, confidence: float) -> tuple[float, float]:
        share = proportion_interval(self.differing, self.units, confidence)[1]
        bound = min(self.reach * share, self.most)
        return -bound, bound

    def p_at_most(self, threshold: float) -> float:
        """How likely so few units differ when the share of them is the least that such a harm needs."""
        from scipy import special

        if threshold >= 0:
            return 1.0
        return float(special.bdtr(self.differing, self.units, min(-threshold / self.reach, 1.0)))

    def p_at_least(self, threshold: float) -> float:
        return self.p_at_most(-threshold)


@dataclass(frozen=True)
class Signed:
    """`of`, but that one is better than the other is never surer than the exact sign test of the units that
    `differ`, all on one side: 2^-differing."""

    of: Evidence
    differing: int

    @property
    def error(self) -> float:
        return self.of.error

    def doubt(self) -> str | None:
        return self.of.doubt()

    def interval(self, confidence: float) -> tuple[float, float] | None:
        ends = self.of.interval(confidence)
        if ends is None or 0.5**self.differing <= (1 - confidence) / 2:
            return ends
        return min(ends[0], 0.0), max(ends[1], 0.0)

    def p_at_most(self, threshold: float) -> float:
        return max(self.of.p_at_most(threshold), 0.5**self.differing if threshold >= 0 else 0.0)

    def p_at_least(self, threshold: float) -> float:
        return max(self.of.p_at_least(threshold), 0.5**self.differing if threshold <= 0 else 0.0)


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
    `method`: bca, score, few (so few units differ that only their number tells), same (one model) or none.
    `differing`: how many units differ in the metric; `remark` says it where they are too few to show which
    model is better."""

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
    differing: int | None = None
    remark: str = ""


@dataclass(frozen=True, eq=False)
class Weighed:
    """A comparison with what its gates are decided from."""

    shown: Comparison
    evidence: Evidence


def compared(pair: Pair, chosen: Sequence[metrics_.Metric], segment: str | None, rng: np.random.Generator,
             resamples: int, confidence: float, *, one_model: bool = False) -> list[Weighed]:
    """Each metric, all over the same resamples. `one_model`: the two have been found to be the same one."""
    import numpy as np

    reasons = {metric.name: metrics_.undefined(metric, pair.champion) or metrics_.undefined(
        metric, pair.challenger) for metric in chosen}
    gains = {m.name: Gain(m.plan(pair.champion), m.plan(pair.challenger), m.sign)
             for m in chosen if reasons[m.name] is None}
    least = math.ceil(-math.log2((1 - confidence) / 2))  # that differ, for the exact sign test to show it
    evidence: dict[str, Evidence] = {}
    drawn: dict[str, tuple[int, int]] = {}  # how many differ, and how many of them carry the gain
    differ: dict[str, int] = {}
    for metric in chosen:
        name = metric.name
        if (gain := gains.get(name)) is None:
            continue
        far = reach(pair, gain, metric.bounds)
        by = differences(pair, gain, far / gain.units)
        differ[name] = int(np.count_nonzero(by))
        if one_model and pair.same:
            evidence[name] = Same()
        elif (both := _proportions(gain)) is not None:
            evidence[name] = Signed(both, differ[name])
        elif gain.units < TOO_SMALL:
            evidence[name] = Nothing(f"{units_in_words(pair.champion)} are too few to compare on")
        elif differ[name] >= least:
            drawn[name] = differ[name], carrying(by)
        elif far > 0:
            evidence[name] = Few(differ[name], gain.units, far, metric.bounds[1] - metric.bounds[0])
        else:
            evidence[name] = Nothing("both are right about every row, so that none shows what one can cost")
    if drawn:
        made = replicate([gains[name] for name in drawn], rng, resamples)
        for one, (name, (count, carry)) in zip(made, drawn.items(), strict=True):
            evidence[name] = Signed(replace(one, carrying=carry), count)
    return [_comparison(metric, pair, segment, gains.get(metric.name),
                        evidence.get(metric.name) or Nothing(reasons[metric.name] or ""), confidence,
                        differ.get(metric.name), least) for metric in chosen]


def _proportions(gain: Gain) -> PairedProportions | None:
    """Of a share of the same independent rows of both: accuracy, and recall, but not precision."""
    first, second = gain.first, gain.second
    if not (isinstance(first, Sums) and isinstance(second, Sums) and first.counted and second.counted):
        return None
    of = first.features[:, 1] > 0
    if not (first.features[:, 1] == second.features[:, 1]).all():
        return None
    one, other = first.features[of, 0] > 0, second.features[of, 0] > 0
    return PairedProportions(int((other & ~one).sum()), int((one & ~other).sum()), len(one))


def _comparison(metric: metrics_.Metric, pair: Pair, segment: str | None, gain: Gain | None,
                evidence: Evidence, confidence: float, differ: int | None, least: int) -> Weighed:
    low, high = evidence.interval(confidence) or (None, None)
    kind = type(evidence.of) if isinstance(evidence, Signed) else type(evidence)
    method = {Same: "same", PairedProportions: "score", Few: "few", Nothing: "none"}.get(kind, "bca")
    doubt = evidence.doubt()
    remark = ""
    if differ is not None and differ < least and not doubt and method != "same":
        count = units_in_words(pair.champion)
        remark = (f"the two differ on none of {count}" if differ == 0 else
                  f"only {differ} of {count} {'differs' if differ == 1 else 'differ'}")
    shown = Comparison(
        metric.name, metric.better, segment, len(pair.champion), pair.champion.units, few(pair.champion)[1],
        None if gain is None else value(gain.first), None if gain is None else value(gain.second),
        None if gain is None else value(gain), low, high, "none" if doubt else method,
        () if gain is None else tuple(_tests(metric, pair, gain)), doubt or "", differ, remark)
    return Weighed(shown, evidence)


def _tests(metric: metrics_.Metric, pair: Pair, gain: Gain) -> list[Tested]:
    """Those that apply; differences are challenger less champion, in the metric itself."""
    one, other = pair.champion, pair.challenger
    plain = one.weights is None and one.groups is None
    found = []
    if (both := _proportions(gain)) is not None:
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
