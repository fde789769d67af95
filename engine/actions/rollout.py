"""`rollout.*`, those that set weights: the steps that a rollout's plan stands for, and the end of one.

They work only inside a rollout: what they know of its versions comes from the watch beside the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from engine.errors import ActionFailed, NotFound, OpsdeckError, OutcomeUnknown
from engine.fields import Duration
from engine.procedures.actions import Action, Context, Params, Preview
from engine.rollout.controller import Rollouts
from engine.rollout.facts import Facts, holds, rollable, safe_weights
from engine.rollout.manifests import differences
from engine.rollout.manifests import read as read_manifests
from engine.rollout.progress import verdict_sentence
from engine.rollout.traffic.router import DetailedRouter, LeasedRouter, Traffic, read_traffic
from engine.words import SERVICE, nearest, percents, span

Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=SERVICE)]
POLL = 0.25
ROUTER_S = 20.0  # how long one try to go back may take
EARLIER_S = 15.0  # how long a rollout waits for answers to what its version was asked before it began
WARM_S = 15.0  # how long a rollback waits for an old version that has to be started first


class Rolled(Params):
    """The service, and its variant that is to take the traffic over."""

    service: Name
    to: Name


class Of(Params):
    """The service that is rolled out."""

    service: Name


class Abort(Of):
    """`reason` stands in the record of the rollout that is ended."""

    reason: str = "aborted by a runbook"


class Weigh(Rolled):
    """`weight`: percent for `to`; `lease_s`: without renewal the router goes back after so long."""

    weight: Percent
    lease_s: Annotated[Duration, Field(gt=0)] = 30.0


class Restore(Rolled):
    """The weights to go back to, and who is to have most of them."""

    weights: dict[str, float]
    champion: Name


async def begin(ctx: Context, params: Rolled) -> dict[str, Any]:
    """Effect idempotent: an older rollout of the service is ended first. Result: service, to, champion,
    before and safe (percent by variant), manifests (sha256 by variant), named (the versions they say) and
    diff (key, old, new), all empty where the config names no manifests. Raises ActionFailed where there is
    nothing to roll out.
    """
    rollouts = rollouts_of(ctx)
    rollable(params.service, params.to, (await read_traffic(ctx.router, params.service)).weights)
    await rollouts.succession.alone(ctx.run, params.service)
    weights = (await read_traffic(ctx.router, params.service)).weights
    rollable(params.service, params.to, weights)
    champion, safe = safe_weights(weights, params.to)
    ctx.log(f"now {percents(weights)}; an abort goes back to {percents(safe)}")
    digests, contents = await _manifests(ctx, params.service, champion, params.to)
    diff = differences(contents.get(champion), contents.get(params.to)) if len(contents) == 2 else []
    return {"service": params.service, "to": params.to, "champion": champion, "before": weights, "safe": safe,
            "manifests": digests, "diff": [list(one) for one in diff],
            "named": {name: str(content["version"]) for name, content in contents.items()
                      if isinstance(content, Mapping) and content.get("version")}}


async def _manifests(ctx: Context, service: str, *variants: str) -> tuple[dict[str, str], dict[str, Any]]:
    services = getattr(ctx.extra.get("config"), "services", {})
    named = services[service].manifests if service in services else {}
    return await asyncio.to_thread(read_manifests, {name: named[name] for name in variants if name in named})


async def _unchanged(ctx: Context, found: Facts) -> None:
    """The versions must be those that the rollout began with, and that were approved."""
    rollouts_of(ctx).same_version(ctx.run)
    now, _ = await _manifests(ctx, found.service, *found.manifests)
    for variant, digest in found.manifests.items():
        if now.get(variant) != digest:
            raise ActionFailed(f"{variant} is not the version any more that this rollout began with: its "
                               "manifest has changed", hint="Start another rollout for what is there now.")


async def warm_up(ctx: Context, params: Rolled) -> dict[str, Any]:
    """Effect idempotent. Result: supervised, and ready. A process that does not run is started."""
    ready = await _warm(ctx, params.service, params.to)
    if ready is None:
        ctx.log(f"{params.to} is not supervised here; its first requests will tell")
    found = rollouts_of(ctx).facts(ctx.run)
    if not found.before.get(params.to) and not found.plan.window:
        await _answered(ctx, params.service, params.to)
    return {"supervised": ready is not None, "ready": ready}


async def _answered(ctx: Context, service: str, variant: str) -> None:
    """Wait a while until what a version without traffic was asked before is answered: what of it fails
    late, as timeouts do, would be held against this rollout."""
    waited = 0.0
    while waited < EARLIER_S and (left := rollouts_of(ctx).under_way(service, variant)):
        if not waited:
            ctx.log(f"{left:.0f} earlier requests to {variant} are not answered yet; waiting for them")
        await ctx.sleep(POLL)
        waited += POLL


async def weigh(ctx: Context, params: Weigh) -> dict[str, Any]:
    """Effect idempotent. Result: before, after (percent by variant), after as read back.

    Raises ActionFailed when it was refused or the rollout goes back, OutcomeUnknown when nobody can tell.
    """
    found = await _seeing(ctx, params.weight)
    await _unchanged(ctx, found)
    return await _set(ctx, found, found.split(params.weight), params.lease_s)


async def promote(ctx: Context, params: Rolled) -> dict[str, Any]:
    """Effect idempotent. All traffic to the new version, for good. Result as `rollout.weight`."""
    found = await _seeing(ctx, 100.0)
    await _unchanged(ctx, found)
    return await _set(ctx, found, found.split(100.0), None)


async def _seeing(ctx: Context, weight: float) -> Facts:
    """The facts, once what is measured can be trusted: nobody raises a weight blind, whoever approved it.

    Where the router has the weight already, an engine before this one has raised it.
    """
    rollouts, told = rollouts_of(ctx), ""
    while True:
        found = rollouts.going_on(ctx.run)
        why = rollouts.blind(ctx.run)
        if why is None or holds((await read_traffic(ctx.router, found.service)).weights, found.split(weight)):
            return found
        if why != told:
            told = why
            ctx.log(f"waits before it goes on: {why}")
        await ctx.sleep(POLL)


async def restore(ctx: Context, params: Restore) -> dict[str, Any]:
    """Effect idempotent: back to the safe weights, without a lease. Result: before, after, warm.

    Sees first that the old version is there, and starts it where it is not. Tries for as long as the
    step may last, since nothing safer is left to do.
    """
    warm: bool | None = None
    try:
        warm = await _warm(ctx, params.service, params.champion, WARM_S)
    except OpsdeckError as error:
        ctx.log(f"{params.champion} is not ready ({error.message}); going back to it all the same")
        rollouts_of(ctx).tell(ctx.run, f"{params.champion}, which gets the traffic back, is not ready: "
                                     f"{error.message}")
    wait, told = POLL, False
    while True:
        try:
            before, after = await _bounded(_put_back(ctx, params), ROUTER_S,
                                           f"the router of {params.service}")
        except OpsdeckError as error:
            ctx.log(f"not back yet: {error.message}")
            if not told:
                told = True
                rollouts_of(ctx).tell(ctx.run, f"{params.service} is not back at its safe weights yet: "
                                             f"{error.message}; trying on")
            await ctx.sleep(wait)
            wait = min(2 * wait, 5.0)
            continue
        ctx.log(f"{params.service}: {percents(after)}, was {percents(before)}")
        return {"before": before, "after": after, "warm": warm}


async def _put_back(ctx: Context, params: Restore) -> tuple[dict[str, float], dict[str, float]]:
    before = (await read_traffic(ctx.router, params.service)).weights
    await ctx.router.shift(params.service, params.weights)
    after = (await read_traffic(ctx.router, params.service)).weights
    if not holds(after, params.weights):
        raise ActionFailed(f"{params.service} has {percents(after)} instead")
    return before, after


async def abort(ctx: Context, params: Abort) -> dict[str, Any]:
    """Effect idempotent. Ends every rollout of the service and waits until its traffic is back. Result:
    ended, the runs that were. Raises ActionFailed where one does not end, or there is no such service."""
    ended = await rollouts_of(ctx).succession.end_all(params.service, params.reason)
    services = getattr(ctx.extra.get("config"), "services", {})
    if not ended and params.service not in services:
        raise ActionFailed(f"there is no service {params.service}, and no rollout of it runs",
                           hint=nearest(params.service, services))
    ctx.log(f"ended: run {', '.join(ended)}" if ended else
            f"no rollout of {params.service} runs: there is nothing to end")
    return {"ended": ended}


async def _set(ctx: Context, found: Facts, wanted: dict[str, float], lease_s: float | None
               ) -> dict[str, Any]:
    seen = await read_traffic(ctx.router, found.service)
    rollouts_of(ctx).foreseen(ctx.run, ctx.step, seen.weights, wanted)
    await _shift(ctx, seen, found, wanted, lease_s)
    try:
        after = (await read_traffic(ctx.router, found.service)).weights
    except ActionFailed as error:
        raise OutcomeUnknown(f"the weights of {found.service} were set, but cannot be read back: "
                             f"{error.message}") from error
    if not holds(after, wanted):
        raise OutcomeUnknown(f"{found.service} was set to {percents(wanted)}, but has {percents(after)}")
    ctx.log(f"{found.service}: {percents(after)}, was {percents(seen.weights)}")
    return {"before": seen.weights, "after": after}


async def _shift(ctx: Context, seen: Traffic, found: Facts, wanted: dict[str, float],
                 lease_s: float | None) -> None:
    if lease_s is not None and isinstance(ctx.router, LeasedRouter):
        await ctx.router.shift_leased(seen, found.service, wanted, lease_s, found.safe)
    elif isinstance(ctx.router, DetailedRouter):
        await ctx.router.shift_from(seen, found.service, wanted, lease_s)
    else:
        await ctx.router.shift(found.service, wanted, lease_s)


async def _warm(ctx: Context, service: str, variant: str, patience_s: float | None = None) -> bool | None:
    """Have the process of a variant run and be ready; None where nothing supervises it."""
    if not _supervised(ctx, service, variant):
        return None
    name = f"{service}/{variant}"
    status = await ctx.supervisor.status(name)
    if status.state == "running" and status.ready is not False:
        ctx.log(f"{name} runs and is ready")
        return True
    ctx.log(f"{name} is {status.state if status.state != 'running' else 'not ready'}; starting it")
    work = ctx.supervisor.start(name)
    status = await (work if patience_s is None else _bounded(work, patience_s, name))
    return status.state == "running" and status.ready is not False


def _supervised(ctx: Context, service: str, variant: str) -> bool:
    services = getattr(ctx.extra.get("config"), "services", {})
    return service in services and variant in services[service].processes


async def _bounded(work: Any, seconds: float, name: str) -> Any:
    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        raise ActionFailed(f"{name} has not answered within {span(seconds)}") from None


async def _preview_begin(ctx: Context, params: Rolled) -> Preview:
    weights = (await read_traffic(ctx.router, params.service)).weights
    return Preview(now=percents(weights), after="unchanged; an older rollout is ended", state=dict(weights))


async def _preview_promote(ctx: Context, params: Rolled) -> Preview:
    return await _shown(ctx, params.service, rollouts_of(ctx).facts(ctx.run).split(100.0), "for good")


async def _preview_restore(ctx: Context, params: Restore) -> Preview:
    return await _shown(ctx, params.service, params.weights, "without a lease")


async def _preview_abort(ctx: Context, params: Abort) -> Preview:
    seen = (await read_traffic(ctx.router, params.service)).weights
    return Preview(now=percents(seen), after="the weights from before its rollout", state=dict(seen))


async def _preview_warm(ctx: Context, params: Rolled) -> Preview:
    if not _supervised(ctx, params.service, params.to):
        return Preview(now=f"{params.to} is not supervised here", after="unchanged")
    status = await ctx.supervisor.status(f"{params.service}/{params.to}")
    return Preview(now=status.state, after="running and ready", state={"state": status.state})


async def _shown(ctx: Context, service: str, wanted: dict[str, float], how: str) -> Preview:
    seen = (await read_traffic(ctx.router, service)).weights
    return Preview(now=percents(seen), after=f"{percents(wanted)}, {how}",
                   state={name: round(weight, 1) for name, weight in seen.items()})


async def _preview(ctx: Context, params: Weigh) -> Preview:
    found = rollouts_of(ctx).facts(ctx.run)
    seen = (await read_traffic(ctx.router, params.service)).weights
    analysis = rollouts_of(ctx).analysis(ctx.run)
    said = verdict_sentence(analysis) if analysis else "not watched yet"
    return Preview(now=f"{percents(seen)}; {said}",
                   after=f"{percents(found.split(params.weight))}, back by itself after "
                         f"{span(params.lease_s)} without the engine",
                   state={name: round(weight, 1) for name, weight in seen.items()})


def rollouts_of(ctx: Context) -> Rollouts:
    """The watches of the rollouts that run. Raises NotFound where an engine has none."""
    rollouts = ctx.extra.get("rollouts")
    if not isinstance(rollouts, Rollouts):
        raise NotFound("this action is for rollouts, and there are none here")
    return rollouts


def described(verb: str) -> Any:
    return lambda p: f"rollout.{verb} {p.service} to {p.to}"


ACTIONS: list[Action[Any]] = [
    Action(name="rollout.begin", effect="idempotent", params=Rolled, run=begin, service="service",
           summary="Take note of the weights that a rollout goes back to", preview=_preview_begin,
           describe=described("begin")),
    Action(name="rollout.warm-up", effect="idempotent", params=Rolled, run=warm_up, service="service",
           summary="See that the new version's server runs, and start it if not", preview=_preview_warm,
           describe=described("warm-up")),
    Action(name="rollout.weight", effect="idempotent", params=Weigh, run=weigh, preview=_preview,
           service="service", summary="Give the new version a share of the traffic, under a lease",
           describe=lambda p: f"rollout.weight {p.service} {p.to}={p.weight:g} % lease {span(p.lease_s)}"),
    Action(name="rollout.promote", effect="idempotent", params=Rolled, run=promote, service="service",
           summary="Give the new version all the traffic, without a lease", preview=_preview_promote,
           describe=described("promote")),
    Action(name="rollout.restore", effect="idempotent", params=Restore, run=restore, service="service",
           summary="Go back to the weights from before the rollout", preview=_preview_restore,
           describe=lambda p: f"rollout.restore {p.service} {percents(p.weights)}"),
    Action(name="rollout.abort", effect="idempotent", params=Abort, run=abort, service="service",
           summary="End a service's rollout and send its traffic back", preview=_preview_abort,
           describe=lambda p: f"rollout.abort {p.service}"),
]
