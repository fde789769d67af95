"""What the engine offers: one protocol, satisfied by the engine itself and spoken over the socket.

The daemon's routes call a `Backend`; an embedded run calls the same one in its own process. Every
method raises only errors of `engine.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

import msgspec

from engine.api import wire

Verb = Literal["confirm", "approve", "reject", "answer", "settle", "retry", "skip", "pause", "resume",
               "abort", "promote", "promote-full"]
VERBS: tuple[Verb, ...] = ("confirm", "approve", "reject", "answer", "settle", "retry", "skip",
                           "pause", "resume", "abort", "promote", "promote-full")


class Caller(msgspec.Struct, frozen=True):
    """Who asks, as the kernel reports it (SO_PEERCRED), with the roles the config gives them."""

    user: str
    uid: int
    pid: int
    roles: frozenset[str]
    origin: str


class OutputChunk(msgspec.Struct):
    """A piece of one step's live output, control sequences already made harmless.

    `offset` is where it starts in the raw output of that `stream` and `next` where to go on, in
    bytes.
    """

    run: str
    step: str
    attempt: int
    offset: int
    next: int
    text: str
    final: bool
    stream: Literal["stdout", "stderr"] = "stdout"


class Point(msgspec.Struct):
    """One point of a curve that a step draws while it runs, such as loss at step 30."""

    name: str
    step: float
    value: float


class Curve(msgspec.Struct):
    """The points that an attempt gave after the byte that was asked for, at most the last 2,000; `next` is
    where to go on. `final`: no more come."""

    run: str
    step: str
    attempt: int
    next: int
    points: list[Point]
    final: bool


class Handover(msgspec.Struct):
    """What the next shift must know: what runs, what waits, what fires, what ended in 12 hours, and which
    gates were opened alone in runs that run or ended within 7 days."""

    at: float
    running: list[wire.RunSummary]
    waiting: list[wire.Waiting]
    alerts: list[wire.Alert]
    ended: list[wire.RunSummary]
    stale: list[str]
    reviews: list[wire.Review] = []


class AuditVerdict(msgspec.Struct):
    """`audit verify`: `breaks` is empty when everything holds; each entry names a first bad event."""

    at: float
    events: int
    chains: int
    anchors: int
    archived: int
    breaks: list[str]
    seals: list[str]


class Backend(Protocol):
    def info(self, caller: Caller) -> wire.EngineInfo: ...
    def status(self) -> wire.Status: ...
    def snapshot(self, caller: Caller) -> wire.Snapshot: ...
    def snapshots(self, caller: Caller) -> AsyncIterator[wire.Snapshot]:
        """One snapshot at once, then one whenever something changed, at most one a tick; a slow
        reader gets the newest and misses the ones between."""
        ...

    async def history(self, service: str, seconds: float, points: int) -> wire.Series: ...
    async def library(self) -> list[wire.Procedure]: ...
    async def start_run(self, caller: Caller, request: wire.StartRun) -> wire.RunView: ...
    async def runs(self, states: Sequence[str] | None, limit: int) -> list[wire.RunSummary]: ...
    async def run(self, id: str) -> wire.RunView: ...
    def follow(self, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        """The run as it is now, then every change and its live output, until it ends."""
        ...

    async def output(self, id: str, step: str, attempt: int | None, offset: int,
                     limit: int) -> OutputChunk: ...
    async def curve(self, id: str, step: str, attempt: int | None, offset: int) -> Curve: ...
    async def page(self, id: str, html: bool = False) -> wire.Page:
        """`html`: with the whole of the one with plots. Raises NotFound for a run that has written none."""
        ...

    async def timeline(self, id: str) -> list[wire.Event]: ...
    async def act(self, caller: Caller, id: str, verb: Verb, act: wire.Act) -> wire.RunView: ...
    async def rollouts(self) -> list[wire.Rollout]:
        """Those that run, then those that ended last, newest first."""
        ...

    async def rollout(self, name: str) -> wire.Rollout:
        """By the run's id, or by the service: the one that runs there, else the last. Raises NotFound."""
        ...

    async def triggers(self, project: str | None) -> list[wire.Trigger]:
        """All projects, or the one of that name. Raises NotFound."""
        ...

    async def trigger(self, caller: Caller, project: str, now: wire.TriggerNow) -> wire.Trigger:
        """Record the cause; what comes of it is seen later. Raises NotFound, Conflict, NotPermitted."""
        ...

    async def definitions(self, project: str) -> wire.Definitions:
        """The versions of a project's definition that runs have used. Raises NotFound."""
        ...

    async def definition(self, project: str, number: int) -> wire.DefinitionText:
        """The texts of one. Raises NotFound."""
        ...

    async def restore(self, caller: Caller, number: int, wanted: wire.RestoreDefinition) -> wire.Restored:
        """Put one back into the project's folder. Raises NotFound, UsageError without a reason, Conflict
        where the present file has changes that no run has used."""
        ...

    async def clean(self, caller: Caller, wanted: wire.Clean) -> wire.Cleaning:
        """Remove what nothing refers to any more of what pipelines have left, or say what would go. Raises
        NotFound, NotPermitted, Conflict, ActionFailed."""
        ...

    async def events(self, limit: int, before: int | None) -> list[wire.Event]: ...
    async def verify(self) -> AuditVerdict: ...
    async def seal(self, caller: Caller, reason: str) -> wire.Event: ...
    async def reload(self, caller: Caller) -> wire.Reloaded: ...
    async def handover(self) -> Handover: ...
