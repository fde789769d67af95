"""Server-sent event streams that never queue: a slow reader misses what lies between.

A pump reads the backend's iterator as fast as it gives, into a box that holds at most the newest
snapshot (or the newest view of a run and a bounded piece of output). The sender empties the box
whenever the reader can take more. So neither a stopped reader nor 100 MB of output costs memory.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, MutableMapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from engine.api import problems, sse, wire
from engine.api.backend import OutputChunk
from engine.api.calls import End
from engine.daemon.refusals import refusal

PING = 10.0  # seconds of silence after which a ping is sent
OUTPUT_CAP = 256 * 1024  # characters of output that wait for a reader
Item = wire.Snapshot | wire.RunView | OutputChunk


class Box(Protocol):
    """What waits for the reader: bounded."""

    def put(self, item: Item) -> None: ...
    def take(self) -> list[Item]: ...


class Newest:
    """Holds the newest snapshot."""

    def __init__(self) -> None:
        self._item: Item | None = None

    def put(self, item: Item) -> None:
        self._item = item

    def take(self) -> list[Item]:
        taken, self._item = self._item, None
        return [] if taken is None else [taken]


class RunBox:
    """Holds the newest view of a run and the last `cap` characters of its output, in order.

    Pieces of output that follow each other become one. What is dropped is the oldest, and shows as
    a gap between one chunk's `next` and the next one's `offset`.
    """

    def __init__(self, cap: int = OUTPUT_CAP) -> None:
        self._cap = cap
        self._items: deque[Item] = deque()
        self._size = 0

    def put(self, item: Item) -> None:
        if not isinstance(item, OutputChunk):
            self._items = deque(i for i in self._items if isinstance(i, OutputChunk))
            self._items.append(item)
            return
        last = self._items[-1] if self._items else None
        if isinstance(last, OutputChunk) and _follows(last, item):
            self._items[-1] = msgspec.structs.replace(
                last, next=item.next, text=last.text + item.text, final=item.final)
        else:
            self._items.append(item)
        self._size += len(item.text)
        while self._size > self._cap and self._drop_oldest():
            pass

    def take(self) -> list[Item]:
        taken, self._items, self._size = list(self._items), deque(), 0
        return taken

    def _drop_oldest(self) -> bool:
        """Drop the oldest chunk but keep the newest: a reader always gets the end of the output."""
        chunks = [i for i in self._items if isinstance(i, OutputChunk)]
        if len(chunks) < 2:
            return False
        self._items.remove(chunks[0])
        self._size -= len(chunks[0].text)
        return True


def _follows(one: OutputChunk, other: OutputChunk) -> bool:
    """Whether two chunks can become one; capped, so that the oldest can be dropped in pieces."""
    return ((one.run, one.step, one.attempt) == (other.run, other.step, other.attempt)
            and one.next == other.offset and len(one.text) + len(other.text) <= OUTPUT_CAP // 8)


def message(item: Item) -> sse.Message:
    """One message: its `id` is what a reader last saw (seq, revision, or step/attempt/offset)."""
    data = msgspec.json.encode(item)
    if isinstance(item, wire.Snapshot):
        return sse.Message("snapshot", data, str(item.seq))
    if isinstance(item, wire.RunView):
        return sse.Message("run", data, str(item.revision))
    return sse.Message("output", data, f"{item.step}/{item.attempt}/{item.next}")


class EventStream:
    """An ASGI response: the items of an iterator as server-sent events, pings in between.

    It ends with `end` (`done`, or `draining` once that event is set) or with `problem`.
    """

    def __init__(self, first: Item, rest: AsyncIterator[Item], box: Box,
                 draining: asyncio.Event) -> None:
        self._rest = rest
        self._box = box
        self._draining = draining
        self._wake = asyncio.Event()
        self._last: sse.Message | None = None
        box.put(first)
        self._wake.set()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store")]})
        tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._gone(receive)),
                 asyncio.create_task(self._drain())]
        pump, gone, _ = tasks
        try:
            while not gone.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), PING)
                self._wake.clear()
                ended = self._draining.is_set() or pump.done()
                frames = [sse.encode(message(item)) for item in self._box.take()]
                if ended:
                    frames.append(sse.encode(self._last or _end("draining")))
                elif not frames:
                    frames.append(sse.encode(_ping()))
                await send({"type": "http.response.body", "body": b"".join(frames),
                            "more_body": not ended})
                if ended:
                    return
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            close = getattr(self._rest, "aclose", None)
            if close is not None:
                await close()

    async def _pump(self) -> None:
        try:
            async for item in self._rest:
                self._box.put(item)
                self._wake.set()
            self._last = _end("done")
        except Exception as error:
            problem = problems.to_wire(refusal(error), time.time())
            self._last = sse.Message("problem", msgspec.json.encode(problem))
        finally:
            self._wake.set()

    async def _gone(self, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._wake.set()

    async def _drain(self) -> None:
        await self._draining.wait()
        self._wake.set()


def _end(reason: str) -> sse.Message:
    return sse.Message("end", msgspec.json.encode(End(time.time(), reason)))


def _ping() -> sse.Message:
    return sse.Message("ping", msgspec.json.encode({"at": time.time()}))
