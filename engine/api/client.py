"""The console's client: asyncio on the Unix socket, h11 for HTTP.

httpx would do the same and costs a console 70 ms and 6 MB at start, a tenth of its budgets; h11,
which both httpx and uvicorn stand on, costs neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import h11

from engine.api import calls, problems, sse, wire
from engine.api.backend import AuditVerdict, Handover, OutputChunk, Verb
from engine.errors import EngineUnreachable, OpsdeckError

if TYPE_CHECKING:
    from engine.api.light import Client, Place, connect

    __all__ = ["AsyncClient", "Client", "Place", "connect"]

T = TypeVar("T")
CONNECT = 5.0
SILENCE = 25.0  # seconds: the engine pings a stream every ten


class AsyncClient:
    """The engine behind a socket, with the methods of `light.Client`, not blocking.

    One connection per call, one per stream. Raises only errors of `engine.errors`; whoever follows
    a stream reconnects when it raises EngineUnreachable, with a backoff of its own.
    """

    def __init__(self, path: Path, *, silence: float = SILENCE) -> None:
        self.path = path
        self._silence = silence

    async def engine(self) -> wire.EngineInfo:
        return await self._ask(calls.engine())

    async def status(self) -> wire.Status:
        return await self._ask(calls.status())

    async def snapshot(self) -> wire.Snapshot:
        return await self._ask(calls.snapshot())

    async def history(self, service: str, seconds: float, points: int) -> wire.Series:
        return await self._ask(calls.history(service, seconds, points))

    async def library(self) -> list[wire.Procedure]:
        return (await self._ask(calls.library())).procedures

    async def start_run(self, request: wire.StartRun) -> wire.RunView:
        return await self._ask(calls.start_run(request))

    async def runs(self, states: Sequence[str] | None = None,
                   limit: int = 50) -> list[wire.RunSummary]:
        return (await self._ask(calls.runs(states, limit))).runs

    async def run(self, id: str) -> wire.RunView:
        return await self._ask(calls.run(id))

    async def output(self, id: str, step: str, attempt: int | None = None, offset: int = 0,
                     limit: int = 65536) -> OutputChunk:
        return await self._ask(calls.output(id, step, attempt, offset, limit))

    async def timeline(self, id: str) -> list[wire.Event]:
        return (await self._ask(calls.timeline(id))).events

    async def act(self, id: str, verb: Verb, act: wire.Act) -> wire.RunView:
        return await self._ask(calls.act(id, verb, act))

    async def events(self, limit: int = 100, before: int | None = None) -> list[wire.Event]:
        return (await self._ask(calls.events(limit, before))).events

    async def verify(self) -> AuditVerdict:
        return await self._ask(calls.verify())

    async def seal(self, reason: str) -> wire.Event:
        return (await self._ask(calls.seal(reason))).event

    async def reload(self) -> wire.Reloaded:
        return await self._ask(calls.reload())

    async def handover(self) -> Handover:
        return await self._ask(calls.handover())

    async def snapshots(self) -> AsyncIterator[wire.Snapshot]:
        """Live snapshots, the newest each time, until the engine goes away (EngineUnreachable)."""
        async for event in self._stream(calls.stream()):
            if isinstance(event, wire.Snapshot):
                yield event

    async def follow(self, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        """The run as it is now, then every change and its output, until it has ended.

        A gap between one chunk's `next` and the next one's `offset` is output that came faster than
        it was read; `output` has it. Raises EngineUnreachable when the engine goes away meanwhile.
        """
        async for event in self._stream(calls.follow(id)):
            if isinstance(event, wire.RunView | OutputChunk):
                yield event

    async def _ask(self, call: calls.Call[T]) -> T:
        async with self._exchange(call) as exchange:
            try:
                async with asyncio.timeout(call.patience):
                    status, protocol = await exchange.head()
                    body = await exchange.rest()
            except OpsdeckError:
                raise
            except (OSError, h11.RemoteProtocolError) as error:
                raise problems.lost(self.path, sent=call.changes) from error
            return calls.answer(call, status, protocol, body)

    async def _stream(self, call: calls.Call[Any]) -> AsyncIterator[object]:
        decoder = sse.Decoder()
        async with self._exchange(call) as exchange:
            try:
                async with asyncio.timeout(self._silence):
                    status, protocol = await exchange.head()
                    body = await exchange.rest() if status >= 400 else b""
                calls.check(status, protocol, body)
                while data := await asyncio.wait_for(exchange.data(), self._silence):
                    for message in decoder.feed(data):
                        event = calls.event(message)
                        if isinstance(event, calls.End):
                            if event.reason == "draining":
                                raise EngineUnreachable("the engine is stopping",
                                                        where=str(self.path))
                            return
                        if event is not None:
                            yield event
            except (OSError, ValueError, h11.RemoteProtocolError) as error:
                raise problems.lost(self.path, sent=False) from error
            raise problems.lost(self.path, sent=False)

    @asynccontextmanager
    async def _exchange(self, call: calls.Call[Any]) -> AsyncIterator[_Exchange]:
        try:
            async with asyncio.timeout(CONNECT):
                reader, writer = await asyncio.open_unix_connection(self.path)
        except OSError as error:
            raise problems.unreachable(self.path, error) from error
        try:
            exchange = _Exchange(reader)
            writer.write(exchange.request(call))
            yield exchange
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


class _Exchange:
    """One request and its response on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._http = h11.Connection(h11.CLIENT)

    def request(self, call: calls.Call[Any]) -> bytes:
        body = call.encoded()
        headers = [*calls.HEADERS.items(), ("connection", "close")]
        if body is not None:
            headers += [("content-type", "application/json"), ("content-length", str(len(body)))]
        head = h11.Request(method=call.method, target=call.path, headers=headers)
        parts = [self._http.send(head)]
        if body is not None:
            parts.append(self._http.send(h11.Data(data=body)))
        parts.append(self._http.send(h11.EndOfMessage()))
        return b"".join(part for part in parts if part)

    async def head(self) -> tuple[int, str | None]:
        """The status, and the protocol that the other side says it speaks."""
        event = await self._next()
        while isinstance(event, h11.InformationalResponse):
            event = await self._next()
        if not isinstance(event, h11.Response):
            raise ConnectionResetError("closed before the response")
        name = calls.PROTOCOL_HEADER.encode()
        theirs = [value.decode("latin-1") for key, value in event.headers if key == name]
        return event.status_code, theirs[0] if theirs else None

    async def data(self) -> bytes:
        """The next piece of the body, b"" at its end."""
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def rest(self) -> bytes:
        pieces = []
        while piece := await self.data():
            pieces.append(piece)
        return b"".join(pieces)

    async def _next(self) -> object:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(65536))
        return event


def __getattr__(name: str) -> object:
    """`connect`, `Client` and `Place` of `engine.api.light`, which a console need not load."""
    if name in ("connect", "Client", "Place"):
        from engine.api import light

        return getattr(light, name)
    raise AttributeError(name)
