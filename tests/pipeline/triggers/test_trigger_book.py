"""What is known of triggers is what was recorded, also after a snapshot, and when old events are archived."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from engine.errors import JournalUnavailable
from engine.journal.sqlite import SqliteJournal
from engine.pipeline.triggers import deciding
from engine.pipeline.triggers.beginning import of_model
from engine.pipeline.triggers.book import SNAPSHOT_EVERY, Book
from engine.pipeline.triggers.deciding import Cause, Fact
from engine.pipeline.triggers.state import MOST_NONCES, Asked, State, apply
from engine.procedures.recorder import Recorder


async def heard(book: Book, n: int) -> None:
    cause = Cause(f"c{n}", "commit", "flights", f"w{n}", float(n), f"commit {n}")
    asked = Fact("asked", {"asked": msgspec.to_builtins(Asked(cause.id, "commit", "flights", float(n), "it")),
                           "mark": ["flights/commits x", f"{n:040}"], "nonce": [f"air:{n}", float(n)]})
    await book.note(lambda state: [asked])
    await book.note(lambda state: [of_model("late", f) for f in deciding.hear(state.model("late"), cause)])


async def test_the_state_is_read_back_from_the_last_snapshot_and_what_came_after(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path / "journal.db", engine_id="a", clock=time.time)
    recorder = Recorder(journal)
    try:
        book = Book(recorder, time.time)
        await book.open()
        for n in range(SNAPSHOT_EVERY):
            await heard(book, n)
        assert [e.kind for e in journal.read("triggers")].count("trigger.state") >= 2
        assert not book.state.asked
        again = Book(recorder, time.time)
        await again.open()
        assert again.state == book.state
        assert journal.rotate(older_than_s=0.0, now=time.time() + 10, at_least=1) > 0
        await heard(book, 10_000)
        later = Book(recorder, time.time)
        await later.open()
        assert later.state == book.state
        assert journal.verify().breaks == []
    finally:
        recorder.close()


async def test_what_cannot_be_recorded_has_not_happened(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = SqliteJournal.open(tmp_path / "journal.db", engine_id="a", clock=time.time)
    recorder = Recorder(journal)
    try:
        book = Book(recorder, time.time)
        await heard(book, 1)
        before = book.state

        def full(events, *, row=None):
            raise JournalUnavailable("the disk is full")

        monkeypatch.setattr(journal, "append", full)
        with pytest.raises(JournalUnavailable):
            await heard(book, 2)
        assert book.state == before
    finally:
        recorder.close()


def test_nonces_are_kept_up_to_a_limit_and_an_unknown_event_changes_nothing() -> None:
    state = State()
    for n in range(MOST_NONCES + 10):
        state = apply(state, Fact("seen", {"nonce": [f"air:{n}", float(n)]}))
    assert len(state.nonces) == MOST_NONCES
    assert "air:9" not in state.nonces
    assert apply(state, Fact("of a newer version", {"model": "late", "cause": msgspec.to_builtins(
        Cause("c", "hand", "flights", "w", 0.0, "by hand"))})).model("late") == deciding.Model()
