"""The judge in simulation, 1,000 runs a row with fixed seeds: false rollbacks of identical versions, and
how soon and at what exposure a bad one is found. A tick is a second.

What runs is the engine's own fold (intake, analysis, danger, judge) with the setup of a default plan and
every metric on (`tests.rollout.simulation`): half of α = 0.01 watches all errors together, the rest in equal
parts the errors of five types, requests over the baseline's p95 and p99, frozen, and late labels, while
predictions only show. The canary has 50 requests a second of 1,000, errors are 1 %, and 2× or 5× means that
errors of every type are so many times as many.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from engine.rollout.analysis import Analysis
from tests.benchmarks.figure import Figure
from tests.rollout.simulation import SETUP, Outcome, World, simulate

RUNS, TICKS = 1000, 180
LONGEST = 2000
PROCESSES = 2


def _incident(t: int) -> float:
    return 5.0 if 60 <= t < 120 else 1.0


def _diurnal(t: int) -> float:
    return 1 + 0.9 * float(np.sin(t / TICKS * 2 * np.pi))


def _outage(t: int) -> float:
    return 1.0 if 60 <= t < 120 else 0.0


EQUAL = {"identical versions": World(),
         "with a 5x incident of both": World(incident=_incident),
         "under a diurnal load": World(load=_diurnal),
         "at 2 rps of canary": World(canary_rps=2, baseline_rps=38),
         "in bursts of 10, each counted once": World(burst=10),
         "with an outage of the old version": World(outage=_outage)}


def figures() -> list[Figure]:
    """Takes about five minutes on two cores."""
    rows = []
    with ProcessPoolExecutor(PROCESSES) as pool:
        for seed, (name, world) in enumerate(EQUAL.items()):
            found = _runs(pool, world, seed, TICKS)
            share = 100 * sum(one.at is not None for one in found) / RUNS
            rows.append(Figure(f"A/A: false rollbacks, {name}", share, "%", 1, "lower",
                               f"{RUNS:,} runs of {TICKS} ticks"))
        rows += _found(pool, "2x errors", World(worse=2), 50, 100, 2000)
        rows += _found(pool, "5x errors", World(worse=5), 8, None, 500)
    return [*rows, _cost()]


def _found(pool: ProcessPoolExecutor, name: str, world: World, median: float, p95: float | None,
           exposed: float) -> list[Figure]:
    found = _runs(pool, world, 99 + int(world.worse), LONGEST)
    at = [float(one.at) if one.at is not None else float("inf") for one in found]
    rows = [Figure(f"{name} found, median", statistics.median(at), "s", median, "lower")]
    if p95 is not None:
        rows.append(Figure(f"{name} found, p95", float(np.percentile(at, 95)), "s", p95, "lower"))
    return [*rows, Figure(f"{name}: canary requests exposed, median",
                          statistics.median(one.exposed for one in found), "", exposed, "lower")]


def _runs(pool: ProcessPoolExecutor, world: World, seed: int, ticks: int) -> list[Outcome]:
    """`RUNS` rollouts in which nobody stops at good."""
    return list(pool.map(_run, *zip(*((world, seed, run, ticks) for run in range(RUNS)), strict=True),
                         chunksize=25))


def _run(world: World, seed: int, run: int, ticks: int) -> Outcome:
    return simulate(world, np.random.default_rng([seed, run]), ticks)


def _cost() -> Figure:
    """Of folding one tick, without drawing it."""
    ticks = 2000
    analysis = Analysis()
    analysis.fold("rollout.began", {"setup": SETUP.as_data()})
    counts = {metric.name: [50, 1, 950, 10] for metric in SETUP.metrics if not metric.bins}
    bins = {metric.name: [dict.fromkeys(metric.bins, 12), dict.fromkeys(metric.bins, 240)]
            for metric in SETUP.metrics if metric.bins}
    data = {"span": 1.0, "stage": "weight-5", "weight": 5.0, "requests": [50, 950], "failed": [1, 10],
            "counts": counts, "bins": bins}
    begun = time.perf_counter()
    for _ in range(ticks):
        analysis.fold("rollout.tick", data)
    spent = (time.perf_counter() - begun) / ticks
    return Figure(f"a tick of {len(SETUP.metrics)} metrics", spent * 1e3, "ms", 1, "lower")
