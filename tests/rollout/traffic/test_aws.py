"""What goes wrong between us and AWS, as botocore says it for real, in our words."""

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from engine.config_routers import SageMaker
from engine.errors import ActionFailed, OpsdeckError, OutcomeUnknown
from engine.rollout.traffic.aws import Clients, failure
from engine.rollout.traffic.sagemaker import SageMakerRouter
from tests.rollout.traffic.contract import ALL
from tests.rollout.traffic.meddler import Meddler, http_answer
from tests.rollout.traffic.moto_server import REGION, Moto, serving, url

MODULES = ("aws", "aws_router", "alb", "guardrails", "route53", "sagemaker", "weights")


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with serving() as moto:
        api = moto.client("sagemaker")
        api.create_model(ModelName="m", ExecutionRoleArn="arn:aws:iam::123456789012:role/serving")
        api.create_endpoint_config(EndpointConfigName="first", ProductionVariants=[
            {"VariantName": name, "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1,
             "InitialVariantWeight": 1.0} for name in ALL])
        api.create_endpoint(EndpointName="errors", EndpointConfigName="first")
        yield moto


@pytest.fixture
async def meddler(moto: Moto) -> AsyncIterator[Meddler]:
    meddler = Meddler(back=moto.address, front=moto.front,
                      changes=lambda request: b"sagemaker.updateendpoint" in request.lower())
    await meddler.start()
    yield meddler
    await meddler.stop()


def router(at: str, clients: Clients | None = None, **place: str | None) -> SageMakerRouter:
    config = SageMaker.model_validate({
        "kind": "sagemaker", "region": REGION, "endpoint_url": at, "endpoint": "errors",
        "variants": {name: name for name in ALL}, **place})
    return SageMakerRouter({"flights": config}, clients or Clients(timeout_s=0.5), settle_s=0.2, poll_s=0.02)


@pytest.mark.parametrize(("status", "code", "kind", "said", "hint"), [
    ("400 No", "ThrottlingException", ActionFailed, "too many requests", "Try again in a moment."),
    ("503 Slow", "SlowDown", ActionFailed, "too many requests", "Try again in a moment."),
    ("429 Slow", "Other", ActionFailed, "too many requests", "Try again in a moment."),
    ("400 No", "ValidationException", ActionFailed, "refused for flights: Because", "Compare the names"),
    ("400 No", "AccessDeniedException", ActionFailed, "refused for flights: Because", "Allow it"),
    ("403 No", "ExpiredTokenException", ActionFailed, "refused for flights: Because", "Renew the cred"),
    ("500 Error", "InternalFailure", OutcomeUnknown, "did not say whether it did", "Read the weights"),
    ("503 Away", "ServiceUnavailable", OutcomeUnknown, "did not say whether it did", "Read the weights"),
])
async def test_an_answer_that_is_no_is_told_by_what_it_means(
        meddler: Meddler, moto: Moto, status: str, code: str, kind: type[OpsdeckError], said: str,
        hint: str) -> None:
    meddler.refusal = http_answer(status, json.dumps({"__type": code, "message": "Because."}).encode(),
                                  "application/x-amz-json-1.1")
    await meddler.make("refuse")
    with pytest.raises(kind) as failed:
        await router(url(meddler), moto.clients).shift("flights", ALL)
    assert said in failed.value.message and str(failed.value.hint).startswith(hint)
    assert failed.value.where == "endpoint errors"


async def test_a_change_is_sent_once_and_a_reading_twice(meddler: Meddler, moto: Moto) -> None:
    asked: list[bytes] = []
    is_change = meddler.changes
    meddler.changes = lambda request: asked.append(request) is None and is_change(request)
    await meddler.make("swallow")
    with pytest.raises(OutcomeUnknown):
        await router(url(meddler), moto.clients).shift("flights", ALL)
    assert len([request for request in asked if is_change(request)]) == 1
    asked.clear()
    meddler.changes = lambda request: asked.append(request) is None
    with pytest.raises(ActionFailed):
        await router(url(meddler), moto.clients).read("flights")
    assert len(asked) == 2


async def test_without_credentials_nothing_is_asked(
        meddler: Meddler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ActionFailed, match="Unable to locate credentials") as failed:
        await router(url(meddler)).shift("flights", ALL)
    assert "credentials" in str(failed.value.hint)
    assert meddler.handed_on == []


@pytest.mark.parametrize(("place", "said"), [
    ({"profile": "nobody"}, "nobody"), ({"region": None}, "region"),
    ({"endpoint_url": "flights aws"}, "flights aws is no address to ask AWS at")],
    ids=["profile", "region", "address"])
async def test_a_config_that_cannot_be_is_told(meddler: Meddler, place: dict[str, str | None],
                                               said: str) -> None:
    with pytest.raises(ActionFailed, match=said):
        await router(url(meddler), **place).read("flights")


def test_an_error_that_is_not_of_aws_stays_what_it_is() -> None:
    assert failure(ZeroDivisionError(), "SageMaker", "flights", "there", writing=True) is None


@pytest.mark.parametrize(("words", "kind"), [
    ("certificate verify failed", ActionFailed), ("bad record mac", OutcomeUnknown)])
def test_a_broken_encryption_is_unknown_unless_it_never_came_about(words: str, kind: type) -> None:
    from botocore.exceptions import SSLError

    error = SSLError(error=words, endpoint_url="https://sagemaker")
    assert type(failure(error, "SageMaker", "flights", "there", writing=True)) is kind
    assert type(failure(error, "SageMaker", "flights", "there", writing=False)) is ActionFailed


def test_none_of_it_loads_boto3_before_it_is_asked() -> None:
    names = ", ".join(f"engine.rollout.traffic.{name}" for name in MODULES)
    heavy = "[m for m in ('boto3', 'botocore', 'numpy', 'httpx') if m in sys.modules]"
    done = subprocess.run([sys.executable, "-c", f"import sys, {names}\nprint({heavy})"],
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
