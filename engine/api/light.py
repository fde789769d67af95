"""The blocking client of the short commands: `http.client` over the engine's Unix socket.

No httpx and no pydantic: `opsdeck status` must be there within 250 ms, cold. One connection per
call; a request is never sent twice by itself.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from engine.api import calls, problems, sse, wire
from engine.api.backend import AuditVerdict, Curve, Handover, OutputChunk, Verb
from engine.errors import EngineUnreachable

T = TypeVar("T")
SILENCE = 25.0  # seconds: the engine pings a stream every ten


class Place(Protocol):
    """What `connect` needs of an `engine.home.Home`."""

    @property
    def socket(self) -> Path: ...


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("opsdeck", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """The engine behind a socket. Every method raises only errors of `engine.errors`:

    EngineUnreachable when nothing answers or another protocol does, else what the engine says.
    """

    def __init__(self, path: Path, *, silence: float = SILENCE) -> None:
        self.path = path
        self._silence = silence
        self._streaming: set[_Connection] = set()

    def hang_up(self) -> None:
        """End this client's streams from another thread: their readers get EngineUnreachable."""
        for connection in list(self._streaming):
            with contextlib.suppress(OSError, AttributeError):  # it has ended, or not begun
                connection.sock.shutdown(socket.SHUT_RDWR)

    def engine(self) -> wire.EngineInfo:
        return self._ask(calls.engine())

    def status(self) -> wire.Status:
        return self._ask(calls.status())

    def snapshot(self) -> wire.Snapshot:
        return self._ask(calls.snapshot())

    def history(self, service: str, seconds: float, points: int) -> wire.Series:
        return self._ask(calls.history(service, seconds, points))

    def library(self) -> list[wire.Procedure]:
        return self._ask(calls.library()).procedures

    def start_run(self, request: wire.StartRun) -> wire.RunView:
        return self._ask(calls.start_run(request))

    def runs(self, states: Sequence[str] | None = None, limit: int = 50) -> list[wire.RunSummary]:
        return self._ask(calls.runs(states, limit)).runs

    def run(self, id: str) -> wire.RunView:
        return self._ask(calls.run(id))

    def output(self, id: str, step: str, attempt: int | None = None, offset: int = 0,
               limit: int = 65536) -> OutputChunk:
        return self._ask(calls.output(id, step, attempt, offset, limit))

    def curve(self, id: str, step: str, attempt: int | None = None, offset: int = 0) -> Curve:
        return self._ask(calls.curve(id, step, attempt, offset))

    def page(self, id: str, *, html: bool = False) -> wire.Page:
        return self._ask(calls.page(id, html))

    def timeline(self, id: str) -> list[wire.Event]:
        return self._ask(calls.timeline(id)).events

    def act(self, id: str, verb: Verb, act: wire.Act) -> wire.RunView:
        return self._ask(calls.act(id, verb, act))

    def rollouts(self) -> list[wire.Rollout]:
        return self._ask(calls.rollouts()).rollouts

    def rollout(self, name: str) -> wire.Rollout:
        return self._ask(calls.rollout(name))

    def triggers(self, project: str | None = None) -> list[wire.Trigger]:
        return self._ask(calls.triggers(project)).triggers

    def trigger(self, project: str, now: wire.TriggerNow) -> wire.Trigger:
        return self._ask(calls.trigger(project, now))

    def definitions(self, project: str) -> wire.Definitions:
        return self._ask(calls.definitions(project))

    def definition(self, project: str, number: int) -> wire.DefinitionText:
        return self._ask(calls.definition(project, number))

    def restore(self, number: int, wanted: wire.RestoreDefinition) -> wire.Restored:
        return self._ask(calls.restore(number, wanted))

    def clean(self, wanted: wire.Clean) -> wire.Cleaning:
        return self._ask(calls.clean(wanted))

    def events(self, limit: int = 100, before: int | None = None) -> list[wire.Event]:
        return self._ask(calls.events(limit, before)).events

    def verify(self) -> AuditVerdict:
        return self._ask(calls.verify())

    def seal(self, reason: str) -> wire.Event:
        return self._ask(calls.seal(reason)).event

    def reload(self) -> wire.Reloaded:
        return self._ask(calls.reload())

    def handover(self) -> Handover:
        return self._ask(calls.handover())

    def follow(self, id: str) -> Iterator[wire.RunView | OutputChunk]:
        """The run as it is now, then every change and its output, until it has ended.

        A gap between one chunk's `next` and the next one's `offset` is output that came faster than
        it was read; `output` has it. Raises EngineUnreachable when the engine goes away meanwhile.
        """
        for event in self._stream(calls.follow(id)):
            if isinstance(event, wire.RunView | OutputChunk):
                yield event

    def snapshots(self) -> Iterator[wire.Snapshot]:
        """Live snapshots, the newest each time, until the engine goes away (EngineUnreachable)."""
        for event in self._stream(calls.stream()):
            if isinstance(event, wire.Snapshot):
                yield event

    def _ask(self, call: calls.Call[T]) -> T:
        connection = _Connection(self.path, call.patience)
        try:
            with self._send(connection, call) as response:
                body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise problems.lost(self.path, sent=call.changes) from error
        finally:
            connection.close()
        return calls.answer(call, response.status, response.getheader(calls.PROTOCOL_HEADER), body)

    def _stream(self, call: calls.Call[T]) -> Iterator[object]:
        connection = _Connection(self.path, self._silence)
        self._streaming.add(connection)
        try:
            with self._send(connection, call) as response:
                body = response.read() if response.status >= 400 else b""
                calls.check(response.status, response.getheader(calls.PROTOCOL_HEADER), body)
                yield from self._events(response)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise problems.lost(self.path, sent=False) from error
        finally:
            self._streaming.discard(connection)
            connection.close()

    def _events(self, response: http.client.HTTPResponse) -> Iterator[object]:
        decoder = sse.Decoder()
        while data := response.read1(65536):
            for message in decoder.feed(data):
                event = calls.event(message)
                if isinstance(event, calls.End):
                    if event.reason == "draining":
                        raise EngineUnreachable("the engine is stopping", where=str(self.path),
                                                hint="what runs goes on when it is started again")
                    return
                if event is not None:
                    yield event
        raise problems.lost(self.path, sent=False)

    def _send(self, connection: _Connection, call: calls.Call[T]) -> http.client.HTTPResponse:
        try:
            connection.connect()
        except OSError as error:
            raise problems.unreachable(self.path, error) from error
        headers = dict(calls.HEADERS)
        body = call.encoded()
        if body is not None:
            headers["content-type"] = "application/json"
        connection.request(call.method, call.path, body, headers)
        return connection.getresponse()


def connect(home: Place) -> Client:
    """A client of the engine of this home; nothing is opened until the first call."""
    return Client(home.socket)
