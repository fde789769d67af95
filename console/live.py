"""The live source: an engine behind its Unix socket, read by threads, with one message kept at most.

The blocking client costs a few milliseconds to import where httpx costs 155; its streams run in
threads of their own and hand over only the newest, so a slow console drops what lies between.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from console import format
from console.source import Clock, Link, Tick
from engine.api import wire
from engine.api.backend import Curve, OutputChunk, Verb
from engine.api.light import Client
from engine.errors import EngineUnreachable, OpsdeckError

BACKOFF_S = (0.2, 0.4, 0.8, 1.5, 3.0, 5.0)
PROBE_S = 2.0    # silence after which the engine is asked whether it is there
KEPT = 400       # messages of a followed run that wait for the console; more drops the oldest


class Pump:
    """A thread that reads a blocking stream into a short queue, for one reader in the loop.

    `open` gives the stream of a client of its own. How it ended is the last item.
    """

    def __init__(self, socket: Path, open: Callable[[Client], Iterator[Any]], keep: int) -> None:
        self._items: deque[Any] = deque(maxlen=keep)
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._client = Client(socket)
        self._open = open
        self._closed = False
        threading.Thread(target=self._run, name="opsdeck-stream", daemon=True).start()

    def close(self) -> None:
        self._closed = True
        self._client.hang_up()

    def _run(self) -> None:
        ended: OpsdeckError | None = None
        try:
            for item in self._open(self._client):
                if self._closed:
                    return
                self._put(item)
        except OpsdeckError as error:
            ended = error
        self._put(_Ended(ended))

    def _put(self, item: Any) -> None:
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake.set)

    async def next(self, timeout: float | None = None) -> Any:
        """The oldest kept item; raises TimeoutError after `timeout` seconds without one."""
        while not self._items:
            self._wake.clear()
            await asyncio.wait_for(self._wake.wait(), timeout)
        return self._items.popleft()


class _Ended:
    def __init__(self, error: OpsdeckError | None) -> None:
        self.error = error


class LiveSource:
    """The engine at `socket`. It need not be there yet, and may go away and come back."""

    def __init__(self, socket: Path, *, clock: Clock = time.monotonic) -> None:
        self._socket = socket
        self._client = Client(socket)
        self._clock = clock
        self._closed = False
        self._pumps: set[Pump] = set()
        self._dice = random.Random()
        self._back = asyncio.Event()

    @property
    def clock(self) -> Clock:
        return self._clock

    def _pump(self, open: Callable[[Client], Iterator[Any]], keep: int) -> Pump:
        pump = Pump(self._socket, open, keep)
        self._pumps.add(pump)
        return pump

    def _open(self) -> bool:
        return not self._closed

    def _pause(self, failures: int) -> float:
        """Seconds until the next try: backoff, with a fifth of jitter so that consoles spread."""
        base = BACKOFF_S[min(failures, len(BACKOFF_S)) - 1]
        return base * self._dice.uniform(0.8, 1.2)

    async def _rest(self, pause: float) -> None:
        """Wait before the next try, unless another stream finds the engine first."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._back.wait(), pause)

    def _heard(self) -> None:
        """The engine answers: whatever rests between two tries need not wait longer."""
        self._back.set()
        self._back.clear()

    async def ticks(self) -> AsyncIterator[Tick]:
        newest: wire.Snapshot | None = None
        heard: float | None = None
        failures = 0
        while self._open():
            pump = self._pump(Client.snapshots, 1)
            error: OpsdeckError | None = None
            while self._open():
                try:
                    item = await pump.next(PROBE_S)
                except TimeoutError:
                    if await self._answers():
                        heard = self._clock()
                        yield Tick(newest, heard, Link("live" if newest else "connecting"))
                    continue
                if isinstance(item, _Ended):
                    error = item.error
                    break
                if failures:
                    self._heard()
                newest, heard, failures = item, self._clock(), 0
                yield Tick(newest, heard, Link("live"))
            self._drop(pump)
            if not self._open():
                return
            failures += 1
            pause = self._pause(failures)
            reason = _reason(error)
            state = Link("lost", reason, self._clock() + pause)
            yield Tick(newest, heard, state)
            await self._rest(pause)

    async def _answers(self) -> bool:
        """Whether the engine answers a small question: a calm fleet sends nothing for a while."""
        try:
            await asyncio.wait_for(asyncio.to_thread(self._client.engine), PROBE_S)
        except (OpsdeckError, TimeoutError):
            return False
        return True

    def _drop(self, pump: Pump) -> None:
        pump.close()
        self._pumps.discard(pump)

    async def follow(self, run: str) -> AsyncIterator[wire.RunView | OutputChunk | Link]:
        failures = 0
        while self._open():
            pump = self._pump(lambda client: client.follow(run), KEPT)
            error: OpsdeckError | None = None
            try:
                while self._open():
                    item = await pump.next()
                    if isinstance(item, _Ended):
                        error = item.error
                        break
                    if failures:
                        self._heard()
                    failures = 0
                    yield item
            finally:
                self._drop(pump)
            if error is None or not self._open():
                return
            if not isinstance(error, EngineUnreachable):
                raise error
            failures += 1
            pause = self._pause(failures)
            yield Link("lost", _reason(error), self._clock() + pause)
            await self._rest(pause)

    async def library(self) -> list[wire.Procedure]:
        return await asyncio.to_thread(self._client.library)

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        return await asyncio.to_thread(self._client.history, service, seconds, points)

    async def runs(self, limit: int) -> list[wire.RunSummary]:
        return await asyncio.to_thread(self._client.runs, None, limit)

    async def run(self, run: str) -> wire.RunView:
        return await asyncio.to_thread(self._client.run, run)

    async def output(self, run: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk:
        return await asyncio.to_thread(self._client.output, run, step, attempt, offset, limit)

    async def curve(self, run: str, step: str, attempt: int | None, offset: int) -> Curve:
        return await asyncio.to_thread(self._client.curve, run, step, attempt, offset)

    async def page(self, run: str) -> wire.Page:
        return await asyncio.to_thread(self._client.page, run)

    async def rollouts(self) -> list[wire.Rollout]:
        return await asyncio.to_thread(self._client.rollouts)

    async def rollout(self, name: str) -> wire.Rollout:
        return await asyncio.to_thread(self._client.rollout, name)

    async def timeline(self, run: str) -> list[wire.Event]:
        return await asyncio.to_thread(self._client.timeline, run)

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        return await asyncio.to_thread(self._client.events, limit, before)

    async def start(self, request: wire.StartRun) -> wire.RunView:
        return await asyncio.to_thread(self._client.start_run, request)

    async def act(self, run: str, verb: Verb, act: wire.Act) -> wire.RunView:
        return await asyncio.to_thread(self._client.act, run, verb, act)

    async def close(self) -> None:
        self._closed = True
        for pump in list(self._pumps):
            self._drop(pump)


def _reason(error: OpsdeckError | None) -> str:
    if error is None:
        return "The engine ended the stream; trying again."
    return " ".join(format.sentence(part) for part in (error.message, error.hint) if part)
