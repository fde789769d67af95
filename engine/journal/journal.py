"""The journal's port: what the engine needs of a store. `sqlite.py` is the adapter shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from engine.journal.events import Event, NewEvent


class RunRow(msgspec.Struct, frozen=True):
    """The index of runs, kept in the same transaction as the events it sums up."""

    id: str
    procedure: str
    state: str
    by: str
    started: float
    ended: float | None
    service: str | None


class Verdict(msgspec.Struct, frozen=True):
    """What `verify` found: `breaks` is empty when every chain and anchor holds."""

    events: int
    chains: int
    anchors: int
    archived: int
    breaks: list[str]
    seals: list[str]


class Journal(Protocol):
    """Append-only events in hash chains, one per run, durable when `append` returns.

    All methods block; the engine calls them from one worker thread of its own. Each raises
    JournalUnavailable (locked longer than the busy timeout, full, read-only), JournalCorrupt, or
    FenceLost when another engine has taken the journal since.
    """

    def append(self, events: Sequence[NewEvent], *, row: RunRow | None = None) -> list[Event]:
        """Record all or none, in one durable transaction guarded by this engine's fencing token.

        A second `step.intent` for the same (run, step, attempt) raises Conflict: that is the guard
        which keeps two engines from running one attempt. Writing to a chain whose last event does
        not match its hash raises JournalCorrupt.
        """
        ...

    def new_run_id(self) -> str:
        """The next run's id: "1", "2", … never given twice, not even after a crash."""
        ...

    def read(self, run: str, after: int = 0) -> list[Event]:
        """Events of one chain with `n` > after, oldest first, from archives too."""
        ...

    def tail(self, limit: int, before_seq: int | None = None, run: str | None = None) -> list[Event]:
        """The newest events over all chains (or one), newest first."""
        ...

    def runs(self, states: Sequence[str] | None = None, limit: int = 200) -> list[RunRow]:
        """Newest first."""
        ...

    def run(self, id: str) -> RunRow | None: ...

    def verify(self) -> Verdict:
        """Recompute every hash and anchor, archives included."""
        ...

    def seal(self, event: NewEvent) -> Event:
        """After a corruption: start a new segment of the broken chains and name each break in it."""
        ...

    def rotate(self, *, older_than_s: float, now: float) -> int:
        """Move the events of runs that ended before `now - older_than_s` into an archive that still
        verifies and is still read; how many were moved."""
        ...

    def close(self) -> None: ...
