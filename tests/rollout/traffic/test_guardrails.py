"""SageMaker's own blue/green deployment. Moto has no UpdateEndpoint, so that what is asked for is checked
against botocore's model of the service, as bytes on the wire, and with botocore's Stubber, which checks
answers against the model too. Moto's server tells where an endpoint is."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from engine.config_routers import Aws, SageMaker
from engine.errors import ActionFailed, NotFound, OutcomeUnknown, UsageError
from engine.rollout.traffic.aws import Clients
from engine.rollout.traffic.guardrails import (
    BlueGreen,
    Deployment,
    Fleet,
    SageMakerGuardrails,
    deployment_config,
    deployment_of,
)
from tests.rollout.traffic.meddler import Meddler, http_answer
from tests.rollout.traffic.moto_server import REGION, Moto, serving, url

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:endpoint/flights"
NOW = datetime(2026, 3, 5, tzinfo=UTC)
PLAN = BlueGreen(routing="canary", percent=10, wait_s=300, terminate_after_s=900, timeout_s=7200,
                 alarms=("flights-5xx", "flights-p99"))
SHAPE = botocore.session.get_session().get_service_model("sagemaker").operation_model(
    "UpdateEndpoint").input_shape
KEPT = {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": [
    {"VariantPropertyType": "DesiredWeight"}, {"VariantPropertyType": "DataCaptureConfig"}]}
plans = st.builds(
    BlueGreen, routing=st.sampled_from(["all-at-once", "canary", "linear"]), percent=st.integers(0, 60),
    wait_s=st.floats(-1, 4000), terminate_after_s=st.floats(-1, 4000),
    timeout_s=st.none() | st.floats(500, 30000),
    alarms=st.lists(st.text(max_size=3), max_size=11).map(tuple))


def wrong(config: dict[str, Any]) -> str:
    """What botocore's model of UpdateEndpoint has against it; it knows least values, no greatest."""
    request = {"EndpointName": "e", "EndpointConfigName": "c", "DeploymentConfig": config}
    return str(ParamValidator().validate(request, SHAPE).generate_report())


def test_a_canary_is_rendered_as_sagemaker_wants_it() -> None:
    assert deployment_config(PLAN) == {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {
                "Type": "CANARY", "WaitIntervalInSeconds": 300,
                "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 10}},
            "TerminationWaitInSeconds": 900, "MaximumExecutionTimeoutInSeconds": 7200},
        "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "flights-5xx"}, {"AlarmName": "flights-p99"}]}}


@pytest.mark.parametrize(("routing", "rendered"), [
    ("linear", {"Type": "LINEAR", "WaitIntervalInSeconds": 600,
                "LinearStepSize": {"Type": "CAPACITY_PERCENT", "Value": 10}}),
    ("all-at-once", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 600})])
def test_the_other_routings_are_rendered_likewise(routing: Any, rendered: dict[str, Any]) -> None:
    config = deployment_config(BlueGreen(routing=routing))
    assert config == {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": rendered,
                                                "TerminationWaitInSeconds": 600}}


@given(plans)
def test_a_plan_is_refused_or_rendered_as_the_model_of_the_service_wants_it(plan: BlueGreen) -> None:
    try:
        config = deployment_config(plan)
    except UsageError as error:
        assert error.message.startswith("This blue/green deployment cannot be: ")
        return
    assert wrong(config) == ""


def test_the_model_does_find_what_is_wrong() -> None:
    config = deployment_config(PLAN)
    config["BlueGreenUpdatePolicy"]["TrafficRoutingConfiguration"]["CanarySize"]["Value"] = 0
    assert "CanarySize.Value" in wrong(config)


@pytest.mark.parametrize(("plan", "said"), [
    (BlueGreen(percent=60), "percent is 60, and must be 1 to 50 for canary"),
    (BlueGreen(routing="linear", percent=5), "percent is 5, and must be 10 to 50 for linear"),
    (BlueGreen(wait_s=4000), "wait_s is 4000, and must be 0 to 3600"),
    (BlueGreen(terminate_after_s=float("nan")), "terminate_after_s is nan"),
    (BlueGreen(timeout_s=60), "timeout_s is 60, and must be 600 to 28800"),
    (BlueGreen(routing="linear", timeout_s=6600), "the waits alone take 6600"),
    (BlueGreen(alarms=("a",) * 2), "alarms must be up to 10 different names"),
    (BlueGreen(alarms=(" ",)), "an alarm's name must be 1 to 255 characters"),
])
def test_a_plan_that_amazon_would_refuse_is_refused_in_a_sentence(plan: BlueGreen, said: str) -> None:
    with pytest.raises(UsageError) as failed:
        deployment_config(plan)
    assert said in failed.value.message


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(UsageError, match=r"percent is 60.*; wait_s is 4000.*; timeout_s is 1"):
        deployment_config(BlueGreen(percent=60, wait_s=4000, timeout_s=1))


# Where it is.


def described(status: str, config: str = "first", **more: Any) -> dict[str, Any]:
    return {"EndpointName": "flights", "EndpointArn": ARN, "EndpointConfigName": config,
            "EndpointStatus": status, "CreationTime": NOW, "LastModifiedTime": NOW,
            "ProductionVariants": [{"VariantName": "blue", "CurrentWeight": 1.0, "CurrentInstanceCount": 2}],
            **more}


PENDING = {"EndpointConfigName": "second", "StartTime": NOW, "ProductionVariants": [
    {"VariantName": "blue", "CurrentWeight": 0.1, "CurrentInstanceCount": 3,
     "VariantStatus": [{"Status": "Baking"}]}]}


@pytest.mark.parametrize(("answer", "state"), [
    (described("Updating"), "in progress"), (described("RollingBack"), "rolling back"),
    (described("InService", "second"), "done"), (described("InService"), "not there"),
    (described("Failed"), "failed"), (described("UpdateRollbackFailed"), "failed")])
def test_the_state_of_a_deployment_is_read_from_the_endpoint(answer: dict[str, Any], state: str) -> None:
    assert deployment_of(answer, "second").state == state


def test_a_deployment_under_way_shows_both_fleets() -> None:
    assert deployment_of(described("Updating", PendingDeploymentSummary=PENDING), "second") == Deployment(
        state="in progress", status="Updating", config="second", blue=(Fleet("blue", 1.0, 2),),
        green=(Fleet("blue", 0.1, 3, ("Baking",)),))


def test_why_a_deployment_was_rolled_back_is_told_in_sagemakers_words() -> None:
    answer = described("InService", FailureReason="The alarm flights-5xx went off.")
    assert deployment_of(answer, "second").reason == "The alarm flights-5xx went off."


# Starting it.


class StubbedClients(Clients):
    """One client with answers that botocore's Stubber has checked against the model."""

    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client

    def get(self, api: str, place: Aws, *, writing: bool = False) -> Any:
        assert api == "sagemaker"
        return self.client


@pytest.fixture(scope="module")
def client() -> Any:
    return botocore.session.get_session().create_client(
        "sagemaker", region_name=REGION, aws_access_key_id="testing", aws_secret_access_key="testing")


@pytest.fixture
def stub(client: Any) -> Iterator[tuple[Stubber, SageMakerGuardrails]]:
    place = SageMaker(kind="sagemaker", endpoint="flights", variants={"champion": "blue"})
    with Stubber(client) as stubber:
        yield stubber, SageMakerGuardrails({"flights": place}, StubbedClients(client))
        stubber.assert_no_pending_responses()


Stub = tuple[Stubber, SageMakerGuardrails]
ASKED = {"EndpointName": "flights", "EndpointConfigName": "second",
         "DeploymentConfig": deployment_config(PLAN)}


async def test_a_start_asks_once_and_says_where_it_is(stub: Stub) -> None:
    stubber, guardrails = stub
    stubber.add_response("describe_endpoint", described("InService"), {"EndpointName": "flights"})
    stubber.add_response("update_endpoint", {"EndpointArn": ARN}, {**ASKED, **KEPT})
    stubber.add_response("describe_endpoint", described("Updating", PendingDeploymentSummary=PENDING))
    deployment = await guardrails.start("flights", "second", PLAN)
    assert (deployment.state, deployment.config) == ("in progress", "second")


async def test_the_sizes_in_the_configuration_are_taken_when_that_is_wanted(stub: Stub) -> None:
    stubber, guardrails = stub
    stubber.add_response("describe_endpoint", described("InService"))
    stubber.add_response("update_endpoint", {"EndpointArn": ARN}, ASKED)
    stubber.add_response("describe_endpoint", described("Updating"))
    await guardrails.start("flights", "second", PLAN, keep_size=False)


@pytest.mark.parametrize("answer", [described("InService", "second"),
                                    described("Updating", PendingDeploymentSummary=PENDING)])
async def test_what_is_there_or_on_its_way_is_not_asked_for_again(stub: Stub, answer: dict[str, Any]) -> None:
    stubber, guardrails = stub
    stubber.add_response("describe_endpoint", answer)
    assert (await guardrails.start("flights", "second", PLAN)).config == "second"


async def test_an_endpoint_that_is_busy_with_another_is_left_alone(stub: Stub) -> None:
    stubber, guardrails = stub
    other = PENDING | {"EndpointConfigName": "third"}
    stubber.add_response("describe_endpoint", described("Updating", PendingDeploymentSummary=other))
    with pytest.raises(ActionFailed, match="flights is Updating, not InService; nothing was changed"):
        await guardrails.start("flights", "second", PLAN)


async def test_a_refusal_changed_nothing_and_a_failure_leaves_it_unknown(stub: Stub) -> None:
    stubber, guardrails = stub
    for status, error in ((400, ActionFailed), (500, OutcomeUnknown)):
        stubber.add_response("describe_endpoint", described("InService"))
        stubber.add_client_error("update_endpoint", "ValidationException", "No such configuration.", status)
        with pytest.raises(error, match="No such configuration"):
            await guardrails.start("flights", "second", PLAN)


async def test_a_bad_plan_and_a_service_it_does_not_know_are_refused_before_anything_is_asked(
        stub: Stub) -> None:
    _, guardrails = stub
    with pytest.raises(UsageError):
        await guardrails.start("flights", "second", BlueGreen(percent=60))
    with pytest.raises(NotFound, match="fraud"):
        await guardrails.status("fraud", "second")


# Over HTTP.


@pytest.fixture
async def meddler() -> AsyncIterator[tuple[Meddler, Moto]]:
    with serving() as moto:
        def took(request: bytes) -> bytes:
            meddler.handed_on.append(request)
            return http_answer("200 OK", json.dumps({"EndpointArn": ARN}).encode())

        meddler = Meddler(back=moto.address, front=moto.front, lied=took,
                          changes=lambda request: b"sagemaker.updateendpoint" in request.lower())
        await meddler.start()
        yield meddler, moto
        await meddler.stop()


async def test_what_goes_over_the_wire_is_what_was_planned(meddler: tuple[Meddler, Moto]) -> None:
    front, moto = meddler
    api = moto.client("sagemaker")
    api.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/serving")
    api.create_endpoint_config(EndpointConfigName="first", ProductionVariants=[
        {"VariantName": "blue", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 2,
         "InitialVariantWeight": 1.0}])
    api.create_endpoint(EndpointName="flights-guarded", EndpointConfigName="first")
    guardrails = SageMakerGuardrails({"flights": SageMaker(
        kind="sagemaker", region=REGION, endpoint_url=url(front), endpoint="flights-guarded",
        variants={"champion": "blue"})}, moto.clients)
    assert await guardrails.status("flights", "first") == Deployment(
        state="done", status="InService", config="first", blue=(Fleet("blue", 1.0, 2),))
    await front.make("lie")
    assert (await guardrails.start("flights", "second", PLAN)).state == "not there"
    [sent] = [request for request in front.handed_on if front.changes(request)]
    assert json.loads(sent.partition(b"\r\n\r\n")[2]) == {**ASKED, **KEPT, "EndpointName": "flights-guarded"}
