"""A small load generator: `python -m tests.benchmarks.http_load PORT --rps 500 --seconds 4`.

Open loop (`--rps`): requests leave on a fixed schedule whatever the answers do, and each latency
counts from when the request should have left, so that a server that stalls cannot hide it
(coordinated omission; Gil Tene, "How NOT to Measure Latency", 2013). Closed loop (`--connections`
without `--rps`): each connection sends as soon as it has its answer. Prints
{"requests", "seconds", "failed", "latencies_ms"} as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections import deque

import uvloop

BODY = json.dumps({"dataframe_split": {
    "columns": ["carrier", "origin", "hour", "weekday", "distance", "temp", "dewp", "humid",
                "wind_speed", "precip", "pressure", "visib"],
    "data": [["UA", "EWR", 7, 2, 1400.0, 39.02, 28.04, 64.43, 12.66, 0.0, 1012.0, 10.0]]}}).encode()
REQUEST = (b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\ncontent-type: application/json\r\n"
           b"content-length: %d\r\n\r\n" % len(BODY)) + BODY


class Connection(asyncio.Protocol):
    """One keep-alive connection; `done` is called with itself at the end of each answer."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._data = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def send(self, due: float) -> None:
        self.due = due
        self._transport.write(REQUEST)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._data) >= end + 4 + length:
            good = self._data.startswith(b"HTTP/1.1 200")
            self._data = b""
            self._load.answered(self, good)


class Load:
    def __init__(self, port: int, connections: int) -> None:
        self._port = port
        self._count = connections
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._closed_until = 0.0
        self.latencies: list[float] = []
        self.failed = 0

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(self._count):
            _, one = await loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
            self._idle.append(one)

    def answered(self, one: Connection, good: bool) -> None:
        now = time.perf_counter()
        self.latencies.append(now - one.due)
        self.failed += not good
        if self._waiting:
            one.send(self._waiting.popleft())
        elif now < self._closed_until:
            one.send(now)
        else:
            self._idle.append(one)

    async def open_loop(self, rps: float, seconds: float) -> None:
        began, sent = time.perf_counter(), 0
        while sent < rps * seconds:
            due = began + sent / rps
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            sent += 1
            if self._idle:
                self._idle.popleft().send(due)
            else:
                self._waiting.append(due)
        await self._all_answered(5.0)

    async def closed_loop(self, seconds: float) -> None:
        self._closed_until = time.perf_counter() + seconds
        while self._idle:
            self._idle.popleft().send(time.perf_counter())
        await asyncio.sleep(seconds)
        await self._all_answered(5.0)

    async def _all_answered(self, within_s: float) -> None:
        deadline = time.perf_counter() + within_s
        while len(self._idle) < self._count and time.perf_counter() < deadline:
            await asyncio.sleep(0.005)
        self.failed += self._count - len(self._idle)


async def run(port: int, rps: float | None, seconds: float, connections: int) -> None:
    load = Load(port, connections)
    await load.connect()
    gc.disable()
    began = time.perf_counter()
    if rps is None:
        await load.closed_loop(seconds)
    else:
        await load.open_loop(rps, seconds)
    print(json.dumps({"requests": len(load.latencies), "seconds": time.perf_counter() - began,
                      "failed": load.failed,
                      "latencies_ms": [round(one * 1000, 4) for one in load.latencies]}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--rps", type=float)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=16)
    asked = parser.parse_args()
    uvloop.run(run(asked.port, asked.rps, asked.seconds, asked.connections))


if __name__ == "__main__":
    main()
