"""A made-up fleet, library and set of runs: what the fake source shows and its acts change.

Everything follows from a seed and the time handed in, so that a picture taken of it can be compared
with the one before. The runs stand in every state and wait at every kind of gate.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from console import fake_pipelines, fake_rollouts, fake_runs
from engine.api import wire
from engine.api.backend import Point
from engine.errors import NotFound

START = 1795490047.0  # 2026-11-24 03:14:07Z
STEP_S = 5.0          # between two points of a trend
NAMES = ("flights", "pricing", "search-rank", "fraud", "eta", "churn", "ads-ctr", "ads-bid",
         "recommend", "embeddings", "spam", "credit-risk", "inventory", "demand-48h", "geo-match",
         "image-tags", "translate", "chat-intent", "dedupe", "forecast-load")


class Row(msgspec.Struct):
    """The walk of one service: `level` is its usual p99 in milliseconds."""

    name: str
    level: float
    rps: float
    trend: list[float | None]
    version: int


class World:
    """The state behind a fake source. `at` is the engine's time; `advance` moves it.

    `busy` changes every number of every service at each step; otherwise only the troubled ones move.
    """

    def __init__(self, *, seed: int = 7, services: int = 20, at: float = START,
                 busy: bool = True) -> None:
        self.random = random.Random(seed)
        self.at = at
        self.busy = busy
        self.seq = 1
        self.rows = [self._row(name) for name in NAMES[:services]]
        self.runs = {run.id: run for run in fake_runs.runs(at)}
        self.rollouts: dict[str, wire.Rollout] = {}
        self.pages: dict[str, wire.Page] = {}
        self.curves: dict[tuple[str, str], list[Point]] = {}
        self.procedures = fake_runs.library()
        self._services = [self._service(row) for row in self.rows]

    def train(self) -> None:
        """Let a pipeline train beside the other runs."""
        run, self.curves = fake_pipelines.training(self.at)
        self.runs = {run.id: run, **self.runs}

    def release(self) -> None:
        """Let a pipeline wait for the approval of its release."""
        run, page = fake_pipelines.releasing(self.at)
        self.runs, self.pages = {run.id: run, **self.runs}, {run.id: page}

    def _row(self, name: str) -> Row:
        level = self.random.choice((9.0, 17.0, 21.0, 35.0, 60.0, 140.0))
        trend: list[float | None] = [level * self.random.uniform(0.85, 1.15) for _ in range(60)]
        if name == "flights":
            level = 212.0
            trend = [40 + 172 * max(0.0, (i - 24) / 36) ** 1.4 for i in range(60)]
        if name == "fraud":
            trend[40:] = [None] * 20
        return Row(name, level, self.random.choice((48.2, 310.0, 912.4, 12.0, 2405.0)), trend,
                   self.random.randint(2, 31))

    def advance(self, seconds: float = 1.0) -> None:
        """Move time on; a busy fleet's numbers all change, a calm one's do not."""
        before = self.at
        self.at += seconds
        self.seq += 1
        fake_rollouts.advance(self.rollouts, self.at, seconds)
        if self.busy:
            for row in self.rows:
                if int(self.at / STEP_S) > int(before / STEP_S) and row.name != "fraud":
                    row.trend = [*row.trend[1:], row.level * self.random.uniform(0.85, 1.15)]
            self._services = [self._service(row) for row in self.rows]
        fake_runs.advance(self.runs, self.at)

    def _service(self, row: Row) -> wire.Service:
        walk = self.random.uniform
        stale = row.name == "fraud"
        rolled = next((r for r in self.rollouts.values() if r.service == row.name and r.ended is None), None)
        canary = row.name in ("flights", "search-rank") or rolled is not None
        share = rolled.weight or 0.0 if rolled else 5.0 if row.name == "flights" else 25.0
        troubled = row.name == "flights"
        rps = row.rps * walk(0.95, 1.05)
        p50, p95, p99 = (row.level * walk(0.95, 1.05) * part for part in (0.42, 0.68, 1.0))
        if troubled:
            p50, p95, p99 = 11.0 * walk(0.9, 1.1), 38.0 * walk(0.9, 1.1), 212.0 * walk(0.95, 1.05)
        ratio = {"flights": 0.021, "pricing": 0.0121}.get(row.name, 0.0) * walk(0.95, 1.05)
        variants = [self._variant("champion", row.version, 100 - share if canary else 100,
                                  rps, (p50, p95, min(p99, 38.0) if troubled else p99), {}, stale)]
        if canary:
            errors = {"timeout": 0.9, "model_error": 0.11} if troubled else {}
            variants.append(self._variant("challenger", row.version + 1, share,
                                          rps * 0.05, (p50 * 1.3, p95 * 2, p99), errors, stale))
        elif row.name == "pricing":
            variants[0].errors = {"invalid_input": 3.1, "timeout": 0.6}
        return wire.Service(
            name=row.name, age_s=74.0 if stale else 0.6, alerts=self._alerts(row.name), drift=None,
            rollout=fake_rollouts.summary(self.rollouts, row.name),
            waiting=sum(w.service == row.name for w in self.waiting()),
            variants=variants, limits={"p99_ms": 150.0 if troubled else row.level * 2,
                                       "error_ratio": 0.01},
            rps=None if stale else rps, p50_ms=None if stale else p50,
            p95_ms=None if stale else p95, p99_ms=None if stale else p99,
            error_ratio=None if stale else ratio, trend_p99_ms=list(row.trend))

    def _variant(self, name: str, version: int, weight: float, rps: float,
                 latency: tuple[float, float, float], errors: dict[str, float],
                 stale: bool) -> wire.Variant:
        return wire.Variant(
            name=name, version=str(version), weight=float(weight), rps=None if stale else rps,
            p50_ms=None if stale else latency[0], p95_ms=None if stale else latency[1],
            p99_ms=None if stale else latency[2], errors=dict(errors), stale=stale,
            in_flight=None if stale else round(rps * latency[0] / 1000 + 1),
            age_s=74.0 if stale else 0.6)

    def _alerts(self, service: str) -> list[wire.Alert]:
        if service == "flights":
            return [wire.Alert("flights-p99", service, "page", "p99_ms",
                               "p99 212 ms is over 150 ms for 3 min, canary only", START - 187,
                               ["high-latency", "rollback-model"])]
        if service == "pricing":
            return [wire.Alert("pricing-errors", service, "ticket", "error_ratio",
                               "errors 1.21 % are over 1 % for 12 min, mostly invalid_input",
                               START - 723, ["error-spike"])]
        return []

    def roll_out(self) -> None:
        """Let rollouts run, wait and have ended beside the other runs."""
        for rollout in fake_rollouts.made(self.at):
            self.rollouts[rollout.run] = rollout
            self.runs[rollout.run] = fake_rollouts.run_of(rollout)
            for row in self.rows:
                if row.name == rollout.service:
                    row.version = int(rollout.champion_version or 1)
        self.procedures = [*self.procedures, *fake_runs.rollout_library()]
        self._services = [self._service(row) for row in self.rows]

    def rollout(self, name: str) -> wire.Rollout:
        """By a run's id, or a service: the one that runs there, else the last. Raises NotFound."""
        found = [r for r in self.rollouts.values() if name in (r.run, r.service)]
        if not found:
            raise NotFound(f"there is no rollout of {name}", hint="see `:rollouts`")
        return min(found, key=lambda r: r.ended is not None)

    def act(self, run: str, verb: str, body: wire.Act) -> wire.RunView:
        view = fake_runs.act(self.runs, run, verb, body, self.at)
        if run in self.rollouts:
            fake_rollouts.follow(self.rollouts[run], view)
            for service in self._services:
                service.rollout = fake_rollouts.summary(self.rollouts, service.name)
        return view

    def waiting(self) -> list[wire.Waiting]:
        return fake_runs.waiting(self.runs)

    def snapshot(self) -> wire.Snapshot:
        return wire.Snapshot(at=self.at, seq=self.seq, services=self._services,
                             runs=[fake_runs.summary(run) for run in self.runs.values()],
                             waiting=self.waiting(), engine=self.info())

    def info(self) -> wire.EngineInfo:
        return wire.EngineInfo(pid=4711, socket="/run/opsdeck/engine.sock", version="0.1.0",
                               state="serving", protocol=wire.PROTOCOL, at=self.at,
                               home="/var/lib/opsdeck", mode="system", user="oncall1",
                               roles=["operator", "approver"])

    def history(self, service: str, seconds: float, points: int) -> wire.Series:
        """Columns that end now: a rise of the challenger's p99, some timeouts, one gap."""
        step = seconds / points
        dice = random.Random(f"{service}/{seconds}")
        rows = {row.name: row for row in self.rows}
        level = rows[service].level if service in rows else 20.0
        troubled = service == "flights"
        values: dict[str, list[float | None]] = {}
        for variant in ("champion", "challenger") if troubled else ("champion",):
            rise = troubled and variant == "challenger"
            base = 40.0 if troubled else level
            p99 = [base * dice.uniform(0.9, 1.1) + (170 * max(0.0, i / points - 0.4) ** 0.7 if rise else 0)
                   for i in range(points)]
            for signal, part in (("p50_ms", 0.3), ("p95_ms", 0.7), ("p99_ms", 1.0)):
                column: list[float | None] = [v * part * dice.uniform(0.97, 1.03) for v in p99]
                column[points // 3:points // 3 + 2] = [None] * len(column[points // 3:points // 3 + 2])
                values[f"{variant}/{signal}"] = column
            values[f"{variant}/rps"] = [(2.4 if rise else 45.8) * dice.uniform(0.9, 1.1)
                                        for _ in range(points)]
            values[f"{variant}/in_flight"] = [float(dice.randint(1, 4)) for _ in range(points)]
            values[f"{variant}/errors.timeout"] = [
                0.9 * max(0.0, i / points - 0.4) if rise else 0.0 for i in range(points)]
            if rise:
                values[f"{variant}/errors.model_error"] = [
                    0.11 if i > points * 0.7 else 0.0 for i in range(points)]
        return wire.Series(service, self.at - seconds, step, self.at, values)

    def events(self, limit: int, before: int | None) -> list[wire.Event]:
        last = 412 if before is None else before - 1
        return [self._event(seq) for seq in range(last, max(0, last - limit), -1)]

    def _event(self, seq: int) -> wire.Event:
        kinds: tuple[tuple[str, str, str | None, str], ...] = (
            ("step.outcome", "engine", "notify", "notify is done in 0.4 s"),
            ("step.intent", "oncall1", "notify", "notify starts: POST https://hooks.example/ml"),
            ("gate.approved", "oncall2", "promote", "oncall2 approves promote, 1 of 2"),
            ("run.created", "oncall1", None, "rollback-model starts for flights"),
            ("alert.firing", "engine", None, "flights: p99 212 ms is over 150 ms for 3 min"))
        kind, by, step, text = kinds[seq % len(kinds)]
        run = None if kind.startswith("alert") else "184" if seq > 390 else "177"
        data: dict[str, Any] = {"exit_code": 0, "duration_s": 0.4} if kind == "step.outcome" else {}
        return wire.Event(seq=seq, at=START - (412 - seq) * 37.0, kind=kind, by=by,
                          origin="engine" if by == "engine" else f"socket pid {4000 + seq}",
                          run=run, step=step, attempt=1 if step else None, text=text,
                          hash=f"{seq * 2654435761 % 2**64:016x}" * 4, data=data)
