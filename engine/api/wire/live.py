"""What the engine is and sees now: itself, its services, its alerts, its events, and what went wrong."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from engine.api.wire.runs import RunSummary, Waiting

Level = Literal["page", "ticket"]


class EngineInfo(msgspec.Struct, omit_defaults=False):
    """`GET /v1/engine`: who answers, and who the kernel says is asking.

    `config_problem`: why the config that was read last does not hold; `restart`: the keys of the
    config that wait for a restart.
    """

    pid: int
    socket: str
    version: str
    state: Literal["serving", "draining", "degraded"]
    protocol: int
    at: float
    home: str
    mode: Literal["single-user", "system"]
    user: str
    roles: list[str]
    problem: str | None = None
    config_problem: str | None = None
    restart: list[str] = []


class Reloaded(msgspec.Struct):
    """`POST /v1/engine/reload`: the config that was read holds now, but for `restart`.

    `changed` and `restart` are keys such as services.flights; `runs` keep the policy they began with.
    """

    at: float
    text: str
    changed: list[str]
    restart: list[str]
    runs: list[str] = []


class Variant(msgspec.Struct):
    """Live signals of one variant of a service over the collector's window."""

    name: str
    version: str | None
    weight: float | None
    rps: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    errors: dict[str, float]
    stale: bool
    in_flight: float | None = None
    age_s: float | None = None


class Alert(msgspec.Struct):
    """A limit that has been exceeded for its hold time. `runbooks` are ids, most apt first."""

    id: str
    service: str
    level: Level
    signal: str
    title: str
    since: float
    runbooks: list[str] = []


class Service(msgspec.Struct):
    """One row of the fleet. `trend_p99_ms`: the last five minutes, oldest first, None where unknown.

    `rollout` is None or {"run", "weight" (percent or None), "step", "steps" (counts), "state" (the run's),
    "verdict", "waits" (whether a person must act)} of the rollout that runs.
    """

    name: str
    age_s: float | None
    alerts: list[Alert]
    drift: dict[str, Any] | None
    rollout: dict[str, Any] | None
    waiting: int
    variants: list[Variant]
    limits: dict[str, float] = {}
    rps: float | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    error_ratio: float | None = None
    trend_p99_ms: list[float | None] = []
    lease_s: float | None = None


class Status(msgspec.Struct):
    """`GET /v1/status`."""

    at: float
    services: list[Service]


class Event(msgspec.Struct):
    """One journal event as the Audit screen and `timeline` show it."""

    seq: int
    at: float
    kind: str
    by: str
    origin: str
    run: str | None
    step: str | None
    attempt: int | None
    text: str
    hash: str
    data: dict[str, Any] = {}


class Snapshot(msgspec.Struct):
    """What the live stream carries each tick: all a console needs to paint Fleet and the header."""

    at: float
    seq: int
    services: list[Service]
    runs: list[RunSummary]
    waiting: list[Waiting]
    engine: EngineInfo


class Series(msgspec.Struct):
    """`GET /v1/services/{name}/history`: columns of equal length, oldest first, None where unknown.

    `values` maps "variant/signal" to a column; signals are rps, p50_ms, p95_ms, p99_ms, in_flight and
    errors.<type>. `step_s` is the distance of two points.
    """

    service: str
    start: float
    step_s: float
    at: float
    values: dict[str, list[float | None]]


class Problem(msgspec.Struct):
    """The body of every refusal: an error of `engine.errors` on the wire."""

    code: str
    message: str
    exit_code: int
    at: float
    where: str | None = None
    hint: str | None = None
    problems: list[str] = []
