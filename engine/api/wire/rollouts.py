"""A rollout: its path, its metrics and its verdict."""

from __future__ import annotations

from typing import Literal

import msgspec

from engine.api.wire.runs import Gate, RunState, StepState


class RolloutMetric(msgspec.Struct):
    """One thing that the judge counts: `ln_e` is the evidence that the canary is worse, bad at `line`;
    `ln_good` that it is not worse, good at `good_line` (None where that is not asked).

    `canary` and `baseline` are [n, y] since the rollout began. `expected` is the share of the canary's
    that would be y if it were as the baseline in the same beats: compare the canary's share with that,
    not with the baseline's total. `values` are both sides' own in words, canary first, such as
    ("11–13 ms", "9.1–10 ms"): an interval that holds at every look together; `edge_ms` is the latency above
    which a request is y.
    `critical` False: shown, decides nothing. `history` is ln_e over the ticks, at most 120 points, oldest
    first, and `good_history` ln_good.
    """

    name: str
    title: str
    critical: bool
    ln_e: float
    line: float | None
    canary: tuple[int, int]
    baseline: tuple[int, int]
    ln_good: float | None = None
    good_line: float | None = None
    values: tuple[str, str] | None = None
    history: list[float] = []
    expected: float | None = None
    edge_ms: float | None = None
    good_history: list[float] = []


class RolloutStep(msgspec.Struct):
    """One step of the plan as the screen draws it; `weight` in percent for those that set one."""

    id: str
    title: str
    state: StepState
    weight: float | None = None


class Rollout(msgspec.Struct):
    """`GET /v1/rollouts/{name}`: a rollout that runs or has ended, with its evidence.

    `from_`/`to` are variants with their versions; `weight` is the percent that `to` has now, as the
    router last said, None where it does not answer; `safe` are the weights that an abort restores.
    `verdict` is the judge's; `sentence` says why, and what would change it. `missing` says what keeps it
    from going on (too little traffic, stale data …) and `wait_s` how long that takes at this rate.
    `state` is the run's; `paused_by` is None, a person's name, or "engine" for missing evidence. `diff` is
    how the versions' manifests differ: (key, champion's, challenger's).
    """

    run: str
    service: str
    procedure: str
    state: RunState
    by: str
    started: float
    ended: float | None
    at: float
    champion: str
    challenger: str
    champion_version: str | None
    challenger_version: str | None
    weight: float | None
    safe: dict[str, float]
    steps: list[RolloutStep]
    step: str | None
    step_since: float | None
    step_requests: int
    metrics: list[RolloutMetric]
    ln_e_all: float
    threshold: float
    verdict: Literal["bad", "undecided", "good"]
    sentence: str
    concurrent: bool
    watching: bool
    bad: int
    bad_limit: int | None
    exposed: int
    exposed_limit: int | None
    missing: str | None = None
    wait_s: float | None = None
    paused_by: str | None = None
    next: str | None = None
    after: str | None = None
    undo: str | None = None
    reason: str | None = None
    gate: Gate | None = None
    gate_step: str | None = None
    lease_s: float | None = None
    diff: list[tuple[str, str, str]] = []
