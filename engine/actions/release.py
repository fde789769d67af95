"""`pipeline.release`: put a registered model where its service serves from, and roll it out.

The rollout is a run of its own, started once however often this step is tried: its gates want their people,
and an abort of this run is its abort. Only this action may start runs; see `engine.procedures.children`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from typing import Annotated, Any

from pydantic import Field

from engine.actions.pipeline import Staged, folder_of, settings
from engine.errors import ActionFailed, Decided, NotFound, OpsdeckError
from engine.pipeline.project.model import Slot
from engine.pipeline.releasing import files as releasing
from engine.pipeline.releasing.files import Ready
from engine.procedures.actions import Action, Context, Params, Preview
from engine.procedures.children import Children, Ended
from engine.rollout.controller import Rollouts
from engine.rollout.facts import safe_weights
from engine.rollout.traffic.router import read_traffic
from engine.words import SERVICE, percents, span

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
POLL_S = 0.25
DRAIN_S = 15.0  # how long a variant's last requests may take before it is restarted
REGISTRY_S = 120.0
# What MLflow needs to reach a registry.
PASSED_ON = re.compile(r"PATH|HOME|LANG|LC_ALL|TZ|TMPDIR|MLFLOW_TRACKING_.*|SSL_CERT_(FILE|DIR)|"
                       r"(HTTPS?|NO|ALL)_PROXY", re.IGNORECASE)


class Release(Params):
    """What was approved: the version, the SHA-256 of its run's manifest (`manifest`, of the stage register)
    and of the staged folder's (`model_manifest`, of staging). `folder` is the project's, where the run took
    it from elsewhere than the config says."""

    project: str
    service: Annotated[str, Field(pattern=SERVICE)]
    version: Annotated[str, Field(pattern=r"^\d+$")]
    manifest: Digest
    model_manifest: Digest
    folder: str = ""


async def release(ctx: Context, params: Release) -> dict[str, Any]:
    """Effect idempotent. Result: run (the rollout's), state, version, tag, champion, previous, parity.

    Raises Conflict or ActionFailed where it is refused, and when the rollout does not end well: then the
    version is no candidate any more, and its tags say why.
    """
    children = _children(ctx)
    of = await asyncio.to_thread(_ready, ctx, params)
    child = await children.find(ctx.run, ctx.step, of.about)
    parity = ""
    if child is None:
        slot, parity = await _allowed(ctx, params, of)
        await _lay_out(ctx, of, slot)
        await asyncio.to_thread(releasing.tag, of, ctx.run)
        child = await children.start(ctx.run, ctx.step, of.plan.procedure, {
            **of.plan.params, "service": params.service, "to": slot.variant}, of.about)
        ctx.log(f"{of.about} is rolled out by run {child}: opsdeck rollout watch {child}")
    else:
        ctx.log(f"{of.about} is rolled out by run {child}, which was started before")
    try:
        ended = await children.ended(child)
    except asyncio.CancelledError:
        if not children.closing:
            await children.abort(child, f"run {ctx.run}, which started it, ends")
            children.later(_settle(ctx, children, of, child))
        raise
    return await _settled(ctx, of, ended) | {"parity": parity or "compared before run " + child}


async def _settled(ctx: Context, of: Ready, ended: Ended) -> dict[str, Any]:
    """Tell the registry how it ended. Raises Decided for every end but a good one: what the rollout has shown
    of this version is not asked for again."""
    if ended.state == "done":
        told = await _registry(ctx, of, "released", f"released by run {ctx.run}, rollout {ended.id}")
        ctx.log(f"champion of {of.project.model} is version {of.version}")
        return {"run": ended.id, "state": ended.state, "version": of.version, "tag": of.tag, **told}
    state = ended.state.replace("_", " ")
    why = f"the rollout, run {ended.id}, ended {state}: {ended.reason or 'it says no reason'}"
    try:
        await _registry(ctx, of, "refused", f"{state}: {why}")
    except OpsdeckError as error:
        ctx.log(f"the registry still has it as a candidate: {error}")
    raise Decided(f"{of.about} is not released: {why}", hint=f"opsdeck show {ended.id} tells more")


async def _settle(ctx: Context, children: Children, of: Ready, child: str) -> None:
    """After an abort of this run, which does not wait for it."""
    try:
        await _settled(ctx, of, await children.ended(child))
    except (OpsdeckError, ValueError) as error:  # ValueError: the step's log is closed by now
        children.note(f"release of {of.about}: {error}")


def _ready(ctx: Context, params: Release) -> Ready:
    folder = folder_of(ctx, Staged(project=params.project, folder=params.folder))
    of = releasing.ready(ctx.extra["home"].path, folder, ctx.run, version=params.version,
                         manifest_sha256=params.manifest, model_manifest=params.model_manifest)
    if of.plan.service != params.service:
        raise ActionFailed(f"The project releases to {of.plan.service}, and this step to {params.service}.")
    return of


async def _allowed(ctx: Context, params: Release, of: Ready) -> tuple[Slot, str]:
    """The place that the model goes to, and how production is known to be what staging tested. Nothing is
    changed before all of this holds."""
    rollouts = _rollouts(ctx)
    if running := [live.progress.id for live in rollouts.succession.of(params.service)]:
        raise ActionFailed(f"A rollout of {params.service} runs, run {', '.join(running)}; a release would "
                           "replace what it measures.", hint="Retry this step when it has ended.")
    weights = (await read_traffic(ctx.router, params.service)).weights
    slot = releasing.choose(of.plan, weights)
    service = ctx.extra["config"].services.get(params.service)
    if service is None or slot.process not in service.processes:
        raise ActionFailed(f"The engine does not look after a process {slot.process} of {params.service}.",
                           hint=f"services: {params.service}: processes in opsdeck.yaml names them")
    champion, _ = safe_weights(weights, slot.variant)
    parity = await asyncio.to_thread(releasing.same_installed, of, service.manifests.get(champion))
    ctx.log(parity)
    await asyncio.to_thread(releasing.taggable, of)
    return slot, parity


async def _lay_out(ctx: Context, of: Ready, slot: Slot) -> None:
    """Take the last traffic from the variant, put the model in place, and start its process with it."""
    service, target = of.plan.service, ctx.extra["home"].path / slot.folder
    weights = (await read_traffic(ctx.router, service)).weights
    if weights.get(slot.variant):
        _, safe = safe_weights(weights, slot.variant)
        await ctx.router.shift(service, safe)
        ctx.log(f"{service}: {percents(safe)}, was {percents(weights)}: a restart must cut nobody off")
    waited = 0.0
    while waited < DRAIN_S and _rollouts(ctx).under_way(service, slot.variant):
        await ctx.sleep(POLL_S)
        waited += POLL_S
    fresh = await asyncio.to_thread(releasing.lay_out, of, target)
    name = f"{service}/{slot.process}"
    ctx.log(f"{of.about} {'is' if fresh else 'was already'} laid out for {name}")
    await ctx.supervisor.stop(name)
    status = await ctx.supervisor.start(name)
    if status.state != "running" or status.ready is False:
        raise ActionFailed(f"{name} is not ready with {of.about}.",
                           hint="Its log says why; it has no traffic.")
    ctx.log(f"{name} serves {of.about}")


async def _registry(ctx: Context, of: Ready, verb: str, why: str) -> dict[str, Any]:
    """Move aliases, by a process that may load MLflow. Raises ActionFailed."""
    tracking = settings(of.project, ctx.extra["config"], ctx.extra["home"])["tracking"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "engine.pipeline.releasing.aliases", verb, "--model", of.project.model,
        "--version", of.version, "--why", why, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ctx.extra["home"].path,
        env={**{name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)},
             "OPSDECK_TRACKING": tracking})
    try:
        out, error = await asyncio.wait_for(process.communicate(), REGISTRY_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise ActionFailed(f"The model registry has not answered within {span(REGISTRY_S)}.") from None
    except asyncio.CancelledError:
        process.kill()
        raise
    try:
        told: dict[str, Any] = json.loads(out)
    except ValueError:
        last = error.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise ActionFailed(f"The model registry was not told: {last[0][:300]}") from None
    if "error" in told:
        raise ActionFailed(str(told["error"]))
    return told


async def _preview(ctx: Context, params: Release) -> Preview:
    of = await asyncio.to_thread(_ready, ctx, params)
    weights = (await read_traffic(ctx.router, params.service)).weights
    slot = releasing.choose(of.plan, weights)
    holds = await asyncio.to_thread(releasing.laid_out, ctx.extra["home"].path / slot.folder)
    tagged = f", commit tagged {of.tag}" if of.made.known.code.commit else ""
    return Preview(
        now=f"{percents(weights)}; {slot.variant} is {f'version {holds}' if holds else 'empty'}",
        after=f"{slot.variant} is version {of.version}{tagged}; {of.plan.procedure} moves the traffic to it, "
              "with its own approvals; then it is the champion",
        state={"weights": {name: round(weight, 1) for name, weight in weights.items()}, "holds": holds})


def _children(ctx: Context) -> Children:
    children = ctx.extra.get("start")
    if not isinstance(children, Children):
        raise NotFound("this action starts runs, and nothing here may")
    return children


def _rollouts(ctx: Context) -> Rollouts:
    rollouts = ctx.extra.get("rollouts")
    if not isinstance(rollouts, Rollouts):
        raise NotFound("this action starts a rollout, and there are none here")
    return rollouts


ACTIONS: list[Action[Any]] = [
    Action(name="pipeline.release", effect="idempotent", params=Release, run=release, service="service",
           summary="Lay a registered model out, restart its process, and roll it out", preview=_preview,
           describe=lambda p: f"pipeline.release {p.project} version {p.version} to {p.service}, "
                              f"manifest {p.manifest[:12]}")]
