"""The score of a canary from the classifications of its metrics: a weighted sum over groups. Pure.

A group's score is the share of its metrics that passed, among those with data, in percent. The summary is
Σ score·weight/100; groups without a weight share what the others leave of 100. As in Kayenta, a group
without data adds nothing, and a critical metric that did not pass, or has no data, brings the summary to 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from engine.rollout.mann_whitney import Label

ScoreLabel = Literal["pass", "marginal", "fail", "nodata"]
PASS, MARGINAL = 95.0, 75.0


@dataclass(frozen=True)
class Scored:
    """A classified metric: the group it counts in; `report_only` keeps it out of the score."""

    name: str
    label: Label
    group: str = "metrics"
    critical: bool = False
    report_only: bool = False


@dataclass(frozen=True)
class Score:
    """`summary` and the scores of `groups` are percents, 0 to 100; a group without data has None."""

    label: ScoreLabel
    summary: float
    groups: Mapping[str, float | None]
    reason: str


def score(metrics: Sequence[Scored], weights: Mapping[str, float] | None = None, *,
          passing: float = PASS, marginal: float = MARGINAL) -> Score:
    """`weights` are percents by group. A summary of at least `passing` passes, of at least `marginal` is
    marginal. Raises ValueError for weights below 0 or of more than 100 in all, and for thresholds that are
    not 0 ≤ marginal ≤ passing ≤ 100."""
    given = dict(weights or {})
    if any(not weight >= 0 for weight in given.values()) or not sum(given.values()) <= 100 + 1e-9:
        raise ValueError("the weights of the groups are percents: none below 0, at most 100 in all")
    if not 0 <= marginal <= passing <= 100:
        raise ValueError(f"the thresholds are percents, marginal ({marginal:g}) not above pass ({passing:g})")
    labels: dict[str, list[Label]] = {}
    for metric in metrics:
        if not metric.report_only:
            labels.setdefault(metric.group, []).append(metric.label)
    groups = {group: _share(found) for group, found in labels.items()}
    unweighted = [group for group in groups if group not in given]
    rest = (100 - sum(given.values())) / len(unweighted) if unweighted else 0.0
    summary = sum(share * given.get(group, rest) / 100 for group, share in groups.items()
                  if share is not None)
    critical = [metric for metric in metrics if metric.critical and metric.label != "pass"]
    if critical:
        first = critical[0]
        return Score("fail", 0.0, groups, f"{first.name} is critical and was classified {first.label}")
    if all(share is None for share in groups.values()):
        return Score("nodata", 0.0, groups, "no metric has data on both sides")
    label: ScoreLabel = ("pass" if summary >= passing - 1e-9 else
                         "marginal" if summary >= marginal - 1e-9 else "fail")
    return Score(label, summary, groups, f"it passes at {passing:g} and is marginal at {marginal:g}")


def _share(labels: Sequence[Label]) -> float | None:
    known = [label for label in labels if label != "nodata"]
    return 100 * known.count("pass") / len(known) if known else None
