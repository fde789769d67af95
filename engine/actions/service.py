"""`service.*`: the long-lived processes of a service, through the supervisor."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from engine.fields import Duration
from engine.procedures.actions import Action, Context, Params, Preview, ProcessStatus
from engine.words import SERVICE, span


class ProcessParams(Params):
    """`process` of `service`, as `services.<service>.processes` of the config names them."""

    service: Annotated[str, Field(pattern=SERVICE)]
    process: Annotated[str, Field(pattern=SERVICE)]

    @property
    def name(self) -> str:
        return f"{self.service}/{self.process}"


class EndParams(ProcessParams):
    """`grace`: how long it may take to end by itself before it is killed."""

    grace: Annotated[Duration, Field(le=600)] = 10.0


async def read(ctx: Context, params: ProcessParams) -> dict[str, Any]:
    """Effect none. Result: state (running | stopped | dead), pid, ready, running_s; null where it
    does not apply. `ready` is false unless its ready check, where it has one, answers 200."""
    status = await ctx.supervisor.status(params.name)
    ctx.log(f"{params.name}: {_words(status, ctx.clock())}")
    return _result(status, ctx.clock())


async def start(ctx: Context, params: ProcessParams) -> dict[str, Any]:
    """Effect idempotent: nothing happens to one that runs. Result as `service.read`.

    Raises ActionFailed with the end of its log when it does not get ready.
    """
    status = await ctx.supervisor.start(params.name)
    ctx.log(f"{params.name}: {_words(status, ctx.clock())}")
    return _result(status, ctx.clock())


async def stop(ctx: Context, params: EndParams) -> dict[str, Any]:
    """Effect idempotent: nothing happens to one that is stopped. Result: state, and was (the pid).

    Raises ActionFailed when it does not end.
    """
    before = await ctx.supervisor.status(params.name)
    status = await ctx.supervisor.stop(params.name, params.grace)
    ctx.log(f"{params.name}: stopped, was {_words(before, ctx.clock())}")
    return {"state": status.state, "was": before.pid}


async def restart(ctx: Context, params: EndParams) -> dict[str, Any]:
    """Effect once: every restart interrupts. Result as `service.read`, and was (the pid before).

    Raises ActionFailed when it does not end or does not get ready again.
    """
    before = await ctx.supervisor.status(params.name)
    await ctx.supervisor.stop(params.name, params.grace)
    ctx.log(f"{params.name}: stopped, was {_words(before, ctx.clock())}")
    status = await ctx.supervisor.start(params.name)
    ctx.log(f"{params.name}: {_words(status, ctx.clock())}")
    return _result(status, ctx.clock()) | {"was": before.pid}


def _result(status: ProcessStatus, now: float) -> dict[str, Any]:
    running = status.state == "running" and status.started is not None
    return {"state": status.state, "pid": status.pid,
            "ready": status.state == "running" and status.ready is not False,
            "running_s": round(max(0.0, now - (status.started or now)), 1) if running else None}


def _words(status: ProcessStatus, now: float) -> str:
    if status.state == "stopped":
        return "stopped"
    if status.state == "dead":
        return f"dead: its process {status.pid} has ended by itself"
    age = f" for {span(max(0.0, now - status.started))}" if status.started is not None else ""
    answer = "not ready: its check does not answer 200" if status.ready is False else "ready"
    return f"running with pid {status.pid}{age}, {answer}"


def _preview(verb: Literal["start", "stop", "restart"]) -> Any:
    async def preview(ctx: Context, params: ProcessParams) -> Preview:
        status = await ctx.supervisor.status(params.name)
        running = status.state == "running"
        after = {"start": "unchanged, it runs already" if running else "running and ready",
                 "stop": "stopped",
                 "restart": "running with a new pid, after a break"}[verb]
        return Preview(now=_words(status, ctx.clock()), after=after,
                       state={"state": status.state, "pid": status.pid})
    return preview


ACTIONS: list[Action[Any]] = [
    Action(name="service.read", effect="none", params=ProcessParams, run=read, service="service",
           summary="Read whether a process runs and is ready",
           describe=lambda p: f"service.read {p.name}"),
    Action(name="service.start", effect="idempotent", params=ProcessParams, run=start,
           summary="Start a process unless it runs, and wait until it is ready",
           describe=lambda p: f"service.start {p.name}", preview=_preview("start"),
           service="service"),
    Action(name="service.stop", effect="idempotent", params=EndParams, run=stop,
           summary="Stop a process and everything it started",
           describe=lambda p: f"service.stop {p.name} grace {span(p.grace)}",
           preview=_preview("stop"), service="service"),
    Action(name="service.restart", effect="once", params=EndParams, run=restart,
           summary="Stop a process and start it again",
           describe=lambda p: f"service.restart {p.name} grace {span(p.grace)}",
           preview=_preview("restart"), service="service"),
]
