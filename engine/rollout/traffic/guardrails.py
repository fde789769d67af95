"""SageMaker's own blue/green deployment, for who prefers it: its guardrails shift the traffic and its
CloudWatch alarms roll it back.

The endpoint takes up a new configuration on a second fleet. There is no way to stop that by hand: without
an alarm SageMaker rolls back only a fleet that does not start. Amazon's rules for sizes and times are
those of its developer guide, "Deployment guardrails for updating models in production".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from engine.config_routers import SageMaker
from engine.errors import ActionFailed, UsageError
from engine.rollout.traffic.aws import Asking

UPDATING = ("Creating", "Updating", "SystemUpdating")
LONGEST_WAIT = 3600
SHORTEST, LONGEST = 600, 28800
ALARMS = 10
KINDS = {"all-at-once": "ALL_AT_ONCE", "canary": "CANARY", "linear": "LINEAR"}


@dataclass(frozen=True)
class BlueGreen:
    """How the traffic goes over to the new fleet.

    percent: of the new fleet's capacity, first (canary, 1 to 50) or at each step (linear, 10 to 50).
    wait_s: after each step; terminate_after_s: how long the old fleet is kept once all traffic is on the
    new one (both up to an hour); timeout_s: for the whole, 10 minutes to 8 hours; None leaves it to
    SageMaker. alarms: names of CloudWatch alarms, up to 10, each of which rolls back when it goes off.
    """

    routing: Literal["all-at-once", "canary", "linear"] = "canary"
    percent: int = 10
    wait_s: float = 600.0
    terminate_after_s: float = 600.0
    timeout_s: float | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """One variant of one side: its weight and instances now, and what SageMaker is doing with it."""

    name: str
    weight: float
    instances: int
    doing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Deployment:
    """Where a deployment is. `status` is SageMaker's word, `reason` its own too; `blue` serves since
    before, `green` is the fleet that comes up, empty when none does."""

    state: Literal["in progress", "rolling back", "done", "not there", "failed"]
    status: str
    config: str
    reason: str = ""
    blue: tuple[Fleet, ...] = ()
    green: tuple[Fleet, ...] = ()


def deployment_config(plan: BlueGreen) -> dict[str, Any]:
    """SageMaker's DeploymentConfig for `plan`. Pure. Raises UsageError with all that is wrong with it."""
    if wrong := _problems(plan):
        raise UsageError(f"This blue/green deployment cannot be: {'; '.join(wrong)}.",
                         hint="Correct the plan; nothing was changed.")
    routing: dict[str, Any] = {"Type": KINDS[plan.routing], "WaitIntervalInSeconds": math.ceil(plan.wait_s)}
    if plan.routing != "all-at-once":
        size = "CanarySize" if plan.routing == "canary" else "LinearStepSize"
        routing[size] = {"Type": "CAPACITY_PERCENT", "Value": plan.percent}
    policy: dict[str, Any] = {"TrafficRoutingConfiguration": routing,
                              "TerminationWaitInSeconds": math.ceil(plan.terminate_after_s)}
    if plan.timeout_s is not None:
        policy["MaximumExecutionTimeoutInSeconds"] = math.floor(plan.timeout_s)
    config: dict[str, Any] = {"BlueGreenUpdatePolicy": policy}
    if plan.alarms:
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in plan.alarms]}
    return config


def _problems(plan: BlueGreen) -> list[str]:
    wrong: list[str] = []
    least = {"all-at-once": None, "canary": 1, "linear": 10}[plan.routing]
    if least is not None and not least <= plan.percent <= 50:
        wrong.append(f"percent is {plan.percent}, and must be {least} to 50 for {plan.routing}")
    for name, value in (("wait_s", plan.wait_s), ("terminate_after_s", plan.terminate_after_s)):
        if not 0 <= value <= LONGEST_WAIT:
            wrong.append(f"{name} is {value:g}, and must be 0 to {LONGEST_WAIT}")
    if plan.timeout_s is not None:
        if not SHORTEST <= plan.timeout_s <= LONGEST:
            wrong.append(f"timeout_s is {plan.timeout_s:g}, and must be {SHORTEST} to {LONGEST}")
        elif plan.timeout_s <= (needed := _steps(plan) * plan.wait_s + plan.terminate_after_s):
            wrong.append(f"timeout_s is {plan.timeout_s:g}, but the waits alone take {needed:g}")
    if len(plan.alarms) > ALARMS or len(set(plan.alarms)) < len(plan.alarms):
        wrong.append(f"alarms must be up to {ALARMS} different names")
    if any(not name.strip() or len(name) > 255 for name in plan.alarms):
        wrong.append("an alarm's name must be 1 to 255 characters")
    return wrong


def _steps(plan: BlueGreen) -> int:
    if plan.routing == "linear":
        return math.ceil(100 / max(plan.percent, 1))
    return 2 if plan.routing == "canary" else 1


class SageMakerGuardrails(Asking[SageMaker]):
    """Starts a guarded deployment of an endpoint and tells where it is."""

    api = "sagemaker"
    title = "SageMaker"

    async def start(self, service: str, config_name: str, plan: BlueGreen, *,
                    keep_size: bool = True) -> Deployment:
        """Let the endpoint take up the endpoint configuration `config_name`. Where it has it already, or
        is about to, nothing more is asked for. With `keep_size` the instance counts of now are kept
        rather than those in the configuration, which autoscaling may have left behind.

        Raises UsageError for a bad plan, ActionFailed where nothing was changed, OutcomeUnknown.
        """
        config, deployment = self._config(service), deployment_config(plan)
        now = await self.status(service, config_name)
        if now.state in ("done", "in progress") and now.config == config_name:
            return now
        if now.status != "InService":
            raise ActionFailed(
                f"The endpoint {config.endpoint} is {now.status}, not InService; nothing was changed.",
                where=self._where(config), hint="Try again when it is InService.")
        retained: dict[str, Any] = {"RetainAllVariantProperties": True, "ExcludeRetainedVariantProperties": [
            {"VariantPropertyType": "DesiredWeight"}, {"VariantPropertyType": "DataCaptureConfig"}]}
        await self._call(service, config, writing=True, ask=lambda client: client.update_endpoint(
            EndpointName=config.endpoint, EndpointConfigName=config_name, DeploymentConfig=deployment,
            **(retained if keep_size else {}))["EndpointArn"])
        return await self.status(service, config_name)

    async def status(self, service: str, config_name: str) -> Deployment:
        """Where the deployment of the endpoint configuration `config_name` is."""
        config = self._config(service)
        return await self._call(service, config, lambda client: deployment_of(
            client.describe_endpoint(EndpointName=config.endpoint), config_name))

    def _where(self, config: SageMaker) -> str:
        return f"endpoint {config.endpoint}"


def deployment_of(described: Mapping[str, Any], config_name: str) -> Deployment:
    """What DescribeEndpoint says about the deployment of `config_name`. Pure.

    *not there*: the endpoint is in service with another configuration: the deployment was rolled back,
    as `reason` then says, or never begun.
    """
    status, config = str(described["EndpointStatus"]), str(described["EndpointConfigName"])
    pending: Mapping[str, Any] = described.get("PendingDeploymentSummary") or {}
    state: Literal["in progress", "rolling back", "done", "not there", "failed"]
    if status == "InService":
        state = "done" if config == config_name else "not there"
    elif status == "RollingBack":
        state = "rolling back"
    else:
        state = "in progress" if status in UPDATING else "failed"
    return Deployment(
        state=state, status=status, config=str(pending.get("EndpointConfigName") or config),
        reason=str(described.get("FailureReason") or ""),
        blue=_fleet(described.get("ProductionVariants", [])),
        green=_fleet(pending.get("ProductionVariants", [])))


def _fleet(variants: list[Mapping[str, Any]]) -> tuple[Fleet, ...]:
    return tuple(Fleet(
        name=str(variant["VariantName"]), weight=float(variant.get("CurrentWeight") or 0.0),
        instances=int(variant.get("CurrentInstanceCount") or 0),
        doing=tuple(str(one["Status"]) for one in variant.get("VariantStatus") or []))
        for variant in variants)
