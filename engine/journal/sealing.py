"""Sealing: going on after a break, without hiding it.

A seal changes nothing that is stored. In each broken chain it writes the first event of a new segment,
and in the engine's chain one event that lists every break with the digest of what was found there. From
then on appending works, verification calls these breaks known, and a further change of the damaged rows
is a break of its own.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING

from engine.errors import JournalCorrupt, UsageError
from engine.journal import anchors as anchoring
from engine.journal import reading
from engine.journal.anchors import Tail
from engine.journal.events import ENGINE, GENESIS, Event, NewEvent
from engine.journal.faults import ASIDE_HINT
from engine.journal.rows import SEAL, SEGMENT, evidence
from engine.journal.verify import Break, first_causes

if TYPE_CHECKING:
    from engine.journal.sqlite import SqliteJournal


def seal(journal: SqliteJournal, event: NewEvent) -> Event:
    """Seal every break there is now; returns the engine chain's seal event.

    Raises UsageError when nothing is broken, and JournalCorrupt when the file itself is damaged: that
    is for `aside.set_aside`, which needs the engine stopped.
    """
    reason = str(event.data.get("reason", ""))
    with journal.transaction() as db:
        mended = _rebuild_indexes(db)
        findings = reading.inspect(db, journal.archive_directory)
        breaks = [*mended, *findings.breaks]
        if not breaks:
            raise UsageError("there is nothing to seal: every chain and anchor holds")
        damaged = [b for b in findings.breaks if b.kind == "file"]
        if damaged:
            raise JournalCorrupt(f"a seal cannot mend this: {damaged[0].text}",
                                 where=str(journal.path), hint=ASIDE_HINT)
        journal.unblock()
        recorded = []
        for run in sorted(findings.blocked):
            texts = [b.text for b in findings.breaks if b.run == run and b.kind == "chain"]
            start = NewEvent(run=run, kind=SEGMENT, at=event.at, actor=event.actor,
                             data={"reason": reason, "breaks": texts,
                                   "text": f"goes on after a break: {'; '.join(texts)}"})
            recorded.append(journal.add(db, start, after=(_last_n(db, run), GENESIS)))
        causes = first_causes(breaks)
        told = "; ".join(b.text for b in causes)
        data = {**event.data, "reason": reason, "text": f"sealed: {told} ({reason})",
                "breaks": [_recorded(b) for b in causes],
                "repeats": [_recorded(b) for b in breaks if b not in causes]}
        recorded.append(journal.add(db, NewEvent(run=ENGINE, kind=SEAL, at=event.at,
                                                 actor=event.actor, data=data)))
        journal.close_tail(db, _recomputed_tail(db))
    return recorded[-1]


def _last_n(db: sqlite3.Connection, run: str) -> int:
    """The greatest n of a broken chain, whatever its rows hold by now."""
    found = db.execute("SELECT max(n) FROM events WHERE run = ? AND typeof(n) = 'integer'",
                       (run,)).fetchone()[0]
    return max(found or 0, reading.archived_head(db, run)[0])


def _recomputed_tail(db: sqlite3.Connection) -> Tail:
    """The tail as the stored rows give it: what was recorded of it may be what is broken."""
    newest = db.execute("SELECT id, last_seq, hash FROM anchors ORDER BY id DESC LIMIT 1").fetchone()
    id, last_seq, hash = newest or (0, anchoring.EMPTY.last, anchoring.EMPTY.digest)
    recorded = reading.tail(db)
    first = last_seq + 1
    if recorded is not None and recorded.anchor == id:
        first = recorded.first
    tail = Tail(id, first, first - 1, 0, hash)
    for row in reading.events(db, after=first - 1):
        tail = tail.add(row.seq, row.hash)
    return tail


def _rebuild_indexes(db: sqlite3.Connection) -> list[Break]:
    """An index that disagrees with its table is not evidence: the table is. Returns what was mended."""
    found = reading.file_faults(db)
    if not found:
        return []
    # A table that contradicts itself cannot be indexed; the examination then says so.
    with contextlib.suppress(sqlite3.IntegrityError):
        db.execute("REINDEX")
    if reading.file_faults(db):
        return []
    return [Break("file", evidence(*found), f"{found[0]}; its indexes were rebuilt", kind="file")]


def _recorded(found: Break) -> dict[str, str]:
    return {"key": found.key, "evidence": found.evidence, "text": found.text}
