"""A SageMaker endpoint as a router: the weights of its production variants.

A change of weights makes the endpoint *Updating* until SageMaker has carried it out, and another change
is refused until then; that can take minutes. Instances are never touched: a variant with the weight 0
keeps its size, so that traffic can go back to it at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from engine.config_routers import SageMaker
from engine.errors import ActionFailed
from engine.rollout.traffic.aws import Clients
from engine.rollout.traffic.aws_router import POLL, SETTLE, Asked, AwsRouter, Found

UPDATING = ("Updating", "SystemUpdating", "RollingBack")
HOUR = 3600


class SageMakerRouter(AwsRouter[SageMaker]):
    """Satisfies DetailedRouter and ObservedRouter. Weights are set as percents, so they are exact."""

    api = "sagemaker"
    title = "SageMaker"

    def __init__(self, services: Mapping[str, SageMaker], clients: Clients | None = None, *,
                 settle_s: float = SETTLE, poll_s: float = POLL,
                 clock: Callable[[], float] = time.time) -> None:
        super().__init__(services, clients, settle_s=settle_s, poll_s=poll_s)
        self._clock = clock

    async def served(self, service: str) -> dict[str, float]:
        """Invocations of each variant since midnight UTC, as CloudWatch has them by now (it is a minute
        or two behind). At midnight it starts again at 0."""
        config = self._config(service)
        now = datetime.fromtimestamp(self._clock(), UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)

        def count(client: Any) -> dict[str, float]:
            return {variant: _invocations(client, config.endpoint, name, midnight, now)
                    for variant, name in config.variants.items()}

        return await self._call(service, config, count, api="cloudwatch")

    def _names(self, config: SageMaker) -> Mapping[str, str]:
        return config.variants

    def _where(self, config: SageMaker) -> str:
        return f"endpoint {config.endpoint}"

    def _find(self, client: Any, config: SageMaker) -> Found:
        weights = {str(variant["VariantName"]): float(variant.get("CurrentWeight") or 0.0)
                   for variant in _describe(client, config)["ProductionVariants"]}
        missing = [name for name in config.variants.values() if name not in weights]
        if missing:
            raise ActionFailed(
                f"The endpoint {config.endpoint} has no variant {', '.join(missing)}.",
                where=self._where(config),
                hint=f"It has: {', '.join(weights) or 'none at present'}. Correct opsdeck.yaml.")
        return Found(weights)

    async def _ready(self, service: str, config: SageMaker) -> None:
        await self._in_service(service, config, self._now() + self._settle, "nothing was changed")

    async def _set(self, service: str, config: SageMaker, found: Found,
                   split: Mapping[str, float]) -> Asked:
        wanted = [{"VariantName": name, "DesiredWeight": split[variant]}
                  for variant, name in config.variants.items()]
        await self._call(service, config, writing=True,
                         ask=lambda client: client.update_endpoint_weights_and_capacities(
                             EndpointName=config.endpoint,
                             DesiredWeightsAndCapacities=wanted)["EndpointArn"])
        return Asked(dict(split))

    async def _settled(self, service: str, config: SageMaker, asked: Asked, deadline: float) -> None:
        await self._in_service(service, config, deadline, "the new weights may be in force or not")

    async def _in_service(self, service: str, config: SageMaker, deadline: float, stands: str) -> None:
        while True:
            status, reason = await self._call(service, config, lambda client: _status(client, config))
            if status == "InService":
                return
            if status not in UPDATING or self._now() >= deadline:
                why = reason.rstrip(".")
                raise ActionFailed(
                    f"The endpoint {config.endpoint} is {status}, not InService"
                    f"{f' ({why})' if why else ''}; {stands}.", where=self._where(config),
                    hint="Try again when it is InService." if status in UPDATING
                    else "Bring the endpoint back to InService first.")
            await asyncio.sleep(self._poll)


def _describe(client: Any, config: SageMaker) -> dict[str, Any]:
    found: dict[str, Any] = client.describe_endpoint(EndpointName=config.endpoint)
    return found


def _status(client: Any, config: SageMaker) -> tuple[str, str]:
    found = _describe(client, config)
    return str(found["EndpointStatus"]), str(found.get("FailureReason") or "")


def _invocations(client: Any, endpoint: str, variant: str, start: datetime, now: datetime) -> float:
    answer = client.get_metric_statistics(
        Namespace="AWS/SageMaker", MetricName="Invocations", Statistics=["Sum"], Period=HOUR,
        StartTime=start, EndTime=now + timedelta(minutes=1),  # the minute that runs is part of it
        Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}])
    return float(sum(point["Sum"] for point in answer["Datapoints"]))
