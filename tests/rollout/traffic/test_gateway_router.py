"""The router over the real gateway's admin socket, and over sockets that misbehave."""

import asyncio
import json
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from engine.config import Process
from engine.errors import ActionFailed, NotFound, OutcomeUnknown
from engine.procedures.actions import Router
from engine.rollout.traffic.gateway import GatewayRouter
from engine.rollout.traffic.router import LeasedRouter, read_traffic
from engine.supervision.supervisor import ProcessSupervisor

ALL = {"champion": 100.0, "challenger": 0.0}
CANARY = {"champion": 95.0, "challenger": 5.0}
OLD = {"champion": 0.0, "challenger": 100.0}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _start(supervisor: ProcessSupervisor) -> None:
    await supervisor.start("flights/gateway")


async def _stop(supervisor: ProcessSupervisor) -> None:
    await supervisor.stop_all(grace_s=1.0)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with a running gateway; its socket's path must stay short."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        home, port = Path(folder), free_port()
        (home / "gateway.json").write_text(json.dumps({
            "service": "flights", "port": port, "champion": "champion",
            "admin_socket": str(home / "admin.sock"), "state_file": str(home / "state.json"),
            "variants": {name: {"url": "http://127.0.0.1:9"} for name in ALL}}))
        supervisor = ProcessSupervisor(home, {"flights/gateway": Process(
            command=[sys.executable, "-m", "engine.serving.gateway", "--config",
                     str(home / "gateway.json")],
            ready=f"http://127.0.0.1:{port}/ping")})
        asyncio.run(_start(supervisor))
        try:
            yield home
        finally:
            asyncio.run(_stop(supervisor))


@pytest.fixture
async def router(home: Path) -> GatewayRouter:
    router = GatewayRouter({"flights": home / "admin.sock", "pricing": home / "admin.sock"})
    await router.shift("flights", ALL)
    return router


def test_it_is_a_router_and_knows_more() -> None:
    router: Router = GatewayRouter({})
    assert isinstance(router, LeasedRouter)


async def test_a_shift_is_in_force_and_read_back(router: GatewayRouter) -> None:
    assert await router.read("flights") == ALL
    assert await router.shift("flights", CANARY) == CANARY
    assert await router.read("flights") == CANARY
    traffic = await read_traffic(router, "flights")
    assert (traffic.champion, traffic.lease_s) == ("champion", None)


async def test_a_lease_is_granted_and_renewed(router: GatewayRouter) -> None:
    await router.shift("flights", CANARY, lease_s=30)
    first = (await router.traffic("flights")).lease_s
    assert first is not None and 25 < first <= 30
    renewed = (await router.renew("flights", 60)).lease_s
    assert renewed is not None and 55 < renewed <= 60


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(5):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_lease_ends_in_the_fallback_it_was_given_with(router: GatewayRouter) -> None:
    await router.shift("flights", OLD)
    seen = await router.traffic("flights")
    assert await router.shift_leased(seen, "flights", CANARY, 30, OLD) == CANARY
    with pytest.raises(ActionFailed, match="at revision"):
        await router.shift_leased(seen, "flights", ALL, 30, OLD)
    assert (await router.renew("flights", 0.2)).weights == CANARY

    async def back() -> bool:
        return await router.read("flights") == OLD

    await until(back)
    with pytest.raises(ActionFailed, match="no lease to renew"):
        await router.renew("flights", 30)


async def test_a_fallback_that_is_no_split_is_refused_in_the_gateways_words(
        router: GatewayRouter) -> None:
    seen = await router.traffic("flights")
    with pytest.raises(ActionFailed, match="fallback: There is no variant 'other'"):
        await router.shift_leased(seen, "flights", CANARY, 30, {"other": 100.0})
    assert await router.read("flights") == ALL


async def mirrored(home: Path) -> dict[str, object] | None:
    transport = httpx.AsyncHTTPTransport(uds=str(home / "admin.sock"))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
        found: dict[str, object] | None = (await client.get("/mirror")).json()["mirror"]
        return found


async def test_a_mirror_begins_is_replaced_and_ends(router: GatewayRouter, home: Path) -> None:
    await router.mirror("flights", "challenger", 10, 30)
    await router.mirror("flights", "challenger", 20, 60)
    found = await mirrored(home)
    assert found is not None and (found["variant"], found["percent"]) == ("challenger", 20)
    assert await router.read("flights") == ALL
    await router.unmirror("flights")
    await router.unmirror("flights")
    assert await mirrored(home) is None


async def test_a_mirror_that_is_none_is_refused_in_the_gateways_words(router: GatewayRouter) -> None:
    with pytest.raises(ActionFailed, match="no variant 'other' to mirror to"):
        await router.mirror("flights", "other", 10, 30)
    with pytest.raises(ActionFailed, match="percent must be"):
        await router.mirror("flights", "challenger", 0, 30)
    with pytest.raises(ActionFailed, match="belongs to flights, not to pricing"):
        await router.unmirror("pricing")


async def test_without_a_lease_there_is_none_to_renew(router: GatewayRouter) -> None:
    with pytest.raises(ActionFailed, match="no lease to renew"):
        await router.renew("flights", 60)


async def test_a_shift_from_what_is_no_longer_there_is_refused(router: GatewayRouter) -> None:
    seen = await router.traffic("flights")
    await router.shift("flights", CANARY)
    with pytest.raises(ActionFailed, match="at revision"):
        await router.shift_from(seen, "flights", ALL)
    assert await router.read("flights") == CANARY
    assert await router.shift_from(await router.traffic("flights"), "flights", ALL) == ALL


async def test_the_gateways_own_refusals_are_passed_on(router: GatewayRouter) -> None:
    with pytest.raises(ActionFailed, match="no variant 'other'") as failed:
        await router.shift("flights", {"other": 100.0})
    assert failed.value.hint == "The variants are: champion, challenger."
    assert await router.read("flights") == ALL


async def test_a_socket_of_another_service_is_noticed(router: GatewayRouter) -> None:
    with pytest.raises(ActionFailed, match="belongs to flights, not to pricing"):
        await router.read("pricing")


async def test_a_service_without_a_gateway_is_not_found() -> None:
    with pytest.raises(NotFound, match="fraud has no gateway"):
        await GatewayRouter({}).read("fraud")


@pytest.mark.parametrize("leave", [True, False])
async def test_a_gateway_that_is_away_changed_nothing(tmp_path: Path, leave: bool) -> None:
    path = tmp_path / "a.sock"
    if leave:  # the socket that a killed gateway leaves behind
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    router = GatewayRouter({"flights": path})
    for call in (router.read("flights"), router.shift("flights", ALL)):
        with pytest.raises(ActionFailed, match="does not answer") as failed:
            await call
        assert "gateway-down" in str(failed.value)


async def misbehaving(path: Path, answer: bytes | None) -> asyncio.Server:
    """A server that takes a request and then says `answer`; None: nothing, for ever."""
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()
    return await asyncio.start_unix_server(serve, str(path))


def answer(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


Call = Callable[[GatewayRouter], object]


@pytest.mark.parametrize(("said", "reading", "shifting"), [
    (b"", ActionFailed, OutcomeUnknown),
    (None, ActionFailed, OutcomeUnknown),
    (answer("200 OK", "{}"), ActionFailed, OutcomeUnknown),
    (answer("200 OK", "<html>"), ActionFailed, OutcomeUnknown),
    (answer("502 Bad Gateway", "oops"), ActionFailed, OutcomeUnknown),
    (answer("500 Error", '{"error": "not written", "code": "action_failed"}'),
     ActionFailed, ActionFailed),
    (answer("403 Forbidden", '{"error": "only uid 0"}'), ActionFailed, ActionFailed),
])
async def test_what_breaks_after_the_request_was_sent_is_unknown_where_it_may_have_changed_something(
        tmp_path: Path, said: bytes | None, reading: type[Exception],
        shifting: type[Exception]) -> None:
    async with await misbehaving(tmp_path / "a.sock", said):
        router = GatewayRouter({"flights": tmp_path / "a.sock"}, timeout_s=0.2)
        with pytest.raises(reading):
            await router.read("flights")
        for call in (router.shift("flights", ALL), router.mirror("flights", "challenger", 5, 30),
                     router.unmirror("flights")):
            with pytest.raises(shifting):
                await call
