"""The history of signals: what happened, second by second, kept over restarts of the engine.

`record` only puts points into memory. Every ten seconds `flush` hands them to one worker thread,
which writes them in one commit; a crash loses at most what was not flushed. Trouble with the file
(locked, full) is told once, and the points wait in memory for up to 15 minutes. A file that is
damaged is set aside and a new one begun: watching goes on whatever happens to its past.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from engine.api import wire
from engine.errors import OpsdeckError
from engine.monitoring.history_store import KEEP_FINE_S, Broken, Row, Store, is_damage
from engine.monitoring.points import Point, after, series

T = TypeVar("T")
OnEvent = Callable[[str, dict[str, Any]], None]

FLUSH_EVERY_S = 10.0


class HistoryUnavailable(OpsdeckError):
    """The history file cannot be read now."""

    code = "history_unavailable"


class History:
    """`path` is the file; `keep_s` how far back it reaches, `interval_s` how often points come.

    All methods are called on one event loop. Events: history.set_aside, history.failing,
    history.well.
    """

    def __init__(self, path: Path, *, keep_s: float, interval_s: float = 1.0,
                 clock: Callable[[], float], on_event: OnEvent) -> None:
        self.path = path
        self._keep_s = keep_s
        self._interval_s = interval_s
        self._clock = clock
        self._on_event = on_event
        self._waiting: dict[tuple[str, int], dict[str, list[Point]]] = {}
        self._failing = False
        self._closed = False
        self._store: Store | None = None  # touched by the worker alone
        self._notes: list[tuple[str, dict[str, Any]]] = []
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="history")

    def record(self, service: str, at: float, points: Mapping[str, Point]) -> None:
        """Keep what each variant did in the second of `at`."""
        second = self._waiting.setdefault((service, int(at)), {})
        for variant, one in points.items():
            second.setdefault(variant, []).append(one)

    async def flush(self, *, whole: bool = False) -> None:
        """Write the seconds that are over; with `whole` the present one too. Never raises for the
        file's trouble: that becomes an event."""
        now = self._clock()
        for key in [key for key in self._waiting if key[1] < now - KEEP_FINE_S]:
            del self._waiting[key]
        ready = {key: second for key, second in self._waiting.items() if whole or key[1] < int(now)}
        if not ready or self._closed:
            return
        for key in ready:
            del self._waiting[key]
        try:
            await self._run(self._write, ready, now)
        except (sqlite3.Error, OSError) as error:
            self._waiting = ready | self._waiting
            if not self._failing:
                self._failing = True
                self._on_event("history.failing", {"file": str(self.path), "text":
                               f"the history cannot be written: {error}; it waits in memory"})
        else:
            if self._failing:
                self._failing = False
                self._on_event("history.well", {"file": str(self.path), "text":
                               "the history is written again"})

    async def read(self, service: str, seconds: float, points: int) -> wire.Series:
        """At least the last `seconds`, in `points` columns or fewer and one that still grows.

        See wire.Series; the whole service stands there as the variant `*`. Columns begin at
        multiples of their distance, so that one that is full never changes again. Raises
        HistoryUnavailable.
        """
        await self.flush()
        at = self._clock()
        try:
            return await self._run(self._read, service, max(seconds, 1.0), max(points, 1), at)
        except (sqlite3.Error, OSError) as error:
            raise HistoryUnavailable(f"the history cannot be read: {error}", where=str(self.path),
                                     hint="live signals go on; look at the file's disk") from error

    async def close(self) -> None:
        """Write everything, then let go of the file. Closing it again does nothing."""
        if self._closed:
            return
        await self.flush(whole=True)
        await self._run(self._close)
        self._closed = True
        self._worker.shutdown()

    async def _run(self, work: Callable[..., T], *args: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, *args)
        finally:
            notes, self._notes = self._notes, []
            for kind, data in notes:
                self._on_event(kind, data)

    # below: the worker's own

    def _write(self, ready: Mapping[tuple[str, int], Mapping[str, list[Point]]],
               now: float) -> None:
        rows: list[Row] = [
            (service, second, {variant: after(points) for variant, points in variants.items()})
            for (service, second), variants in ready.items()]
        self._on_store(lambda store: store.write(rows, now))

    def _read(self, service: str, seconds: float, points: int, at: float) -> wire.Series:
        def work(store: Store) -> wire.Series:
            finest = store.step_for(seconds)
            step_s = finest * math.ceil(max(seconds / points, self._interval_s) / finest)
            count = math.ceil(seconds / step_s) + 1
            end = (at // step_s + 1) * step_s
            start = end - count * step_s
            return series(service, store.read(finest, service, start, end), start=start,
                          step_s=float(step_s), count=count, at=at)
        return self._on_store(work)

    def _on_store(self, work: Callable[[Store], T]) -> T:
        """Do the work on the file. A damaged one is set aside and the work done on a new one."""
        try:
            if self._store is None:
                self._store = Store(self.path, self._keep_s)
            return work(self._store)
        except Broken as broken:
            reason = str(broken)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            reason = f"SQLite finds it damaged: {error}"
        self._set_aside(reason)
        self._store = Store(self.path, self._keep_s)
        return work(self._store)

    def _set_aside(self, reason: str) -> None:
        self._close()
        for older in self.path.parent.glob(f"{self.path.name}.broken-*"):
            older.unlink()
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._clock()))
        aside = self.path.with_name(f"{self.path.name}.broken-{stamp}")
        for suffix in ("", "-journal", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        self._notes.append(("history.set_aside", {
            "file": str(self.path), "aside": str(aside), "text":
            f"the history could not be used ({reason}); it is kept as {aside.name} and a new one "
            "has begun"}))

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None
