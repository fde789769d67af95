"""One HTTP request on a connection, read with limits: of time, of its head, of its body. Then it is closed.

A general server waits for a head as long as bytes trickle in; here a sender has `WITHIN` seconds for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

WITHIN = 10.0
HEAD = 16 * 1024  # bytes
LINGER, LINGER_READS = 2.0, 256  # seconds and reads that a sender who was answered may still send for
REASONS = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 401: b"Unauthorized", 404: b"Not Found",
           405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict", 413: b"Content Too Large",
           429: b"Too Many Requests", 500: b"Internal Server Error", 503: b"Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """`headers` by lower-case name; one that comes twice has no value."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Refused(Exception):
    """What a sender is told: a status and one sentence."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, largest: int,
                answer: Callable[[Request], Awaitable[tuple[int, str]]]) -> None:
    """Read a request, answer it, close. Nothing is raised but cancellation."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD)
    try:
        try:
            async with asyncio.timeout(WITHIN):
                request = await _read(connection, reader, writer, largest)
        except TimeoutError:
            raise Refused(408, f"the request was not whole within {WITHIN:.0f} s") from None
        except h11.RemoteProtocolError:
            raise Refused(400, "this is not an HTTP request") from None
        if request is None:
            return
        status, text = await answer(request)
    except Refused as refused:
        status, text = refused.status, refused.text
    except OSError:
        return  # the sender has left
    with contextlib.suppress(OSError, TimeoutError, h11.LocalProtocolError):
        writer.write(_response(status, text))
        async with asyncio.timeout(LINGER):
            await writer.drain()
            writer.write_eof()
            # What is closed while something is unread is reset, and the sender may never see the answer.
            for _ in range(LINGER_READS):
                if not await reader.read(65536):
                    break


async def refuse(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    """Answer a request that is not even read."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write(_response(status, text))
        async with asyncio.timeout(LINGER):
            await writer.drain()
            writer.write_eof()


async def _read(connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter,
                largest: int) -> Request | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            if connection.they_are_waiting_for_100_continue and head is not None:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.receive_data(await reader.read(65536))
        elif isinstance(event, h11.Request):
            head = event
            length = dict(event.headers).get(b"content-length", b"0")
            if int(length) > largest:
                raise Refused(413, f"a request has at most {largest:,} bytes")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > largest:
                raise Refused(413, f"a request has at most {largest:,} bytes")
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            return Request(head.method.decode("latin-1"), head.target.decode("latin-1"), _headers(head),
                           bytes(body))
        else:
            return None  # closed before there was a request


def _headers(head: h11.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    twice = set()
    for name, value in head.headers:
        key = name.decode("latin-1")
        twice |= {key} & found.keys()
        found[key] = value.decode("latin-1")
    return {key: value for key, value in found.items() if key not in twice}


def _response(status: int, text: str) -> bytes:
    body = json.dumps({"text": text}).encode()
    head = (b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n" % (status, REASONS[status], len(body)))
    return head + body
