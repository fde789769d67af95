"""Rotation: finished runs and old engine events move from the database into an archive file.

The file is complete and synced under its final name before one transaction lists it, records it in the
engine's chain and removes the rows; what is not listed does not count. So a crash loses nothing and
leaves nothing twice.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from engine.journal import archive, reading
from engine.journal.events import ENGINE, LASTING, SYSTEM, NewEvent
from engine.journal.rows import ARCHIVED, COLUMNS, Row, row_fault

if TYPE_CHECKING:
    from engine.journal.sqlite import SqliteJournal

FINISHED = ("done", "failed", "rolled_back", "aborted")
MOST_EVENTS = 10_000
MOST_BYTES = 16 << 20


def rotate(journal: SqliteJournal, *, older_than_s: float, now: float, at_least: int) -> int:
    """Rotate what ended more than `older_than_s` before `now`, a file at a time; returns the events.

    Nothing happens while fewer than `at_least` events are due. Chains that do not hold, or were sealed,
    stay in the database.
    """
    moved = 0
    journal.anchor()
    with journal.transaction() as db:
        listed = {info.file for info in reading.archives(db)}
        archive.remove_unlisted(journal.archive_directory, listed, lambda seq: _stored(db, seq))
    while True:
        with journal.transaction() as db:
            rows = _chosen(db, now - older_than_s)
            if len(rows) < max(1, at_least):
                return moved
            id = db.execute("SELECT coalesce(max(id), 0) + 1 FROM archives").fetchone()[0]
            info = archive.write(journal.archive_directory, id, rows)
            db.execute("INSERT INTO archives VALUES (?, ?, ?, ?, ?, ?)",
                       (info.id, info.file, info.sha256, info.events, info.first_seq, info.last_seq))
            db.executemany("INSERT INTO archived VALUES (?, ?, ?, ?, ?)",
                           [(s.run, s.first_n, s.last_n, s.last_hash, id) for s in info.spans])
            db.executemany("DELETE FROM events WHERE seq = ?", [(row.seq,) for row in rows])
            said = {"id": id, "file": info.file, "sha256": info.sha256, "events": info.events,
                    "text": f"{info.events} old events moved to {archive.DIRECTORY}/{info.file}"}
            event = NewEvent(run=ENGINE, kind=ARCHIVED, at=now, actor=SYSTEM, data=said)
            journal.note(db, [journal.add(db, event)])
        moved += len(rows)


def _stored(db: sqlite3.Connection, seq: int) -> str | None:
    found = db.execute("SELECT hash FROM events WHERE seq = ?", (seq,)).fetchone()
    return None if found is None else str(found[0])


def _chosen(db: sqlite3.Connection, before: float) -> list[Row]:
    """The rows of the next archive, in order of seq: whole chains, as many as fit."""
    covered = db.execute("SELECT coalesce(max(last_seq), 0) FROM anchors").fetchone()[0]
    chosen: list[Row] = []
    size = 0
    finished = db.execute(
        f"SELECT id FROM runs WHERE state IN ({','.join('?' * len(FINISHED))}) AND ended < ? "
        "AND EXISTS (SELECT 1 FROM events WHERE run = id) ORDER BY ended", (*FINISHED, before))
    for run in [*(id for (id,) in finished.fetchall()), *LASTING]:
        rows = _sound(db, run)
        if run in LASTING:
            rows = _old_prefix(rows, before, covered)
        if not rows or rows[-1].seq > covered:
            continue
        chosen += rows
        size += sum(len(row.data) for row in rows)
        if len(chosen) >= MOST_EVENTS or size >= MOST_BYTES:
            break
    return sorted(chosen, key=lambda row: row.seq)


def _sound(db: sqlite3.Connection, run: str) -> list[Row]:
    """A chain's rows if all of them hold without a segment between; otherwise none."""
    rows = [Row._make(r) for r in db.execute(
        f"SELECT {COLUMNS} FROM events WHERE run = ? ORDER BY n LIMIT ?",
        (run, MOST_EVENTS if run in LASTING else -1)).fetchall()]
    n, prev = reading.archived_head(db, run)
    for row in rows:
        if row_fault(row, n, prev):
            return []
        n, prev = row.n, row.hash
    return rows


def _old_prefix(rows: list[Row], before: float, covered: int) -> list[Row]:
    for at, row in enumerate(rows):
        if row.at >= before or row.seq > covered:
            return rows[:at]
    return rows
