"""What the watch of a rollout works with: its ports to the collector, the router and the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from engine.journal.events import NewEvent
from engine.monitoring.histograms import Histogram
from engine.procedures.actions import Supervisor
from engine.procedures.executor import Executor, Live
from engine.rollout.traffic.router import Router


class Measured(Protocol):
    """What the collector knows; `engine.monitoring.collector.Collector` satisfies it."""

    def heard(self, service: str) -> float | None: ...
    def latency(self, service: str, variant: str) -> Histogram | None: ...
    def read(self, service: str, variant: str | None = None) -> Mapping[str, Any]: ...
    def over(self, service: str, variant: str) -> tuple[str, str] | None: ...


class Outcomes(Protocol):
    """Labels that come late: new (n, wrong) by variant since last asked, for each second of predictions."""

    def begin(self, service: str, since: float) -> None: ...
    def take(self, service: str) -> Sequence[Mapping[str, tuple[int, int]]]: ...


@dataclass(frozen=True)
class Means:
    """What a watch works with. `bins` are those that a service's predictions fall into, `labelled` says
    whether labels come for them, `supervised` whether a variant of a service has a process here; `stop`
    ends a run for a reason, and `page` tells people of it. `window_s`: over how long the collector's
    signals are."""

    executor: Executor
    measured: Measured
    outcomes: Outcomes
    router: Callable[[], Router]
    bins: Callable[[str], Sequence[str]]
    labelled: Callable[[str], bool]
    stop: Callable[[Live, NewEvent], Awaitable[None]]
    page: Callable[[str, Live], None]
    supervisor: Callable[[], Supervisor]
    supervised: Callable[[str, str], bool]
    monotonic: Callable[[], float]
    stale_after_s: Callable[[], float]
    window_s: Callable[[], float]
