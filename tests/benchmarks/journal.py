"""What recording a step costs on this disk, and how fast a journal verifies."""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.journal import schema
from engine.journal.events import SYSTEM, NewEvent
from engine.journal.journal import RunRow
from engine.journal.sqlite import SqliteJournal
from tests.benchmarks.figure import Figure

STEPS = 300
EVENTS = 10_000


def figures() -> list[Figure]:
    """Medians; the journal lies in the temporary directory, whose disk is what is measured."""
    mode = schema.journal_mode()
    version = sqlite3.sqlite_version
    target = 1.3 if mode == "wal" else 3.6
    found = [
        Figure(f"a step's two commits, {mode.upper()}+FULL", _step_ms(mode), "ms", target, "lower",
               f"SQLite {version}, the mode in use"),
        Figure("a step's two commits, DELETE+FULL", _step_ms("delete"), "ms", 3.6, "lower",
               "for comparison; not durable over a power cut"),
    ]
    if mode != "wal":
        found.append(Figure("a step's two commits, WAL+FULL", _step_ms("wal"), "ms", 1.3, "lower",
                            f"for comparison; not used, as SQLite {version} has the WAL-reset race"))
    return [*found, *_verify_figures()]


@contextmanager
def _journal(mode: str | None = None) -> Iterator[SqliteJournal]:
    chosen = schema.journal_mode
    with tempfile.TemporaryDirectory() as directory:
        if mode:
            schema.journal_mode = lambda: mode
        try:
            journal = SqliteJournal.open(Path(directory) / "journal.db", engine_id="benchmark")
        finally:
            schema.journal_mode = chosen
        yield journal
        journal.close()


def _step_ms(mode: str) -> float:
    row = RunRow("1", "drain", "running", "alice", 0.0, None, "flights")
    took = []
    with _journal(mode) as journal:
        for number in range(STEPS):
            step, began = f"step-{number}", time.perf_counter()
            journal.append([NewEvent("1", "step.intent", time.time(), SYSTEM, step, 1,
                                     {"command": ["trafficctl", "set", "flights", "champion=100"]})])
            journal.append([NewEvent("1", "step.outcome", time.time(), SYSTEM, step, 1,
                                     {"state": "done", "exit_code": 0, "stdout": "champion=100\n" * 8})],
                           row=row)
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000


def _verify_figures() -> list[Figure]:
    with _journal() as journal:
        for run in range(EVENTS // 100):
            journal.append([NewEvent(str(run), "step.outcome", time.time(), SYSTEM, f"s{n}", 1,
                                     {"state": "done", "stdout": "a line of output\n" * 16})
                            for n in range(100)],
                           row=RunRow(str(run), "drain", "done", "alice", 0.0, 1.0, "flights"))
        database = _verify_s(journal)
        journal.rotate(older_than_s=0.0, now=time.time() + 1)
        return [Figure("audit verify, 10,000 events", database, "s", 0.5, "lower", "in the database"),
                Figure("audit verify, 10,000 archived events", _verify_s(journal), "s", 0.5, "lower",
                       "in a compressed archive")]


def _verify_s(journal: SqliteJournal) -> float:
    began = time.perf_counter()
    assert journal.verify().breaks == []
    return time.perf_counter() - began
