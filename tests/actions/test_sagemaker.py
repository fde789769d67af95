"""Amazon's own guardrails, driven by a step.

moto has no deployments under way (its UpdateEndpoint is missing), so what SageMaker would say is scripted
here; the requests themselves are held against botocore's model in tests/rollout/traffic/test_guardrails.py.
"""

from __future__ import annotations

import types
from typing import Any

import pytest

from engine.actions import sagemaker
from engine.config import Config
from engine.errors import ActionFailed, UsageError
from engine.procedures.actions import Context
from engine.rollout.traffic.guardrails import BlueGreen, Deployment

CONFIG = Config.model_validate({"services": {"flights": {"router": {
    "kind": "sagemaker", "endpoint": "flights", "variants": {"champion": "a", "challenger": "b"}}}}})


class Scripted:
    """Guardrails that say one state after another; the last one for ever."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.plans: list[BlueGreen] = []

    async def start(self, service: str, config_name: str, plan: BlueGreen) -> Deployment:
        self.plans.append(plan)
        return await self.status(service, config_name)

    async def status(self, service: str, config_name: str) -> Deployment:
        state: Any = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return Deployment(state, "InService" if state in ("done", "not there") else "Updating", config_name)


def deploy(monkeypatch: pytest.MonkeyPatch, script: Scripted, **given: Any) -> tuple[Any, list[str]]:
    """The coroutine of a step on an endpoint that says what the script says, and its log."""
    monkeypatch.setattr(sagemaker, "SageMakerGuardrails", lambda services: script)
    log: list[str] = []
    time = [0.0]

    async def sleep(seconds: float) -> None:
        time[0] += seconds

    none: Any = types.SimpleNamespace()
    context = Context(run="1", step="deploy", attempt=1, router=none, supervisor=none, signals=none,
                      secrets={}, log=log.append, clock=lambda: time[0], sleep=sleep,
                      extra={"config": CONFIG})
    params = sagemaker.Deploy.model_validate({"service": "flights", "endpoint_config": "flights-8", **given})
    return sagemaker.deploy(context, params), log


async def test_a_deployment_is_followed_until_it_is_in_service(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted("in progress", "in progress", "done")
    work, log = deploy(monkeypatch, script, routing="linear", percent=20, wait="5m", alarms=["p99"])
    assert await work == {"state": "done", "status": "InService", "config": "flights-8"}
    assert script.plans == [BlueGreen("linear", 20, 300.0, 600.0, None, ("p99",))]
    assert log[0] == "flights-8: in progress, Updating"


@pytest.mark.parametrize("states", [("in progress", "rolling back", "not there"), ("in progress", "failed"),
                                    ("not there",)])
async def test_one_that_sagemaker_did_not_keep_fails_the_step(monkeypatch: pytest.MonkeyPatch,
                                                              states: tuple[str, ...]) -> None:
    work, _ = deploy(monkeypatch, Scripted(*states))
    with pytest.raises(ActionFailed, match="did not keep flights-8"):
        await work


async def test_one_that_shows_only_after_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = deploy(monkeypatch, Scripted("not there", "not there", "in progress", "done"))
    assert (await work)["state"] == "done"


async def test_a_service_with_another_router_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = deploy(monkeypatch, Scripted("done"), service="pricing")
    with pytest.raises(UsageError, match="pricing is no SageMaker endpoint"):
        await work
