"""`traffic.*`: how a service's traffic is split between its variants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from engine.errors import ActionFailed, OutcomeUnknown
from engine.fields import Duration
from engine.procedures.actions import Action, Context, Params, Preview
from engine.rollout.traffic.router import DetailedRouter, Traffic, read_traffic
from engine.words import SERVICE, nearest, percents

TOLERANCE = 0.01  # percent
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Variant = Annotated[str, Field(pattern=SERVICE)]


class Read(Params):
    """The service whose split is read."""

    service: Annotated[str, Field(pattern=SERVICE)]


class Shift(Params):
    """Either `weights`, by variant in percent (those not named get nothing), or `drain`: the share
    of that variant goes to the variant `to`, without it to the others in proportion to theirs.

    lease_s: after so many seconds without renewal all traffic goes back to the champion. Without
    it new weights have no lease, and a drain keeps what is left of the one there is.
    """

    service: Annotated[str, Field(pattern=SERVICE)]
    weights: dict[Variant, Percent] | None = None
    drain: Variant | None = None
    to: Variant | None = None
    lease_s: Annotated[Duration, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Shift:
        if (self.weights is None) == (self.drain is None):
            raise ValueError("give either weights or drain")
        if self.to is not None and (self.drain is None or self.to == self.drain):
            raise ValueError("to is the variant that takes the share of the one to drain")
        if self.weights is not None and abs(sum(self.weights.values()) - 100) > TOLERANCE:
            raise ValueError(f"the weights add up to {sum(self.weights.values()):g}, not to 100")
        return self


async def read(ctx: Context, params: Read) -> dict[str, Any]:
    """Effect none. Result: weights (percent by variant), champion (or null), lease_s (seconds left
    of the lease, at least 1, or null): what a later traffic.shift needs to restore the split."""
    traffic = await read_traffic(ctx.router, params.service)
    ctx.log(f"{params.service}: {percents(traffic.weights)}")
    lease_s = None if traffic.lease_s is None else max(1.0, traffic.lease_s)
    return {"weights": traffic.weights, "champion": traffic.champion, "lease_s": lease_s}


async def shift(ctx: Context, params: Shift) -> dict[str, Any]:
    """Effect idempotent. Result: before, after (percent by variant), after as read back.

    Raises ActionFailed when it was refused or somebody changed the split at the same time,
    OutcomeUnknown when the router was asked and did not answer.
    """
    seen = await read_traffic(ctx.router, params.service)
    wanted = target(seen.weights, params)
    lease_s = _lease(seen, params)
    if _same(seen.weights, wanted) and lease_s == seen.lease_s:
        ctx.log(f"{params.service}: already {percents(wanted)}")
        return {"before": seen.weights, "after": seen.weights}
    if isinstance(ctx.router, DetailedRouter):
        given = await ctx.router.shift_from(seen, params.service, wanted, lease_s)
    else:
        given = await ctx.router.shift(params.service, wanted, lease_s)
    after = await _read_back(ctx, params.service)
    if not _same(after.weights, given):  # which a router with whole steps has rounded
        raise ActionFailed(
            f"{params.service} was set to {percents(wanted)}, but has {percents(after.weights)}: "
            "somebody changed it at the same time.", hint="Find out who, then try again.")
    ctx.log(f"{params.service}: {percents(after.weights)}, was {percents(seen.weights)}")
    return {"before": seen.weights, "after": after.weights}


async def preview(ctx: Context, params: Shift) -> Preview:
    """The split now and after, in words. Raises ActionFailed where the shift cannot be done."""
    seen = await read_traffic(ctx.router, params.service)
    after = percents(target(seen.weights, params))
    lease_s = _lease(seen, params)
    lease = f", for {lease_s:.0f} s unless renewed" if lease_s is not None else ""
    return Preview(now=percents(seen.weights), after=after + lease, state=dict(seen.weights))


def target(now: Mapping[str, float], params: Shift) -> dict[str, float]:
    """The split that is wanted, with every variant of `now`. Pure.

    Raises ActionFailed for an unknown variant, and where nobody can take a drained one's share.
    """
    named = params.weights if params.weights is not None else [params.drain, params.to]
    for name in named:
        if name is not None and name not in now:
            raise ActionFailed(f"{params.service} has no variant {name}; nothing was changed.",
                               hint=nearest(name, now))
    if params.weights is not None:
        return {name: params.weights.get(name, 0.0) for name in now}
    drained = params.drain or ""
    rest = {name: weight for name, weight in now.items() if name != drained}
    if params.to is not None:
        return {**now, drained: 0.0, params.to: now[params.to] + now[drained]}
    total = sum(rest.values())
    if total <= 0:
        raise ActionFailed(
            f"{drained} carries all the traffic of {params.service}; nothing was changed.",
            hint="Say with `to` which variant takes it.")
    return {name: 0.0 if name == drained else weight * 100.0 / total
            for name, weight in now.items()}


def _lease(seen: Traffic, params: Shift) -> float | None:
    return seen.lease_s if params.lease_s is None and params.drain is not None else params.lease_s


async def _read_back(ctx: Context, service: str) -> Traffic:
    try:
        return await read_traffic(ctx.router, service)
    except ActionFailed as error:
        raise OutcomeUnknown(f"The weights of {service} were set, but cannot be read back: "
                             f"{error.message}", where=error.where) from error


def _same(one: Mapping[str, float], other: Mapping[str, float]) -> bool:
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) <= TOLERANCE
               for name in {*one, *other})


def _describe(params: Shift) -> str:
    if params.weights is not None:
        # An expression gives maps in any order, and one act must always be the same line.
        ordered = sorted(params.weights.items(), key=lambda item: (-item[1], item[0]))
        split = " ".join(f"{name}={weight:g}" for name, weight in ordered)
    else:
        split = f"drain {params.drain}" + (f" to {params.to}" if params.to else "")
    lease = f" lease {params.lease_s:g} s" if params.lease_s is not None else ""
    return f"traffic.shift {params.service} {split}{lease}"


ACTIONS: list[Action[Any]] = [
    Action(name="traffic.read", effect="none", params=Read, run=read, service="service",
           summary="Read how a service's traffic is split",
           describe=lambda p: f"traffic.read {p.service}"),
    Action(name="traffic.shift", effect="idempotent", params=Shift, run=shift, preview=preview,
           summary="Set how a service's traffic is split, or drain one variant",
           describe=_describe, service="service"),
]
