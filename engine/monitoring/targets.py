"""The scrape targets of all services: opened, read side by side, and told of when lost or back.

Services may share a target; it is read once. A round waits for the targets that answered the last
time. One in trouble is read beside it, so that a target that hangs makes no other's numbers older.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.monitoring.sources.source import Reading, Source, SourceFactory, Trouble
from engine.monitoring.windows import Increment, TargetFold

OnEvent = Callable[[str, dict[str, Any]], None]

TROUBLED_WAIT_S = 0.05  # how long a round waits for targets that failed the last time


@dataclass(slots=True)
class Target:
    """One address: its source once open, its readings folded, and what was last told of it. It counts
    as silent from `since` until it is first heard."""

    url: str
    fold: TargetFold
    since: float
    services: list[str] = field(default_factory=list)
    source: Source | None = None
    reading: asyncio.Task[tuple[float, Reading | Trouble]] | None = None
    trouble: Trouble | None = None
    lost: bool = False


class Targets:
    """`scrape` has the addresses of each service; `open_sources` chooses the adapter."""

    def __init__(self, scrape: Mapping[str, Sequence[str]], *, window_s: float, deadline_s: float,
                 stale_after_s: float, open_sources: SourceFactory,
                 monotonic: Callable[[], float], on_event: OnEvent) -> None:
        self._deadline_s = deadline_s
        self._stale_after_s = stale_after_s
        self._open_sources = open_sources
        self._monotonic = monotonic
        self._on_event = on_event
        self._window_s = window_s
        self._targets: dict[str, Target] = {}
        self._leaving: list[Target] = []
        self.replace(scrape)

    def replace(self, scrape: Mapping[str, Sequence[str]]) -> None:
        """Read other addresses from the next round on. One that stays keeps all that is known of it."""
        before, self._targets = self._targets, {}
        for target in before.values():
            target.services = []
        for service, urls in scrape.items():
            for url in dict.fromkeys(urls):
                target = self._targets.get(url) or before.get(url) or Target(
                    url, TargetFold(self._window_s), self._monotonic())
                self._targets[url] = target
                target.services.append(service)
        self._leaving += [target for url, target in before.items() if url not in self._targets]

    def of(self, service: str) -> list[Target]:
        return [target for target in self._targets.values() if service in target.services]

    async def open(self) -> None:
        """Open the targets that are new, and let go of those that have left."""
        fresh = {url: target for url, target in self._targets.items() if target.source is None}
        if fresh:
            sources = await self._open_sources(list(fresh), self._deadline_s)
            for url, source in sources.items():
                fresh[url].source, fresh[url].since = source, self._monotonic()
        leaving, self._leaving = self._leaving, []
        await _let_go(leaving)

    async def read(self) -> None:
        """Start a reading of each target that has none under way, and wait for those that matter."""
        await self.open()
        for target in self._targets.values():
            if target.reading is None and target.source is not None:
                target.reading = asyncio.create_task(self._read(target.source))
        under_way = [(target.trouble, target.reading) for target in self._targets.values()]
        well = [reading for trouble, reading in under_way if reading and not trouble]
        rest = [reading for trouble, reading in under_way if reading and trouble]
        if well:
            await asyncio.wait(well, timeout=2 * self._deadline_s)
        if rest:
            await asyncio.wait(rest, timeout=TROUBLED_WAIT_S)

    def take(self) -> Iterator[Increment]:
        """Fold the readings that have come; what they say has happened."""
        for target in self._targets.values():
            if target.reading is None or not target.reading.done():
                continue
            at, said = target.reading.result()
            target.reading = None
            target.trouble = said if isinstance(said, Trouble) else None
            if isinstance(said, Reading):
                yield from target.fold.fold(said, at)

    def settle(self, now: float) -> None:
        """Move the windows on to `now`, and tell of targets that have gone silent or are back."""
        for target in self._targets.values():
            target.fold.expire(now)
            heard = target.since if target.fold.at is None else target.fold.at
            lost = now - heard > self._stale_after_s
            if lost != target.lost and target.source is not None:
                target.lost = lost
                self._tell(target)

    async def close(self) -> None:
        """End the readings under way and let go of the sources."""
        await _let_go([*self._targets.values(), *self._leaving])

    def _tell(self, target: Target) -> None:
        assert target.source is not None
        name, services = target.source.name, list(target.services)
        if not target.lost:
            self._on_event("target.back", {"target": name, "services": services,
                                           "text": f"{name} answers again"})
            return
        trouble = target.trouble or Trouble("slow", f"{name} has not answered yet")
        self._on_event("target.lost", {
            "target": name, "services": services, "reason": trouble.kind,
            "text": f"{trouble.text}; {', '.join(services)} shows as stale"})

    async def _read(self, source: Source) -> tuple[float, Reading | Trouble]:
        said: Reading | Trouble
        try:
            said = await source.read()
        except Exception as error:  # an adapter's own fault must not end the watching of the rest
            said = Trouble("failed", f"{source.name} could not be read: {error!r}")
        return self._monotonic(), said


async def _let_go(targets: Sequence[Target]) -> None:
    readings = [target.reading for target in targets if target.reading]
    for reading in readings:
        reading.cancel()
    await asyncio.gather(*readings, return_exceptions=True)
    for target in targets:
        if target.source is not None:
            await target.source.close()
