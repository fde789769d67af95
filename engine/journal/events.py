"""Journal events: what is recorded, and the hash that chains a run's events together.

Pure: no I/O and no clock. An event's hash covers every column and the hash before it, so that a
changed, removed or reordered row is found by recomputing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

GENESIS = "0" * 64
ENGINE = "engine"  # the chain for events that belong to no run: engine starts, alerts, seals
TRIGGERS = "triggers"  # the chain of what begins pipelines
LASTING = (ENGINE, TRIGGERS)  # chains that never end: old events are archived from their beginning


class Actor(msgspec.Struct, frozen=True):
    """Who caused an event: the Unix user the kernel reports, and from where.

    `origin` is "socket pid 4711", "embedded", or "engine" for what the engine does by itself.
    """

    user: str
    uid: int
    origin: str


SYSTEM = Actor(user="engine", uid=-1, origin="engine")


class NewEvent(msgspec.Struct, frozen=True):
    """An event before it is recorded. `data` must be JSON-able; secrets never enter it."""

    run: str
    kind: str
    at: float
    actor: Actor
    step: str | None = None
    attempt: int | None = None
    data: dict[str, Any] = {}


class Event(msgspec.Struct, frozen=True):
    """A recorded event. `seq` counts over all chains, `n` within `run`'s chain from 1."""

    seq: int
    run: str
    n: int
    at: float
    kind: str
    actor: Actor
    step: str | None
    attempt: int | None
    data: dict[str, Any]
    prev: str
    hash: str


def canonical(value: Any) -> bytes:
    """The one byte string of a JSON-able value: sorted keys, no spaces, UTF-8."""
    return msgspec.json.encode(value, order="deterministic")


def digest(*, run: str, n: int, at: float, kind: str, actor: Actor, step: str | None,
           attempt: int | None, data: dict[str, Any] | msgspec.Raw, prev: str) -> str:
    """SHA-256 over every column of an event but `seq` (which storage assigns).

    `data` may be its stored canonical bytes (`msgspec.Raw`), so that not even a changed space passes.
    """
    columns = [run, n, at, kind, actor.user, actor.uid, actor.origin, step, attempt, data, prev]
    return hashlib.sha256(canonical(columns)).hexdigest()


def first_break(events: Iterable[Event], prev: str = GENESIS, n: int = 0) -> str | None:
    """The sentence that names the first bad event of one chain, or None if it holds.

    `events` are one chain's, in order of `n`; `prev` and `n` are those of the event before the first.
    """
    for event in events:
        n += 1
        name = f"event {event.n} of {event.run} (seq {event.seq}, {event.kind})"
        if event.n != n:
            return f"{name} is where event {n} should be: events are missing or out of order"
        if event.prev != prev:
            return f"{name} does not follow the event before it"
        if event.hash != digest(run=event.run, n=event.n, at=event.at, kind=event.kind,
                                actor=event.actor, step=event.step, attempt=event.attempt,
                                data=event.data, prev=event.prev):
            return f"{name} does not match its hash"
        prev = event.hash
    return None
