"""A journal row as stored, and the check of one row against the one before it.

Pure. A row keeps `data` as its stored text, so that recomputing a hash covers the bytes themselves;
and it keeps whatever a damaged file holds, so that reading never fails where verifying must speak.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import msgspec

from engine.journal.events import ENGINE, GENESIS, TRIGGERS, Actor, Event, digest

INTENT = "step.intent"
SEAL = "journal.sealed"      # in the engine's chain: which breaks are known, and who accepted them
SEGMENT = "journal.segment"  # in a broken chain: the first event of what goes on after the break
ARCHIVED = "journal.archived"
RESERVED = frozenset({SEAL, SEGMENT, ARCHIVED})


class Row(NamedTuple):
    """The columns of `events`, and of a line of an archive, in their order."""

    seq: int
    run: str
    n: int
    at: float
    kind: str
    user: str
    uid: int
    origin: str
    step: str | None
    attempt: int | None
    data: str
    prev: str
    hash: str


COLUMNS = ", ".join(Row._fields)


def row_hash(row: Row) -> str | None:
    """The hash the row's columns ought to have, or None where a column holds what no event can hold."""
    if type(row.at) is not float or type(row.data) is not str:
        return None
    if type(row.n) is not int or type(row.uid) is not int:
        return None
    # Infinity has the JSON of None.
    if {type(row.attempt), type(row.step)} - {int, str, type(None)}:
        return None
    try:
        return digest(run=row.run, n=row.n, at=row.at, kind=row.kind,
                      actor=Actor(row.user, row.uid, row.origin), step=row.step,
                      attempt=row.attempt, data=msgspec.Raw(row.data.encode()), prev=row.prev)
    except (TypeError, ValueError, msgspec.MsgspecError):
        return None


def chain_name(run: str) -> str:
    if run == TRIGGERS:
        return "the chain of triggers"
    return "the engine's chain" if run == ENGINE else f"run {run}"


def row_name(row: Row) -> str:
    return f"event {row.n} of {chain_name(row.run)} (seq {row.seq}, {row.kind})"


def row_fault(row: Row, n: int, prev: str) -> str | None:
    """What is wrong with `row` after event `n` with hash `prev`, as a sentence; None if it holds."""
    if row.n != n + 1:
        return f"{row_name(row)} is where event {n + 1} should be: events are missing or out of order"
    if row.prev != prev:
        return f"{row_name(row)} does not follow the event before it"
    if row.hash != row_hash(row):
        return f"{row_name(row)} does not match its hash"
    return None


def starts_segment(row: Row) -> bool:
    """Whether the row is a sound first event of what goes on after a sealed break."""
    return row.kind == SEGMENT and row.prev == GENESIS and row.hash == row_hash(row)


def to_event(row: Row) -> Event:
    """The event of a row. Data that is not JSON any more comes back as {"unreadable": text}."""
    try:
        data = msgspec.json.decode(row.data)
    except (TypeError, ValueError, msgspec.MsgspecError):
        data = None
    if not isinstance(data, dict):
        text = row.data if isinstance(row.data, str) else repr(row.data)
        data = {"unreadable": text.encode("utf-8", "backslashreplace").decode()}
    values: dict[str, Any] = {
        "seq": row.seq, "run": row.run, "n": row.n, "at": row.at, "kind": row.kind,
        "step": row.step, "attempt": row.attempt, "prev": row.prev, "hash": row.hash}
    return Event(**values, data=data, actor=Actor(row.user, row.uid, row.origin))


def evidence(*values: Any) -> str:
    """A digest of whatever was found, however odd its types: what a seal says it has accepted."""
    return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).hexdigest()
