"""SageMaker's endpoint as a router: real boto3 over HTTP against moto's server, through a meddler."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from engine.config_routers import SageMaker
from engine.errors import ActionFailed, OutcomeUnknown
from engine.rollout.traffic.router import ObservedRouter
from engine.rollout.traffic.sagemaker import SageMakerRouter
from tests.rollout.traffic.contract import ALL, CANARY, Contract, Part, near
from tests.rollout.traffic.meddler import Meddler, http_answer
from tests.rollout.traffic.moto_server import REGION, Moto, aside, serving, url

VARIANTS = {"champion": "blue", "challenger": "green"}
REFUSED = json.dumps({"__type": "ValidationException", "message": "Cannot update in-progress endpoint."})
NOON = datetime(2026, 3, 5, 12, 0, 30, tzinfo=UTC)


def changes(request: bytes) -> bool:
    return b"x-amz-target: sagemaker.updateendpoint" in request.lower()


class SageMakerPart(Part):
    refusal = "Cannot update in-progress endpoint"
    router: SageMakerRouter

    def __init__(self, moto: Moto) -> None:
        self.api, self._clients = moto.client("sagemaker"), moto.clients
        self.meddler = Meddler(
            back=moto.address, front=moto.front, changes=changes,
            refusal=http_answer("400 Bad Request", REFUSED.encode(), "application/x-amz-json-1.1"),
            garbage=http_answer("200 OK", b"<html>"),
            lied=lambda request: http_answer("200 OK", b'{"EndpointArn": "arn:aws:sagemaker:::endpoint/e"}'))

    def connect(self, endpoint: str = "flights", variants: dict[str, str] = VARIANTS,
                settle_s: float = 0.3) -> SageMakerRouter:
        self.router = SageMakerRouter(
            {"flights": SageMaker(kind="sagemaker", region=REGION, endpoint_url=url(self.meddler),
                                  endpoint=endpoint, variants=variants)},
            self._clients, settle_s=settle_s, poll_s=0.02, clock=NOON.timestamp)
        return self.router

    def described(self) -> dict[str, dict[str, object]]:
        found = self.api.describe_endpoint(EndpointName="flights")["ProductionVariants"]
        return {variant["VariantName"]: variant for variant in found}

    async def in_force(self) -> dict[str, float]:
        found = await aside(self.described)
        return {name: float(str(found[there].get("CurrentWeight", 0.0))) for name, there in VARIANTS.items()}

    async def set_directly(self, weights: dict[str, float]) -> None:
        await aside(lambda: self.api.update_endpoint_weights_and_capacities(
            EndpointName="flights", DesiredWeightsAndCapacities=[
                {"VariantName": VARIANTS[name], "DesiredWeight": weight, "DesiredInstanceCount": 2}
                for name, weight in weights.items()]))


def states(part: SageMakerPart, *answers: dict[str, object]) -> None:
    """Make each description of the endpoint say these, one after the other, the last for ever. Moto's
    endpoint is InService at once, a real one is Updating for minutes."""
    waiting = list(answers)
    hand_on = part.meddler._hand_on

    async def meddled(request: bytes) -> bytes:
        answer = await hand_on(request)
        if b"describeendpoint" not in request.lower():
            return answer
        said = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return http_answer("200 OK", json.dumps(json.loads(answer.partition(b"\r\n\r\n")[2]) | said).encode())

    part.meddler._hand_on = meddled  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with serving() as moto:
        api = moto.client("sagemaker")
        api.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/serving")
        api.create_endpoint_config(EndpointConfigName="first", ProductionVariants=[
            {"VariantName": name, "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2,
             "InitialVariantWeight": 1.0} for name in VARIANTS.values()])
        api.create_endpoint(EndpointName="flights", EndpointConfigName="first")
        yield moto


@pytest.fixture
async def part(moto: Moto) -> AsyncIterator[SageMakerPart]:
    part = SageMakerPart(moto)
    await part.set_directly(ALL)
    await part.meddler.start()
    part.connect()
    yield part
    await part.meddler.stop()


class TestSageMaker(Contract):
    """What every adapter keeps to."""


async def test_the_size_of_a_variant_is_no_part_of_a_shift(part: SageMakerPart) -> None:
    await part.router.shift("flights", CANARY)
    [sent] = [request for request in part.meddler.handed_on if changes(request)]
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == {
        "EndpointName": "flights", "DesiredWeightsAndCapacities": [
            {"VariantName": "blue", "DesiredWeight": 95.0}, {"VariantName": "green", "DesiredWeight": 5.0}]}


async def test_a_shift_waits_until_the_endpoint_is_in_service_with_the_new_weights(
        part: SageMakerPart) -> None:
    part.connect(settle_s=5.0)
    old = [{"VariantName": "blue", "CurrentWeight": 100.0, "DesiredWeight": 95.0},
           {"VariantName": "green", "CurrentWeight": 0.0, "DesiredWeight": 5.0}]
    states(part, {"EndpointStatus": "InService"}, {"EndpointStatus": "InService"},
           {"EndpointStatus": "Updating", "ProductionVariants": old},
           {"EndpointStatus": "Updating", "ProductionVariants": old}, {"EndpointStatus": "InService"})
    assert await part.router.shift("flights", CANARY) == near(CANARY)
    looks = [request for request in part.meddler.handed_on if b"describeendpoint" in request.lower()]
    assert len(looks) == 6  # in service, weights; updating, updating, in service; weights


async def test_what_is_read_are_the_weights_in_force_not_those_asked_for(part: SageMakerPart) -> None:
    states(part, {"EndpointStatus": "Updating", "ProductionVariants": [
        {"VariantName": "blue", "CurrentWeight": 3.0, "DesiredWeight": 1.0},
        {"VariantName": "green", "CurrentWeight": 1.0, "DesiredWeight": 1.0}]})
    assert await part.router.read("flights") == {"champion": 75.0, "challenger": 25.0}


@pytest.mark.parametrize(("status", "hint"), [("Updating", "Try again"), ("Failed", "Bring the endpoint")])
async def test_an_endpoint_that_is_not_in_service_is_left_alone(
        part: SageMakerPart, status: str, hint: str) -> None:
    states(part, {"EndpointStatus": status, "FailureReason": "No capacity."})
    with pytest.raises(ActionFailed, match=f"flights is {status}, not InService .No capacity.; nothing"
                       ) as failed:
        await part.router.shift("flights", CANARY)
    assert failed.value.hint is not None and failed.value.hint.startswith(hint)
    assert not any(changes(request) for request in part.meddler.handed_on)


async def test_an_endpoint_that_fails_on_the_new_weights_leaves_them_unknown(part: SageMakerPart) -> None:
    states(part, {"EndpointStatus": "InService"}, {"EndpointStatus": "InService"},
           {"EndpointStatus": "Failed", "FailureReason": "The container does not answer."})
    with pytest.raises(OutcomeUnknown, match="flights is Failed, not InService"):
        await part.router.shift("flights", CANARY)


async def test_a_yes_that_was_none_is_found_out_by_the_shift_itself(part: SageMakerPart) -> None:
    await part.make("lie")
    with pytest.raises(OutcomeUnknown, match=r"took champion 95 %, challenger 5 % .* but has champion 100 %"):
        await part.router.shift("flights", CANARY)


async def test_a_shift_that_is_given_up_while_it_waits_sends_nothing_later(part: SageMakerPart) -> None:
    part.connect(settle_s=30.0)
    states(part, {"EndpointStatus": "Updating"})
    shift = asyncio.ensure_future(part.router.shift("flights", CANARY))
    async with asyncio.timeout(5):
        while len(part.meddler.handed_on) < 3:
            await asyncio.sleep(0.01)
    shift.cancel()
    with pytest.raises(asyncio.CancelledError):
        await shift
    states(part, {"EndpointStatus": "InService"})
    assert await part.router.shift("flights", ALL) == ALL
    assert len([request for request in part.meddler.handed_on if changes(request)]) == 1


async def test_a_change_on_its_way_is_waited_for_even_when_its_caller_gives_up(part: SageMakerPart) -> None:
    arrived, handed_on = asyncio.Event(), asyncio.Event()
    hand_on = part.meddler._hand_on

    async def late(request: bytes) -> bytes:
        if changes(request):
            arrived.set()
            await asyncio.sleep(0.2)
            handed_on.set()
        return await hand_on(request)

    part.meddler._hand_on = late  # type: ignore[method-assign]
    shift = asyncio.ensure_future(part.router.shift("flights", CANARY))
    await asyncio.wait_for(arrived.wait(), 5)
    shift.cancel()
    await part.router.shift("flights", ALL)
    assert handed_on.is_set() and shift.cancelled()
    assert await part.in_force() == ALL


async def test_an_endpoint_that_is_not_there_is_named(part: SageMakerPart) -> None:
    with pytest.raises(ActionFailed, match=r"SageMaker refused for flights: Could not find endpoint .*fraud"):
        await part.connect(endpoint="fraud").read("flights")


async def test_a_variant_that_the_endpoint_lacks_is_named_with_those_it_has(part: SageMakerPart) -> None:
    router = part.connect(variants={"champion": "blue", "challenger": "red"})
    with pytest.raises(ActionFailed, match="The endpoint flights has no variant red") as failed:
        await router.read("flights")
    assert failed.value.hint == "It has: blue, green. Correct opsdeck.yaml."


async def test_traffic_to_a_variant_that_the_config_does_not_name_is_not_passed_over(
        part: SageMakerPart) -> None:
    await part.set_directly({"champion": 90.0, "challenger": 10.0})
    router = part.connect(variants={"champion": "blue"})
    with pytest.raises(ActionFailed, match="not among its variants: green"):
        await router.read("flights")
    with pytest.raises(ActionFailed, match="not among its variants: green"):
        await router.shift("flights", {"champion": 100.0})


async def test_it_counts_what_each_variant_was_asked_since_midnight(part: SageMakerPart, moto: Moto) -> None:
    assert isinstance(part.router, ObservedRouter)
    assert await part.router.served("flights") == {"champion": 0.0, "challenger": 0.0}

    def put() -> None:
        midnight = NOON.replace(hour=0, minute=0, second=0)
        for variant, at, count in [("blue", midnight, 7.0), ("blue", NOON, 100.0), ("green", NOON, 5.0),
                                   ("blue", midnight - timedelta(minutes=1), 999.0)]:
            of = [{"Name": "EndpointName", "Value": "flights"}, {"Name": "VariantName", "Value": variant}]
            moto.client("cloudwatch").put_metric_data(Namespace="AWS/SageMaker", MetricData=[
                {"MetricName": "Invocations", "Value": count, "Timestamp": at, "Dimensions": of}])

    await aside(put)
    assert await part.router.served("flights") == {"champion": 107.0, "challenger": 5.0}
