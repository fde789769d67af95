"""What the journal's tests share: events, a small story of runs, and ways to damage a file."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest

from engine.journal.events import ENGINE, Actor, NewEvent
from engine.journal.journal import RunRow
from engine.journal.sqlite import SqliteJournal

T = TypeVar("T")
ALICE = Actor(user="alice", uid=1000, origin="socket pid 4711")
TRIGGERS = ("events_never_change", "events_leave_for_the_archive", "anchors_never_change", "anchors_stay")


def event(run: str = ENGINE, kind: str = "engine.note", at: float = 1000.5, *, step: str | None = None,
          attempt: int | None = None, **data: Any) -> NewEvent:
    return NewEvent(run=run, kind=kind, at=at, actor=ALICE, step=step, attempt=attempt, data=data)


def intent(run: str, step: str, attempt: int = 1) -> NewEvent:
    return event(run, "step.intent", step=step, attempt=attempt, command=["true"])


def row(run: str, state: str = "running", started: float = 1000.5, ended: float | None = None) -> RunRow:
    return RunRow(run, "drain", state, "alice", started, ended, "flights")


def open_at(path: Path, **options: Any) -> SqliteJournal:
    options = {"engine_id": "engine-a", "clock": lambda: 2000.25, "busy_timeout_s": 2.0, **options}
    return SqliteJournal.open(path, **options)


def tell(journal: SqliteJournal, runs: int = 3, steps: int = 3, *, at: float = 1000.5) -> None:
    """Runs "1" to `runs`, interleaved, all done: 2 + 2 * steps events each, and one of the engine's."""
    journal.append([event(at=at)])
    ids = [journal.new_run_id() for _ in range(runs)]
    for run in ids:
        journal.append([event(run, "run.created", at, ratio=0.1, note="größer")], row=row(run, started=at))
    for number in range(steps):
        for run in ids:
            journal.append([event(run, "step.intent", at, step=f"s{number}", attempt=1)])
            journal.append([event(run, "step.outcome", at, step=f"s{number}", attempt=1, stdout="ok\n")])
    for run in ids:
        journal.append([event(run, "run.finished", at, state="done")],
                       row=row(run, "done", started=at, ended=at + 5))


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of somebody who changes what must not change."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for name in TRIGGERS:
            db.execute(f"DROP TRIGGER IF EXISTS {name}")
        yield db
    finally:
        db.close()


def tamper(path: Path, *statements: str) -> None:
    with tampering(path) as db:
        for statement in statements:
            db.execute(statement)


@contextmanager
def tmpfs(at: Path, size: str = "1m") -> Iterator[Path]:
    """A small real filesystem; skips where this user may not mount one."""
    at.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "opsdeck-test", at],
                          capture_output=True, text=True)
    if os.getuid() or done.returncode:
        pytest.skip(f"needs root and mount(8) for a small tmpfs: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", at], check=True)


def fill(directory: Path) -> Path:
    """Fill the filesystem to the last byte; returns the file that does it."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return path


def wait_for(condition: Any, what: str, deadline_s: float = 10.0) -> Any:
    """The first true value of `condition()`; fails when there is none in time."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what}: not within {deadline_s:g} s")


FILES = frozenset({"fsync", "write", "replace", "rename", "link", "unlink", "open", "mkdir"})
BOUNDARIES = FILES | {"execute", "executemany", "close"}


def killed_at(number: int, prepare: Callable[[], T], act: Callable[[T], object],
              boundaries: frozenset[str] = BOUNDARIES) -> bool:
    """Do `act(prepare())` in a child that is killed with SIGKILL before `act`'s call number `number`
    to one of `boundaries`; True if it came through because there are fewer."""
    child = os.fork()
    if not child:
        status = 3
        try:
            prepared = prepare()
            sys.setprofile(_die_at(number, boundaries))
            act(prepared)
            sys.setprofile(None)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the act itself failed"
    return not os.WIFSIGNALED(status)


def _die_at(number: int, boundaries: frozenset[str]) -> Callable[[FrameType, str, Any], None]:
    left = number

    def hook(_: FrameType, what: str, function: Any) -> None:
        nonlocal left
        if what == "c_call" and getattr(function, "__name__", "") in boundaries:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook
