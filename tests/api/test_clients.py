"""The client speaks the whole API, and says what is wrong when nobody answers."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.api import wire
from engine.api.backend import Backend
from engine.api.light import Client
from engine.errors import EngineUnreachable, NotFound, NotPermitted, OpsdeckError
from tests.daemon.conftest import Running, running  # noqa: F401  (the fixture)


def calls(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}


def test_the_client_offers_all_that_the_engine_does() -> None:
    assert calls(Backend) - {"info"} <= calls(Client)


async def test_every_call_gives_what_the_engine_says(running: Running) -> None:  # noqa: F811
    client = running.client
    view = await client.start_run(wire.StartRun("ask", {"a": 1}))
    assert view == await running.backend.run(view.id) == await client.run(view.id)
    assert (await client.engine()).pid == os.getpid()
    assert [p.id for p in await client.library()] == [p.id for p in await running.backend.library()]
    assert [r.id for r in await client.runs(["waiting"], 5)] == [view.id]
    assert [e.seq for e in await client.timeline(view.id)] == [1] and await client.events(5, None) == []
    assert await client.curve(view.id, "drain") == await running.backend.curve(view.id, "drain", 1, 0)
    assert await client.output(view.id, "drain") == await running.backend.output(view.id, "drain", 1, 0, 9)
    assert [s.name for s in (await client.status()).services] == ["flights"]
    assert (await client.snapshot()).engine.pid == os.getpid()
    assert (await client.history("flights", 60, 6)).step_s == 10
    assert (await client.verify()).breaks == [] and (await client.handover()).stale == ["fraud"]
    assert (await client.reload()).changed == ["roles.viewer"]
    assert await client.rollouts() == []
    with pytest.raises(NotFound):
        await client.run("nil")
    with pytest.raises(NotFound):
        await client.rollout("nil")


async def test_the_light_client_follows_a_run_to_its_end(running: Running) -> None:  # noqa: F811
    light = Client(running.home.socket)
    view = await asyncio.to_thread(light.start_run, wire.StartRun("ask"))
    states: list[str] = []
    first = threading.Event()

    def follow() -> None:
        for event in light.follow(view.id):
            if isinstance(event, wire.RunView):
                states.append(event.state)
                first.set()

    following = asyncio.create_task(asyncio.to_thread(follow))
    await asyncio.to_thread(first.wait, 10)
    await running.client.act(view.id, "abort", wire.Act())
    await asyncio.wait_for(following, 10)
    assert (states[0], states[-1]) == ("waiting", "aborted")


async def test_a_thread_that_waits_in_a_stream_is_freed_by_hanging_up(
        running: Running) -> None:  # noqa: F811
    light, seen = Client(running.home.socket), threading.Event()

    def listen() -> None:
        for _ in light.snapshots():
            seen.set()

    listening = asyncio.create_task(asyncio.to_thread(listen))
    await asyncio.to_thread(seen.wait, 10)
    light.hang_up()
    with pytest.raises(EngineUnreachable):
        await asyncio.wait_for(listening, 10)


@pytest.fixture
def pretender(tmp_path: Path) -> Iterator[Callable[[bytes], Path]]:
    """A socket that answers every connection with the same bytes and closes it."""
    closing: list[socket.socket] = []

    def listen(answer: bytes) -> Path:
        path = tmp_path / "pretender.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()
        closing.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield listen
    for listener in closing:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


SAYS = [
    (b"", "the engine stopped answering"),
    (b"SSH-2.0-OpenSSH\r\n", "the engine stopped answering"),
    (http("200 OK", b"{}"), "what answers is no engine"),
    (http("200 OK", b"{}", "x-opsdeck-protocol: 9"), "the engine speaks protocol 9"),
    (http("200 OK", b"not json", "x-opsdeck-protocol: 1"), "cannot be read"),
    (http("502 Bad", b"<html>", "x-opsdeck-protocol: 1"), "status 502"),
    (http("200 OK", b"{", "x-opsdeck-protocol: 1")[:-1], "the engine stopped answering")]


@pytest.mark.parametrize(("answer", "says"), SAYS, ids=[says for _, says in SAYS])
async def test_what_is_no_engine_of_ours_is_unreachable_with_a_reason(
        pretender: Callable[[bytes], Path], answer: bytes, says: str) -> None:
    path = pretender(answer)
    with pytest.raises(EngineUnreachable, match=says) as light:
        await asyncio.to_thread(Client(path).status)
    assert light.value.exit_code == 7


async def test_an_answer_that_never_came_to_a_change_says_that_it_may_have_happened(
        pretender: Callable[[bytes], Path]) -> None:
    path = pretender(b"")
    error = await failure(asyncio.to_thread(Client(path).act, "1", "pause", wire.Act()))
    assert "may have been carried out" in str(error)


async def failure(work: object) -> OpsdeckError:
    with pytest.raises(OpsdeckError) as error:
        await work  # type: ignore[misc]
    return error.value


async def test_no_socket_at_all_says_how_to_start_an_engine(tmp_path: Path) -> None:
    path = tmp_path / "none.sock"
    error = await failure(asyncio.to_thread(Client(path).status))
    assert f"no engine answers at {path}" in str(error)
    assert "opsdeck engine start" in str(error)


def test_a_socket_of_others_is_not_permitted_rather_than_away() -> None:
    from engine.api.problems import unreachable

    error = unreachable(Path("/run/opsdeck/engine.sock"), PermissionError(13, "no"))
    assert isinstance(error, NotPermitted)
    assert "group" in str(error)


async def test_a_silent_engine_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(EngineUnreachable, match="stopped answering"):
            await asyncio.to_thread(list, Client(path, silence=0.1).snapshots())


HEAVY = ("pydantic", "httpx", "starlette", "uvicorn", "textual", "numpy", "scipy", "pandas", "mlflow",
         "boto3", "asyncio")


@pytest.mark.parametrize(("module", "forbidden"), [
    ("engine.api.light", HEAVY), ("engine.cli.status", HEAVY),
    ("engine.cli.main", (*HEAVY, "argparse", "msgspec", "http", "json")),
    ("engine.home", (*HEAVY, "argparse", "msgspec", "http", "json"))])
def test_what_starts_quickly_imports_nothing_heavy(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & set({forbidden!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
