"""Every route as a value: method, path, body and the type of its answer. Pure.

`light.Client` carries the calls; the routes of `engine.daemon.routes` answer them. `answer` reads a
response, or raises the error it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from engine.api import problems, wire
from engine.api.backend import AuditVerdict, Curve, Handover, OutputChunk, Verb
from engine.api.sse import Message
from engine.errors import EngineUnreachable

T = TypeVar("T")
PROTOCOL_HEADER = "x-opsdeck-protocol"
AT_HEADER = "x-opsdeck-at"
AUDIT_PATIENCE = 900.0  # seconds: a year's journal takes minutes to recompute
HEADERS = {"host": "opsdeck", "accept": "application/json, text/event-stream",
           PROTOCOL_HEADER: str(wire.PROTOCOL)}


class Runs(msgspec.Struct):
    """`GET /v1/runs`, newest first."""

    at: float
    runs: list[wire.RunSummary]


class Library(msgspec.Struct):
    """`GET /v1/library`."""

    at: float
    procedures: list[wire.Procedure]


class Rollouts(msgspec.Struct):
    """`GET /v1/rollouts`: those that run, then those that ended last, newest first."""

    at: float
    rollouts: list[wire.Rollout]


class Triggers(msgspec.Struct):
    """`GET /v1/triggers`, by the projects' names."""

    at: float
    triggers: list[wire.Trigger]


class Events(msgspec.Struct):
    """`GET /v1/events` (newest first) and `GET /v1/runs/{id}/timeline` (oldest first)."""

    at: float
    events: list[wire.Event]


class Sealed(msgspec.Struct):
    """`POST /v1/audit/seal`: the event that starts the new segment."""

    at: float
    event: wire.Event


class Seal(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/audit/seal`."""

    reason: str


class End(msgspec.Struct):
    """The last message of a stream: `done` (the run has ended) or `draining` (the engine stops)."""

    at: float
    reason: str


class Call(msgspec.Struct, Generic[T], frozen=True):
    """One request. `body` is a wire type or None; `reply` is the type of the answer.

    `patience`: seconds to wait for it.
    """

    method: str
    path: str
    reply: type[T]
    body: Any = None
    patience: float = 30.0

    def encoded(self) -> bytes | None:
        return None if self.body is None else msgspec.json.encode(self.body)

    @property
    def changes(self) -> bool:
        """Whether it may have had an effect when the answer never came."""
        return self.method != "GET"


def _query(path: str, **values: Any) -> str:
    given = {k: v for k, v in values.items() if v is not None}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _run(id: str, *rest: str) -> str:
    return "/v1/runs/" + "/".join(quote(part, safe="") for part in (id, *rest))


def engine() -> Call[wire.EngineInfo]:
    return Call("GET", "/v1/engine", wire.EngineInfo)


def status() -> Call[wire.Status]:
    return Call("GET", "/v1/status", wire.Status)


def snapshot() -> Call[wire.Snapshot]:
    return Call("GET", "/v1/snapshot", wire.Snapshot)


def history(service: str, seconds: float, points: int) -> Call[wire.Series]:
    path = f"/v1/services/{quote(service, safe='')}/history"
    return Call("GET", _query(path, seconds=seconds, points=points), wire.Series)


def library() -> Call[Library]:
    return Call("GET", "/v1/library", Library)


def start_run(request: wire.StartRun) -> Call[wire.RunView]:
    return Call("POST", "/v1/runs", wire.RunView, request)


def runs(states: Sequence[str] | None, limit: int) -> Call[Runs]:
    return Call("GET", _query("/v1/runs", state=states or None, limit=limit), Runs)


def run(id: str) -> Call[wire.RunView]:
    return Call("GET", _run(id), wire.RunView)


def output(id: str, step: str, attempt: int | None, offset: int, limit: int) -> Call[OutputChunk]:
    return Call("GET", _query(_run(id, "output"), step=step, attempt=attempt, offset=offset,
                              limit=limit), OutputChunk)


def curve(id: str, step: str, attempt: int | None, offset: int) -> Call[Curve]:
    return Call("GET", _query(_run(id, "curve"), step=step, attempt=attempt, offset=offset), Curve)


def page(id: str, html: bool = False) -> Call[wire.Page]:
    return Call("GET", _query(_run(id, "page"), html=1 if html else None), wire.Page)


def timeline(id: str) -> Call[Events]:
    return Call("GET", _run(id, "timeline"), Events)


def act(id: str, verb: Verb, body: wire.Act) -> Call[wire.RunView]:
    return Call("POST", _run(id, verb), wire.RunView, body)


def rollouts() -> Call[Rollouts]:
    return Call("GET", "/v1/rollouts", Rollouts)


def rollout(name: str) -> Call[wire.Rollout]:
    return Call("GET", f"/v1/rollouts/{quote(name, safe='')}", wire.Rollout)


def triggers(project: str | None) -> Call[Triggers]:
    return Call("GET", _query("/v1/triggers", project=project), Triggers)


def trigger(project: str, body: wire.TriggerNow) -> Call[wire.Trigger]:
    return Call("POST", f"/v1/triggers/{quote(project, safe='')}", wire.Trigger, body)


def definitions(project: str) -> Call[wire.Definitions]:
    return Call("GET", _query("/v1/definitions", project=project), wire.Definitions)


def definition(project: str, number: int) -> Call[wire.DefinitionText]:
    return Call("GET", _query(f"/v1/definitions/{number}", project=project), wire.DefinitionText)


def restore(number: int, body: wire.RestoreDefinition) -> Call[wire.Restored]:
    return Call("POST", f"/v1/definitions/{number}", wire.Restored, body)


def clean(body: wire.Clean) -> Call[wire.Cleaning]:
    return Call("POST", "/v1/pipelines/clean", wire.Cleaning, body, patience=AUDIT_PATIENCE)


def events(limit: int, before: int | None) -> Call[Events]:
    return Call("GET", _query("/v1/events", limit=limit, before=before), Events)


def verify() -> Call[AuditVerdict]:
    return Call("GET", "/v1/audit/verify", AuditVerdict, patience=AUDIT_PATIENCE)


def seal(reason: str) -> Call[Sealed]:
    return Call("POST", "/v1/audit/seal", Sealed, Seal(reason), patience=AUDIT_PATIENCE)


def reload() -> Call[wire.Reloaded]:
    return Call("POST", "/v1/engine/reload", wire.Reloaded)


def handover() -> Call[Handover]:
    return Call("GET", "/v1/handover", Handover)


def stream() -> Call[wire.Snapshot]:
    return Call("GET", "/v1/stream", wire.Snapshot)


def follow(id: str) -> Call[wire.RunView]:
    return Call("GET", _run(id, "stream"), wire.RunView)


def check(status: int, protocol: str | None, body: bytes) -> None:
    """Raise what a response's head says is wrong: another protocol, or a refusal."""
    if protocol != str(wire.PROTOCOL):
        raise problems.other_protocol(engine=protocol, command=str(wire.PROTOCOL))
    if status < 400:
        return
    try:
        problem = msgspec.json.decode(body, type=wire.Problem)
    except msgspec.DecodeError:
        raise EngineUnreachable(f"the engine refused with status {status} and no reason") from None
    raise problems.from_wire(problem)


def answer(call: Call[T], status: int, protocol: str | None, body: bytes) -> T:
    """The answer of a call, or the error of `engine.errors` that the response stands for."""
    check(status, protocol, body)
    return decode(body, call.reply)


def decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise EngineUnreachable(f"the engine's answer cannot be read: {error}",
                                hint="use the same version of opsdeck for the engine and the "
                                     "command") from error


def event(message: Message) -> wire.Snapshot | wire.RunView | OutputChunk | End | None:
    """What a stream's message carries; None for a ping and for what a newer engine may add.

    Raises the error that a `problem` message stands for.
    """
    if message.event == "problem":
        raise problems.from_wire(decode(message.data, wire.Problem))
    if message.event == "snapshot":
        return decode(message.data, wire.Snapshot)
    if message.event == "run":
        return decode(message.data, wire.RunView)
    if message.event == "output":
        return decode(message.data, OutputChunk)
    return decode(message.data, End) if message.event == "end" else None
