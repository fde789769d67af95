"""The Gateway API keeps the contract of the port, and what is its own."""

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.config_routers import GatewayApi
from engine.errors import ActionFailed, OutcomeUnknown
from engine.rollout.traffic.gateway_api import GatewayApiRouter
from engine.rollout.traffic.httproute import MOST, patch, strangers, taken_up, weights_of
from tests.rollout.traffic.contract import ALL, CANARY, Contract, Part
from tests.rollout.traffic.kubernetes_api import ApiServer, kubeconfig, route, status
from tests.rollout.traffic.meddler import Meddler, http_answer

SERVICES = {"champion": "flights-champion", "challenger": "flights-challenger"}
FORBIDDEN = ('httproutes.gateway.networking.k8s.io "flights" is forbidden: User "opsdeck" cannot patch '
             'resource "httproutes" in API group "gateway.networking.k8s.io" in the namespace "shop"')


def place(**change: object) -> GatewayApi:
    return GatewayApi(kind="gateway-api", namespace="shop", route="flights", services=SERVICES).model_copy(
        update=change)


class GatewayApiPart(Part):
    step = 100 / MOST
    refusal = FORBIDDEN

    def __init__(self, api: ApiServer) -> None:
        self.api = api
        self.meddler = Meddler(
            back=("127.0.0.1", api.port), front=("127.0.0.1", 0), lied=lambda _: self._lie(),
            refusal=http_answer("403 Forbidden", status(403, "Forbidden", FORBIDDEN)),
            garbage=http_answer("200 OK", b"<html>"))

    async def start(self, folder: Path) -> None:
        await self.meddler.start()
        assert isinstance(self.meddler.front, tuple)
        self.router = GatewayApiRouter({self.service: place(kubeconfig=kubeconfig(
            folder, self.meddler.front[1]))}, timeout_s=0.5, settle_s=0.5)

    async def in_force(self) -> dict[str, float]:
        return self.api.weights()

    async def set_directly(self, weights: dict[str, float]) -> None:
        self.api.edit(**{name: round(weight * 1000) for name, weight in weights.items()})

    def _lie(self) -> bytes:
        return http_answer("200 OK", json.dumps(self.api.route).encode())


@pytest.fixture(scope="module")
def api() -> Iterator[ApiServer]:
    server = ApiServer()
    yield server
    server.stop()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ga") as name:
        yield Path(name)


@pytest.fixture
async def part(api: ApiServer, folder: Path) -> AsyncIterator[GatewayApiPart]:
    api.reset()
    part = GatewayApiPart(api)
    await part.start(folder)
    yield part
    await part.meddler.stop()


class TestGatewayApi(Contract):
    """With the fixture `part` of this file."""


# Writers in between.


async def test_a_status_written_in_between_does_not_stop_a_shift(part: GatewayApiPart) -> None:
    part.api.interfere = 2
    seen = await part.router.traffic("flights")
    assert await part.router.shift_from(seen, "flights", CANARY) == CANARY


async def test_a_route_that_changes_all_the_time_is_left_as_it_is(part: GatewayApiPart) -> None:
    part.api.interfere = 99
    with pytest.raises(ActionFailed, match="changes all the time"):
        await part.router.shift("flights", CANARY)
    assert part.api.weights() == ALL


async def test_a_change_of_the_spec_refuses_a_shift_from_what_was_seen(part: GatewayApiPart) -> None:
    seen = await part.router.traffic("flights")
    part.api.edit(champion=200, challenger=0)
    with pytest.raises(ActionFailed, match="no longer the one that was seen: it is at generation 4"):
        await part.router.shift_from(seen, "flights", CANARY)


async def test_nothing_is_asked_twice_behind_the_back_of_who_asks(part: GatewayApiPart) -> None:
    await part.make("cut", reads=True)
    with pytest.raises(ActionFailed):
        await part.router.read("flights")
    assert len(part.meddler.handed_on) == 1


async def test_a_yes_after_which_the_route_is_as_it_was_is_a_failure(part: GatewayApiPart) -> None:
    part.api.ignores = True
    with pytest.raises(ActionFailed, match="said yes, but the split of flights is as it was"):
        await part.router.shift("flights", CANARY)


# Gateways.


async def test_a_gateway_that_does_not_take_the_change_up_is_told_in_its_words(part: GatewayApiPart) -> None:
    part.api.controller = "rejects"
    with pytest.raises(OutcomeUnknown, match="edge does not take it up") as failed:
        await part.router.shift("flights", CANARY)
    assert "service shop/flights-challenger not found" in failed.value.message


async def test_a_gateway_that_says_nothing_is_not_waited_for_for_ever(part: GatewayApiPart) -> None:
    part.api.controller = "sleeps"
    with pytest.raises(OutcomeUnknown, match="the gateway edge has not said Accepted"):
        await part.router.shift("flights", CANARY)


async def test_a_gateway_that_takes_its_time_is_waited_for(part: GatewayApiPart) -> None:
    part.api.controller = "sleeps"
    shifting = asyncio.create_task(part.router.shift("flights", CANARY))
    while part.api.weights() == ALL:
        await asyncio.sleep(0.005)
    part.api.controller = "takes"
    part.api._act()
    assert await shifting == CANARY


# Refusals.


@pytest.mark.parametrize(("code", "reason", "words", "hint"), [
    (403, "Forbidden", FORBIDDEN, "get and patch httproutes"),
    (410, "Expired", "The provided continue parameter is too old", None),
    (429, "TooManyRequests", "too many requests", "try again")])
async def test_a_refusal_to_read_says_why_and_what_to_do(
        part: GatewayApiPart, code: int, reason: str, words: str, hint: str | None) -> None:
    part.api.deny = code, status(code, reason, words)
    with pytest.raises(ActionFailed) as failed:
        await part.router.read("flights")
    assert words in failed.value.message
    assert hint is None or hint in str(failed.value.hint)


async def test_a_failure_of_the_api_while_it_changes_something_is_unknown(part: GatewayApiPart) -> None:
    part.meddler.refusal = http_answer("504 Gateway Timeout", status(504, "Timeout", "etcd timed out"))
    await part.make("refuse")
    with pytest.raises(OutcomeUnknown, match="etcd timed out"):
        await part.router.shift("flights", CANARY)


async def test_a_route_that_is_not_there_is_named(api: ApiServer, folder: Path) -> None:
    router = GatewayApiRouter({"flights": place(route="fares", kubeconfig=kubeconfig(folder, api.port))})
    with pytest.raises(ActionFailed, match='"fares" not found') as failed:
        await router.read("flights")
    assert "router.route" in str(failed.value.hint)


async def test_no_credentials_are_told(folder: Path) -> None:
    router = GatewayApiRouter({"flights": place(kubeconfig=folder / "none")})
    with pytest.raises(ActionFailed, match="no credentials for Kubernetes") as failed:
        await router.read("flights")
    assert "Name a kubeconfig" in str(failed.value.hint)


async def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(ActionFailed, match="client is not installed") as failed:
        await GatewayApiRouter({"flights": place()}).read("flights")
    assert failed.value.hint == "pip install opsdeck[kubernetes]"


# The route and its patch.


def test_a_patch_changes_weights_alone_and_holds_what_was_read() -> None:
    old = route(champion=100, challenger=0)
    made = patch(old, place(), {"champion": 95, "challenger": 5})
    assert made["metadata"] == {"resourceVersion": "8100"}
    assert set(made) == {"metadata", "spec"} and set(made["spec"]) == {"rules"}
    assert made["spec"]["rules"][0]["matches"] == old["spec"]["rules"][0]["matches"]
    assert [ref["weight"] for ref in made["spec"]["rules"][0]["backendRefs"]] == [95, 5]
    assert weights_of(old, place()) == {"champion": 100, "challenger": 0}, "what was read is left as it was"


def test_a_weight_that_is_not_said_is_one() -> None:
    assert weights_of(route(champion=None, challenger=None), place()) == {"champion": 1, "challenger": 1}


def test_other_backends_that_get_requests_are_found() -> None:
    assert strangers(route(champion=9, challenger=1, shadow=0, old=3), place()) == ["flights-old"]


@pytest.mark.parametrize(("change", "words"), [
    ({"rule": 2}, "has 1 rules and no rule 2"),
    ({"services": {"champion": "flights-champion", "challenger": "x"}},
     "no backend x, the one of challenger")])
def test_what_the_config_names_and_the_route_lacks_is_told(change: dict[str, object], words: str) -> None:
    with pytest.raises(ActionFailed, match=words):
        weights_of(route(champion=1, challenger=1), place(**change))


async def test_a_stranger_bars_reading_but_not_the_way_back(part: GatewayApiPart) -> None:
    part.api.route = {**route(champion=50, challenger=50, old=10), "status": part.api.route["status"]}
    with pytest.raises(ActionFailed, match="also sends requests to flights-old"):
        await part.router.read("flights")
    assert await part.router.shift("flights", ALL) == ALL


def test_a_route_that_no_gateway_has_seen_is_not_taken_up() -> None:
    assert taken_up(route(champion=1, challenger=0)) == (
        "not yet", "no gateway has said anything about this route")
