"""HAProxy's own: what its answers mean, what real requests do, and what is told when it cannot be done."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config_routers import HAProxy
from engine.errors import ActionFailed
from engine.rollout.traffic.haproxy import HAProxyRouter
from engine.rollout.traffic.haproxy_answers import Refused, complaints, servers
from engine.rollout.traffic.router import ObservedRouter, Traffic
from tests.rollout.traffic.contract import ALL, CANARY, NONE
from tests.rollout.traffic.haproxies import SERVERS, RealHAProxy, haproxy, running
from tests.serving.harness import is_root

__all__ = ["haproxy"]

NOBODY = 65534
STATE = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight
3 flights 1 s1 127.0.0.1 2 0 95 100
3 flights 2 s2 127.0.0.1 0 {admin} 5 0

# pxname,svname,qcur,status,weight,act,bck,stot,type,
flights,s1,0,UP,95,1,0,1900,2,
flights,s2,0,{status},5,1,0,100,2,

"""


def router_of(proxy: RealHAProxy, **change: object) -> HAProxyRouter:
    place = HAProxy(kind="haproxy", socket=proxy.admin, backend="flights", servers=SERVERS)
    return HAProxyRouter({"flights": place.model_copy(update=change)}, timeout_s=2)


@pytest.fixture
def router(haproxy: RealHAProxy) -> Iterator[HAProxyRouter]:
    haproxy.tell("set weight flights/s1 100;set weight flights/s2 0")
    yield router_of(haproxy)
    haproxy.tell("set server flights/s1 state ready;set server flights/s2 state ready")


# Real traffic.


async def test_real_requests_go_where_the_weights_say_and_are_counted(
        haproxy: RealHAProxy, router: HAProxyRouter) -> None:
    assert isinstance(router, ObservedRouter)
    assert haproxy.ask(20) == {"champion": 20}
    await router.shift("flights", {"champion": 75.0, "challenger": 25.0})
    before = await router.served("flights")
    answered = haproxy.ask(200)
    after = await router.served("flights")
    assert answered == {"champion": 150, "challenger": 50}
    assert {name: after[name] - before[name] for name in after} == answered
    await router.shift("flights", NONE)
    assert haproxy.ask(20) == {"challenger": 20}


async def test_one_percent_is_one_request_in_a_hundred(haproxy: RealHAProxy, router: HAProxyRouter) -> None:
    await router.shift("flights", {"champion": 99.0, "challenger": 1.0})
    assert haproxy.ask(300)["challenger"] in (2, 3, 4)


# What stands in the way.


@pytest.mark.parametrize(("state", "words"), [("maint", "in maintenance"), ("drain", "draining")])
async def test_a_server_out_of_service_has_nothing_and_is_given_nothing(
        haproxy: RealHAProxy, router: HAProxyRouter, state: str, words: str) -> None:
    await router.shift("flights", CANARY)
    haproxy.tell(f"set server flights/s2 state {state}")
    assert await router.read("flights") == ALL
    with pytest.raises(ActionFailed, match=rf"challenger \(flights/s2\) is {words}") as failed:
        await router.shift("flights", CANARY)
    assert "set server flights/s2 state ready" in str(failed.value)
    assert await router.shift("flights", ALL) == ALL


async def test_where_nobody_gets_requests_there_is_no_split_but_a_way_back(
        haproxy: RealHAProxy, router: HAProxyRouter) -> None:
    haproxy.tell("set weight flights/s1 0")
    with pytest.raises(ActionFailed, match="No variant of flights gets requests"):
        await router.read("flights")
    assert await router.shift("flights", ALL) == ALL


async def test_a_backend_or_a_server_that_is_not_there_is_named(haproxy: RealHAProxy) -> None:
    with pytest.raises(ActionFailed, match="backend nowhere: Can't find backend"):
        await router_of(haproxy, backend="nowhere").read("flights")
    with pytest.raises(ActionFailed, match=r"no server s9 \(the one of challenger\); its servers are: s1"):
        await router_of(haproxy, servers={"champion": "s1", "challenger": "s9"}).shift("flights", ALL)


async def test_a_socket_that_may_only_look_says_how_it_could_do_more(haproxy: RealHAProxy) -> None:
    router = router_of(haproxy, socket=haproxy.user)
    assert sum((await router.read("flights")).values()) == 100
    with pytest.raises(ActionFailed, match="Permission denied") as failed:
        await router.shift("flights", {"champion": 37.0, "challenger": 63.0})
    assert "level admin" in str(failed.value)


async def test_a_socket_that_is_not_there_is_told(haproxy: RealHAProxy, tmp_path: Path) -> None:
    with pytest.raises(ActionFailed, match="No such file") as failed:
        await router_of(haproxy, socket=tmp_path / "none.sock").read("flights")
    assert "Is HAProxy running" in str(failed.value)


async def test_a_socket_that_is_somebody_elses_is_told(haproxy: RealHAProxy) -> None:
    haproxy.admin.chmod(0)
    before = os.geteuid()
    if is_root():  # who may open every socket
        os.seteuid(NOBODY)
    try:
        with pytest.raises(ActionFailed, match="Permission denied") as failed:
            await router_of(haproxy).read("flights")
        assert "Let the engine's user use it" in str(failed.value)
    finally:
        os.seteuid(before)
        haproxy.admin.chmod(0o600)


async def test_a_server_that_is_no_variant_is_named_but_does_not_bar_the_way_back() -> None:
    with running(more="  server s3 127.0.0.1:1 weight 50\n  server s4 127.0.0.1:1 backup") as proxy:
        router = router_of(proxy)
        with pytest.raises(ActionFailed, match="server s3 gets requests too and is no variant"):
            await router.read("flights")
        with pytest.raises(ActionFailed, match="s3"):
            await router.shift_from(Traffic(ALL), "flights", CANARY)
        assert await router.shift("flights", NONE) == NONE
        proxy.tell("set server flights/s3 state maint")
        assert await router.read("flights") == NONE
        with pytest.raises(ActionFailed, match="is a backup server"):
            await router_of(proxy, servers={"champion": "s1", "challenger": "s4"}).shift("flights", CANARY)


async def test_a_balance_that_cannot_change_weights_is_refused_in_its_own_words() -> None:
    with running(balance="static-rr") as proxy, pytest.raises(
            ActionFailed, match="static LB algorithm") as failed:
        await router_of(proxy).shift("flights", CANARY)
    assert "balance roundrobin" in str(failed.value)


# What its answers mean.


def test_the_columns_are_found_by_their_names() -> None:
    found = servers(STATE.format(admin=0, status="UP"))
    assert (found["s1"].takes, found["s2"].takes, found["s2"].sent) == (95, 5, 100)


@pytest.mark.parametrize(("admin", "maintenance", "draining"), [
    (0, False, False), (0x04, False, False), (0x01, True, False), (0x05, True, False), (0x02, True, False),
    (0x20, True, False), (0x08, False, True), (0x10, False, True), (0x09, True, True)])
def test_each_reason_to_be_out_of_service_is_known(admin: int, maintenance: bool, draining: bool) -> None:
    server = servers(STATE.format(admin=admin, status="MAINT"))["s2"]
    assert (server.maintenance, server.draining) == (maintenance, draining)
    assert server.takes == (0 if maintenance or draining else 5)


def test_another_format_is_said_to_be_another() -> None:
    with pytest.raises(ValueError, match="format 2; known is 1"):
        servers("2\n" + STATE.format(admin=0, status="UP").partition("\n")[2])
    with pytest.raises(ValueError, match="does not show srv_uweight"):
        servers(STATE.format(admin=0, status="UP").replace("srv_uweight", "srv_other"))


def test_what_it_complains_of_is_told_once_and_apart_from_the_state() -> None:
    state = STATE.format(admin=0, status="UP")
    assert complaints("Permission denied\n\nPermission denied\n\n" + state) == "Permission denied"
    assert complaints("\nNo such server.\n\n" + state) == "No such server."
    assert complaints("\n\n" + state) == ""
    with pytest.raises(Refused, match=r"Can't find backend\."):
        servers("Can't find backend.\n\nNo such proxy.\n\n")


@given(st.integers(0, 400))
def test_an_answer_that_is_cut_short_is_never_taken_for_a_whole_one(length: int) -> None:
    whole = STATE.format(admin=0, status="UP").rstrip().removesuffix("0,UP,5,1,0,100,2,")
    text = whole[:length]
    with pytest.raises((ValueError, Refused)):
        servers(text)


@given(st.text())
def test_whatever_is_said_is_an_answer_or_told_to_be_none(text: str) -> None:
    with pytest.raises((ValueError, Refused)):
        servers(text)
