"""All routers as one: who is asked for which service, and leases for those that know of none."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Config
from engine.config_routers import HAProxy
from engine.errors import ActionFailed, NotFound, OutcomeUnknown
from engine.procedures.actions import Router
from engine.rollout.traffic.haproxy import HAProxyRouter
from engine.rollout.traffic.leases import Leases
from engine.rollout.traffic.router import DetailedRouter, LeasedRouter, ObservedRouter, Traffic
from engine.rollout.traffic.routers import Routers
from tests.rollout.traffic.contract import ALL, CANARY
from tests.rollout.traffic.haproxies import SERVERS, RealHAProxy, haproxy
from tests.rollout.traffic.meddler import Meddler, everything, line
from tests.serving.harness import Gateway, wait_for

__all__ = ["haproxy"]
HALF = {"champion": 50.0, "challenger": 50.0}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        gateway = Gateway(Path(folder), dict.fromkeys(ALL, 9))
        yield gateway
        gateway.kill()


@pytest.fixture
def leases() -> Iterator[Leases]:
    with tempfile.TemporaryDirectory(prefix="rt") as folder:
        leases = Leases(Path(folder))
        yield leases
        if pid := leases.watchdog():
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: leases.watchdog() is None, "the watchdog's end")


@pytest.fixture
def routers(gateway: Gateway, haproxy: RealHAProxy, leases: Leases) -> Routers:
    """`flights` is split by the gateway, `fares` by HAProxy, `seats` by nothing."""
    gateway.put(100)
    haproxy.tell("set weight flights/s1 100;set weight flights/s2 0")
    return make(gateway.admin, haproxy.admin, leases)


def make(gateway: Path, stats: Path, leases: Leases) -> Routers:
    return Routers(Config.model_validate({"services": {
        "flights": {"gateway": {"admin": gateway}},
        "fares": {"router": {"kind": "haproxy", "socket": stats, "backend": "flights", "servers": SERVERS}},
        "seats": {}}}), leases)


def test_it_is_every_kind_of_router(routers: Routers) -> None:
    router: Router = routers
    assert isinstance(router, DetailedRouter)
    assert isinstance(router, LeasedRouter)
    assert isinstance(router, ObservedRouter)


async def test_each_service_has_its_own_router(
        routers: Routers, gateway: Gateway, haproxy: RealHAProxy) -> None:
    await routers.shift("fares", CANARY)
    assert (gateway.weights()["weights"], haproxy.percents()) == (ALL, CANARY)
    seen = await routers.traffic("flights")
    assert await routers.shift_from(seen, "flights", HALF) == HALF
    assert (await routers.read("flights"), await routers.read("fares")) == (HALF, CANARY)


async def test_it_says_what_the_router_of_each_service_can_do(routers: Routers, haproxy: RealHAProxy) -> None:
    assert (routers.leased("flights"), routers.leased("fares")) == (True, True)
    assert (routers.observed("flights"), routers.observed("fares")) == (False, True)
    before = await routers.served("fares")
    haproxy.ask(7)
    assert (await routers.served("fares"))["champion"] - before["champion"] == 7
    with pytest.raises(ActionFailed, match="does not count"):
        await routers.served("flights")
    with pytest.raises(ActionFailed, match="cannot mirror"):
        await routers.mirror("fares", "challenger", 10, 30)


async def test_a_service_without_a_router_and_one_that_is_not_there_are_told_apart(routers: Routers) -> None:
    with pytest.raises(NotFound, match="seats has neither a gateway nor a router") as failed:
        await routers.read("seats")
    assert "opsdeck.yaml" in str(failed.value.hint)
    with pytest.raises(NotFound, match="no service fare ") as failed:
        await routers.shift("fare", ALL)
    assert failed.value.hint == "did you mean `fares`?"
    with pytest.raises(NotFound):
        routers.leased("fare")


# Leases.


async def test_the_gateway_keeps_its_leases_itself(routers: Routers, leases: Leases) -> None:
    await routers.shift_leased(await routers.traffic("flights"), "flights", CANARY, 30, ALL)
    left = (await routers.renew("flights", 60)).lease_s
    assert left is not None and 50 < left <= 60
    assert leases.granted() == ([], []) and leases.watchdog() is None


async def test_any_other_router_has_them_kept_by_a_watchdog(
        routers: Routers, leases: Leases, haproxy: RealHAProxy) -> None:
    assert await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, ALL) == HALF
    traffic = await routers.traffic("fares")
    assert (traffic.champion, haproxy.percents()) == ("champion", HALF)
    assert traffic.lease_s is not None and 20 < traffic.lease_s <= 30
    renewed = await routers.renew("fares", 60)
    assert renewed.weights == HALF and renewed.lease_s is not None and 50 < renewed.lease_s <= 60
    assert leases.watchdog() is not None


async def test_new_weights_without_a_lease_have_none(routers: Routers, leases: Leases) -> None:
    await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, ALL)
    await routers.shift("fares", CANARY)
    assert (await routers.traffic("fares")).lease_s is None
    with pytest.raises(ActionFailed, match="no lease"):
        await routers.renew("fares", 30)


async def test_a_plain_lease_ends_in_all_traffic_to_the_champion(routers: Routers, leases: Leases) -> None:
    await routers.shift("fares", HALF, lease_s=30)
    lease = leases.lease("fares")
    assert lease is not None and lease.fallback == ALL


async def test_a_lease_that_ran_out_is_back_at_the_fallback_and_not_renewed(
        routers: Routers, leases: Leases, haproxy: RealHAProxy) -> None:
    await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 0.3, CANARY)
    wait_for(lambda: haproxy.percents() == CANARY, "the fallback")
    with pytest.raises(ActionFailed, match="has run out"):
        await routers.renew("fares", 30)
    wait_for(lambda: (note := leases.fallback("fares")) and note.stood, "the watchdog's note")
    assert (await routers.traffic("fares")).lease_s is None


async def test_a_watchdog_that_was_killed_is_started_again_by_the_next_renewal(
        routers: Routers, leases: Leases) -> None:
    await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, ALL)
    pid = leases.watchdog()
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: leases.watchdog() is None, "its end")
    await routers.renew("fares", 30)
    assert leases.watchdog() not in (None, pid)


async def test_a_fallback_that_is_no_split_is_refused_before_anything_changed(
        routers: Routers, leases: Leases, haproxy: RealHAProxy) -> None:
    with pytest.raises(ActionFailed, match="not shares of 100 percent"):
        await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, {"champion": 50.0})
    assert haproxy.percents() == ALL and leases.lease("fares") is None


async def test_a_first_lease_ends_with_the_shift_that_changed_nothing_a_later_one_runs_on(
        routers: Routers, leases: Leases) -> None:
    stale = Traffic({"champion": 1.0, "challenger": 99.0})
    with pytest.raises(ActionFailed, match="no longer the one that was seen"):
        await routers.shift_leased(stale, "fares", HALF, 30, ALL)
    assert leases.lease("fares") is None
    await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, ALL)
    with pytest.raises(ActionFailed, match="no longer the one that was seen"):
        await routers.shift_leased(stale, "fares", CANARY, 30, ALL)
    assert leases.left("fares")


async def test_a_shift_of_unknown_outcome_has_its_lease(haproxy: RealHAProxy, leases: Leases) -> None:
    haproxy.tell("set weight flights/s1 100;set weight flights/s2 0")
    meddler = Meddler(back=haproxy.admin, front=leases.folder.parent / "m.sock", take_request=line,
                      take_answer=everything, changes=lambda request: b"set server" in request)
    await meddler.start()
    await meddler.make("cut")
    routers = make(Path("/none"), leases.folder.parent / "m.sock", leases)
    with pytest.raises(OutcomeUnknown):
        await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, ALL)
    await meddler.stop()
    assert haproxy.percents() == HALF
    assert leases.left("fares")


async def test_a_change_that_takes_longer_than_its_lease_keeps_it_meanwhile(
        haproxy: RealHAProxy, leases: Leases) -> None:
    haproxy.tell("set weight flights/s1 50;set weight flights/s2 50")
    front = leases.folder.parent / "m.sock"
    meddler = Meddler(back=haproxy.admin, front=front, take_request=line, take_answer=everything,
                      changes=lambda request: b"set server" in request)
    await meddler.start()
    routers = make(Path("/none"), front, leases)
    routers._adapters["fares"] = HAProxyRouter({"fares": HAProxy(
        kind="haproxy", socket=front, backend="flights", servers=SERVERS)}, timeout_s=2)
    await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 0.9, ALL)
    await meddler.make("slow")
    for shift in (routers.shift_leased(await routers.traffic("fares"), "fares", CANARY, 0.9, ALL),
                  routers.shift("fares", CANARY)):
        with pytest.raises(OutcomeUnknown):
            await shift
        assert leases.left("fares") and haproxy.percents() == HALF
    await meddler.stop()
    leases.end("fares")


async def test_a_change_that_comes_after_its_lease_ran_out_is_gone_back_from(
        haproxy: RealHAProxy, leases: Leases) -> None:
    """As when the engine was frozen between its lease and the router."""
    haproxy.tell("set weight flights/s1 100;set weight flights/s2 0")

    def long_after(request: bytes) -> bool:
        path = leases.folder / "fares.lease.json"
        if b"set server" in request and path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | {"until": 0.0}))
            wait_for(lambda: (note := leases.fallback("fares")) and note.stood, "the watchdog's way back")
        return False

    front = leases.folder.parent / "m.sock"
    meddler = Meddler(back=haproxy.admin, front=front, take_request=line, take_answer=everything,
                      changes=lambda _: False)
    routers = make(Path("/none"), front, leases)
    await meddler.start()
    place = HAProxy(kind="haproxy", socket=haproxy.admin, backend="flights", servers=SERVERS)
    leases.grant("fares", ALL, 30, place)  # the watchdog reaches HAProxy by another way than this engine
    leases.ensure_watchdog()
    seen = await routers.traffic("fares")
    grant = leases.grant
    leases.grant = lambda service, fallback, lease_s, router: grant(  # type: ignore[method-assign]
        service, fallback, lease_s, place)
    meddler.changes = long_after
    with pytest.raises(OutcomeUnknown, match="its lease was not kept meanwhile"):
        await routers.shift_leased(seen, "fares", HALF, 30, ALL)
    wait_for(lambda: haproxy.percents() == ALL, "the champion's traffic")
    await meddler.stop()


async def test_without_a_watchdog_there_is_no_canary(
        routers: Routers, leases: Leases, haproxy: RealHAProxy) -> None:
    leases.folder.mkdir()
    (leases.folder / "watchdog.log").mkdir()
    with pytest.raises(ActionFailed, match="watchdog of leases could not be started"):
        await routers.shift_leased(await routers.traffic("fares"), "fares", HALF, 30, ALL)
    assert haproxy.percents() == ALL and leases.lease("fares") is None
