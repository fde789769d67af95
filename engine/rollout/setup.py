"""From a rollout's plan to what is judged: the metrics with their parts of α, and the budget. Pure.

Half of α is on all errors together, where most bad versions show first; the rest is shared equally
by the other critical metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from engine.monitoring.sources.source import ERROR_TYPES
from engine.procedures.rollouts import Errors, Rollout
from engine.rollout.judge import Metric

ERRORS = "errors"
QUANTILES = {"latency p95": 0.95, "latency p99": 0.99}
PREDICTIONS = "predictions"
QUALITY = "quality"
LEAST_KNOWN = 100  # requests from which a share is known


@dataclass(frozen=True)
class Setup:
    """What one rollout judges, as `rollout.began` records it. `slack` is the factor on the baseline's
    quantiles, `least_s` the lowest edge; `good` says whether promotion asks for evidence."""

    alpha: float
    metrics: tuple[Metric, ...]
    slack: float
    least_s: float
    good: bool
    bad_limit: int | None
    exposed_limit: int | None

    def as_data(self) -> dict[str, Any]:
        """JSON-able; `from_data` is the inverse."""
        return {"alpha": self.alpha, "slack": self.slack, "least_s": self.least_s, "good": self.good,
                "bad_limit": self.bad_limit, "exposed_limit": self.exposed_limit,
                "metrics": [{"name": m.name, "alpha": m.alpha, "tolerated_ratio": m.tolerated_ratio,
                             "limit": m.limit, "floor": m.floor, "usual": m.usual, "bins": list(m.bins)}
                            for m in self.metrics]}

    @staticmethod
    def from_data(data: dict[str, Any]) -> Setup:
        metrics = tuple(Metric(m["name"], m["alpha"], m["tolerated_ratio"], m["limit"], tuple(m["bins"]),
                               m["floor"], m.get("usual")) for m in data["metrics"])
        return Setup(data["alpha"], metrics, data["slack"], data["least_s"], data["good"],
                     data["bad_limit"], data["exposed_limit"])


def setup(plan: Rollout, *, bins: Sequence[str] = (), quality: bool = False,
          recorded: Sequence[int] | None = None) -> Setup:
    """What a plan judges. `bins`: those that the service's predictions fall into, none where they are not
    counted; `quality`: whether labels come; `recorded`: (n, y) of the old version's requests before, and
    those that failed."""
    judge = plan.judge
    wanted: list[tuple[str, Errors]] = [(name, judge.latency) for name in QUANTILES]
    if judge.types:
        wanted += [(f"{ERRORS}: {kind}", judge.errors.model_copy(update={"limit": None}))
                   for kind in ERROR_TYPES]
    if quality:
        wanted.append((QUALITY, judge.quality))
    counted = len(bins) >= 2
    critical = sum(rule.critical for _, rule in wanted) + (counted and judge.predictions.critical)
    share = judge.alpha / (2 if judge.errors.critical else 1) / critical if critical else 0.0
    whole = judge.alpha / 2 if critical else judge.alpha
    errors = _metric(ERRORS, judge.errors, whole if judge.errors.critical else 0.0)
    if recorded is not None and recorded[0] >= LEAST_KNOWN:
        errors = replace(errors, usual=recorded[1] / recorded[0])
    metrics = [errors,
               *(_metric(name, rule, share if rule.critical else 0.0) for name, rule in wanted)]
    if counted:
        metrics.append(Metric(PREDICTIONS, share if judge.predictions.critical else 0.0,
                              judge.predictions.tolerated, bins=tuple(bins)))
    return Setup(judge.alpha, tuple(metrics), judge.latency.slack, judge.latency.least, judge.good,
                 plan.budget.bad, plan.budget.exposed)


def _metric(name: str, rule: Errors, alpha: float) -> Metric:
    # the p99 of two good versions differs by chance for long: p95 has to be shown, p99 only watched
    limit = None if name == "latency p99" or not alpha else rule.limit
    return Metric(name, alpha, rule.tolerated, limit, floor=rule.floor if limit else 0.0)
