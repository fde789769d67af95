"""The journal's promises under kill -9, full and locked disks, and two engines at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.errors import Conflict, FenceLost, JournalError, JournalUnavailable
from engine.journal.events import NewEvent
from engine.journal.sqlite import SqliteJournal
from tests.journal import engine_process
from tests.journal.kit import event, fill, intent, open_at, row, tell, wait_for


class Process:
    """An `engine_process` that answers line by line."""

    def __init__(self, home: Path, engine_id: str, log: Path | None = None) -> None:
        self.log = log.open("ab") if log else None
        self.process = subprocess.Popen([sys.executable, engine_process.__file__, home, engine_id], text=True,
                                        stdin=subprocess.PIPE, stdout=self.log or subprocess.PIPE)

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        self.tell(line)
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            if pipe:
                pipe.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    home = tmp_path / "home"
    started: list[Process] = []

    def make(engine_id: str, log: Path | None = None) -> Process:
        started.append(Process(home, engine_id, log))
        return started[-1]

    yield make
    for process in started:
        process.kill()


# ---- kill -9


def test_no_acknowledged_event_is_lost_by_kills_at_random_moments(path: Path, tmp_path: Path,
                                                                  start: Callable[..., Process]) -> None:
    chance = random.Random(20261124)
    log = tmp_path / "acknowledged"
    log.touch()

    def lines() -> list[str]:
        return log.read_text().splitlines()

    for round in range(6):
        process = start(f"engine-{round}", log)
        process.tell("open")
        process.tell("loop")
        want = len(lines()) + chance.randint(2, 40)
        wait_for(lambda want=want: len(lines()) >= want, "acknowledged events")
        process.kill()
        # A reader comes first: what the kill has left half done must not be in its way.
        reader = SqliteJournal.open_readonly(path)
        assert reader.verify().breaks == []
        reader.close()
    acknowledged = [tuple(text.split()) for text in lines() if text != "ok"]
    journal = open_at(path)
    stored = {(e.run, str(e.n), e.hash) for e in journal.export()}
    assert journal.verify().breaks == []
    assert len(acknowledged) == len(set(acknowledged)) > 12
    assert set(acknowledged) <= stored
    assert len(stored) - len(acknowledged) <= 6  # the one each kill may have caught before its line
    journal.close()


def test_run_ids_are_never_given_twice_over_kills(path: Path, tmp_path: Path,
                                                  start: Callable[..., Process]) -> None:
    log = tmp_path / "acknowledged"
    for round in range(3):
        process = start(f"engine-{round}", log)
        process.tell("open")
        process.tell("loop")
        wait_for(lambda want=(round + 1) * 15: len(log.read_text().splitlines()) >= want, "events")
        process.kill()
    created = [text.split()[0] for text in log.read_text().splitlines() if text.split()[1:2] == ["1"]]
    assert len(created) == len(set(created)) >= 3


@pytest.mark.parametrize("first", ["reader", "writer"])
def test_a_commit_killed_half_way_in_the_file_is_rolled_back(path: Path, start: Callable[..., Process],
                                                             first: str) -> None:
    process = start("engine-a")
    assert process.ask("open") == "ok"
    process.ask("note 1")
    assert process.ask("hot") == "ok in the middle"
    process.kill()
    assert path.with_name("journal.db-journal").read_bytes()[:4] == b"\xd9\xd5\x05\xf9"  # a hot journal
    journal = SqliteJournal.open_readonly(path) if first == "reader" else open_at(path)
    assert [e.run for e in journal.export()] == ["1"]
    assert journal.verify().breaks == []
    journal.close()


# ---- a full disk


def test_a_full_disk_refuses_says_so_and_harms_nothing(small_disk: Path) -> None:
    journal = open_at(small_disk / "journal.db")
    tell(journal)
    filler = fill(small_disk)
    for _ in range(3):
        with pytest.raises(JournalUnavailable, match="disk is full"):
            journal.append([intent("1", "next"), event("1", text="x" * 9000)], row=row("1"))
    assert len(list(journal.export())) == 25
    assert journal.run("1") == row("1", "done", ended=1005.5)
    assert journal.verify().breaks == []
    filler.unlink()
    journal.append([intent("1", "next"), event("1", text="x" * 9000)])
    assert journal.verify().breaks == []
    journal.close()


def test_a_disk_that_fills_up_keeps_every_event_that_was_acknowledged(small_disk: Path) -> None:
    journal = open_at(small_disk / "journal.db")
    acknowledged = []
    with pytest.raises(JournalUnavailable, match="disk is full"):
        while True:
            acknowledged += journal.append([event("1", text="x" * 2000), event("2", "run.note")])
    assert len(acknowledged) > 20
    assert list(journal.export()) == acknowledged
    assert journal.verify().breaks == []
    journal.close()
    again = SqliteJournal.open_readonly(small_disk / "journal.db")
    assert list(again.export()) == acknowledged
    again.close()


def test_a_journal_cannot_be_made_on_a_full_disk_and_leaves_nothing(small_disk: Path) -> None:
    filler = fill(small_disk)
    with pytest.raises(JournalUnavailable):
        open_at(small_disk / "journal.db")
    filler.unlink()
    assert not (small_disk / "journal.db").exists()
    open_at(small_disk / "journal.db").close()


def test_a_read_only_disk_can_be_verified_but_not_opened_for_writing(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    journal = open_at(path)
    tell(journal)
    journal.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(JournalUnavailable, match=r"read-only|cannot be opened"):
        open_at(path)
    reader = SqliteJournal.open_readonly(path)
    assert reader.verify().events == 25
    reader.close()


# ---- a locked database

LOCK = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def locked(path: Path, journal: SqliteJournal) -> Iterator[Callable[[], None]]:
    """The database, locked by another process until the function is called."""
    tell(journal)
    process = subprocess.Popen([sys.executable, "-c", LOCK, path], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout and process.stdout.readline() == "locked\n"

    def release() -> None:
        process.kill()
        process.wait()

    yield release
    release()
    process.stdin.close()
    process.stdout.close()


def test_a_lock_shorter_than_the_timeout_is_waited_out(journal: SqliteJournal,
                                                       locked: Callable[[], None]) -> None:
    """The ratio of the promise: locked for 10 s, with 15 s of patience; here 1.2 s of 2."""
    began = time.monotonic()
    timer = threading.Timer(1.2, locked)
    timer.start()
    journal.append([intent("1", "next")])
    assert time.monotonic() - began > 1.0
    timer.join()
    assert journal.verify().breaks == []


def test_a_lock_longer_than_the_timeout_is_refused_and_forgotten(path: Path, journal: SqliteJournal,
                                                                 locked: Callable[[], None]) -> None:
    journal.close()
    with pytest.raises(JournalUnavailable, match=r"locked for more than 0\.2 s"):
        open_at(path, busy_timeout_s=0.2)
    with pytest.raises(JournalUnavailable, match=r"locked for more than 0\.2 s"):
        SqliteJournal.open_readonly(path, busy_timeout_s=0.2)
    locked()
    again = open_at(path)
    again.append([intent("1", "next")])
    assert again.verify().breaks == []
    again.close()


def test_a_writer_that_meets_a_lock_goes_on_after_it(path: Path, journal: SqliteJournal) -> None:
    short = open_at(path, busy_timeout_s=0.2, engine_id="engine-b")
    process = subprocess.Popen([sys.executable, "-c", LOCK, path], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout and process.stdout.readline() == "locked\n"
    with pytest.raises(JournalUnavailable, match="locked"):
        short.append([intent("1", "next")])
    process.communicate("\n")
    short.append([intent("1", "next")])
    assert [e.n for e in short.read("1")] == [1]
    short.close()


# ---- two engines


def test_a_second_engine_is_refused_by_the_homes_lock(start: Callable[..., Process]) -> None:
    first, second = start("engine-a"), start("engine-b")
    assert first.ask("open") == "ok"
    refused = second.ask("open")
    assert refused.startswith("HomeBusy another engine holds this home: engine-a, pid ")
    assert f"pid {first.process.pid}" in refused


def test_the_lock_is_free_as_soon_as_its_holder_is_killed(start: Callable[..., Process]) -> None:
    first, second = start("engine-a"), start("engine-b")
    assert first.ask("open") == "ok"
    first.kill()
    assert second.ask("open") == "ok"


def test_a_frozen_engine_that_wakes_up_after_its_lock_was_removed_cannot_write(
        path: Path, start: Callable[..., Process]) -> None:
    old, new = start("engine-a"), start("engine-b")
    assert old.ask("open") == "ok"
    assert old.ask("note 1").startswith("ok 1 1 ")
    os.kill(old.process.pid, signal.SIGSTOP)
    (path.parent / "engine.lock").unlink()
    assert new.ask("open") == "ok"
    assert new.ask("intent 1 drain").startswith("ok 1 2 ")
    os.kill(old.process.pid, signal.SIGCONT)
    assert old.ask("intent 1 drain") == "FenceLost engine engine-b has taken over this journal"
    assert old.ask("note 1").startswith("FenceLost")
    assert new.ask("note 1").startswith("ok 1 3 ")
    reader = SqliteJournal.open_readonly(path)
    assert reader.verify().breaks == []
    assert [e.kind for e in reader.read("1")] == ["run.note", "step.intent", "run.note"]
    reader.close()


def test_an_older_engine_loses_the_fence_for_every_kind_of_write(path: Path) -> None:
    old = open_at(path)
    tell(old)
    new = open_at(path, engine_id="engine-b")
    writes: list[Callable[[], object]] = [
        lambda: old.append([event()]), old.new_run_id, lambda: old.append([], row=row("1")),
        lambda: old.rotate(older_than_s=0.0, now=9e9), old.anchor,
        lambda: old.seal(NewEvent("engine", "", 1.0, engine_process.ME))]
    for write in writes:
        with pytest.raises(FenceLost, match="engine-b"):
            write()
    assert len(old.read("1")) == 8
    old.close()
    new.append([event()])
    assert new.verify().breaks == []
    new.close()


def test_of_many_threads_that_start_one_attempt_exactly_one_may(journal: SqliteJournal) -> None:
    outcomes: list[str] = []
    gate = threading.Barrier(6)

    def begin() -> None:
        gate.wait()
        try:
            journal.append([intent("1", "drain")])
            outcomes.append("mine")
        except Conflict:
            outcomes.append("not mine")

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["mine", *["not mine"] * 5]
    assert journal.verify().events == 1


def test_reading_goes_on_while_a_write_waits(path: Path, journal: SqliteJournal) -> None:
    tell(journal)
    with journal.transaction():
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(len(journal.read("1"))))
        thread.start()
        thread.join(5)
    assert found == [8]


def test_an_error_in_the_middle_of_a_transaction_leaves_nothing(journal: SqliteJournal) -> None:
    tell(journal)
    with pytest.raises(JournalError), journal.transaction() as db:
        journal.add(db, event("1"))
        raise JournalError("stop here")
    journal.append([event("1")])
    assert [e.n for e in journal.read("1")] == list(range(1, 10))
    assert journal.verify().breaks == []
