"""The judge in simulation, 1,000 runs a row with fixed seeds: false rollbacks of identical versions, and
how soon and at what exposure a bad one is found. A tick is a second.

Eight metrics share α = 0.01: half of it watches all errors together, the rest in equal parts the errors
of five types, latency (requests over the baseline's p99, frozen) and predictions (four bins). The canary
has 50 requests a second of 1,000, errors are 1 %, and 2× or 5× means that errors of every type are so
many times as many.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from engine.rollout.evidence import BinTick, Counts, Tick
from engine.rollout.judge import Judge, Metric
from tests.benchmarks.figure import Figure

ALPHA, RUNS, TICKS = 0.01, 1000, 180
TYPES = {"timeout": 0.4, "unavailable": 0.25, "model_error": 0.2, "invalid_input": 0.1,
         "out_of_memory": 0.05}
BINS = {"0-25 %": 0.5, "25-50 %": 0.25, "50-75 %": 0.15, "75-100 %": 0.1}
RISK, SLOW = 0.01, 0.01
PART = ALPHA / 2 / (len(TYPES) + 2)
METRICS = [Metric("errors", ALPHA / 2), *(Metric(f"errors: {name}", PART) for name in TYPES),
           Metric("latency p99", PART), Metric("predictions", PART, bins=tuple(BINS))]


@dataclass(frozen=True)
class World:
    """Requests a second on both sides at second t, how much the canary's errors are raised, and how
    much everybody's are at second t."""

    canary_rps: float = 50
    baseline_rps: float = 950
    worse: float = 1.0
    incident: Callable[[int], float] = lambda t: 1.0
    load: Callable[[int], float] = lambda t: 1.0
    burst: int = 1  # so many failures share a session, and are counted once


def figures() -> list[Figure]:
    """Takes about two minutes."""
    equal = {"identical versions": World(),
             "with a 5x incident of both": World(incident=lambda t: 5.0 if 60 <= t < 120 else 1.0),
             "under a diurnal load": World(load=lambda t: 1 + 0.9 * float(np.sin(t / TICKS * 2 * np.pi))),
             "at 2 rps of canary": World(canary_rps=2, baseline_rps=38),
             "in bursts of 10, each counted once": World(burst=10)}
    rows = []
    for seed, (name, world) in enumerate(equal.items()):
        found = [_run(world, np.random.default_rng([seed, run])) for run in range(RUNS)]
        share = 100 * sum(at is not None for at, _ in found) / RUNS
        rows.append(Figure(f"A/A: false rollbacks, {name}", share, "%", 1, "lower",
                           f"{RUNS:,} runs of {TICKS} ticks"))
    rows += _found("2x errors", World(worse=2), 50, 100, 2000)
    rows += _found("5x errors", World(worse=5), 8, None, 500)
    return [*rows, _cost()]


def _found(name: str, world: World, median: float, p95: float | None, exposed: float) -> list[Figure]:
    found = [_run(world, np.random.default_rng([99, int(world.worse), run]), 2000) for run in range(RUNS)]
    at = [float(tick) if tick is not None else float("inf") for tick, _ in found]
    rows = [Figure(f"{name} found, median", statistics.median(at), "s", median, "lower")]
    if p95 is not None:
        rows.append(Figure(f"{name} found, p95", float(np.percentile(at, 95)), "s", p95, "lower"))
    return [*rows, Figure(f"{name}: canary requests exposed, median",
                          statistics.median(n for _, n in found), "", exposed, "lower")]


def _run(world: World, rng: np.random.Generator, ticks: int = TICKS) -> tuple[int | None, int]:
    """The tick of a bad verdict (None without one), and the canary's requests until then."""
    judging, exposed = Judge(ALPHA, METRICS), 0
    for counts in _ticks(world, rng, ticks):
        exposed += counts["errors"].canary.n
        if (at := judging.add(counts).decided_at) is not None:
            return at, exposed
    return None, exposed


def _ticks(world: World, rng: np.random.Generator, ticks: int) -> Iterator[dict[str, Tick | BinTick]]:
    for t in range(ticks):
        canary = _side(world, rng, t, world.canary_rps, world.worse)
        baseline = _side(world, rng, t, world.baseline_rps, 1.0)
        counts: dict[str, Tick | BinTick] = {
            name: Tick(Counts(canary[0], y), Counts(baseline[0], baseline[1][name]))
            for name, y in canary[1].items()}
        yield counts | {"predictions": BinTick(canary[2], baseline[2])}


def _side(world: World, rng: np.random.Generator, t: int, rps: float, worse: float
          ) -> tuple[int, dict[str, int], dict[str, int]]:
    """Requests, failures by metric, predictions by bin."""
    n = int(rng.poisson(rps * world.load(t)))
    risk = min(RISK * worse * world.incident(t) / world.burst, 1.0)
    failed = int(rng.binomial(n, risk))
    types = rng.multinomial(failed, list(TYPES.values()))
    bins = rng.multinomial(n - failed, list(BINS.values()))
    return (n, {"errors": failed, "latency p99": int(rng.binomial(n, SLOW)),
                **{f"errors: {name}": int(k) for name, k in zip(TYPES, types, strict=True)}},
            {name: int(k) for name, k in zip(BINS, bins, strict=True)})


def _cost() -> Figure:
    ticks = list(_ticks(World(), np.random.default_rng(1), 2000))
    judging = Judge(ALPHA, METRICS)
    begun = time.perf_counter()
    for counts in ticks:
        judging.add(counts)
    return Figure("a tick of eight metrics", (time.perf_counter() - begun) / len(ticks) * 1e3, "ms", 1,
                  "lower")
