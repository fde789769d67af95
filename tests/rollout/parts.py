"""What a rollout works with, in memory: a router with leases, processes, and what a collector saw."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.errors import ActionFailed, NotFound
from engine.monitoring.histograms import Histogram
from engine.monitoring.windows import Increment
from engine.procedures.actions import ProcessStatus
from engine.rollout.traffic.router import Traffic

SERVICE, CHAMPION, CHALLENGER = "flights", "champion", "challenger"
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1)
FAST, SLOW = 2, 4  # buckets: up to 25 ms, and up to 100 ms


async def nothing(name: str) -> None:
    """A boundary at which nothing happens."""


class MemoryRouter:
    """Satisfies LeasedRouter: a split with a revision and a lease over a clock that the test moves.

    `down`: nobody answers. `lies`: says yes and does nothing. `hangs`: set to an event to wait for.
    `edge` is awaited before and after each call. `shares` holds every share that the challenger was given
    by a call, newest last.
    """

    def __init__(self, **weights: float) -> None:
        self.weights = weights or {CHAMPION: 100.0, CHALLENGER: 0.0}
        self.monotonic = 1000.0
        self.revision = 1
        self.lease: float | None = None
        self.fallback: dict[str, float] = {}
        self.down = False
        self.lies = False
        self.hangs: asyncio.Event | None = None
        self.edge: Callable[[str], Awaitable[None]] = nothing
        self.calls: list[str] = []
        self.shares: list[float] = []

    def set_by_another(self, **weights: float) -> None:
        """As somebody else would, past the engine."""
        self._put(weights, None, {})

    def in_force(self) -> dict[str, float]:
        """The split now, as requests find it."""
        self._expire()
        return self.weights

    def _expire(self) -> None:
        if self.lease is not None and self.monotonic > self.lease:
            self._put(self.fallback, None, {})

    def _put(self, weights: Mapping[str, float], lease: float | None, fallback: Mapping[str, float]) -> None:
        self.weights, self.lease, self.fallback = dict(weights), lease, dict(fallback)
        self.revision += 1

    async def _called(self, name: str, service: str) -> None:
        self.calls.append(name)
        if service != SERVICE:
            raise NotFound(f"no router splits {service}")
        if self.hangs is not None:
            await self.hangs.wait()
        if self.down:
            raise ActionFailed("the router does not answer")
        self._expire()

    def _left(self) -> Traffic:
        left = None if self.lease is None else self.lease - self.monotonic
        return Traffic(dict(self.weights), CHAMPION, self.revision, left)

    async def read(self, service: str) -> dict[str, float]:
        return (await self.traffic(service)).weights

    async def traffic(self, service: str) -> Traffic:
        await self._called("traffic", service)
        return self._left()

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        return await self._shift("shift", service, weights, lease_s, {CHAMPION: 100.0, CHALLENGER: 0.0})

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        return await self._shift("shift_from", service, weights, lease_s, {}, seen.revision)

    async def shift_leased(self, seen: Traffic, service: str, weights: Mapping[str, float],
                           lease_s: float, fallback: Mapping[str, float]) -> dict[str, float]:
        return await self._shift("shift_leased", service, weights, lease_s, fallback, seen.revision)

    async def _shift(self, name: str, service: str, weights: Mapping[str, float], lease_s: float | None,
                     fallback: Mapping[str, float], revision: int | None = None) -> dict[str, float]:
        await self.edge(f"{name}:before")
        await self._called(name, service)
        if revision is not None and revision != self.revision:
            raise ActionFailed("the split is another by now")
        if not self.lies:
            self._put(weights, None if lease_s is None else self.monotonic + lease_s, fallback)
            self.shares.append(weights.get(CHALLENGER, 0.0))
        await self.edge(f"{name}:after")
        return dict(weights)

    async def renew(self, service: str, lease_s: float) -> Traffic:
        await self._called("renew", service)
        if self.lease is None:
            raise ActionFailed("there is no lease any more")
        self.lease = self.monotonic + lease_s
        return self._left()


class MirroringMemoryRouter(MemoryRouter):
    """One that mirrors as well: `mirrored` percent of the requests."""

    mirrored: float | None = None

    async def mirror(self, service: str, variant: str, percent: float, lease_s: float) -> None:
        self.mirrored = percent

    async def unmirror(self, service: str) -> None:
        self.mirrored = None


class MemorySupervisor:
    """Processes by name: running unless in `dead`; one in `broken` cannot be started."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.broken: set[str] = set()
        self.started: list[str] = []

    async def status(self, name: str) -> ProcessStatus:
        alive = name not in self.dead
        return ProcessStatus(name, "running" if alive else "dead", 1 if alive else None, None, alive)

    async def start(self, name: str) -> ProcessStatus:
        if name in self.broken:
            raise ActionFailed(f"{name} ended while it started")
        self.started.append(name)
        self.dead.discard(name)
        return await self.status(name)

    async def stop(self, name: str, grace_s: float = 10.0) -> ProcessStatus:
        self.dead.add(name)
        return await self.status(name)


def latencies(n: float, slow: float = 0) -> Histogram:
    """`n` requests of 10 to 25 ms, `slow` of which took 50 to 100 ms instead."""
    counts = [n - slow if at >= FAST else 0.0 for at in range(len(BOUNDS) + 1)]
    return Histogram.of(BOUNDS, [count + (slow if at >= SLOW else 0.0) for at, count in enumerate(counts)])


@dataclass
class Sight:
    """What the collector knows, as the test says. `age` of the data; `unseen`: variants never heard of;
    `beyond`: which limit is passed."""

    age: float | None = 0.2
    unseen: set[str] = field(default_factory=set)
    requests: int = 1000
    labels: list[dict[str, tuple[int, int]]] = field(default_factory=list)
    bins: list[str] = field(default_factory=list)
    beyond: str | None = None

    def heard(self, service: str) -> float | None:
        return self.age

    def latency(self, service: str, variant: str) -> Histogram | None:
        return latencies(self.requests) if self.requests and variant not in self.unseen else None

    def read(self, service: str, variant: str | None = None) -> Mapping[str, Any]:
        if variant in self.unseen:
            raise NotFound(f"{service} has no variant {variant}")
        return {"error_ratio": 0.01, "version": f"{variant} 7"}

    def over(self, service: str, variant: str) -> tuple[str, str] | None:
        return ("p99_ms", self.beyond) if self.beyond is not None else None

    def begin(self, service: str, since: float) -> None:
        """Labels count from now on."""

    def take(self, service: str) -> list[Mapping[str, tuple[int, int]]]:
        return [self.labels.pop(0)] if self.labels else []


def increment(variant: str, n: float, failed: float = 0, *, slow: float = 0, kind: str = "unavailable",
              service: str = SERVICE, **more: Any) -> Increment:
    """One second of one version."""
    return Increment(service, variant, 1.0, n, latencies(n, slow) if n == n and n > 0 else None,
                     {kind: failed} if failed else {}, **more)


def second(canary: tuple[float, float] = (100, 0), baseline: tuple[float, float] = (100, 0)
           ) -> list[Increment]:
    """One second of both: (requests, failed)."""
    return [increment(CHALLENGER, *canary), increment(CHAMPION, *baseline)]
