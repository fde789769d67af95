"""Rollouts simulated through the real fold: a default plan's setup with every metric on, ticks as intake
makes them, and the engine's own order of what ends a rollout. A tick is a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from engine.monitoring.histograms import Histogram
from engine.monitoring.windows import Increment
from engine.procedures.rollouts import Rollout
from engine.rollout import danger, intake
from engine.rollout.analysis import Analysis
from engine.rollout.setup import setup

TYPES = {"timeout": 0.4, "unavailable": 0.25, "model_error": 0.2, "invalid_input": 0.1,
         "out_of_memory": 0.05}
BINS = {"0-25 %": 0.5, "25-50 %": 0.25, "50-75 %": 0.15, "75-100 %": 0.1}
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
FAST = (0.2, 0.4, 0.3, 0.07, 0.025, 0.004, 0.001)  # share of the requests by bucket
WRONG = 0.2  # of the labelled predictions
SETUP = setup(Rollout(service="flights", to="canary", canary=[5, 100]), bins=tuple(BINS), quality=True,
              recorded=[10_000, 100])
EDGES = intake.edges(Histogram.of(BOUNDS, np.cumsum(FAST) * 1000), SETUP.slack, SETUP.least_s)


def once(t: int) -> float:
    return 1.0


def never(t: int) -> float:
    return 0.0


@dataclass(frozen=True)
class World:
    """Requests a second on both sides, the risk of an error, how much the canary's is raised, and how much
    everybody's, the baseline's own and the load are at second t. `burst` failures share a session, which
    counts once."""

    canary_rps: float = 50
    baseline_rps: float = 950
    risk: float = 0.01
    worse: float = 1.0
    incident: Callable[[int], float] = once
    outage: Callable[[int], float] = never
    load: Callable[[int], float] = once
    burst: int = 1


@dataclass(frozen=True)
class Outcome:
    """When it would have been rolled back (ticks from 1, None if never), after how many requests of the
    canary, whether it was shown to be good, and why it ended."""

    at: int | None
    exposed: int
    good: bool
    why: str | None


def simulate(world: World, rng: np.random.Generator, ticks: int, *, stop_at_good: bool = False) -> Outcome:
    """One rollout at one weight, watched for so many seconds or until it ends."""
    analysis = Analysis()
    analysis.fold("rollout.began", {
        "champion": "baseline", "safe": {"baseline": 100.0, "canary": 0.0}, "setup": SETUP.as_data()})
    analysis.fold("rollout.frozen", {"edges": EDGES})
    weight, exposed = 100 * world.canary_rps / (world.canary_rps + world.baseline_rps), 0
    for t in range(ticks):
        canary = _side(world, rng, t, "canary", world.canary_rps, world.worse)
        baseline = _side(world, rng, t, "baseline", world.baseline_rps, 1.0, world.outage(t))
        labels = {one.variant: (n := int(rng.binomial(round(one.requests), 0.1)), int(rng.binomial(n, WRONG)))
                  for one in (canary, baseline)}
        seen = intake.tick(SETUP, [canary, baseline], canary="canary", baseline="baseline", stage="weight-5",
                           weight=weight, edges=EDGES, quality=[labels] if labels else [])
        if seen is None:
            continue
        if danger.incident(analysis.recent):
            seen = intake.marked(seen, "incident")
        analysis.fold("rollout.tick", seen.as_data())
        exposed += seen.requests[0]
        verdict = analysis.verdict
        assert verdict is not None
        bad = f"worse: {verdict.by}" if verdict.verdict == "bad" else None
        why = danger.catastrophe(analysis.recent) or bad
        if why is not None or (stop_at_good and verdict.verdict == "good"):
            return Outcome(t + 1 if why else None, exposed, verdict.verdict == "good", why)
    return Outcome(None, exposed, verdict.verdict == "good", None)


def _side(world: World, rng: np.random.Generator, t: int, variant: str, rps: float, worse: float,
          outage: float = 0.0) -> Increment:
    n = int(rng.poisson(rps * world.load(t)))
    risk = max(min(world.risk * worse * world.incident(t), 1.0), outage)
    sessions = int(rng.binomial(n, risk / world.burst))
    failed = min(sessions * world.burst, n)
    types = rng.multinomial(failed, list(TYPES.values()))
    bins = rng.multinomial(n - failed, list(BINS.values()))
    latency = Histogram.of(BOUNDS, np.cumsum(rng.multinomial(n, FAST)).tolist())
    units = {}
    if world.burst > 1:
        kinds = rng.multinomial(sessions, list(TYPES.values()))
        units = {"units": float(n), "unit_failures": {
            "any": float(sessions), **{name: float(k) for name, k in zip(TYPES, kinds, strict=True) if k}}}
    return Increment("flights", variant, 1.0, float(n), latency,
                     {name: float(k) for name, k in zip(TYPES, types, strict=True) if k},
                     predictions={name: float(k) for name, k in zip(BINS, bins, strict=True)}, **units)
