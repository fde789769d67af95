"""Reading a journal's database and archives: rows in order, the ledger beside them, examination."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import JournalCorrupt
from engine.journal import anchors as anchoring
from engine.journal import archive, faults
from engine.journal.anchors import Anchor, Tail
from engine.journal.events import GENESIS
from engine.journal.faults import SEAL_HINT
from engine.journal.journal import RunRow
from engine.journal.ledger import ArchiveInfo, IndexRow, Ledger, Span
from engine.journal.rows import COLUMNS, SEGMENT, Row, chain_name, row_fault
from engine.journal.verify import Findings, examine

BATCH = 1000          # rows a statement, so that a reader never holds a writer up for long
CHECKED_TAIL = 1024   # events of a chain that are recomputed before the first append to it
CHECKED_FILE = 64 << 20  # bytes; larger files are checked row by row, not page by page
NEWEST_SEQ = (1 << 63) - 1


def tail(db: sqlite3.Connection) -> Tail | None:
    found = db.execute("SELECT value FROM meta WHERE key = 'tail'").fetchone()
    try:
        return None if found is None else msgspec.json.decode(found[0], type=Tail)
    except (TypeError, msgspec.MsgspecError):
        return None


def events(db: sqlite3.Connection, after: int = 0, until: int = NEWEST_SEQ,
           run: str | None = None) -> Iterator[Row]:
    """Rows of the database with after < seq <= until, in order of seq."""
    chosen, given = ("", ()) if run is None else ("run = ? AND ", (run,))
    query = (f"SELECT {COLUMNS} FROM events WHERE {chosen}seq > ? AND seq <= ? "
             "ORDER BY seq LIMIT ?")
    low = after or -NEWEST_SEQ  # a seq that was changed to a negative number must still be found
    size = BATCH
    while True:
        try:
            batch = db.execute(query, (*given, low, until, size)).fetchall()
        except sqlite3.DatabaseError as error:
            if not faults.is_damage(error) or size == 1:
                raise
            size //= 2  # up to the very row where the damage begins
            continue
        yield from map(Row._make, batch)
        if len(batch) < size:
            return
        low = batch[-1][0]


def everything(db: sqlite3.Connection, directory: Path, archives: Sequence[ArchiveInfo],
               after: int = 0, until: int = NEWEST_SEQ) -> Iterator[Row]:
    """Rows of the database and of the sound `archives`, merged in order of seq."""
    pending = sorted((a for a in archives if not a.fault and a.last_seq > after),
                     key=lambda a: a.first_seq, reverse=True)
    heap: list[tuple[int, int, Row, Iterator[Row]]] = []

    def push(order: int, stream: Iterator[Row]) -> None:
        row = next(stream, None)
        if row is not None:
            heapq.heappush(heap, (row.seq, order, row, stream))

    push(0, events(db, after, until))
    while heap or pending:
        # A file is opened only when its turn comes: there may be more of them than open files.
        if pending and (not heap or pending[-1].first_seq <= heap[0][0]):
            info = pending.pop()
            push(info.id, archive.read(directory / info.file))
            continue
        seq, order, row, stream = heapq.heappop(heap)
        if seq > after or not after:
            yield row
        push(order, stream)


def chain(db: sqlite3.Connection, directory: Path, run: str, after: int = 0) -> list[Row]:
    """Rows of one chain with n > after, oldest first. Raises JournalCorrupt for a lost archive."""
    query = (f"SELECT {COLUMNS} FROM events WHERE run = ? AND n > ? ORDER BY n")
    stored = [Row._make(r) for r in db.execute(query, (run, after)).fetchall()]
    files = db.execute(
        "SELECT DISTINCT file FROM archived JOIN archives ON archives.id = archived.archive "
        "WHERE run = ? AND last_n > ? ORDER BY first_n", (run, after)).fetchall()
    old = [row for (file,) in files for row in archive.read(directory / file)
           if row.run == run and row.n > after]
    return old + stored


def newest(db: sqlite3.Connection, directory: Path, limit: int, before_seq: int | None,
           run: str | None) -> list[Row]:
    """The newest rows with seq < before_seq, newest first, from archives where the database has none."""
    before = NEWEST_SEQ if before_seq is None else before_seq
    chosen, given = ("", ()) if run is None else ("run = ? AND ", (run,))
    stored = db.execute(f"SELECT {COLUMNS} FROM events WHERE {chosen}seq < ? "
                        "ORDER BY seq DESC LIMIT ?", (*given, before, limit)).fetchall()
    found = [Row._make(r) for r in stored]
    for info in sorted(archives(db), key=lambda a: a.last_seq, reverse=True):
        full = len(found) >= limit and info.last_seq < found[limit - 1].seq
        if full or info.first_seq >= before or (run and all(s.run != run for s in info.spans)):
            continue
        found += [row for row in archive.read(directory / info.file)
                  if row.seq < before and (run is None or row.run == run)]
        found.sort(key=lambda row: row.seq, reverse=True)
        del found[limit:]
    return found


def head(db: sqlite3.Connection, run: str, path: Path) -> tuple[int, str]:
    """The newest event's (n, hash) of a chain, its last CHECKED_TAIL events recomputed.

    (0, GENESIS) for a chain without events. Raises JournalCorrupt where one does not hold.
    """
    query = f"SELECT {COLUMNS} FROM events WHERE run = ? ORDER BY n DESC LIMIT {CHECKED_TAIL}"
    rows = [Row._make(r) for r in reversed(db.execute(query, (run,)).fetchall())]
    n, prev = archived_head(db, run)
    if len(rows) == CHECKED_TAIL:
        n, prev = rows[0].n - 1, rows[0].prev
    for at, row in enumerate(rows):
        if row.kind == SEGMENT and row.prev == GENESIS:
            rows, n, prev = rows[at:], row.n - 1, row.prev
    for row in rows:
        fault = row_fault(row, n, prev)
        if fault:
            raise broken_chain(run, fault, path)
        n, prev = row.n, row.hash
    return n, prev


def archived_head(db: sqlite3.Connection, run: str) -> tuple[int, str]:
    found = db.execute("SELECT last_n, last_hash FROM archived WHERE run = ? "
                       "ORDER BY first_n DESC LIMIT 1", (run,)).fetchone()
    return (0, GENESIS) if found is None else (found[0], found[1])


def broken_chain(run: str, fault: str, path: Path) -> JournalCorrupt:
    return JournalCorrupt(f"the journal of {chain_name(run)} is broken: {fault}", where=str(path),
                          hint=SEAL_HINT)


def run_row(values: Sequence[Any]) -> RunRow:
    return RunRow(*values)


RUN_COLUMNS = 'id, procedure, state, "by", started, ended, service'


def archives(db: sqlite3.Connection) -> list[ArchiveInfo]:
    """What the database knows of archives, in order of id."""
    spans: dict[int, list[Span]] = {}
    for run, first_n, last_n, last_hash, id in db.execute(
            "SELECT run, first_n, last_n, last_hash, archive FROM archived ORDER BY run, first_n"):
        spans.setdefault(id, []).append(Span(run, first_n, last_n, last_hash))
    found = db.execute("SELECT id, file, sha256, events, first_seq, last_seq FROM archives "
                       "ORDER BY id").fetchall()
    return [ArchiveInfo(id, file, sha256, events, first, last, tuple(spans.get(id, ())))
            for id, file, sha256, events, first, last in found]


def ledger(db: sqlite3.Connection, directory: Path) -> Ledger:
    """All that is stored beside the events, each archive's file checked against its digest."""
    anchors = [Anchor._make(r) for r in
               db.execute(f"SELECT {anchoring.COLUMNS} FROM anchors ORDER BY id").fetchall()]
    index = [IndexRow(run_row(r[:7]), r[7] if isinstance(r[7], int) else -1, r[8]) for r in
             db.execute(f"SELECT {RUN_COLUMNS}, n, sum FROM runs").fetchall()]
    known = [archive.checked(directory, info) for info in archives(db)]
    return Ledger(anchors, tail(db), index, known, file_faults(db))


def file_faults(db: sqlite3.Connection) -> list[str]:
    """What SQLite says of the file's pages and indexes, for files below CHECKED_FILE bytes."""
    pages, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    if pages * size > CHECKED_FILE:
        return []
    said = [text for (text,) in db.execute("PRAGMA integrity_check(3)").fetchall()]
    return [] if said == ["ok"] else [f"the journal's file is damaged: {'; '.join(said)}"]


def inspect(db: sqlite3.Connection, directory: Path) -> Findings:
    """Recompute everything while others may append: events recorded after the start do not count.

    Inside a transaction of the caller's, that transaction's view is examined.
    """
    if db.in_transaction:
        return _examine(db, directory, ledger(db, directory), NEWEST_SEQ)
    for _ in range(3):
        db.execute("BEGIN")
        try:
            stored = ledger(db, directory)
            last = db.execute("SELECT max(seq) FROM events").fetchone()[0]
        finally:
            db.execute("ROLLBACK")
        findings = _examine(db, directory, stored, NEWEST_SEQ if last is None else last)
        if not findings.breaks or len(archives(db)) == len(stored.archives):
            break  # otherwise events moved into an archive meanwhile: look again
    return findings


def _examine(db: sqlite3.Connection, directory: Path, stored: Ledger, until: int) -> Findings:
    rows = everything(db, directory, stored.archives, until=until)
    return examine(_readable(rows, stored.file_faults), stored)


def _readable(rows: Iterator[Row], file_faults: list[str]) -> Iterator[Row]:
    """Rows until the file cannot be read any further, which is then a fault of the file."""
    last = 0
    try:
        for row in rows:
            yield row
            last = row.seq
    except sqlite3.DatabaseError as error:
        if not faults.is_damage(error):
            raise
        file_faults.insert(0, f"the journal's file cannot be read after seq {last} ({error})")
