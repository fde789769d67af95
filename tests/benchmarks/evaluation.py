"""What it costs to be sure: bootstraps of 100,000 rows, a comparison, and an adversarial search; and, over
simulations with fixed seeds, how often intervals cover and gates pass wrongly."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from engine.pipeline.robustness.adversary import Adversarial, search
from engine.pipeline.robustness.changes import numbers
from engine.pipeline.statistics.comparison import compare
from engine.pipeline.statistics.evaluation import evaluate, segments_of
from engine.pipeline.statistics.evidence import paired
from engine.pipeline.statistics.gates import Improvement, NonInferiority, Segments
from engine.pipeline.statistics.labelled import Labelled, labelled
from engine.pipeline.statistics.metrics import measure
from tests.benchmarks.figure import Figure
from tests.pipeline.statistics.simulated import scored, two_models

ROWS, RUNS = 100_000, 1000


def figures() -> list[Figure]:
    """Takes about a minute and a half."""
    _timed(lambda: evaluate(scored(np.random.default_rng(0), 500), rng=np.random.default_rng(0)))  # imports
    data = scored(np.random.default_rng(1), ROWS)
    carrier = segments_of("carrier", np.random.default_rng(2).integers(0, 16, ROWS))
    grouped = scored(np.random.default_rng(3), ROWS, groups=20_000)
    two = ["roc_auc", "log_loss"]
    found = [
        _figure("bootstrap of AUC and log loss, 1,000 resamples of 100,000 rows", 3, lambda: evaluate(
            data, two, rng=np.random.default_rng(0))),
        _figure("the same by 20,000 groups", 5, lambda: evaluate(
            grouped, two, rng=np.random.default_rng(0))),
        _figure("the same and by 16 segments", 6, lambda: evaluate(
            data, two, rng=np.random.default_rng(0), segments=carrier)),
        _figure("all nine metrics of a binary task", 10, lambda: evaluate(
            data, rng=np.random.default_rng(0)))]
    pair = paired(*two_models(np.random.default_rng(4), ROWS))
    gates = [NonInferiority(metric="roc_auc", margin=0.005), Improvement(metric="log_loss")]
    found += [
        _figure("comparison of 100,000 rows in AUC and log loss, 2,000 resamples", 8, lambda: compare(
            pair, gates, rng=np.random.default_rng(0))),
        _figure("the same with a gate on each of 16 segments", 20, lambda: compare(
            pair, [*gates, Segments(metric="log_loss", margin=0.01)], rng=np.random.default_rng(0),
            segments=carrier)),
        _figure("adversarial search, 50,000 inputs of four columns", 5, _search)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*found, Figure("peak memory of all of them", peak, "MB", 600, "lower"), *_coverage(), *_errors()]


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _figure(name: str, target: float, work: Callable[[], object]) -> Figure:
    return Figure(name, _timed(work), "s", target, "lower")


def _search() -> None:
    rng = np.random.default_rng(0)
    rows = pa.table({name: rng.normal(size=1000) for name in "abcd"})
    search(Adversarial(columns=dict.fromkeys("abcd", 0.5), rows=500, budget=50_000), rows,
           lambda table: 1 / (1 + np.exp(-sum(numbers(table, name) for name in "abcd"))), rng)


def _coverage() -> list[Figure]:
    """Of the whole interval at 95 %, of small held-out sets of a skewed metric each."""
    rows = []
    truth = scored(np.random.default_rng(0), 2_000_000)
    for name, n in (("log_loss", 40), ("log_loss", 200), ("roc_auc", 80), ("roc_auc", 400), ("pr_auc", 200),
                    ("f1", 200)):
        true, covered, shown = measure(name, truth), 0, 0
        for run in range(RUNS):
            rng = np.random.default_rng([run, 21])
            one = evaluate(scored(rng, n), [name], rng=rng).metrics[0]
            if one.low is not None and one.high is not None:
                shown += 1
                covered += one.low <= true <= one.high
        rows.append(Figure(f"coverage of {name}, {n} rows", 100 * covered / shown, "%", 93.5, "higher",
                           f"{shown:,} runs; 95 claimed"))
    for groups in (30, 100):
        covered = 0
        for run in range(RUNS):
            rng = np.random.default_rng([run, 23])
            who = np.repeat(np.arange(groups), 20)
            errors = rng.normal(size=groups)[who] + 0.3 * rng.normal(size=len(who))
            one = evaluate(labelled("regression", np.zeros(len(who)), errors, groups=who), ["mse"],
                           rng=rng).metrics[0]
            covered += one.low is not None and one.high is not None and one.low <= 1.09 <= one.high
        rows.append(Figure(f"coverage of the mean squared error, {groups} groups of 20 rows",
                           100 * covered / RUNS, "%", 93.5, "higher", f"{RUNS:,} runs; 95 claimed"))
    return rows


def _errors() -> list[Figure]:
    """A gate of improvement where there is none, and one that is passed by right."""
    gates = [Improvement(metric=name) for name in ("log_loss", "roc_auc", "accuracy")]
    wrong = _passed(gates, lambda rng: two_models(rng, 300))
    right = _passed(gates[:2], lambda rng: two_models(rng, 1500, noise=(1.0, 0.4)), 200)
    eight = {f"s{at}": np.arange(1200) % 8 == at for at in range(8)}
    refused = 100 - _passed([Segments(metric="log_loss", margin=0.0)], lambda rng: two_models(rng, 1200), 300,
                            segments=eight)[0]
    return [*(Figure(f"equal models pass as better in {gate.metric}", share, "%", 3.5, "lower",
                     f"{RUNS:,} runs of 300 rows; 2.5 claimed")
              for gate, share in zip(gates, wrong, strict=True)),
            *(Figure(f"a better model passes in {gate.metric}", share, "%", 90, "higher",
                     "200 runs of 1,500 rows") for gate, share in zip(gates[:2], right, strict=True)),
            Figure("equal models refused for one of 8 segments", refused, "%", 3.5, "lower",
                   "300 runs of 1,200 rows; 2.5 claimed")]


def _passed(gates: list[Improvement] | list[Segments],
            make: Callable[[np.random.Generator], tuple[Labelled, Labelled]], runs: int = RUNS,
            **more: dict[str, np.ndarray]) -> list[float]:
    passed = np.zeros(len(gates))
    for run in range(runs):
        rng = np.random.default_rng([run, 22])
        found = compare(paired(*make(rng)), gates, rng=rng, resamples=1000, **more)
        passed += [gate.passed for gate in found.gates]
    return list(100 * passed / runs)
