"""`sagemaker.*`: Amazon's own blue/green deployment, for who prefers its guardrails to our judge."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from engine.config_routers import SageMaker
from engine.errors import ActionFailed, UsageError
from engine.fields import Duration
from engine.procedures.actions import Action, Context, Params, Preview
from engine.rollout.traffic.guardrails import BlueGreen, Deployment, SageMakerGuardrails
from engine.words import SERVICE, span

POLL = 5.0
PROGRESS = 60.0  # seconds between two lines while nothing changes
UNSEEN = 60.0  # how long what was asked for may take to show


class Deploy(Params):
    """`endpoint_config` is taken up on a second fleet, which gets the traffic as `routing` says: `percent`
    of its capacity first (canary) or at each step (linear), `wait` after each; the old fleet is kept for
    `terminate_after`. Each of the CloudWatch `alarms` rolls it back."""

    service: Annotated[str, Field(pattern=SERVICE)]
    endpoint_config: Annotated[str, Field(min_length=1, max_length=63)]
    routing: Literal["all-at-once", "canary", "linear"] = "canary"
    percent: Annotated[int, Field(ge=1, le=50)] = 10
    wait: Duration = 600.0
    terminate_after: Duration = 600.0
    timeout: Duration | None = None
    alarms: list[str] = []


async def deploy(ctx: Context, params: Deploy) -> dict[str, Any]:
    """Effect idempotent: one that is there or on its way is not asked for again. Result: state, status,
    config. Ends with the deployment; raises ActionFailed when SageMaker rolled it back."""
    guardrails = _guardrails(ctx, params.service)
    plan = BlueGreen(params.routing, params.percent, params.wait, params.terminate_after, params.timeout,
                     tuple(params.alarms))
    now = await guardrails.start(params.service, params.endpoint_config, plan)
    said, told, begun, seen = "", 0.0, ctx.clock(), False
    while now.state != "done":
        seen = seen or now.state in ("in progress", "rolling back")
        waited = ctx.clock() - begun
        if now.state == "failed" or (now.state == "not there" and (seen or waited > UNSEEN)):
            why = now.reason or now.status
            raise ActionFailed(f"SageMaker did not keep {params.endpoint_config}: {why}; {now.config} is in "
                               "service", where=params.service,
                               hint="Its alarms and the endpoint's events say why.")
        if _words(now) != said or waited - told >= PROGRESS:
            said, told = _words(now), waited
            ctx.log(said)
        await ctx.sleep(POLL)
        now = await guardrails.status(params.service, params.endpoint_config)
    ctx.log(_words(now))
    return {"state": now.state, "status": now.status, "config": now.config}


async def preview(ctx: Context, params: Deploy) -> Preview:
    now = await _guardrails(ctx, params.service).status(params.service, params.endpoint_config)
    alarms = f", rolled back by {', '.join(params.alarms)}" if params.alarms else ", without an alarm"
    after = f"{params.endpoint_config} by {params.routing}{alarms}; it cannot be stopped by hand"
    return Preview(now=_words(now), after=after, state={"config": now.config, "status": now.status})


def _guardrails(ctx: Context, service: str) -> SageMakerGuardrails:
    services = getattr(ctx.extra.get("config"), "services", {})
    router = services[service].router if service in services else None
    if not isinstance(router, SageMaker):
        raise UsageError(f"{service} is no SageMaker endpoint in the config",
                         hint=f"services.{service}.router says: kind: sagemaker")
    return SageMakerGuardrails({service: router})


def _words(now: Deployment) -> str:
    fleets = ", ".join(f"{fleet.name} {fleet.instances} instances" for fleet in now.green)
    why = f" ({now.reason})" if now.reason else ""
    return f"{now.config}: {now.state}, {now.status}{why}{'; comes up: ' + fleets if fleets else ''}"


def _described(p: Deploy) -> str:
    alarms = f" alarms {','.join(p.alarms)}" if p.alarms else ""
    return (f"sagemaker.deploy {p.service} {p.endpoint_config} {p.routing} {p.percent} % "
            f"wait {span(p.wait)}{alarms}")


ACTIONS: list[Action[Any]] = [
    Action(name="sagemaker.deploy", effect="idempotent", params=Deploy, run=deploy, preview=preview,
           service="service", describe=_described,
           summary="Deploy an endpoint config by SageMaker's own blue/green guardrails"),
]
