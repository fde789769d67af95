"""The journal in one SQLite file: append-only, hash-chained, durable, guarded by a fencing token."""

from __future__ import annotations

import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from engine.errors import Conflict, FenceLost, JournalCorrupt, JournalError, JournalUnavailable
from engine.journal import anchors as anchoring
from engine.journal import archive, reading, schema
from engine.journal.anchors import Anchor, Tail
from engine.journal.events import Event, NewEvent, canonical, digest
from engine.journal.faults import ASIDE_HINT, SEAL_HINT, translated
from engine.journal.journal import RunRow, Verdict
from engine.journal.ledger import index_sum
from engine.journal.rows import INTENT, RESERVED, to_event
from engine.journal.verify import Findings

BUSY_TIMEOUT_S = 15.0

_INSERT = ("INSERT INTO events (run, n, at, kind, user, uid, origin, step, attempt, data, prev, hash) "
           "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
_INDEX = ('INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET '
          'procedure = excluded.procedure, state = excluded.state, "by" = excluded."by", '
          'started = excluded.started, ended = excluded.ended, service = excluded.service, '
          'n = excluded.n, sum = excluded.sum')


class SqliteJournal:
    """Satisfies `engine.journal.journal.Journal`. Made by `open` or `open_readonly`.

    Methods may be called from any thread; one thread at a time writes. Reading has a connection of
    its own, so that it goes on while a write waits for a lock.
    """

    def __init__(self, path: Path, *, busy_timeout_s: float, engine_id: str,
                 clock: Callable[[], float], anchor_every: int, writable: bool) -> None:
        self.path = path
        self.archive_directory = path.parent / archive.DIRECTORY
        self.engine_id = engine_id
        self.clock = clock
        self._busy = busy_timeout_s
        self._anchor_every = anchor_every
        self._writable = writable
        self._fence = 0
        self._heads: dict[str, tuple[int, str]] = {}
        self._blocked: dict[str, str] = {}
        self._version = -1
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._closed = False

    @classmethod
    def open(cls, path: Path, *, engine_id: str, busy_timeout_s: float = BUSY_TIMEOUT_S,
             clock: Callable[[], float] = time.time,
             anchor_every: int = anchoring.EVERY) -> SqliteJournal:
        """Open for writing, creating the file where there is none, and take the fencing token:
        whoever opened it before gets FenceLost from now on. Take the home's lock (`lease.take`) first.

        Raises JournalUnavailable (locked, full, read-only, a network filesystem, a newer schema) or
        JournalCorrupt (not a journal, or a damaged file).
        """
        journal = cls(path, busy_timeout_s=busy_timeout_s, engine_id=engine_id, clock=clock,
                      anchor_every=anchor_every, writable=True)
        try:
            journal._take_over()
        except BaseException:
            journal._disconnect()
            raise
        return journal

    @classmethod
    def open_readonly(cls, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S,
                      clock: Callable[[], float] = time.time) -> SqliteJournal:
        """Open beside a running engine, or without one: reading, verifying and exporting work, and
        every method that writes raises JournalUnavailable. Raises NotFound where no journal is."""
        journal = cls(path, busy_timeout_s=busy_timeout_s, engine_id="reader", clock=clock,
                      anchor_every=anchoring.EVERY, writable=False)
        with journal._read() as db:
            schema.check_version(db, path)
        return journal

    # ---- writing

    def append(self, events: Sequence[NewEvent], *, row: RunRow | None = None) -> list[Event]:
        """See `Journal.append`. Kinds that the journal itself writes (RESERVED) are refused."""
        for event in events:
            if event.kind in RESERVED:
                raise JournalError(f"only the journal itself writes {event.kind} events")
            if event.kind == INTENT and (event.step is None or event.attempt is None):
                raise JournalError("an intent names its step and attempt", where=f"run {event.run}")
        with self.transaction() as db:
            recorded = [self.add(db, event) for event in events]
            if row is not None:
                n, hash = self._head(db, row.id)
                db.execute(_INDEX, (*msgspec.structs.astuple(row), n, index_sum(row, n, hash)))
            if recorded:
                self.note(db, recorded)
        return recorded

    def new_run_id(self) -> str:
        with self.transaction() as db:
            found = db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 "
                               "WHERE key = 'runs' RETURNING value").fetchall()
            if not found:
                raise JournalCorrupt("the counter of runs is gone", where=str(self.path),
                                     hint=ASIDE_HINT)
        return str(found[0][0])

    def seal(self, event: NewEvent) -> Event:
        """See `Journal.seal` and `sealing.seal`. `event` gives who, when, and `data["reason"]`."""
        from engine.journal import sealing
        return sealing.seal(self, event)

    def rotate(self, *, older_than_s: float, now: float, at_least: int = 1000) -> int:
        """Move finished runs and engine events older than that into an archive, once `at_least` events
        are due (many small files make reading slow); see `rotation`.

        Returns how many events moved. Raises what `append` raises.
        """
        from engine.journal import rotation
        return rotation.rotate(self, older_than_s=older_than_s, now=now, at_least=at_least)

    def anchor(self) -> None:
        """Anchor what no anchor covers yet; nothing to do is fine."""
        with self.transaction() as db:
            tail = self._tail(db)
            if tail.count:
                self.close_tail(db, tail)

    # ---- reading

    def read(self, run: str, after: int = 0) -> list[Event]:
        with self._read() as db:
            return [to_event(row) for row in
                    reading.chain(db, self.archive_directory, run, after)]

    def tail(self, limit: int, before_seq: int | None = None, run: str | None = None) -> list[Event]:
        with self._read() as db:
            return [to_event(row) for row in
                    reading.newest(db, self.archive_directory, limit, before_seq, run)]

    def runs(self, states: Sequence[str] | None = None, limit: int = 200) -> list[RunRow]:
        chosen = "" if states is None else f"WHERE state IN ({','.join('?' * len(states))}) "
        with self._read() as db:
            found = db.execute(f"SELECT {reading.RUN_COLUMNS} FROM runs {chosen}"
                               "ORDER BY started DESC, rowid DESC LIMIT ?",
                               (*(states or ()), limit)).fetchall()
        return [reading.run_row(r) for r in found]

    def run(self, id: str) -> RunRow | None:
        with self._read() as db:
            found = db.execute(f"SELECT {reading.RUN_COLUMNS} FROM runs WHERE id = ?", (id,)).fetchone()
        return None if found is None else reading.run_row(found)

    def export(self, run: str | None = None) -> Iterator[Event]:
        """Every event (or one run's), oldest first, archives included, in pieces: broken chains too."""
        if run is not None:
            yield from self.read(run)
            return
        after = 0
        while True:
            with self._read() as db:
                rows = reading.everything(db, self.archive_directory, reading.archives(db), after)
                piece = [to_event(row) for row, _ in zip(rows, range(reading.BATCH), strict=False)]
            yield from piece
            if len(piece) < reading.BATCH:
                return
            after = piece[-1].seq

    def verify(self) -> Verdict:
        return self.findings().verdict()

    def findings(self) -> Findings:
        """What `verify` found, with the evidence. Chains found broken refuse appends until sealed."""
        with self._read() as db:
            found = reading.inspect(db, self.archive_directory)
        self._blocked = {b.run: b.text for b in found.breaks
                         if b.run in found.blocked and b.kind == "chain" and b.run is not None}
        return found

    def newest_anchor(self) -> Anchor | None:
        with self._read() as db:
            found = db.execute(f"SELECT {anchoring.COLUMNS} FROM anchors "
                               "ORDER BY id DESC LIMIT 1").fetchone()
        return None if found is None else Anchor._make(found)

    def close(self) -> None:
        """Anchor what is left and close. Idempotent; a journal that cannot be written is just closed."""
        if not self._closed and self._writable and self._writer is not None:
            # Without it nothing is lost: the tail covers the newest events, whoever opens next goes on.
            with suppress(JournalError, sqlite3.Error):
                self._writer.execute("PRAGMA busy_timeout = 500")
                self.anchor()
        self._closed = True
        self._disconnect()

    # ---- inside a transaction; for sealing and rotation too

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction of the engine that holds the fence: all of it, or nothing."""
        with self._writing, translated(self.path, self._busy):
            db = self._connection()
            try:
                db.execute("BEGIN IMMEDIATE")
                version = db.execute("PRAGMA data_version").fetchone()[0]
                if version != self._version:  # another process wrote: believe nothing remembered
                    self._heads.clear()
                    self._version = version
                self._check_fence(db)
                yield db
                db.execute("COMMIT")
            except BaseException:
                self._heads.clear()
                self._undo(db)
                raise

    def add(self, db: sqlite3.Connection, event: NewEvent, *,
            after: tuple[int, str] | None = None) -> Event:
        """Insert one event behind its chain's head, or behind `after` where a new segment starts."""
        n, prev = self._head(db, event.run) if after is None else after
        actor, at = event.actor, float(event.at)
        if event.kind == INTENT and reading.archived_head(db, event.run)[0]:
            raise Conflict(f"run {event.run} is finished and archived", hint="start a new run")
        try:
            if not math.isfinite(at):
                raise ValueError("its time is not a number")
            data = canonical(event.data)
            hash = digest(run=event.run, n=n + 1, at=at, kind=event.kind, actor=actor, step=event.step,
                          attempt=event.attempt, data=msgspec.Raw(data), prev=prev)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise JournalError(f"the event {event.kind} cannot be recorded: {error}",
                               where=f"run {event.run}") from error
        seq = db.execute(_INSERT, (event.run, n + 1, at, event.kind, actor.user, actor.uid,
                                   actor.origin, event.step, event.attempt, data.decode(), prev,
                                   hash)).lastrowid
        self._heads[event.run] = (n + 1, hash)
        return Event(seq=seq or 0, run=event.run, n=n + 1, at=at, kind=event.kind, actor=actor,
                     step=event.step, attempt=event.attempt, data=msgspec.json.decode(data),
                     prev=prev, hash=hash)

    def note(self, db: sqlite3.Connection, recorded: Sequence[Event]) -> None:
        """Fold recorded events into the tail, and anchor it when it is long enough."""
        tail = self._tail(db)
        for event in recorded:
            tail = tail.add(event.seq, event.hash)
        if tail.count >= self._anchor_every:
            self.close_tail(db, tail)
        else:
            self.set_tail(db, tail)

    def close_tail(self, db: sqlite3.Connection, tail: Tail) -> None:
        """Write the anchor over `tail`, and an empty tail behind it."""
        heads = db.execute("SELECT run, max(n), hash FROM events WHERE seq >= ? GROUP BY run",
                           (tail.first,)).fetchall()
        before = db.execute("SELECT hash FROM anchors ORDER BY id DESC LIMIT 1").fetchone()
        made = anchoring.make(tail, before[0] if before else anchoring.EMPTY.digest, heads,
                              self.clock())
        db.execute("INSERT INTO anchors VALUES (?, ?, ?, ?, ?, ?, ?, ?)", made)
        self.set_tail(db, anchoring.after(made))

    def set_tail(self, db: sqlite3.Connection, tail: Tail) -> None:
        db.execute("INSERT INTO meta VALUES ('tail', ?) ON CONFLICT (key) "
                   "DO UPDATE SET value = excluded.value", (canonical(tail).decode(),))

    def unblock(self) -> None:
        """Forget which chains verification found broken: a seal has looked at all of them."""
        self._blocked.clear()
        self._heads.clear()

    # ---- the parts

    def _head(self, db: sqlite3.Connection, run: str) -> tuple[int, str]:
        if run in self._blocked:
            raise reading.broken_chain(run, self._blocked[run], self.path)
        head = self._heads.get(run)
        if head is None:
            if len(self._heads) > 4096:
                self._heads.clear()
            head = self._heads[run] = reading.head(db, run, self.path)
        return head

    def _tail(self, db: sqlite3.Connection) -> Tail:
        tail = reading.tail(db)
        if tail is None:
            raise JournalCorrupt("the journal's record of its newest events is gone",
                                 where=str(self.path), hint=SEAL_HINT)
        return tail

    def _check_fence(self, db: sqlite3.Connection) -> None:
        found = dict(db.execute("SELECT key, value FROM meta WHERE key IN ('fence', 'engine')"))
        if found.get("fence") != str(self._fence):
            raise FenceLost(f"engine {found.get('engine') or 'unknown'} has taken over this journal",
                            where=str(self.path),
                            hint="this engine stops writing; use the newer one")

    def _take_over(self) -> None:
        with self._writing, translated(self.path, self._busy):
            if not self.path.exists():
                schema.create(self.path, self.engine_id, self.clock(), self._busy)
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            try:
                version = schema.check_version(db, self.path)
                schema.upgrade(db, version, self.engine_id, self.clock())
                found = db.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 "
                                   "WHERE key = 'fence' RETURNING value").fetchall()
                db.execute("UPDATE meta SET value = ? WHERE key = 'engine'", (self.engine_id,))
                if not found:
                    raise JournalCorrupt("the journal's fencing token is gone", where=str(self.path),
                                         hint=ASIDE_HINT)
                self._fence = int(found[0][0])
                db.execute("COMMIT")
            except BaseException:
                self._undo(db)
                raise

    def _connection(self) -> sqlite3.Connection:
        if self._closed:
            raise JournalUnavailable("the journal is closed", where=str(self.path))
        if not self._writable:
            raise JournalUnavailable("this journal is open for reading only", where=str(self.path),
                                     hint="ask the engine to write")
        if self._writer is None:
            self._writer = schema.connect_writer(self.path, self._busy)
            self._version = -1
        return self._writer

    def _undo(self, db: sqlite3.Connection) -> None:
        """Roll back; a connection that cannot even do that is dropped, and the next call opens anew."""
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._writer = None
            db.close()

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._reading, translated(self.path, self._busy):
            if self._closed:
                raise JournalUnavailable("the journal is closed", where=str(self.path))
            if self._reader is None:
                self._reader = schema.connect_reader(self.path, self._busy)
            yield self._reader

    def _disconnect(self) -> None:
        for db in (self._writer, self._reader):
            if db is not None:
                db.close()
        self._writer = self._reader = None
