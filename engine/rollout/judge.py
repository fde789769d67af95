"""The judge: whether a canary is worse than the baseline beside it, from the counts of each tick.

Several metrics share one error rate α: each critical one has its own αᵢ with Σ αᵢ ≤ α, and the canary is
bad when the mean of all Eᵢ, weighted by αᵢ/α, reaches 1/α. That covers each metric by itself: Eᵢ ≥ 1/αᵢ
alone brings the mean to 1/α. Identical versions are called bad with a probability of at most α,
however many ticks are looked at. *Advisory* metrics (αᵢ = 0) are shown and decide nothing.

Good needs evidence of its own: each metric with a `limit` must have shown, at the level α, that the
canary's risk is below `limit` times the baseline's. A canary that is not so good in one of them passes
with a probability of at most α, however many metrics there are: all have to agree.

Pure. Bad is never taken back: the first tick that says it stays the one that said it. Good is what the
evidence shows now: ticks that speak against it take it back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.rollout.evidence import BinTick, Distribution, Evidence, Tick, ln_weighted, not_worse, worse

VerdictName = Literal["bad", "undecided", "good"]
ROUNDING = 1e-12  # Σ αᵢ of decimal fractions may pass α by a rounding


@dataclass(frozen=True)
class Metric:
    """One thing that is counted.

    `alpha`: its part of the error rate, 0 for an advisory one. `limit`: the risk ratio that must be ruled
    out before it is called good, None where that is not asked; with a `floor` (a share) it is the ratio to
    the baseline's risk or to the floor, whichever is more. `bins`: the classes of a distribution, whose
    ticks are `BinTick`s, and which has no limit. `usual`: the baseline's own risk before, where it is known.
    """

    name: str
    alpha: float
    tolerated_ratio: float = 1.0
    limit: float | None = None
    bins: tuple[str, ...] = ()
    floor: float = 0.0
    usual: float | None = None


@dataclass(frozen=True)
class Verdict:
    """After one tick.

    `ln_e` by metric; `ln_e_all` is the weighted mean's, bad at `threshold` = ln(1/α). `ln_good` by metric
    with a limit, each good at the same threshold. `decided_at` counts ticks from 1, and `by` is the
    metric that brought most of the evidence; both are of a bad verdict alone.
    """

    verdict: VerdictName
    ln_e: dict[str, float]
    ln_e_all: float
    ln_good: dict[str, float]
    threshold: float
    decided_at: int | None = None
    by: str | None = None


class Judge:
    """Judges tick after tick. Raises ValueError for an α outside (0, 1), a negative αᵢ, and metrics that
    share more than α or a name."""

    def __init__(self, alpha: float, metrics: Sequence[Metric]) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha lies between 0 and 1, not at {alpha:g}")
        if len({metric.name for metric in metrics}) != len(metrics):
            raise ValueError("two metrics have the same name")
        spent = math.fsum(metric.alpha for metric in metrics)
        if not all(metric.alpha >= 0 for metric in metrics) or spent > alpha * (1 + ROUNDING):
            raise ValueError(f"the metrics' alphas add up to {spent:g}, more than {alpha:g}, "
                             "or one is negative")
        self._threshold = -math.log(alpha)
        self._weights = {metric.name: metric.alpha / alpha for metric in metrics}
        self._worse = {metric.name: _worse(metric) for metric in metrics}
        self._good = {metric.name: not_worse(metric.limit, metric.floor, metric.usual) for metric in metrics
                      if metric.limit is not None}
        self._ticks = 0
        self._decided: tuple[int, str] | None = None

    def add(self, counts: Mapping[str, Tick | BinTick], *, good: bool = True) -> Verdict:
        """One more tick. A metric without counts (nothing measured, or stale) keeps its evidence. Without
        `good` it is none for being not worse.

        Raises ValueError for a metric that is not judged, or a tick of the wrong kind for it.
        """
        self._ticks += 1
        for name, tick in counts.items():
            self.count(name, tick, good=good)
        ln_e = {name: evidence.ln_e for name, evidence in self._worse.items()}
        total = ln_weighted(list(ln_e.values()), list(self._weights.values()))
        if self._decided is None and total >= self._threshold:
            self._decided = self._ticks, self._most(ln_e)
        ln_good = {name: evidence.ln_e for name, evidence in self._good.items()}
        at, by = self._decided or (None, None)
        return Verdict(self._name(), ln_e, total, ln_good, self._threshold, at, by)

    def count(self, name: str, tick: Tick | BinTick, *, good: bool = True) -> None:
        """Count one metric's tick without a verdict: the next `add` has it."""
        match self._worse.get(name), tick:
            case Evidence() as evidence, Tick():
                evidence.add(*tick)
                if good and name in self._good:
                    self._good[name].add(*tick)
            case Distribution() as distribution, BinTick():
                distribution.add(*tick)
            case _:
                raise ValueError(f"there is no such metric, or it is counted otherwise: {name}")

    def _name(self) -> VerdictName:
        if self._decided is not None:
            return "bad"
        shown = self._good and all(good.ln_e >= self._threshold for good in self._good.values())
        return "good" if shown else "undecided"

    def _most(self, ln_e: Mapping[str, float]) -> str:
        deciding = [name for name, weight in self._weights.items() if weight > 0]
        return max(deciding, key=lambda name: math.log(self._weights[name]) + ln_e[name])


def _worse(metric: Metric) -> Evidence | Distribution:
    if not metric.bins:
        return worse(metric.tolerated_ratio)
    if metric.limit is not None:
        raise ValueError(f"{metric.name}: a distribution has no limit of non-inferiority")
    return Distribution(metric.bins, metric.tolerated_ratio)


@dataclass(frozen=True)
class Judgement:
    """Of a whole list of ticks of one metric: `ln_e` after each; `decided_at` counts from 1."""

    ln_e: list[float]
    verdict: VerdictName
    decided_at: int | None


def judge(ticks: Iterable[Tick], *, alpha: float, tolerated_ratio: float = 1.0) -> Judgement:
    """Judge one metric from its first tick to its last; "bad" or "undecided". Raises as `Judge` does."""
    judging = Judge(alpha, [Metric("y", alpha, tolerated_ratio)])
    verdicts = [judging.add({"y": tick}) for tick in ticks]
    ln_e = [verdict.ln_e["y"] for verdict in verdicts]
    if not verdicts:
        return Judgement(ln_e, "undecided", None)
    return Judgement(ln_e, verdicts[-1].verdict, verdicts[-1].decided_at)
