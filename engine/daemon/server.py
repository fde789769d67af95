"""The HTTP server on the engine's Unix socket: uvicorn, with the kernel's word on who calls.

`PeerProtocol` puts the peer of the connection (SO_PEERCRED) into the scope of every request on it;
`Frame` stamps every response with the engine's time and protocol, and turns every exception into a
refusal; `Server` ends on `stop()` instead of on a poll, and ends streams before it waits for them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import h11
import msgspec
import uvicorn
from starlette.routing import Router
from uvicorn.protocols.http.h11_impl import H11Protocol

from engine.api import problems, wire
from engine.api.backend import Backend
from engine.api.calls import AT_HEADER, PROTOCOL_HEADER
from engine.daemon import refusals
from engine.daemon.identity import Gatekeeper
from engine.daemon.processes import peer_of
from engine.daemon.routes import Api

log = logging.getLogger("opsdeck.api")
KEEP_ALIVE = 30  # seconds
WRITE_BUFFER = 32 * 1024  # bytes: a reader that stops gets old news of no more than this


class PeerProtocol(H11Protocol):
    """One connection, whose every request knows the process that opened it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        try:
            self.app_state = {**self.app_state, "peer": peer_of(transport.get_extra_info("socket"))}
        except OSError:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        # Also ends a connection on which nothing is ever asked.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def send_400_response(self, msg: str) -> None:
        problem = problems.to_wire(refusals.BadRequest("this is not an HTTP request"), time.time())
        body = msgspec.json.encode(problem)
        head = h11.Response(status_code=400, reason=b"Bad Request", headers=[
            *_stamp(), (b"content-type", b"application/json"), (b"connection", b"close"),
            (b"content-length", str(len(body)).encode())])
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class Frame:
    """What every request goes through: the protocol check, the stamp, the last refusal."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        started = False

        async def stamped(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *_stamp()]}
            await send(message)

        try:
            _check_protocol(scope)
            await self._router({**scope, "app": self}, receive, stamped)
        except Exception as error:
            if started:
                raise
            await refusals.response(error)(scope, receive, stamped)


def _check_protocol(scope: MutableMapping[str, Any]) -> None:
    name, ours = PROTOCOL_HEADER.encode(), str(wire.PROTOCOL)
    for key, value in scope["headers"]:
        if key == name and value.decode("latin-1") != ours:
            raise problems.other_protocol(engine=ours, command=value.decode("latin-1"))


def _stamp() -> list[tuple[bytes, bytes]]:
    return [(AT_HEADER.encode(), f"{time.time():.6f}".encode()),
            (PROTOCOL_HEADER.encode(), str(wire.PROTOCOL).encode())]


class Server(uvicorn.Server):
    """Serves until `stop()`; signals are the caller's affair."""

    def __init__(self, backend: Backend, gatekeeper: Gatekeeper, *,
                 clock: Callable[[], float] = time.time, grace_s: float = 5.0) -> None:
        self.ready = asyncio.Event()
        self.draining = asyncio.Event()
        api = Api(backend, gatekeeper, self.draining, clock=clock)
        router = Router(api.routes(), redirect_slashes=False)
        super().__init__(uvicorn.Config(
            Frame(router), http=PeerProtocol, ws="none", lifespan="off", log_config=None,
            access_log=False, server_header=False, date_header=False, proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=int(grace_s)))

    def stop(self) -> None:
        """Accept nothing more, end the streams, let the requests under way finish."""
        self.should_exit = True
        self.draining.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.draining.wait()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_on(self, listener: socket.socket) -> None:
        """Serve on a bound, listening Unix socket until `stop()`."""
        await self.serve(sockets=[listener])
