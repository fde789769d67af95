"""All that is stored beside the events: anchors, the tail, the index of runs, the list of archives."""

from __future__ import annotations

import hashlib

import msgspec

from engine.journal.anchors import Anchor, Tail
from engine.journal.events import canonical
from engine.journal.journal import RunRow


class Span(msgspec.Struct, frozen=True):
    """Events `first_n` to `last_n` of a chain that an archive holds."""

    run: str
    first_n: int
    last_n: int
    last_hash: str


class ArchiveInfo(msgspec.Struct, frozen=True):
    """An archive as the database knows it; `fault` says why its file cannot be used."""

    id: int
    file: str
    sha256: str
    events: int
    first_seq: int
    last_seq: int
    spans: tuple[Span, ...]
    fault: str | None = None
    fault_evidence: str = ""


class IndexRow(msgspec.Struct, frozen=True):
    """A row of the index of runs, with the event it was written with and the sum over both."""

    row: RunRow
    n: int
    sum: str


class Ledger(msgspec.Struct, frozen=True):
    """All that is stored beside the events."""

    anchors: list[Anchor]
    tail: Tail | None
    index: list[IndexRow]
    archives: list[ArchiveInfo]
    file_faults: list[str] = []


def index_sum(row: RunRow, n: int, hash: str) -> str:
    """SHA-256 over an index row and the event that was its chain's newest when it was written."""
    columns = [row.id, row.procedure, row.state, row.by, row.started, row.ended, row.service, n, hash]
    return hashlib.sha256(canonical(columns)).hexdigest()
