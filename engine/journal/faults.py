"""What SQLite reports, said as the journal's own errors."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import Conflict, JournalCorrupt, JournalError, JournalUnavailable

SEAL_HINT = "see what is broken with `opsdeck audit verify`; go on with `opsdeck audit seal --reason …`"
ASIDE_HINT = ("stop the engine if it runs, then `opsdeck audit seal --reason …` sets the file aside "
              "and starts a new journal that names it")

_UNAVAILABLE = {
    sqlite3.SQLITE_FULL: ("the disk is full: the journal cannot be written",
                          "free some space; nothing was half-written"),
    sqlite3.SQLITE_READONLY: ("the journal is read-only here",
                              "check the file's owner and whether the disk was remounted read-only"),
    sqlite3.SQLITE_IOERR: ("the disk refused to read or write the journal",
                           "look at the kernel's log for disk errors, and at the free space"),
    sqlite3.SQLITE_CANTOPEN: ("the journal's file cannot be opened",
                              "check that the home exists and who may read it"),
    sqlite3.SQLITE_PERM: ("this user may not use the journal's file", "check the file's owner"),
    sqlite3.SQLITE_AUTH: ("this user may not use the journal's file", "check the file's owner"),
    sqlite3.SQLITE_NOMEM: ("there is no memory left to use the journal", "free some memory"),
}


def utc(at: float) -> str:
    """A time in seconds since the epoch as people read it: `2026-11-24T03:14:07Z`."""
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def translate(error: sqlite3.Error, path: Path, busy_timeout_s: float) -> JournalError | Conflict:
    """The journal's error for SQLite's, by its primary result code (https://sqlite.org/rescode.html)."""
    where = str(path)
    extended: int | None = getattr(error, "sqlite_errorcode", None)
    code = None if extended is None else extended & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JournalUnavailable(
            f"another process has kept the journal locked for more than {busy_timeout_s:g} s",
            where=where, hint=f"find it with `fuser {path}`, then try again")
    if code in _UNAVAILABLE:
        message, hint = _UNAVAILABLE[code]
        return JournalUnavailable(message, where=where, hint=hint)
    if code == sqlite3.SQLITE_CONSTRAINT:
        if "events.attempt" in str(error):
            return Conflict("this attempt of the step has been started already, by this engine or "
                            "another", where=where, hint="read the run again before acting on it")
        return JournalCorrupt(f"the journal contradicts itself ({error})", where=where, hint=SEAL_HINT)
    if code is None:  # sqlite3's own, such as the use of a closed connection
        return JournalUnavailable(f"the journal cannot be used: {error}", where=where)
    return JournalCorrupt(f"the journal's file is damaged ({error})", where=where, hint=ASIDE_HINT)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite found the file itself damaged."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def translated(path: Path, busy_timeout_s: float) -> Iterator[None]:
    """Raise JournalUnavailable, JournalCorrupt or Conflict for each error of SQLite inside."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, path, busy_timeout_s) from error
