"""The file behind `history`: rows of points at three resolutions in SQLite.

    1 s    for 15 minutes
    10 s   for 6 hours
    60 s   for as long as the config's `engine.history` says (7 days)

A coarser row is joined from the finer ones each time one of these is written, so that it is right
even after a restart in its middle. Rows hold merged bucket counts at every resolution.

Everything here blocks and belongs to one thread. The history is worth keeping but can be lost:
the file is apart from the journal's, and a commit does not wait for the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from engine.monitoring.points import Bounds, Point, after, packed, unpacked

VERSION = 1
FINE_S, MIDDLE_S, COARSE_S = 1, 10, 60
KEEP_FINE_S, KEEP_MIDDLE_S = 900.0, 6 * 3600.0
BUSY_S = 2.0  # how long a write waits for whoever looks at the file by hand
AHEAD_S = 3600.0  # rows further in the future were written under a wrong clock

SCHEMA = """
CREATE TABLE IF NOT EXISTS points (step INTEGER, service TEXT, at INTEGER, body BLOB NOT NULL,
                                   PRIMARY KEY (step, service, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS services (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS bounds (id INTEGER PRIMARY KEY, uppers BLOB NOT NULL UNIQUE);
"""

Row = tuple[str, int, Mapping[str, Point]]  # service, second, the variants' points

_packed = msgspec.msgpack.Encoder()
_unpacked = msgspec.msgpack.Decoder(dict[str, list])  # type: ignore[type-arg]


class Broken(Exception):
    """The file is not a history that can be read: damaged, or another version's."""


class Store:
    """An open history file. Raises Broken, or sqlite3.Error and OSError for what may pass (locked,
    full, forbidden)."""

    def __init__(self, path: Path, keep_s: float) -> None:
        self._keep = {FINE_S: min(KEEP_FINE_S, keep_s), MIDDLE_S: min(KEEP_MIDDLE_S, keep_s),
                      COARSE_S: keep_s}
        path.touch(mode=0o600)
        self._db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None,
                                   check_same_thread=False)
        try:
            self._prepare()
            self._learn_bounds()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        mode = "WAL" if wal_is_safe(sqlite3.sqlite_version_info) else "DELETE"
        self._db.execute(f"PRAGMA journal_mode={mode}")
        self._db.execute("PRAGMA synchronous=NORMAL")
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in (0, VERSION):
            raise Broken(f"it is of version {found}, and this engine keeps version {VERSION}")
        verdict = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise Broken(f"SQLite finds it damaged: {verdict}")
        self._db.executescript(SCHEMA)
        self._db.execute(f"PRAGMA user_version={VERSION}")

    def write(self, rows: Sequence[Row], now: float) -> None:
        """Add rows of one second each, join the coarser ones they touch, let go of what is old."""
        with self._transaction():
            for service, at, points in rows:
                self._put(FINE_S, service, at, points)
            self._db.executemany("INSERT OR IGNORE INTO services VALUES (?)",
                                 {(service,) for service, _, _ in rows})
            for finer, coarser in ((FINE_S, MIDDLE_S), (MIDDLE_S, COARSE_S)):
                for service, at in sorted({(service, at - at % coarser)
                                           for service, at, _ in rows}):
                    self._join(finer, coarser, service, at)
            for (service,) in self._db.execute("SELECT name FROM services").fetchall():
                for step, keep_s in self._keep.items():
                    self._db.execute("DELETE FROM points WHERE step=? AND service=? AND at<?",
                                     (step, service, now - keep_s))
                    self._db.execute("DELETE FROM points WHERE step=? AND service=? AND at>?",
                                     (step, service, now + AHEAD_S))

    def read(self, step: int, service: str, start: float,
             end: float) -> list[tuple[float, dict[str, Point]]]:
        """Rows of a resolution that began in [start, end), oldest first."""
        found = self._db.execute(
            "SELECT at, body FROM points WHERE step=? AND service=? AND at>=? AND at<? ORDER BY at",
            (step, service, start, end))
        try:
            return [(at, {variant: unpacked(row, self._bounds)
                          for variant, row in _unpacked.decode(body).items()})
                    for at, body in found]
        except (msgspec.MsgspecError, LookupError, ValueError, TypeError) as error:
            raise Broken(f"a row of {service} cannot be read: {error}") from error

    def step_for(self, seconds: float) -> int:
        """The finest resolution that reaches that far back."""
        return next((step for step in (FINE_S, MIDDLE_S) if seconds <= self._keep[step]), COARSE_S)

    def close(self) -> None:
        self._db.close()

    def _join(self, finer: int, coarser: int, service: str, at: int) -> None:
        by_variant: dict[str, list[Point]] = {}
        for _, points in self.read(finer, service, at, at + coarser):
            for variant, one in points.items():
                by_variant.setdefault(variant, []).append(one)
        self._put(coarser, service, at,
                  {variant: after(points) for variant, points in by_variant.items()})

    def _put(self, step: int, service: str, at: int, points: Mapping[str, Point]) -> None:
        body = {variant: packed(one, self._number(one.bounds)) for variant, one in points.items()}
        self._db.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)",
                         (step, service, at, _packed.encode(body)))

    def _number(self, bounds: Bounds) -> int:
        if not bounds:
            return 0
        number = self._numbers.get(bounds)
        if number is None:
            number = len(self._numbers) + 1
            self._db.execute("INSERT INTO bounds VALUES (?, ?)", (number, _packed.encode(bounds)))
            self._remember(number, bounds)
        return number

    def _learn_bounds(self) -> None:
        self._bounds: dict[int, Bounds] = {}
        self._numbers: dict[Bounds, int] = {}
        for number, uppers in self._db.execute("SELECT id, uppers FROM bounds"):
            self._remember(number, tuple(msgspec.msgpack.decode(uppers, type=list[float])))

    def _remember(self, number: int, bounds: Bounds) -> None:
        self._bounds[number], self._numbers[bounds] = bounds, number

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._learn_bounds()
            raise


def wal_is_safe(version: tuple[int, ...]) -> bool:
    """Whether this SQLite is free of the WAL-reset race that can damage a database."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (
        (3, 44, 6) <= version < (3, 45))


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the error says that the file itself is bad, rather than locked, full or forbidden."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
