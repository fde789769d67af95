"""The port for signed requests: who is not who they say gets one sentence, and nothing happens."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.api import wire
from engine.config_pipelines import Ingest, Sender
from engine.errors import Conflict, NotFound
from engine.journal.events import Actor
from engine.pipeline.triggers import http_requests, signing
from engine.pipeline.triggers.ingest import Listener
from tests.pipeline.triggers.engines import Place, engine, fast, until
from tests.pipeline.triggers.triggered import committed, project, repository

KEY, FORGE = "a key of airflow's own", "the forge's secret key"
ENVIRON = {"AIRFLOW": KEY, "FORGE": FORGE, "SHORT": "short"}
NONCE = "0123456789abcdef"


@dataclass
class Heard:
    """A target that notes what it is asked."""

    causes: list[tuple[str, str, str, str, str | None]] = field(default_factory=list)

    async def ask(self, project: str, kind: Any, text: str, actor: Actor, nonce: str | None = None) -> None:
        if project == "gone":
            raise NotFound("there is no project gone")
        if project == "quiet":
            raise Conflict("quiet is not begun by requests")
        if project == "broken":
            raise ZeroDivisionError(KEY)
        self.causes.append((project, kind, text, actor.user, nonce))

    def pushed(self, wanted: Any, ref: str) -> list[str]:
        return [name for name in ("flights", "fares") if wanted(name) and ref == "refs/heads/main"]


@dataclass
class Port:
    heard: Heard
    url: str
    now: float

    async def send(self, path: str = "/v1/projects/flights/webhook", body: bytes = b"", *, key: str = KEY,
                   sender: str = "airflow", nonce: str = NONCE, at: float | None = None, method: str = "POST",
                   **changed: str) -> tuple[int, str]:
        headers = signing.headers(key, sender, method, path, int(self.now if at is None else at), nonce, body)
        async with httpx.AsyncClient() as client:
            got = await client.request(method, self.url + path, content=body, headers={**headers, **changed})
        return got.status_code, got.json()["text"]

    async def push(self, payload: dict[str, Any], key: str = FORGE, event: str = "push", sender: str = "forge"
                   ) -> tuple[int, str]:
        body = json.dumps(payload).encode()
        signed = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
        async with httpx.AsyncClient() as client:
            got = await client.post(f"{self.url}/v1/senders/{sender}/push", content=body, headers={
                signing.GITHUB: signed, "x-github-event": event})
        return got.status_code, got.json()["text"]


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    heard, now = Heard(), time.time()
    listener = Listener(heard, lambda: now, ENVIRON)
    listener.use(Ingest(listen="127.0.0.1:0", largest=4096, senders={
        "airflow": Sender(key="env:AIRFLOW", projects=["f*", "quiet", "gone", "broken"]),
        "short": Sender(key="env:SHORT"), "missing": Sender(key="env:NOWHERE"),
        "forge": Sender(key="env:FORGE", format="github", projects=["flights"])}))
    task = asyncio.create_task(listener.run())
    async with asyncio.timeout(5):
        while listener.port is None:
            await asyncio.sleep(0.005)
    yield Port(heard, f"http://127.0.0.1:{listener.port}", now)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_signed_request_is_a_cause_with_its_sender_and_reason(port: Port) -> None:
    status, said = await port.send(body=b'{"reason": "rows\\nare in"}')
    assert (status, said) == (202, "taken; `opsdeck triggers flights` says what comes of it")
    assert port.heard.causes == [
        ("flights", "webhook", "request of airflow: rows are in", "sender airflow", f"airflow:{NONCE}")]
    assert (await port.send("/v1/projects/fares/drift", nonce="x" * 16))[0] == 202
    assert port.heard.causes[1][:3] == ("fares", "drift", "drift of airflow")


async def test_nothing_of_a_signed_request_can_be_changed(port: Port) -> None:
    unknown = (401, "the signature is not one of a sender that is known here")
    assert await port.send(key="another key than the sender's") == unknown
    assert await port.send(sender="nobody") == unknown
    assert await port.send(sender="forge", key=FORGE) == unknown
    for name in ("x-opsdeck-timestamp", "x-opsdeck-nonce", "x-opsdeck-signature", "x-opsdeck-sender"):
        assert await port.send(**{name: "1" * 20}) == unknown, name
    path = "/v1/projects/flights/webhook"
    headers = signing.headers(KEY, "airflow", "POST", path, int(port.now), NONCE, b"{}")
    async with httpx.AsyncClient() as client:
        for method, path, body in (("POST", "/v1/projects/fares/webhook", b"{}"),
                                   ("POST", "/v1/projects/flights/drift", b"{}"),
                                   ("POST", "/v1/projects/flights/webhook?a=b", b"{}"),
                                   ("PUT", "/v1/projects/flights/webhook", b"{}"),
                                   ("POST", "/v1/projects/flights/webhook", b"{ }")):
            got = await client.request(method, port.url + path, content=body, headers=headers)
            assert got.status_code == 401, (method, path, body)
        got = await client.post(port.url + "/v1/projects/flights/webhook")
        assert got.status_code == 401
    assert port.heard.causes == []


async def test_a_request_is_taken_once_and_only_in_its_time(port: Port) -> None:
    assert (await port.send())[0] == 202
    assert await port.send() == (409, "this request was taken before")
    for off in (-301, 301):
        status, said = await port.send(at=port.now + off, nonce="y" * 16)
        assert (status, said) == (401, "the request's time is off by more than 300 s; set the clock")
    assert (await port.send(at=port.now - 299, nonce="z" * 16))[0] == 202
    assert len(port.heard.causes) == 2


async def test_what_was_not_taken_may_be_sent_again_as_it_is(port: Port) -> None:
    path = "/v1/projects/broken/webhook"
    assert [(await port.send(path))[0] for _ in range(2)] == [500, 500]
    assert (await port.send())[0] == 202


async def test_what_cannot_be_taken_is_refused_in_a_sentence(port: Port) -> None:
    wanted = [("/v1/projects/gone/webhook", b"", 404, "there is no project gone"),
              ("/v1/projects/prices/webhook", b"", 404, "there is no project prices for airflow"),
              ("/v1/projects/quiet/webhook", b"", 409, "quiet is not begun by requests"),
              ("/v1/projects/broken/webhook", b"", 500,
               "the engine met an error of its own; its log says which"),
              ("/nowhere", b"", 404, "there is nothing at this path"),
              ("/v1/projects/flights/webhook", b"{", 400, "the body is not JSON"),
              ("/v1/projects/flights/webhook", b'{"reason": "\\ud800"}', 400,
               "the reason is not Unicode text"),
              ("/v1/projects/flights/webhook", b"[]", 400, "the body is not an object of JSON"),
              ("/v1/projects/flights/webhook", b"x" * 4097, 413, "a request has at most 4,096 bytes")]
    for n, (path, body, status, said) in enumerate(wanted):
        assert await port.send(path, body, nonce=f"{n:016}") == (status, said)
    assert (await port.send(method="GET", nonce="g" * 16))[0] == 405
    for sender, key in (("short", "short"), ("missing", KEY)):
        assert await port.send(sender=sender, key=key, nonce="s" * 16) == (
            503, "the engine cannot check this now; try again later")
    assert port.heard.causes == []


async def test_a_push_of_a_forge_makes_the_branch_be_looked_at(port: Port) -> None:
    assert await port.push({"ref": "refs/heads/main", "after": "x"}) == (202, "looks at flights")
    assert await port.push({"ref": "refs/heads/other"}) == (202, "no project watches this branch")
    assert await port.push({"zen": "…"}, event="ping") == (200, "nothing to do for ping")
    assert (await port.push({"ref": "refs/heads/main"}, key=KEY))[0] == 401
    assert (await port.push({"ref": "refs/heads/main"}, key=KEY, sender="airflow"))[0] == 401


async def test_a_slow_or_endless_sender_is_cut_off(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_requests, "WITHIN", 0.3)
    host, _, number = port.url.removeprefix("http://").partition(":")
    head = b"POST / HTTP/1.1\r\n"
    for sent in (b"", head, head + b"host: x\r\ncontent-length: 100\r\n\r\nabc"):
        reader, writer = await asyncio.open_connection(host, int(number))
        writer.write(sent)
        async with asyncio.timeout(3):
            assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        writer.close()
    for sent in (b"\x16\x03\x01 not HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000):
        reader, writer = await asyncio.open_connection(host, int(number))
        writer.write(sent)
        async with asyncio.timeout(3):
            got = b""
            try:
                got = await reader.read()
            except ConnectionResetError:
                continue
            assert got.startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_body_without_a_length_is_cut_at_its_limit(port: Port) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async with httpx.AsyncClient() as client:
        got = await client.post(f"{port.url}/v1/projects/flights/webhook", content=endless())
    assert got.status_code == 413


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.text("0123456789abc", max_size=20), st.integers(0, 10**12 - 1))
def test_a_signature_holds_for_what_was_signed_and_for_nothing_else(body: bytes, path: str, at: int) -> None:
    good = signing.headers(KEY, "airflow", "POST", path, at, NONCE, body)[signing.SIGNATURE]
    assert signing.right(KEY, "POST", path, str(at), NONCE, body, good)
    for changed in (signing.right(KEY + "x", "POST", path, str(at), NONCE, body, good),
                    signing.right(KEY, "PUT", path, str(at), NONCE, body, good),
                    signing.right(KEY, "POST", path + "/", str(at), NONCE, body, good),
                    signing.right(KEY, "POST", path, str(at + 1), NONCE, body, good),
                    signing.right(KEY, "POST", path, str(at), NONCE[::-1], body, good),
                    signing.right(KEY, "POST", path, str(at), NONCE, body + b" ", good),
                    signing.right(KEY, "POST", path, str(at), NONCE, body, "é" + good[1:])):
        assert not changed


async def test_a_request_that_was_taken_is_refused_by_the_next_engine_too(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "forge").write_text(FORGE)
    place = Place(tmp_path, f"  ingest:\n    listen: 127.0.0.1:{number}\n    senders:\n"
                            f"      airflow: {{key: 'file:{tmp_path}/key'}}\n"
                            f"      forge: {{key: 'file:{tmp_path}/forge', format: github}}\n")
    folder = project(tmp_path / "flights", "{procedure: build, quiet: 100ms, webhook: true, "
                                           "commits: {every: 1h}}")
    repository(folder)
    place.register(flights=folder)
    place.go()
    port = Port(Heard(), f"http://127.0.0.1:{number}", time.time())
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: t.commit)
        assert (await port.send())[0] == 202
        first = await until(backend, "flights", lambda t: t.recent and t.recent[0].said.endswith("done"))
        assert (first.recent[0].by, first.recent[0].text) == ("sender airflow", "request of airflow")
        committed(folder, "pushed", train="def main(inputs, output, params): return 2")
        assert await port.push({"ref": "refs/heads/main"}) == (202, "looks at flights")
        await until(backend, "flights", lambda t: len(t.recent) == 2 and t.recent[0].said.endswith("done"))
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: True)
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await port.send() == (409, "this request was taken before")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
        shown: wire.Trigger = (await backend.triggers("flights"))[0]
        assert len(shown.recent) == 2
    assert len(place.built()) == 2
