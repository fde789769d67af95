"""A meddler stands between an adapter and its real part, and breaks what goes through.

It takes requests apart so that it can let the readings through and meddle with the changes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Trouble = Literal[
    "none",
    "down",       # nobody answers
    "slow",       # takes the request and never answers
    "cut",        # hands the request on and breaks off before the answer comes
    "swallow",    # takes the request, hands nothing on and breaks off
    "refuse",     # answers no
    "lie",        # answers yes and hands nothing on
    "garbage",    # answers what is no answer
    "half",       # hands on a part of the change and breaks off
]
Address = Path | tuple[str, int]
Take = Callable[[asyncio.StreamReader], Awaitable[bytes]]


async def http_message(reader: asyncio.StreamReader) -> bytes:
    """One HTTP request or answer whole; b"" at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    headers = dict(line.lower().partition(b":")[::2] for line in head.split(b"\r\n")[1:])
    if b"chunked" in headers.get(b"transfer-encoding", b""):
        return head + await _chunks(reader)
    return head + await reader.readexactly(int(headers.get(b"content-length", b"0")))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return body


async def line(reader: asyncio.StreamReader) -> bytes:
    """One line whole; b"" at the end of the connection."""
    return await reader.readline()


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All until the other side closes: the answer of a protocol that closes after each."""
    return await reader.read()


def http_answer(status: str, body: bytes, kind: str = "application/json", headers: str = "") -> bytes:
    return (f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{headers}"
            f"content-length: {len(body)}\r\n\r\n").encode() + body


def http_changes(request: bytes) -> bool:
    """Whether an HTTP request asks for a change, by its method."""
    return not request.startswith((b"GET ", b"HEAD "))


@dataclass
class Meddler:
    """Listens at `front` and hands on to `back`; `trouble` holds for changes, with `reads` for all.

    `refusal`, `lied`, `garbage`: what it answers then (`lied` may depend on the request). `halve`: the
    part of a request that it hands on in the trouble *half*.
    """

    back: Address
    front: Address
    take_request: Take = http_message
    take_answer: Take = http_message
    changes: Callable[[bytes], bool] = http_changes
    refusal: bytes = b""
    lied: Callable[[bytes], bytes] | None = None
    garbage: bytes = b""
    halve: Callable[[bytes], bytes] | None = None
    trouble: Trouble = "none"
    reads: bool = False
    handed_on: list[bytes] = field(default_factory=list)
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        if isinstance(self.front, Path):
            self._server = await asyncio.start_unix_server(self._serve, str(self.front))
        else:
            self._server = await asyncio.start_server(self._serve, *self.front)
            self.front = self._server.sockets[0].getsockname()[:2]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._open):
                writer.close()
            self._server = None
            if isinstance(self.front, Path):
                self.front.unlink(missing_ok=True)

    async def make(self, trouble: Trouble, reads: bool = False) -> None:
        """Begin a trouble; *none* ends it."""
        self.trouble, self.reads = trouble, reads
        if trouble == "down":
            await self.stop()
        elif self._server is None:
            await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while request := await self.take_request(reader):
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # one side went away: that is what this is for
        finally:
            self._open.discard(writer)
            writer.close()

    async def _answer(self, request: bytes, reader: asyncio.StreamReader,
                      writer: asyncio.StreamWriter) -> bool:
        """Deal with one request. False where the connection ends with it."""
        trouble = self.trouble if self.reads or self.changes(request) else "none"
        said: bytes | None = None
        if trouble == "slow":
            await reader.read()
        elif trouble == "refuse":
            said = self.refusal
        elif trouble == "garbage":
            said = self.garbage
        elif trouble == "lie":
            assert self.lied is not None
            said = self.lied(request)
        elif trouble == "half":
            assert self.halve is not None
            await self._hand_on(self.halve(request))
        elif trouble in ("none", "cut"):
            answer = await self._hand_on(request)
            said = answer if trouble == "none" else None
        if said is None:
            return False
        writer.write(said)
        await writer.drain()
        return self.take_answer is not everything

    async def _hand_on(self, request: bytes) -> bytes:
        self.handed_on.append(request)
        async with _connection(self.back) as (reader, writer):
            writer.write(request)
            await writer.drain()
            return await self.take_answer(reader)


@contextlib.asynccontextmanager
async def _connection(address: Address
                      ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    if isinstance(address, Path):
        reader, writer = await asyncio.open_unix_connection(str(address))
    else:
        reader, writer = await asyncio.open_connection(*address)
    try:
        yield reader, writer
    finally:
        writer.close()
