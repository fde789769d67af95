"""Where the console's data comes from: one protocol, with a live, a replayed and a made-up source.

The screens know only this. A source never blocks the loop and never raises from `ticks`: that the
engine is away is itself a tick. The other methods raise errors of `engine.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol

import msgspec

from engine.api import wire
from engine.api.backend import Curve, OutputChunk, Verb

Clock = Callable[[], float]


class Link(msgspec.Struct, frozen=True):
    """How the connection stands. `reason` is a sentence when it is not `live`; `retry_at` is on the
    source's clock."""

    state: Literal["connecting", "live", "lost"]
    reason: str | None = None
    retry_at: float | None = None


class Tick(msgspec.Struct, frozen=True):
    """One moment: the newest snapshot (None before the first), when it came, and the link.

    `heard` is when the engine last gave a sign of life, on the source's own clock; data is as old as
    that, whatever the engine's clock says.
    """

    snapshot: wire.Snapshot | None
    heard: float | None
    link: Link


class Source(Protocol):
    @property
    def clock(self) -> Clock:
        """Seconds that only move forward; `heard` and `retry_at` are on it."""
        ...

    def ticks(self) -> AsyncIterator[Tick]:
        """The newest state whenever something changed; what a slow reader missed is left out."""
        ...

    def follow(self, run: str) -> AsyncIterator[wire.RunView | OutputChunk | Link]:
        """One run now, its changes and its live output; reconnects by itself until the run has ended."""
        ...

    async def library(self) -> list[wire.Procedure]: ...
    async def history(self, service: str, seconds: float, points: int) -> wire.Series: ...
    async def runs(self, limit: int) -> list[wire.RunSummary]: ...
    async def run(self, run: str) -> wire.RunView: ...
    async def output(self, run: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk: ...
    async def curve(self, run: str, step: str, attempt: int | None, offset: int) -> Curve: ...
    async def page(self, run: str) -> wire.Page: ...
    async def rollouts(self) -> list[wire.Rollout]: ...
    async def rollout(self, name: str) -> wire.Rollout:
        """By the run's id or the service, with its evidence."""
        ...

    async def timeline(self, run: str) -> list[wire.Event]: ...
    async def events(self, limit: int, before: int | None) -> list[wire.Event]: ...
    async def start(self, request: wire.StartRun) -> wire.RunView: ...
    async def act(self, run: str, verb: Verb, act: wire.Act) -> wire.RunView: ...
    async def close(self) -> None: ...
