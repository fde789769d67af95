"""The replay source: what a console saw, kept in a file and shown again at its own pace.

A recording holds one JSON object a line: {"after": seconds, "kind": snapshot | run | rollout
| library | events, "data": …}. It is made and shown with

    python -m console.replay record SOCKET FILE --seconds 300
    python -m console.replay show FILE --speed 10
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal, NoReturn, TextIO

import msgspec

from console.source import Clock, Link, Source, Tick
from engine.api import wire
from engine.api.backend import Curve, OutputChunk, Verb
from engine.errors import NotFound, NotPermitted, OpsdeckError, UsageError

EVENTS = 500
TYPES: dict[str, Any] = {"snapshot": wire.Snapshot, "run": wire.RunView, "rollout": wire.Rollout,
                         "library": list[wire.Procedure], "events": list[wire.Event]}


class Entry(msgspec.Struct):
    """One line of a recording."""

    after: float
    kind: Literal["snapshot", "run", "rollout", "library", "events"]
    data: msgspec.Raw

    def value(self) -> Any:
        return msgspec.json.decode(self.data, type=TYPES[self.kind])


def read(path: Path) -> list[Entry]:
    """The entries of a recording. Raises UsageError with the line that cannot be read."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"the recording cannot be read: {error.strerror}", where=str(path)) from error
    entries: list[Entry] = []
    for number, text in enumerate(lines, 1):
        try:
            entry = msgspec.json.decode(text, type=Entry)
            entry.value()
        except msgspec.DecodeError as error:
            raise UsageError(f"this is no line of a recording: {error}",
                             where=f"{path}:{number}") from error
        entries.append(entry)
    return entries


class ReplaySource:
    """Shows a recording once, `speed` times as fast, and then keeps its last picture."""

    def __init__(self, entries: list[Entry], *, speed: float = 1.0,
                 clock: Clock = time.monotonic) -> None:
        self._entries = entries
        self._speed = speed
        self._clock = clock
        self._ended = asyncio.Event()
        self._runs: dict[str, wire.RunView] = {}
        self._rollouts: dict[str, wire.Rollout] = {}
        self._library: list[wire.Procedure] = []
        self._events: list[wire.Event] = []
        for entry in entries:
            if entry.kind == "library":
                self._library = entry.value()
            elif entry.kind == "events":
                self._events = entry.value()

    @property
    def clock(self) -> Clock:
        return self._clock

    async def ticks(self) -> AsyncIterator[Tick]:
        began = self._clock()
        newest: wire.Snapshot | None = None
        for entry in self._entries:
            if entry.kind == "run":
                run = entry.value()
                self._runs[run.id] = run
            if entry.kind == "rollout":
                rollout = entry.value()
                self._rollouts[rollout.run] = rollout
            if entry.kind != "snapshot":
                continue
            wait = entry.after / self._speed - (self._clock() - began)
            if wait > 0:
                await asyncio.sleep(wait)
            newest = entry.value()
            yield Tick(newest, self._clock(), Link("live"))
        while not self._ended.is_set():
            yield Tick(newest, self._clock(), Link("live"))
            try:
                await asyncio.wait_for(self._ended.wait(), 1.0)
            except TimeoutError:
                continue

    async def follow(self, run: str) -> AsyncIterator[wire.RunView | OutputChunk | Link]:
        shown: wire.RunView | None = None
        while not self._ended.is_set():
            now = await self.run(run)
            if now is not shown:
                shown = now
                yield now
            try:
                await asyncio.wait_for(self._ended.wait(), 0.5)
            except TimeoutError:
                continue

    async def library(self) -> list[wire.Procedure]:
        return self._library

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        raise NotFound("a recording holds no history", hint="the trend in Fleet is recorded")

    async def runs(self, limit: int) -> list[wire.RunSummary]:
        return []

    async def run(self, run: str) -> wire.RunView:
        if run not in self._runs:
            raise NotFound(f"run {run} is not in the recording yet")
        return self._runs[run]

    async def output(self, run: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk:
        return OutputChunk(run, step, attempt or 1, offset, offset, "", True)

    async def curve(self, run: str, step: str, attempt: int | None, offset: int) -> Curve:
        return Curve(run, step, attempt or 1, offset, [], True)

    async def page(self, run: str) -> wire.Page:
        raise NotFound("a recording holds no page of evidence", hint="open the console on the engine itself")

    async def rollouts(self) -> list[wire.Rollout]:
        return list(self._rollouts.values())

    async def rollout(self, name: str) -> wire.Rollout:
        found = [r for r in self._rollouts.values() if name in (r.run, r.service)]
        if not found:
            raise NotFound(f"no rollout of {name} is in the recording yet")
        return found[-1]

    async def timeline(self, run: str) -> list[wire.Event]:
        return [event for event in reversed(self._events) if event.run == run]

    async def events(self, limit: int, before: int | None) -> list[wire.Event]:
        return [e for e in self._events if before is None or e.seq < before][:limit]

    async def start(self, request: wire.StartRun) -> wire.RunView:
        _refuse()

    async def act(self, run: str, verb: Verb, act: wire.Act) -> wire.RunView:
        _refuse()

    async def close(self) -> None:
        self._ended.set()


def _refuse() -> NoReturn:
    raise NotPermitted("this is a recording; nothing can be done in it",
                       hint="open the console on the engine itself")


async def record(source: Source, file: TextIO, seconds: float) -> int:
    """Write what `source` shows for that long; returns the number of snapshots."""
    began = source.clock()
    revisions: dict[str, int] = {}
    count = 0

    def write(kind: str, value: Any) -> None:
        line = {"after": round(source.clock() - began, 3), "kind": kind,
                "data": msgspec.Raw(msgspec.json.encode(value))}
        file.write(msgspec.json.encode(line).decode() + "\n")

    try:
        write("library", await source.library())
        async for tick in source.ticks():
            if tick.snapshot is not None:
                write("snapshot", tick.snapshot)
                count += 1
                for summary in tick.snapshot.runs:
                    run = await source.run(summary.id)
                    if revisions.get(run.id) != run.revision:
                        revisions[run.id] = run.revision
                        write("run", run)
                for service in tick.snapshot.services:
                    if service.rollout is not None:
                        write("rollout", await source.rollout(service.name))
            if source.clock() - began >= seconds:
                break
        write("events", await source.events(EVENTS, None))
    except OpsdeckError as error:
        file.flush()
        raise UsageError(f"the recording ends here: {error.message}", hint=error.hint) from error
    return count


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m console.replay", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("socket", type=Path, help="the engine's: `opsdeck engine status` names it")
    recording.add_argument("file", type=Path)
    recording.add_argument("--seconds", type=float, default=60.0)
    showing = verbs.add_parser("show")
    showing.add_argument("file", type=Path)
    showing.add_argument("--speed", type=float, default=1.0)
    args = parser.parse_args()
    if args.verb == "record":
        with args.file.open("w") as file:
            print(f"{asyncio.run(_record(args.socket, file, args.seconds))} snapshots")
        return 0
    return _show(args.file, args.speed)


async def _record(socket: Path, file: TextIO, seconds: float) -> int:
    from console.live import LiveSource
    source = LiveSource(socket)
    try:
        return await record(source, file, seconds)
    finally:
        await source.close()


def _show(path: Path, speed: float) -> int:
    from console.app import OpsdeckApp
    from console.palette import choose
    entries = read(path)
    app = OpsdeckApp(ReplaySource(entries, speed=speed), read_only=True,
                     theme=choose(None, bool(os.environ.get("NO_COLOR"))))
    app.run(mouse=False)
    return app.return_code or 0


if __name__ == "__main__":
    raise SystemExit(main())
