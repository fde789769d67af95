"""The model server's HTTP: strict where two parsers could disagree, bounded everywhere."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from engine.serving.http_messages import Request, Response
from engine.serving.http_server import HttpServer

Talk = Callable[..., Awaitable[bytes]]
HELD = asyncio.Event()


async def echo(request: Request) -> Response | None:
    if request.path == "/drop":
        return None
    if request.path == "/fail":
        raise RuntimeError("on purpose")
    if request.path == "/held":
        await HELD.wait()
    body = json.dumps([request.method, request.path, request.body.decode("latin-1")]).encode()
    return Response(200, body, headers=(("x-seen", request.headers.get("x-sent", "-")),))


@pytest.fixture
async def server() -> AsyncIterator[tuple[HttpServer, int]]:
    made = HttpServer(echo, max_body_bytes=100_000)
    port = await made.open("127.0.0.1", 0)
    yield made, port
    await made.close(0.1)


@pytest.fixture
def talk(server: tuple[HttpServer, int]) -> Talk:
    async def say(*parts: bytes, answers: int = 1) -> bytes:
        """All that comes back until the server closes, or is silent after so many answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server[1])
        received = b""
        try:
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            while True:
                patience = 5.0 if received.count(b"HTTP/1.1 ") < answers else 0.05
                chunk = await asyncio.wait_for(reader.read(65536), patience)
                if not chunk:
                    return received
                received += chunk
        except TimeoutError:
            return received
        finally:
            writer.close()

    return say


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode()


POST = head("POST /a HTTP/1.1", "Content-Length: 3") + b"abc"


async def test_requests_share_a_connection_and_keep_their_order(talk: Talk) -> None:
    said = await talk(POST * 3, answers=3)
    assert said.count(b"HTTP/1.1 200 OK") == 3 and said.count(b'["POST", "/a", "abc"]') == 3
    assert b"connection: close" not in said


async def test_a_request_may_come_in_any_pieces(talk: Talk) -> None:
    rng = random.Random(3)
    whole = POST + head("POST /b HTTP/1.1", "Transfer-Encoding: chunked") + \
        b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n" + POST
    cuts = sorted(rng.sample(range(1, len(whole)), 40))
    said = await talk(*(whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)),
                      answers=3)
    assert said.count(b"200 OK") == 3 and b'["POST", "/b", "abcde"]' in said


async def test_the_connection_closes_when_the_caller_asks_or_speaks_http_1_0(talk: Talk) -> None:
    assert b"connection: close" in await talk(head("GET /a HTTP/1.1", "Connection: close"))
    assert b"connection: close" in await talk(b"GET /a HTTP/1.0\r\n\r\n")
    kept = await talk(b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert b"connection: close" not in kept


async def test_head_has_the_length_but_not_the_body(talk: Talk) -> None:
    said = await talk(head("HEAD /a HTTP/1.1"))
    assert b"content-length: 18" in said and said.endswith(b"\r\n\r\n")


async def test_a_caller_who_expects_100_continue_gets_it(talk: Talk) -> None:
    said = await talk(head("POST /a HTTP/1.1", "Content-Length: 3", "Expect: 100-continue"), b"abc",
                      answers=2)
    assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK")


@pytest.mark.parametrize(("request_bytes", "status"), [
    (head("POST /a HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
     400),
    (head("POST /a HTTP/1.1", "Content-Length: 3", "Content-Length: 3"), 400),
    (head("POST /a HTTP/1.1", "Content-Length: +3"), 400),
    (head("POST /a HTTP/1.1", "Content-Length: 3, 3"), 400),
    (head("POST /a HTTP/1.1", "Content-Length: 0x3"), 400),
    (head("POST /a HTTP/1.1", "Content-Length:"), 400),
    (head("POST /a HTTP/1.1", "Transfer-Encoding: gzip, chunked"), 501),
    (head("POST /a HTTP/1.1", "Transfer-Encoding : chunked"), 400),
    (head("POST /a HTTP/1.0", "Transfer-Encoding: chunked") + b"0\r\n\r\n", 400),
    (head("POST /a HTTP/1.1", "Host: y"), 400),
    (b"POST /a HTTP/1.1\r\n\r\n", 400),
    (head("POST /a HTTP/1.1", "X: a", " folded"), 400),
    (head("POST /a HTTP/1.1", "X: a\nEvil: b"), 400),
    (head("POST /a HTTP/1.1", "X: a\x00b"), 400),
    (head("POST /a HTTP/1.1", ": empty"), 400),
    (head("post /a HTTP/1.1"), 400), (head("POST /a HTTP/2.0"), 400),
    (head("POST  /a HTTP/1.1"), 400),
    (head("POST /a b HTTP/1.1"), 400), (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400),
    (head("POST /a HTTP/1.1", "Content-Length: 100001"), 413),
    (head("POST /a HTTP/1.1", "Transfer-Encoding: chunked") + b"fffffff\r\n", 413),
    (head("POST /a HTTP/1.1", "Transfer-Encoding: chunked") + b"-3\r\nabc\r\n", 400),
    (head("POST /a HTTP/1.1", "Transfer-Encoding: chunked") + b"3\r\nabcd\r\n", 400),
    (head("POST /a HTTP/1.1", "Transfer-Encoding: chunked") + b"x" * 2000, 400),
    (head("GET /a HTTP/1.1", "X: " + "a" * 40_000), 431),
    (b"x" * 40_000, 431),
])
async def test_what_could_be_read_in_two_ways_or_is_too_large_is_refused_and_ends_the_connection(
        talk: Talk, request_bytes: bytes, status: int) -> None:
    said = await talk(request_bytes + POST)
    assert said.startswith(f"HTTP/1.1 {status} ".encode())
    assert said.count(b"HTTP/1.1 ") == 1 and b"connection: close" in said


async def test_a_refusal_reaches_a_caller_who_is_still_sending(talk: Talk) -> None:
    parts = [b"x" * 65536] * 30
    said = await talk(head("POST /a HTTP/1.1", "Content-Length: 2000000"), *parts)
    assert said.startswith(b"HTTP/1.1 413 ")


async def test_random_bytes_never_break_the_server(talk: Talk) -> None:
    rng = random.Random(5)
    for _ in range(30):
        data = bytearray(POST)
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        said = await talk(bytes(data[:rng.randint(1, len(data))]), b"\r\n\r\n", answers=0)
        assert said == b"" or said.startswith(b"HTTP/1.1 ")
    assert b"200 OK" in await talk(POST)


async def test_a_handler_that_fails_is_a_500_and_one_that_gives_nothing_drops_the_connection(
        server: tuple[HttpServer, int], talk: Talk, capsys: pytest.CaptureFixture[str]) -> None:
    said = await talk(head("GET /fail HTTP/1.1"))
    assert said.startswith(b"HTTP/1.1 500 ") and b"on purpose" not in said
    assert "on purpose" in capsys.readouterr().err
    reader, writer = await asyncio.open_connection("127.0.0.1", server[1])
    writer.write(head("GET /drop HTTP/1.1"))
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_draining_lets_a_request_in_flight_end_and_takes_no_other(
        server: tuple[HttpServer, int]) -> None:
    made, port = server
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    HELD.clear()
    writer.write(head("GET /held HTTP/1.1"))
    async with asyncio.timeout(5):
        while not any(one.task is not None for one in made.connections):
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(made.close(5.0))
        while not made.draining:
            await asyncio.sleep(0)
        HELD.set()
        said = await reader.read()
        await closing
    assert said.startswith(b"HTTP/1.1 200 OK") and b"connection: close" in said
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    writer.close()
