"""The journal's database: its tables, how they come to be, and how it is opened."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from engine.durable import sync_folder
from engine.errors import JournalCorrupt, JournalUnavailable, NotFound
from engine.journal import faults
from engine.journal.anchors import EMPTY
from engine.journal.events import canonical
from engine.journal.filesystems import refuse_network

APPLICATION = 0x4F504A4C  # "OPJL", in the file's header, so that no other database is taken for one
BESIDE = ("-journal", "-wal", "-shm")
SPARE_JOURNAL = 1 << 20   # bytes of rollback journal kept between commits

_VERSION_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE migrations (version INTEGER PRIMARY KEY, at REAL NOT NULL, engine TEXT NOT NULL);
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, n INTEGER NOT NULL, at REAL NOT NULL,
  kind TEXT NOT NULL, user TEXT NOT NULL, uid INTEGER NOT NULL, origin TEXT NOT NULL,
  step TEXT, attempt INTEGER, data TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL,
  UNIQUE (run, n));
CREATE UNIQUE INDEX one_intent ON events (run, step, attempt) WHERE kind = 'step.intent';
CREATE TABLE runs (
  id TEXT PRIMARY KEY, procedure TEXT NOT NULL, state TEXT NOT NULL, "by" TEXT NOT NULL,
  started REAL NOT NULL, ended REAL, service TEXT, n INTEGER NOT NULL, sum TEXT NOT NULL);
CREATE INDEX runs_started ON runs (started);
CREATE TABLE anchors (
  id INTEGER PRIMARY KEY, at REAL NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
  digest TEXT NOT NULL, heads TEXT NOT NULL, prev TEXT NOT NULL, hash TEXT NOT NULL);
CREATE TABLE archives (
  id INTEGER PRIMARY KEY, file TEXT NOT NULL, sha256 TEXT NOT NULL, events INTEGER NOT NULL,
  first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL);
CREATE TABLE archived (
  run TEXT NOT NULL, first_n INTEGER NOT NULL, last_n INTEGER NOT NULL, last_hash TEXT NOT NULL,
  archive INTEGER NOT NULL, PRIMARY KEY (run, first_n)) WITHOUT ROWID;
CREATE TRIGGER events_never_change BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_leave_for_the_archive BEFORE DELETE ON events
  WHEN NOT EXISTS (SELECT 1 FROM archived
                   WHERE run = OLD.run AND OLD.n BETWEEN first_n AND last_n)
  BEGIN SELECT RAISE(ABORT, 'events leave only for the archive'); END;
CREATE TRIGGER anchors_never_change BEFORE UPDATE ON anchors
  BEGIN SELECT RAISE(ABORT, 'anchors are never changed'); END;
CREATE TRIGGER anchors_stay BEFORE DELETE ON anchors
  BEGIN SELECT RAISE(ABORT, 'anchors are never removed'); END;
INSERT INTO meta VALUES ('fence', '0'), ('engine', ''), ('runs', '0');
"""
MIGRATIONS = {1: _VERSION_1}
NEWEST = max(MIGRATIONS)


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether SQLite `version` is free of the WAL-reset race (fixed in 3.51.3, 3.50.7 and 3.44.6)."""
    return (version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51)
            or (3, 44, 6) <= version < (3, 45))


def journal_mode() -> str:
    """WAL where it is safe; otherwise a rollback journal whose end is synced.

    PERSIST rather than DELETE: both commit through a rollback journal, but with synchronous=FULL a
    DELETE journal's directory is not synced after the unlink, so that a power cut can bring the
    journal back and roll an acknowledged commit back. PERSIST overwrites its header and syncs that
    (pager.c, zeroJournalHdr), and is a little faster too.
    """
    return "wal" if wal_is_safe(sqlite3.sqlite_version_info) else "persist"


def create(path: Path, engine_id: str, at: float, busy_timeout_s: float) -> None:
    """Make an empty journal where none is, whole or not at all.

    Thus a file without tables is always the remains of a journal, and never a new one.
    """
    refuse_network(path.parent)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        remove(unfinished)
        os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with faults.translated(path, busy_timeout_s):
            db = _connect(unfinished, "rw", busy_timeout_s)
            try:
                db.execute("PRAGMA synchronous=FULL")
                db.execute("BEGIN IMMEDIATE")
                db.execute(f"PRAGMA application_id={APPLICATION}")
                upgrade(db, 0, engine_id, at)
                db.execute("COMMIT")
            finally:
                db.close()
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(unfinished)
        remove(unfinished)
        sync_folder(path.parent)
    except OSError as error:
        raise JournalUnavailable(f"the journal's file cannot be made: {error.strerror}",
                                 where=str(path), hint="check the home's owner and space") from error


def remove(path: Path) -> None:
    """Remove a database that nobody has open, with what SQLite keeps beside it."""
    for suffix in ("", *BESIDE):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def connect_writer(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """The connection that writes to an existing journal, in the safe mode."""
    refuse_network(path.parent)
    db = _connect(path, "rw", busy_timeout_s)
    try:
        with faults.translated(path, busy_timeout_s):
            mode = db.execute(f"PRAGMA journal_mode={journal_mode()}").fetchone()[0]
            if mode != journal_mode():
                raise JournalUnavailable(
                    f"the journal stays in {mode} mode, because another process has it open",
                    where=str(path), hint=f"find it with `fuser {path}`, then try again")
            db.execute("PRAGMA synchronous=FULL")
            db.execute(f"PRAGMA journal_size_limit={SPARE_JOURNAL}")
    except BaseException:
        db.close()
        raise
    return db


def connect_reader(path: Path, busy_timeout_s: float) -> sqlite3.Connection:
    """A connection that only reads, beside a running engine or without one.

    After a crash in the middle of a commit, somebody has to roll that commit back before anything can
    be read. SQLite does so by itself, but not over a read-only handle: then, and only then, the file is
    opened for writing with queries alone allowed.
    """
    if not path.exists():
        raise NotFound(f"there is no journal at {path}",
                       hint="name the engine's home with --home or OPSDECK_HOME")
    db = _connect(path, "ro", busy_timeout_s)
    try:
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.OperationalError as error:
        db.close()
        code = (error.sqlite_errorcode or 0) & 0xFF
        if code not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN) or not os.access(path, os.W_OK):
            raise faults.translate(error, path, busy_timeout_s) from error
        db = _connect(path, "rw", busy_timeout_s)
    except sqlite3.Error as error:
        db.close()
        raise faults.translate(error, path, busy_timeout_s) from error
    db.execute("PRAGMA query_only=ON")
    return db


def _connect(path: Path, mode: str, busy_timeout_s: float) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True,
                             timeout=busy_timeout_s, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA trusted_schema=OFF")
        db.execute("PRAGMA cell_size_check=ON")
        db.execute("PRAGMA temp_store=MEMORY")
    except sqlite3.Error as error:
        raise faults.translate(error, path, busy_timeout_s) from error
    db.text_factory = _text
    return db


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def upgrade(db: sqlite3.Connection, version: int, engine_id: str, at: float) -> None:
    """Bring the schema from `version` to NEWEST, inside the caller's transaction."""
    for number in range(version + 1, NEWEST + 1):
        for statement in _statements(MIGRATIONS[number]):
            db.execute(statement)
        db.execute("INSERT INTO migrations VALUES (?, ?, ?)", (number, at, engine_id))
        db.execute(f"PRAGMA user_version={number}")
    if version == 0:
        db.execute("INSERT INTO meta VALUES ('tail', ?)", (canonical(EMPTY).decode(),))


def check_version(db: sqlite3.Connection, path: Path) -> int:
    """The file's schema version; raises when it is not a journal, or one that is too new."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = db.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION or not version:
        raise JournalCorrupt("this file is not a journal of Opsdeck", where=str(path),
                             hint=faults.ASIDE_HINT)
    if version > NEWEST:
        raise JournalUnavailable(
            f"a newer Opsdeck wrote this journal (schema {version}; this one knows {NEWEST})",
            where=str(path), hint="use that version of Opsdeck, or a newer one, on this home")
    return version


def _statements(script: str) -> list[str]:
    """Single statements: executescript would commit the caller's transaction."""
    found, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending) and pending.strip():
            found.append(pending.strip())
            pending = ""
    return found
