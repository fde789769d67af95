"""The file of metric samples that `opsdeck judge run --judge mann-whitney` reads: JSON into what the judge
and the scorer want, or a sentence that says where it is wrong. Pure."""

from __future__ import annotations

import math
from typing import Annotated

import msgspec

from engine.errors import UsageError
from engine.rollout.counts import FORMAT, decode
from engine.rollout.mann_whitney import TOLERANCE, Classification, Classifier, Direction
from engine.rollout.scorer import MARGINAL, PASS, Score, Scored, score

Samples = list[float | None]


class Metric(msgspec.Struct, forbid_unknown_fields=True):
    """Samples are in the metric's unit, null where one is missing; the two sides may differ in length."""

    name: Annotated[str, msgspec.Meta(min_length=1)]
    canary: Samples
    baseline: Samples
    direction: Direction = "either"
    group: Annotated[str, msgspec.Meta(min_length=1)] = "metrics"
    critical: bool = False
    report_only: bool = False


class SamplesFile(msgspec.Struct, forbid_unknown_fields=True):
    """`confidence` is the judge's own where it is None; `weights` are percents by group."""

    metrics: list[Metric]
    weights: dict[str, float] = {}
    confidence: float | None = None
    tolerance: float = TOLERANCE
    passing: float = msgspec.field(name="pass", default=PASS)
    marginal: float = MARGINAL


def read(text: bytes, where: str) -> SamplesFile:
    """Raises UsageError, which names the metric and the sample, for everything that is not such a file."""
    file = decode(text, SamplesFile, "samples", where)
    seen: set[str] = set()
    for i, metric in enumerate(file.metrics):
        if metric.name in seen:
            raise UsageError(f"metrics[{i}]: there are two metrics named {metric.name}", where=where,
                             hint="a metric has one name and both sides of its samples")
        seen.add(metric.name)
    if unknown := sorted(set(file.weights) - {metric.group for metric in file.metrics}):
        raise UsageError(f"weights: no metric is in the group {unknown[0]}", where=where, hint=FORMAT)
    return file


def judge(file: SamplesFile, by: Classifier, where: str) -> tuple[dict[str, Classification], Score]:
    """Each metric's classification by name, in the file's order, and the score of all. Raises UsageError
    for numbers that the judge or the scorer cannot take."""
    found: dict[str, Classification] = {}
    for i, metric in enumerate(file.metrics):
        try:
            found[metric.name] = by.classify(
                _numbers(metric.canary), _numbers(metric.baseline), metric.direction,
                confidence=file.confidence, tolerance=file.tolerance)
        except ValueError as error:
            raise UsageError(f"metrics[{i}] ({metric.name}): {error}", where=where, hint=FORMAT) from error
    try:
        return found, score([Scored(metric.name, found[metric.name].label, metric.group, metric.critical,
                                    metric.report_only) for metric in file.metrics],
                            file.weights, passing=file.passing, marginal=file.marginal)
    except ValueError as error:
        raise UsageError(str(error), where=where, hint=FORMAT) from error


def _numbers(samples: Samples) -> list[float]:
    return [math.nan if sample is None else sample for sample in samples]
