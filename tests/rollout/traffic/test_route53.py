"""Route 53's weighted records as a router: real boto3 over HTTP against moto's server, through a meddler."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engine.config_routers import Route53
from engine.errors import ActionFailed, OutcomeUnknown
from engine.rollout.traffic.route53 import Route53Router
from tests.rollout.traffic.contract import ALL, CANARY, NONE, Contract, Part, near
from tests.rollout.traffic.meddler import Meddler, http_answer
from tests.rollout.traffic.moto_server import REGION, Moto, aside, serving, url

IDENTIFIERS = {"champion": "blue", "challenger": "green"}
NAME = "flights.example.com."
OK = (b'<?xml version="1.0"?><ChangeResourceRecordSetsResponse '
      b'xmlns="https://route53.amazonaws.com/doc/2013-04-01/"><ChangeInfo><Id>/change/C1</Id>'
      b"<Status>INSYNC</Status></ChangeInfo></ChangeResourceRecordSetsResponse>")
REFUSED = (b'<?xml version="1.0"?><ErrorResponse xmlns="https://route53.amazonaws.com/doc/2013-04-01/">'
           b"<Error><Type>Sender</Type><Code>InvalidChangeBatch</Code>"
           b"<Message>The record is locked.</Message></Error></ErrorResponse>")


class Route53Part(Part):
    step = 100 / 255
    refusal = "The record is locked"
    router: Route53Router

    def __init__(self, moto: Moto, zone: str) -> None:
        self.api, self.zone, self._clients = moto.client("route53"), zone, moto.clients
        self.meddler = Meddler(
            back=moto.address, front=moto.front, garbage=http_answer("200 OK", b"<html>", "text/xml"),
            refusal=http_answer("400 Bad Request", REFUSED, "text/xml"),
            lied=lambda request: http_answer("200 OK", OK, "text/xml"))

    def connect(self, name: str = NAME, identifiers: dict[str, str] = IDENTIFIERS, type: str = "CNAME",
                settle_s: float = 0.3) -> Route53Router:
        self.router = Route53Router(
            {"flights": Route53.model_validate({
                "kind": "route53", "region": REGION, "endpoint_url": url(self.meddler), "zone": self.zone,
                "name": name, "type": type, "identifiers": identifiers})},
            self._clients, settle_s=settle_s, poll_s=0.02)
        return self.router

    def records(self, name: str = NAME, type: str = "CNAME") -> dict[str, dict[str, Any]]:
        found = self.api.list_resource_record_sets(HostedZoneId=self.zone, StartRecordName=name,
                                                   StartRecordType=type)["ResourceRecordSets"]
        return {record["SetIdentifier"]: record for record in found
                if (record["Name"], record["Type"]) == (name, type)}

    def weights(self) -> dict[str, int]:
        found = self.records()
        return {name: found[identifier]["Weight"] for name, identifier in IDENTIFIERS.items()}

    def put(self, *records: dict[str, Any], action: str = "UPSERT") -> None:
        self.api.change_resource_record_sets(HostedZoneId=self.zone, ChangeBatch={"Changes": [
            {"Action": action, "ResourceRecordSet": record} for record in records]})

    async def in_force(self) -> dict[str, float]:
        weights = await aside(self.weights)
        return {name: weight * 100 / sum(weights.values()) for name, weight in weights.items()}

    async def set_directly(self, weights: dict[str, float]) -> None:
        await aside(lambda: self.put(*(
            record(IDENTIFIERS[name], Weight=round(weight * 1.5)) for name, weight in weights.items())))


def record(identifier: str, name: str = NAME, type: str = "CNAME", **more: Any) -> dict[str, Any]:
    value = {"ResourceRecords": [{"Value": f"{identifier}.example.com"}], "TTL": 30}
    return {"Name": name, "Type": type, "SetIdentifier": identifier, "Weight": 1, **value, **more}


def in_sync_after(part: Route53Part, looks: int) -> None:
    """Moto's changes are INSYNC at once; a real one is PENDING for a while."""
    hand_on, left = part.meddler._hand_on, [looks]

    async def meddled(request: bytes) -> bytes:
        answer = await hand_on(request)
        if b"/change/" in request.partition(b"\r\n")[0] and left[0] > 0:
            left[0] -= 1
            body = answer.partition(b"\r\n\r\n")[2].replace(b"INSYNC", b"PENDING")
            assert b"PENDING" in body
            answer = http_answer("200 OK", body, "text/xml")
        return answer

    part.meddler._hand_on = meddled  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with serving() as moto:
        yield moto


@pytest.fixture(scope="module")
def zone(moto: Moto) -> str:
    zone = moto.client("route53").create_hosted_zone(Name="example.com", CallerReference="1")
    return str(zone["HostedZone"]["Id"]).removeprefix("/hostedzone/")


@pytest.fixture
async def part(moto: Moto, zone: str) -> AsyncIterator[Route53Part]:
    part = Route53Part(moto, zone)
    await part.set_directly(ALL)
    await part.meddler.start()
    part.connect()
    yield part
    await part.meddler.stop()


class TestRoute53(Contract):
    """What every adapter keeps to."""


async def test_all_records_change_in_one_batch(part: Route53Part) -> None:
    await part.router.shift("flights", CANARY)
    [sent] = [request for request in part.meddler.handed_on if request.startswith(b"POST")]
    assert sent.count(b"<Action>UPSERT</Action>") == 2


async def test_one_percent_is_one_beside_ninety_nine(part: Route53Part) -> None:
    await part.router.shift("flights", {"champion": 99.0, "challenger": 1.0})
    assert part.weights() == {"champion": 99, "challenger": 1}


async def test_weights_that_are_all_zero_are_read_as_route_53_takes_them_and_never_set(
        part: Route53Part) -> None:
    await part.set_directly({"champion": 0.0, "challenger": 0.0})
    assert await part.router.read("flights") == {"champion": 50.0, "challenger": 50.0}
    for split in (ALL, NONE):
        await part.router.shift("flights", split)
        assert sorted(part.weights().values()) == [0, 100]


async def test_a_share_below_the_least_weight_is_refused_rather_than_made_larger(part: Route53Part) -> None:
    with pytest.raises(ActionFailed, match=r"A share of 0\.1 % cannot be had") as failed:
        await part.router.shift("flights", {"champion": 99.9, "challenger": 0.1})
    assert failed.value.hint == "The least share is about 0.39 %."
    assert await part.in_force() == ALL


async def test_only_the_weight_of_a_record_changes(part: Route53Part, moto: Moto) -> None:
    alias = {"AliasTarget": {"HostedZoneId": "Z32O12XQLNTSW2", "DNSName": "blue.elb.amazonaws.com.",
                             "EvaluateTargetHealth": True}}
    blue = record("blue", "b.example.com.", "A", HealthCheckId="7", **alias)
    del blue["TTL"], blue["ResourceRecords"]
    green = record("green", "b.example.com.", "A", TTL=17,
                   ResourceRecords=[{"Value": "192.0.2.1"}, {"Value": "192.0.2.2"}])
    part.put(blue, green)
    before = part.records("b.example.com.", "A")
    await part.connect("B.example.com", type="A").shift("flights", {"champion": 80.0, "challenger": 20.0})
    assert part.records("b.example.com.", "A") == {
        "blue": before["blue"] | {"Weight": 80}, "green": before["green"] | {"Weight": 20}}


async def test_a_shift_waits_until_the_change_is_in_sync(part: Route53Part) -> None:
    part.connect(settle_s=5.0)
    in_sync_after(part, 3)
    assert await part.router.shift("flights", CANARY) == near(CANARY, part.step / 2)
    assert len([request for request in part.meddler.handed_on if b"/change/" in request[:80]]) == 4


async def test_a_change_that_does_not_get_in_sync_is_unknown(part: Route53Part) -> None:
    in_sync_after(part, 1000)
    with pytest.raises(OutcomeUnknown, match=r"champion 95 %, challenger 5 % .*the change is still PENDING"):
        await part.router.shift("flights", CANARY)


async def test_a_yes_that_was_none_is_found_out_by_the_shift_itself(part: Route53Part) -> None:
    await part.make("lie")
    with pytest.raises(OutcomeUnknown, match=r"took champion 95 %, challenger 5 % .* but has champion 100 %"):
        await part.router.shift("flights", CANARY)


async def test_names_are_found_among_many_and_as_route_53_writes_them(part: Route53Part) -> None:
    part.put(*(record("x", f"n{i}.example.com.") for i in range(320)))
    part.put(record("blue", "\\052.w.example.com.", Weight=3), record("green", "\\052.w.example.com."))
    assert await part.connect("*.W.example.com").read("flights") == {"champion": 75.0, "challenger": 25.0}
    assert await part.connect("flights.example.com").read("flights") == ALL


async def test_a_record_that_is_not_there_is_named_with_those_that_are(part: Route53Part) -> None:
    router = part.connect(identifiers={"champion": "blue", "challenger": "red"})
    with pytest.raises(ActionFailed, match="has no record red among the CNAME records") as failed:
        await router.read("flights")
    assert failed.value.hint == "It has: blue, green. Correct the router in opsdeck.yaml."
    with pytest.raises(ActionFailed, match="has no record blue, green"):
        await part.connect("nobody.example.com").read("flights")


async def test_records_that_are_not_weighted_are_refused(part: Route53Part) -> None:
    plain = record("blue", "plain.example.com.")
    del plain["SetIdentifier"], plain["Weight"]
    part.put(plain)
    with pytest.raises(ActionFailed, match="are not weighted"):
        await part.connect("plain.example.com").read("flights")


async def test_a_record_that_the_config_does_not_name_may_have_no_weight(part: Route53Part) -> None:
    router = part.connect(identifiers={"champion": "blue"})
    assert await router.read("flights") == {"champion": 100.0}
    await part.set_directly(CANARY)
    with pytest.raises(ActionFailed, match="not among its variants: green"):
        await router.read("flights")


async def test_a_zone_that_is_not_there_is_named(part: Route53Part) -> None:
    part.zone = "Z0000000"
    with pytest.raises(ActionFailed, match=r"Route 53 refused for flights: .*Z0000000"):
        await part.connect().read("flights")
