"""`rollout.*`, those that watch: until there is evidence, by shadow traffic, or what the judge says."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from pydantic import Field

from engine.actions.rollout import POLL, Of, Percent, Rolled, described, rollouts_of
from engine.errors import ActionFailed, OpsdeckError
from engine.fields import Duration
from engine.procedures.actions import Action, Context, Preview
from engine.rollout.controller import Rollouts
from engine.rollout.progress import verdict_sentence
from engine.rollout.traffic.router import MirroringRouter
from engine.words import span

PROGRESS = 10.0  # seconds between two lines while it watches
MIRROR_LEASE_S = 15.0


class Observe(Rolled):
    """The least evidence: requests at this weight, seconds there, and whether it has to be shown good."""

    requests: Annotated[int, Field(ge=0)] = 0
    hold: Annotated[Duration, Field(ge=0)] = 0.0
    good: bool = False


class Shadow(Rolled):
    """`percent` of the requests are sent to `to` as well, for `hold`."""

    percent: Percent = 100.0
    hold: Annotated[Duration, Field(gt=0)] = 60.0


async def observe(ctx: Context, params: Observe) -> dict[str, Any]:
    """Effect idempotent: it may look again. Ends when the evidence is there, or somebody promotes.
    Result: requests, held_s, verdict, promoted."""
    rollouts = rollouts_of(ctx)
    rollouts.going_on(ctx.run)
    told: tuple[float, str | None] = (0.0, None)
    while True:
        passed, now = rollouts.passed(ctx.run, ctx.step)
        if passed:
            return _seen(ctx, rollouts, now.kind != "done")
        if now.kind != told[1] or ctx.clock() - told[0] >= PROGRESS:
            wait = f", about {span(now.wait_s)} more" if now.wait_s else ""
            ctx.log(f"{'stands: ' if now.halts else ''}{now.text}{wait}")
            told = ctx.clock(), now.kind
        await ctx.sleep(POLL)


def _seen(ctx: Context, rollouts: Rollouts, promoted: bool) -> dict[str, Any]:
    analysis = rollouts.analysis(ctx.run)
    assert analysis is not None
    verdict = analysis.verdict
    ctx.log(f"{'promoted by a person; ' if promoted else ''}{verdict_sentence(analysis)}")
    return {"requests": analysis.stage_requests, "held_s": round(analysis.stage_s, 1),
            "verdict": verdict.verdict if verdict else None, "promoted": promoted}


async def shadow(ctx: Context, params: Shadow) -> dict[str, Any]:
    """Effect idempotent: what mirrored requests are answered is thrown away. Result as `rollout.watch`."""
    router = ctx.router
    if not isinstance(router, MirroringRouter):
        raise ActionFailed(f"the router of {params.service} cannot mirror requests",
                           hint="leave `mirror` out of the plan, or put the gateway in front")
    rollouts = rollouts_of(ctx)
    rollouts.going_on(ctx.run)
    renewed = -MIRROR_LEASE_S
    begun = ctx.clock()
    try:
        while True:
            passed, now = rollouts.passed(ctx.run, ctx.step)
            if passed:
                return _seen(ctx, rollouts, now.kind != "done")
            if abs(ctx.clock() - begun - renewed) >= MIRROR_LEASE_S / 3:
                await router.mirror(params.service, params.to, params.percent, MIRROR_LEASE_S)
                renewed = ctx.clock() - begun
            await ctx.sleep(POLL)
    finally:
        with contextlib.suppress(OpsdeckError):  # it ends with its lease
            await router.unmirror(params.service)


async def look(ctx: Context, params: Rolled) -> dict[str, Any]:
    """Effect idempotent. Result: verdict, and the sentence that says why."""
    analysis = rollouts_of(ctx).analysis(ctx.run)
    if analysis is None or analysis.verdict is None:
        return {"verdict": "undecided", "text": "not watched yet"}
    text = verdict_sentence(analysis)
    ctx.log(text)
    return {"verdict": analysis.verdict.verdict, "text": text}


async def preview(ctx: Context, params: Rolled) -> Preview:
    """What the judge says now, for a step behind a gate."""
    analysis = rollouts_of(ctx).analysis(ctx.run)
    said = verdict_sentence(analysis) if analysis else "not watched yet"
    name = analysis.verdict.verdict if analysis and analysis.verdict else "undecided"
    return Preview(now=said, after="unchanged", state={"verdict": name})


async def verdict(ctx: Context, params: Of) -> dict[str, Any]:
    """Effect none. Result: run, verdict and text of the rollout that runs; ActionFailed without one."""
    run, analysis = rollouts_of(ctx).running(params.service)
    text = verdict_sentence(analysis)
    ctx.log(f"run {run}: {text}")
    name = analysis.verdict.verdict if analysis.verdict else "undecided"
    return {"run": run, "verdict": name, "text": text}


def _watching(p: Observe) -> str:
    wants = [f"{p.requests:,} requests"] if p.requests else []
    wants += [span(p.hold)] if p.hold else []
    wants += ["evidence that it is no worse"] if p.good else []
    return f"rollout.watch {p.service} {p.to} for {' and '.join(wants) or 'a look'}"


ACTIONS: list[Action[Any]] = [
    Action(name="rollout.watch", effect="idempotent", preview=preview, params=Observe, run=observe,
           service="service", summary="Watch the new version until there is evidence", describe=_watching),
    Action(name="rollout.mirror", effect="idempotent", preview=preview, params=Shadow, run=shadow,
           service="service", summary="Send requests to the new version too, without using its answers",
           describe=lambda p: f"rollout.mirror {p.service} {p.percent:g} % to {p.to} for {span(p.hold)}"),
    Action(name="rollout.look", effect="idempotent", preview=preview, params=Rolled, run=look,
           service="service", summary="Read the judge's verdict", describe=described("look")),
    Action(name="rollout.verdict", effect="none", params=Of, run=verdict, service="service",
           summary="Read the verdict on the rollout that runs",
           describe=lambda p: f"rollout.verdict {p.service}"),
]
