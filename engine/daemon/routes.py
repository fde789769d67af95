"""The routes of the API, version 1: who may call each, what it wants, what it asks of the backend.

    GET  /v1/engine                         anyone who reaches the socket
    GET  /v1/status /v1/snapshot /v1/stream (SSE) /v1/library /v1/handover          viewer
    GET  /v1/services/{name}/history?seconds&points                                 viewer
    GET  /v1/runs?state&limit  /v1/runs/{id}  /v1/runs/{id}/stream (SSE)            viewer
    GET  /v1/runs/{id}/output?step&attempt&offset&limit  /v1/runs/{id}/timeline     viewer
    GET  /v1/runs/{id}/curve?step&attempt&offset  /v1/runs/{id}/page                viewer
    GET  /v1/rollouts  /v1/rollouts/{name}  (a service, or a run's id)              viewer
    GET  /v1/triggers?project                                                       viewer
    GET  /v1/definitions?project  /v1/definitions/{number}?project                  viewer
    GET  /v1/events?limit&before  /v1/audit/verify                                  viewer
    POST /v1/runs                           operator; with a `document`, admin
    POST /v1/triggers/{project}             operator
    POST /v1/definitions/{number}  /v1/pipelines/clean                              operator
    POST /v1/runs/{id}/{verb}               see `identity.VERB_ROLES`
    POST /v1/audit/seal  /v1/engine/reload  admin

The fields of `wire.Act` that a verb wants (and may have):

    confirm  step, digest (text, seen_state)      settle   step, text done|not-done (digest)
    approve  step, digest (seen_state; break_glass with a reason)
    reject   step (reason, digest)                answer   step, text (digest)
    retry    step                                 skip     step, reason
    pause, resume  (reason)                       abort    (rollback, reason)
    promote, promote-full  (step, reason, seen_state)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from engine.api import wire
from engine.api.backend import VERBS, Backend, Caller, Verb
from engine.api.calls import Events, Library, Rollouts, Runs, Seal, Sealed, Triggers
from engine.daemon.identity import Gatekeeper
from engine.daemon.processes import Peer
from engine.daemon.refusals import BadRequest, TooLarge
from engine.daemon.streams import EventStream, Newest, RunBox
from engine.errors import NotFound, UsageError

T = TypeVar("T")
BODY_CAP = 2 * 1024 * 1024
WANTS: dict[Verb, tuple[frozenset[str], frozenset[str]]] = {
    "confirm": (frozenset({"step", "digest"}), frozenset({"text", "seen_state"})),
    "approve": (frozenset({"step", "digest"}), frozenset({"seen_state", "break_glass", "reason"})),
    "reject": (frozenset({"step"}), frozenset({"reason", "digest"})),
    "answer": (frozenset({"step", "text"}), frozenset({"digest"})),
    "settle": (frozenset({"step", "text"}), frozenset({"digest", "reason"})),
    "retry": (frozenset({"step"}), frozenset({"reason", "digest"})),
    "skip": (frozenset({"step", "reason"}), frozenset({"digest"})),
    "pause": (frozenset(), frozenset({"reason"})),
    "resume": (frozenset(), frozenset({"reason"})),
    "abort": (frozenset(), frozenset({"rollback", "reason"})),
    "promote": (frozenset(), frozenset({"step", "reason", "seen_state"})),
    "promote-full": (frozenset(), frozenset({"step", "reason", "seen_state"})),
}
_STATES = frozenset({"running", "waiting", "paused", "done", "failed", "rolled_back", "aborted"})


class Api:
    """The handlers: each asks the gatekeeper first, then the backend, and answers in wire types."""

    def __init__(self, backend: Backend, gatekeeper: Gatekeeper, draining: asyncio.Event, *,
                 clock: Callable[[], float]) -> None:
        self._backend = backend
        self._gate = gatekeeper
        self._draining = draining
        self._clock = clock

    def routes(self) -> list[Route]:
        get: dict[str, Callable[[Request, Caller], Awaitable[Any]]] = {
            "/v1/status": self.status, "/v1/snapshot": self.snapshot, "/v1/stream": self.stream,
            "/v1/services/{name}/history": self.history, "/v1/library": self.library,
            "/v1/runs": self.runs, "/v1/runs/{id}": self.run, "/v1/runs/{id}/stream": self.follow,
            "/v1/runs/{id}/output": self.output, "/v1/runs/{id}/timeline": self.timeline,
            "/v1/runs/{id}/curve": self.curve, "/v1/runs/{id}/page": self.page,
            "/v1/rollouts": self.rollouts, "/v1/rollouts/{name}": self.rollout,
            "/v1/triggers": self.triggers,
            "/v1/definitions": self.definitions, "/v1/definitions/{number:int}": self.definition,
            "/v1/events": self.events, "/v1/audit/verify": self.verify,
            "/v1/handover": self.handover}
        return [Route("/v1/engine", self._answering(self.engine), methods=["GET"]),
                *(Route(path, self._answering(self._viewing(handler)), methods=["GET"])
                  for path, handler in get.items()),
                Route("/v1/runs", self._answering(self.start_run), methods=["POST"]),
                Route("/v1/triggers/{project}", self._answering(self.trigger), methods=["POST"]),
                Route("/v1/definitions/{number:int}", self._answering(self.restore), methods=["POST"]),
                Route("/v1/pipelines/clean", self._answering(self.clean), methods=["POST"]),
                Route("/v1/audit/seal", self._answering(self.seal), methods=["POST"]),
                Route("/v1/engine/reload", self._answering(self.reload), methods=["POST"]),
                Route("/v1/runs/{id}/{verb}", self._answering(self.act), methods=["POST"])]

    def _answering(self, handler: Callable[[Request, Caller], Awaitable[Any]]
                   ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            peer: Peer = request.scope["state"]["peer"]
            caller = await asyncio.to_thread(self._gate.caller, peer)
            found = await handler(request, caller)
            if isinstance(found, EventStream):
                return cast(Response, found)
            return Response(msgspec.json.encode(found), media_type="application/json")

        return endpoint

    def _viewing(self, handler: Callable[[Request, Caller], Awaitable[Any]]
                 ) -> Callable[[Request, Caller], Awaitable[Any]]:
        async def viewing(request: Request, caller: Caller) -> Any:
            self._gate.needs(caller, "viewer", to="look at this engine")
            return await handler(request, caller)

        return viewing

    async def engine(self, request: Request, caller: Caller) -> wire.EngineInfo:
        return self._backend.info(caller)

    async def status(self, request: Request, caller: Caller) -> wire.Status:
        return self._backend.status()

    async def snapshot(self, request: Request, caller: Caller) -> wire.Snapshot:
        return self._backend.snapshot(caller)

    async def stream(self, request: Request, caller: Caller) -> EventStream:
        snapshots = self._backend.snapshots(caller)
        return EventStream(await anext(snapshots), snapshots, Newest(), self._draining)

    async def history(self, request: Request, caller: Caller) -> wire.Series:
        return await self._backend.history(
            request.path_params["name"], _number(request, "seconds", 900.0, 1.0, 366 * 86400.0),
            int(_number(request, "points", 120, 1, 5000)))

    async def library(self, request: Request, caller: Caller) -> Library:
        return Library(self._clock(), await self._backend.library())

    async def runs(self, request: Request, caller: Caller) -> Runs:
        states = [s for given in request.query_params.getlist("state") for s in given.split(",")]
        for state in states:
            if state not in _STATES:
                raise BadRequest(f"{state!r} is not a state of a run",
                                 hint=f"states are {', '.join(sorted(_STATES))}")
        limit = int(_number(request, "limit", 50, 1, 1000))
        return Runs(self._clock(), await self._backend.runs(states or None, limit))

    async def run(self, request: Request, caller: Caller) -> wire.RunView:
        return await self._backend.run(request.path_params["id"])

    async def follow(self, request: Request, caller: Caller) -> EventStream:
        events = self._backend.follow(request.path_params["id"])
        return EventStream(await anext(events), events, RunBox(), self._draining)

    async def output(self, request: Request, caller: Caller) -> Any:
        step, attempt = _attempt(request, "output")
        return await self._backend.output(
            request.path_params["id"], step, attempt, int(_number(request, "offset", 0, 0, 2**53)),
            int(_number(request, "limit", 65536, 1, 1024 * 1024)))

    async def curve(self, request: Request, caller: Caller) -> Any:
        step, attempt = _attempt(request, "curve")
        return await self._backend.curve(request.path_params["id"], step, attempt,
                                         int(_number(request, "offset", 0, 0, 2**53)))

    async def page(self, request: Request, caller: Caller) -> wire.Page:
        return await self._backend.page(request.path_params["id"], _number(request, "html", 0, 0, 1) == 1)

    async def timeline(self, request: Request, caller: Caller) -> Events:
        return Events(self._clock(), await self._backend.timeline(request.path_params["id"]))

    async def rollouts(self, request: Request, caller: Caller) -> Rollouts:
        return Rollouts(self._clock(), await self._backend.rollouts())

    async def rollout(self, request: Request, caller: Caller) -> wire.Rollout:
        return await self._backend.rollout(request.path_params["name"])

    async def triggers(self, request: Request, caller: Caller) -> Triggers:
        return Triggers(self._clock(), await self._backend.triggers(request.query_params.get("project")))

    async def trigger(self, request: Request, caller: Caller) -> wire.Trigger:
        self._gate.needs(caller, "operator", to="begin a training")
        wanted = await _body(request, wire.TriggerNow)
        return await self._backend.trigger(caller, request.path_params["project"], wanted)

    async def definitions(self, request: Request, caller: Caller) -> wire.Definitions:
        return await self._backend.definitions(_project(request))

    async def definition(self, request: Request, caller: Caller) -> wire.DefinitionText:
        return await self._backend.definition(_project(request), request.path_params["number"])

    async def restore(self, request: Request, caller: Caller) -> wire.Restored:
        self._gate.needs(caller, "operator", to="put a definition back")
        wanted = await _body(request, wire.RestoreDefinition)
        return await self._backend.restore(caller, request.path_params["number"], wanted)

    async def clean(self, request: Request, caller: Caller) -> wire.Cleaning:
        self._gate.needs(caller, "operator", to="clean up after pipelines")
        return await self._backend.clean(caller, await _body(request, wire.Clean))

    async def events(self, request: Request, caller: Caller) -> Events:
        before = (int(_number(request, "before", 0, 0, 2**53))
                  if "before" in request.query_params else None)
        limit = int(_number(request, "limit", 100, 1, 1000))
        return Events(self._clock(), await self._backend.events(limit, before))

    async def verify(self, request: Request, caller: Caller) -> Any:
        return await self._backend.verify()

    async def handover(self, request: Request, caller: Caller) -> Any:
        return await self._backend.handover()

    async def start_run(self, request: Request, caller: Caller) -> wire.RunView:
        self._gate.needs(caller, "operator", to="start a run")
        wanted = await _body(request, wire.StartRun)
        if wanted.document is not None:
            self._gate.needs(caller, "admin", to="run a document that is not in the library")
        return await self._backend.start_run(caller, wanted)

    async def act(self, request: Request, caller: Caller) -> wire.RunView:
        verb = request.path_params["verb"]
        if verb not in VERBS:
            raise NotFound(f"a run has no verb {verb!r}", hint=f"verbs are {', '.join(VERBS)}")
        wanted = await _body(request, wire.Act)
        self._gate.may_act(caller, verb, break_glass=wanted.break_glass)
        _check_fields(verb, wanted)
        return await self._backend.act(caller, request.path_params["id"], verb, wanted)

    async def seal(self, request: Request, caller: Caller) -> Sealed:
        self._gate.needs(caller, "admin", to="seal the journal")
        wanted = await _body(request, Seal)
        if not wanted.reason.strip():
            raise UsageError("a seal wants a reason that says what was found")
        return Sealed(self._clock(), await self._backend.seal(caller, wanted.reason))

    async def reload(self, request: Request, caller: Caller) -> wire.Reloaded:
        self._gate.needs(caller, "admin", to="reload the config")
        return await self._backend.reload(caller)


def _check_fields(verb: Verb, act: wire.Act) -> None:
    """Raise UsageError unless the verb has what it wants and nothing that it would ignore."""
    wants, may = WANTS[verb]
    given = {name for name in act.__struct_fields__ if getattr(act, name) not in (None, False)}
    for name in sorted(wants - given):
        raise UsageError(f"{verb} wants `{name}`")
    for name in sorted(given - wants - may):
        raise UsageError(f"{verb} has no use for `{name}`")
    for name in ("step", "text", "reason", "digest"):
        if name in given and name in wants and not str(getattr(act, name)).strip():
            raise UsageError(f"{verb} wants `{name}`, and it is empty")
    if verb == "settle" and act.text not in ("done", "not-done"):
        raise UsageError(f"a step is settled as done or not-done, not as {act.text!r}")
    if act.break_glass and not (act.reason or "").strip():
        raise UsageError("--break-glass wants a reason; it is recorded and read afterwards")


async def _body(request: Request, kind: type[T]) -> T:
    """The body as a wire type. Raises BadRequest with the place of what is wrong, or TooLarge."""
    data = bytearray()
    try:
        async for piece in request.stream():
            data += piece
            if len(data) > BODY_CAP:
                raise TooLarge(f"the request is larger than {BODY_CAP // 1024} KiB")
    except ClientDisconnect:
        raise BadRequest("the request ended before its body did") from None
    try:
        return msgspec.json.decode(bytes(data) or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the request is not what this engine takes: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the request is not JSON: {error}") from None


def _project(request: Request) -> str:
    project = request.query_params.get("project")
    if not project:
        raise BadRequest("`project` says whose definition; it is missing")
    return project


def _attempt(request: Request, what: str) -> tuple[str, int | None]:
    step = request.query_params.get("step")
    if not step:
        raise BadRequest(f"`step` says whose {what}; it is missing")
    return step, (int(_number(request, "attempt", 1, 1, 1_000_000))
                  if "attempt" in request.query_params else None)


def _number(request: Request, name: str, default: float, least: float, most: float) -> float:
    text = request.query_params.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        raise BadRequest(f"`{name}` is a number, not {text[:40]!r}") from None
    if not least <= value <= most:
        raise BadRequest(f"`{name}` is between {least:g} and {most:g}, not {text[:40]}")
    return value
