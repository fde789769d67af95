"""Watches every service of the config: scrapes, folds, judges limits, remembers.

One tick each `scrape_interval`, on a fixed beat of the monotonic clock: a late tick does not move
the ones after it, and a jump of the wall clock moves only what is stamped with it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.api import wire
from engine.config import Config, Service
from engine.errors import NotFound
from engine.monitoring import rows
from engine.monitoring.alerts import AlertBook
from engine.monitoring.histograms import Histogram
from engine.monitoring.history import FLUSH_EVERY_S, History, HistoryUnavailable
from engine.monitoring.limits import Hold
from engine.monitoring.points import WHOLE, beside, point
from engine.monitoring.signals import ServiceFold, Signals
from engine.monitoring.sources.source import Source, SourceFactory, is_mirror
from engine.monitoring.targets import OnEvent, Target, Targets
from engine.monitoring.trend import Trend
from engine.monitoring.windows import Increment

LEAST_DEADLINE_S = 0.5
JUMP_S = 0.5  # a wall clock that moves more than this against the monotonic one has jumped

OnIncrements = Callable[[str, Sequence[Increment], float, float], None]
"""Service, what its targets saw since the tick before, monotonic now, and the wall clock's stamp."""


@dataclass(slots=True)
class _Watched:
    """One service. `heard` is when its oldest data came, `wrong` whether what the targets say of it
    makes no sense, and for how long."""

    fold: ServiceFold
    targets: list[Target]
    trend: Trend
    limits: dict[str, float]
    wrong: Hold
    heard: float
    happened: list[Increment] = field(default_factory=list)


class Collector:
    """The live signals of the services of a config; satisfies `Signals` of
    engine.procedures.actions.

    `history` may be None: then nothing is kept. `clock` is the wall clock, in seconds since the
    epoch. `on_event(kind, data)` hears of target.lost, target.back, service.wrong, service.well,
    alert.fired, alert.cleared and history.failing, once for each change of state, with a sentence
    as `data["text"]`; `on_tick()` is called after every tick. `on_increments` hears, once a tick and
    before `on_tick`, of each service what happened, mirrors too, an empty list where nothing came.
    `firing` are
    the alerts that fired before a restart. `open_sources` chooses the adapter; by default targets
    are scraped over HTTP.
    """

    def __init__(self, config: Config, history: History | None, *,
                 clock: Callable[[], float] = time.time,
                 on_event: OnEvent, on_tick: Callable[[], None],
                 on_increments: OnIncrements = lambda service, increments, now, stamp: None,
                 firing: Iterable[wire.Alert] = (),
                 open_sources: SourceFactory | None = None,
                 monotonic: Callable[[], float] = time.monotonic) -> None:
        engine = config.engine
        self._interval_s = engine.scrape_interval
        deadline_s = max(0.8 * self._interval_s, LEAST_DEADLINE_S)
        # a target must be able to miss a beat without being called stale
        stale_after_s = max(engine.stale_after, 2.5 * self._interval_s + deadline_s)
        self._history = history
        self._clock = clock
        self._monotonic = monotonic
        self._on_event = on_event
        self._on_tick = on_tick
        self._on_increments = on_increments
        self._firing = list(firing)
        self._offset: float | None = None
        self._stale_after_s = stale_after_s
        self._alerts = AlertBook(config.services)
        self._targets = Targets(
            _addresses(config), window_s=engine.window, deadline_s=deadline_s,
            stale_after_s=stale_after_s, open_sources=open_sources or _scraped, monotonic=monotonic,
            on_event=on_event)
        self._services = {name: self._watched(name, service)
                          for name, service in config.services.items()}

    def use_config(self, config: Config) -> None:
        """Watch the services of another config from the next tick on.

        A service that stays keeps its numbers and its alerts. How often and over what window targets
        are read stays as it was when the collector was made.
        """
        self._targets.replace(_addresses(config))
        before = self._services
        self._services = {name: self._watched(name, service, before.get(name))
                          for name, service in config.services.items()}
        for kind, data in self._alerts.replace(config.services, self._monotonic(), self._clock()):
            self._on_event(kind, data)

    def _watched(self, name: str, service: Service, before: _Watched | None = None) -> _Watched:
        targets = self._targets.of(name)
        fold = ServiceFold(name, [target.fold for target in targets], champion=service.champion,
                           stale_after_s=self._stale_after_s, versions=service.versions)
        if before is not None:
            return replace(before, fold=fold, targets=targets, limits=rows.limits(service.limits))
        return _Watched(fold, targets, Trend(self._interval_s), rows.limits(service.limits),
                        Hold(self._stale_after_s), self._monotonic())

    def services(self) -> list[wire.Service]:
        """A row for each service of the config, in its order. `drift` and `rollout` are None and
        `waiting` 0: they are the engine's to fill."""
        now = self._monotonic()
        found = []
        for name, watched in self._services.items():
            whole, variants = watched.fold.signals(now)
            found.append(rows.service(
                name, whole, variants, alerts=self._alerts.firing(name), limits=watched.limits,
                trend=watched.trend.values(now), lease_s=watched.fold.lease_s(now)))
        return found

    def alerts(self) -> list[wire.Alert]:
        """All that fire: pages first, then the oldest first."""
        return self._alerts.firing()

    def read(self, service: str, variant: str | None = None) -> Mapping[str, Any]:
        """The signals of a service or of one variant (or of VARIANT+mirror): rps, p50_ms, p95_ms,
        p99_ms, error_ratio, errors, in_flight, weight, version, stale, age_s. Raises NotFound."""
        fold, now = self._found(service).fold, self._monotonic()
        whole, variants = fold.signals(now)
        if variant is None:
            return rows.mapping(whole)
        if is_mirror(variant):
            variants = fold.mirrors(now)
        if variant not in variants:
            raise NotFound(f"{service} has no variant {variant}", hint=_known(variants))
        return rows.mapping(variants[variant])

    def heard(self, service: str) -> float | None:
        """How old the oldest data of a service is, in seconds, as `age_s` of `read`; None while one of
        its targets was never heard, or none names it. Raises NotFound."""
        fold = self._found(service).fold
        return fold.age_s(self._monotonic()) if fold.carried() else None

    def latency(self, service: str, variant: str) -> Histogram | None:
        """The latencies of the requests of a variant, or of VARIANT+mirror, in the window, of all fresh
        targets together; None without requests, for a variant that no target names, or where their
        buckets differ. Raises NotFound for a service that is not watched."""
        fold, now = self._found(service).fold, self._monotonic()
        variants = fold.mirrors(now) if is_mirror(variant) else fold.signals(now)[1]
        return variants[variant].latency if variant in variants else None

    def over(self, service: str, variant: str) -> tuple[str, str] | None:
        """Which of the service's limits one variant is over, as `AlertBook.over` says."""
        return self._alerts.over(service, variant)

    def bins(self, service: str) -> list[str]:
        """The bins that a service's predictions are counted in, sorted; empty where they are not counted.
        Raises NotFound."""
        return self._found(service).fold.bins()

    def _found(self, service: str) -> _Watched:
        watched = self._services.get(service)
        if watched is None:
            raise NotFound(f"there is no service {service}", hint=_known(self._services))
        return watched

    async def run(self) -> None:
        """Watch until cancelled; then close the sources and write what history still holds."""
        try:
            await self.open()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat())
                if self._history is not None:
                    group.create_task(self._remember(self._history))
        finally:
            await self.close()

    async def open(self) -> None:
        """Take up the alerts of before and open the sources. `run` does it, and `close`."""
        for kind, data in self._alerts.restore(self._firing, self._monotonic(), self._clock()):
            self._on_event(kind, data)
        await self._targets.open()

    async def close(self) -> None:
        await self._targets.close()
        if self._history is not None:
            await self._history.flush(whole=True)

    async def tick(self, due: float) -> None:
        """One round at monotonic `due`: read, fold, judge, remember, tell."""
        await self._targets.read()
        now, wall = self._monotonic(), self._clock()
        stamp = self._stamp(due, now, wall)
        for increment in self._targets.take():
            if watched := self._services.get(increment.service):
                watched.happened.append(increment)
        self._targets.settle(now)
        for name, watched in self._services.items():
            whole, variants = watched.fold.signals(now)
            happened, watched.happened = watched.happened, []
            self._keep(name, watched, happened, variants, now, stamp)
            self._doubt(name, watched, whole, now)
            if whole.age_s is not None:
                watched.heard = now - whole.age_s
            for kind, data in self._alerts.update(name, whole, variants, now=now, wall=wall,
                                                  silent_s=now - watched.heard):
                self._on_event(kind, data)
            self._on_increments(name, happened, now, stamp)
        self._on_tick()

    async def _beat(self) -> None:
        start = self._monotonic()
        beat = 0
        while True:
            await self.tick(start + beat * self._interval_s)
            beat = following(beat, self._monotonic() - start, self._interval_s)
            await asyncio.sleep(max(start + beat * self._interval_s - self._monotonic(), 0.0))

    async def _remember(self, history: History) -> None:
        await self._fill_trends(history)
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await history.flush()

    async def _fill_trends(self, history: History) -> None:
        for name, watched in self._services.items():
            trend = watched.trend
            try:
                past = await history.read(name, trend.length * trend.step_s, trend.length)
            except HistoryUnavailable as error:
                self._on_event("history.failing", {"file": error.where, "text": error.message})
                return
            values = past.values.get(f"{WHOLE}/p99_ms", [])
            now, wall = self._monotonic(), self._clock()
            trend.fill(now, [(wall - past.start - (place + 0.5) * past.step_s, value)
                             for place, value in enumerate(values) if value is not None])

    def _keep(self, name: str, watched: _Watched, happened: Sequence[Increment],
              variants: Mapping[str, Signals], now: float, stamp: float) -> None:
        """Put what happened since the last tick into the trend and the history, without mirrors."""
        by_variant: dict[str, list[Increment]] = {}
        for increment in happened:
            if not is_mirror(increment.variant):
                by_variant.setdefault(increment.variant, []).append(increment)
        if not by_variant:
            return
        points = {variant: point(some, variants[variant].in_flight if variant in variants else None)
                  for variant, some in by_variant.items()}
        watched.trend.add(now, beside(points.values()))
        if self._history is not None:
            self._history.record(name, stamp, points)

    def _doubt(self, name: str, watched: _Watched, whole: Signals, now: float) -> None:
        """Tell when what fresh targets say of a service has made no sense for a while."""
        wrong = next((problem for problem in (
            whole.problem, *(target.fold.problem for target in watched.targets)) if problem), None)
        names = [target.source.name for target in watched.targets if target.source]
        if not wrong and names and not watched.fold.carried() and not any(
                target.lost or target.trouble for target in watched.targets):
            wrong = (f"{' and '.join(names)} answers, but no metric there carries the label "
                     f'service="{name}"')
        if watched.wrong.step(now, "over" if wrong else "well"):
            self._on_event("service.wrong" if wrong else "service.well", {
                "service": name,
                "text": wrong or f"what the targets of {name} say makes sense again"})

    def _stamp(self, due: float, now: float, wall: float) -> float:
        """The wall clock at `due`. Kept on the beat, so that every tick has a second of its own
        however late it was; set anew when the wall clock jumps."""
        if self._offset is None or abs(wall - now - self._offset) > JUMP_S:
            self._offset = wall - now
        return due + self._offset


def _addresses(config: Config) -> dict[str, list[str]]:
    return {name: service.scrape for name, service in config.services.items()}


def following(beat: int, passed_s: float, interval_s: float) -> int:
    """The beat after `beat`, `passed_s` after beat 0. Beats that were missed are not made up for."""
    return max(beat + 1, math.ceil(passed_s / interval_s))


async def _scraped(urls: Sequence[str], deadline_s: float) -> Mapping[str, Source]:
    from engine.monitoring.sources.scrape import open_targets

    return await open_targets(urls, deadline_s)


def _known(names: Iterable[str]) -> str:
    return f"there is {', '.join(names) or 'none'}"
