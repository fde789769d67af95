"""Appending and reading: what is recorded, in which order, and what is refused."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Conflict, JournalCorrupt, JournalError, JournalUnavailable, NotFound
from engine.journal import schema
from engine.journal.events import ENGINE, GENESIS, canonical, first_break
from engine.journal.journal import Journal
from engine.journal.sqlite import SqliteJournal
from tests.journal.kit import ALICE, event, intent, open_at, row, tamper, tell

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8)


def test_it_satisfies_the_port(journal: SqliteJournal) -> None:
    port: Journal = journal
    assert port.verify().breaks == []


def test_events_of_a_run_form_a_chain_from_genesis(journal: SqliteJournal) -> None:
    journal.append([event("1", "run.created"), event("2", "run.created")])
    journal.append([event("1", "run.finished")])
    first, second = journal.read("1")
    assert (first.n, first.prev, second.n, second.prev) == (1, GENESIS, 2, first.hash)
    assert first.actor == ALICE
    assert first_break([first, second]) is None


def test_append_returns_what_is_read_back(journal: SqliteJournal) -> None:
    recorded = journal.append([intent("1", "drain"), event(ENGINE, text="größer, 大", ratio=0.1)])
    assert recorded == [*journal.read("1"), *journal.read(ENGINE)]


def test_data_is_stored_as_its_canonical_bytes(journal: SqliteJournal, path: Path) -> None:
    data = {"b": 1e22, "a": [0.1, -0.0, 5e-324], "c": "é\u2028\x00"}
    journal.append([event("1", **data)])
    stored = sqlite3.connect(path).execute("SELECT data FROM events").fetchone()[0]
    assert stored.encode() == canonical(data)


@pytest.fixture(scope="module")
def one_journal(scratch: Path) -> Iterator[SqliteJournal]:
    journal = open_at(scratch / "any-json.db")
    yield journal
    assert journal.verify().breaks == []
    journal.close()


@given(data=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_json_comes_back_equal(one_journal: SqliteJournal, data: dict[str, object]) -> None:
    (recorded,) = one_journal.append([event("1", data=data)])
    newest = one_journal.tail(1)[0]
    assert newest == recorded
    assert newest.data == {"data": data}
    assert repr(newest.data) == repr({"data": msgspec.json.decode(canonical(data))})
    assert first_break([newest], newest.prev, newest.n - 1) is None


def test_an_append_records_all_or_none(journal: SqliteJournal) -> None:
    journal.append([intent("1", "drain")])
    with pytest.raises(Conflict):
        journal.append([event("1", "run.note"), intent("1", "drain")], row=row("1"))
    assert len(journal.read("1")) == 1
    assert journal.run("1") is None
    journal.append([event("1", "run.note")])
    assert journal.verify().breaks == []


def test_an_attempt_has_one_intent_and_another_attempt_its_own(journal: SqliteJournal) -> None:
    journal.append([intent("1", "drain"), intent("1", "drain", 2), intent("2", "drain")])
    with pytest.raises(Conflict, match="started already"):
        journal.append([intent("1", "drain", 2)])


def test_an_intent_without_step_or_attempt_is_refused(journal: SqliteJournal) -> None:
    with pytest.raises(JournalError, match="names its step"):
        journal.append([event("1", "step.intent", step="drain")])


@pytest.mark.parametrize("data", [{"a": {1: "keys that are not text"}}, {"a": "\udcff"}, {"a": object()}])
def test_what_is_not_json_is_refused_and_harms_nothing(journal: SqliteJournal,
                                                       data: dict[str, object]) -> None:
    with pytest.raises(JournalError, match="cannot be recorded"):
        journal.append([event("1"), event("1", **data)])
    journal.append([event("1")])
    assert [e.n for e in journal.read("1")] == [1]


def test_a_time_that_is_no_number_is_refused(journal: SqliteJournal) -> None:
    with pytest.raises(JournalError, match="cannot be recorded"):
        journal.append([event("1", at=float("nan"))])


def test_whole_seconds_given_as_integers_still_verify(journal: SqliteJournal) -> None:
    journal.append([event("1", at=1000)])
    assert journal.verify().breaks == []


def test_the_journals_own_kinds_cannot_be_appended(journal: SqliteJournal) -> None:
    for kind in ("journal.sealed", "journal.segment", "journal.archived"):
        with pytest.raises(JournalError, match="only the journal itself"):
            journal.append([event(ENGINE, kind)])


def test_run_ids_count_from_one_and_go_on_after_reopening(path: Path) -> None:
    journal = open_at(path)
    assert [journal.new_run_id(), journal.new_run_id()] == ["1", "2"]
    journal.close()
    journal = open_at(path)
    assert journal.new_run_id() == "3"
    journal.close()


def test_the_index_of_runs_is_newest_first_and_filters_by_state(journal: SqliteJournal) -> None:
    tell(journal, runs=3)
    journal.append([event("9", "run.created")], row=row("9", started=1001.0))
    assert [r.id for r in journal.runs()] == ["9", "3", "2", "1"]
    assert [r.id for r in journal.runs(["running", "waiting"])] == ["9"]
    assert [r.id for r in journal.runs(limit=2)] == ["9", "3"]
    assert journal.runs([]) == []
    assert journal.run("2") == row("2", "done", ended=1005.5)
    assert journal.run("77") is None


def test_read_goes_on_after_an_event(journal: SqliteJournal) -> None:
    tell(journal, runs=1, steps=2)
    assert [e.n for e in journal.read("1", after=4)] == [5, 6]
    assert journal.read("1", after=6) == []


def test_tail_pages_backwards_over_all_chains(journal: SqliteJournal) -> None:
    tell(journal, runs=2, steps=2)
    seen, before = [], None
    while page := journal.tail(4, before_seq=before):
        seen += [e.seq for e in page]
        before = page[-1].seq
    assert seen == list(range(13, 0, -1))
    assert {e.run for e in journal.tail(99, run="2")} == {"2"}


def test_export_streams_every_event_in_order(journal: SqliteJournal) -> None:
    tell(journal, runs=2)
    assert [e.seq for e in journal.export()] == list(range(1, 18))
    assert [e.run for e in journal.export("2")] == ["2"] * 8


def test_the_file_is_private(journal: SqliteJournal, path: Path) -> None:
    journal.append([event()])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


def test_events_cannot_be_changed_or_removed_by_sql(journal: SqliteJournal, path: Path) -> None:
    tell(journal)
    journal.anchor()
    db = sqlite3.connect(path, isolation_level=None)
    for statement in ("UPDATE events SET kind = 'x' WHERE seq = 3", "DELETE FROM events WHERE seq = 3",
                      "UPDATE anchors SET at = 1", "DELETE FROM anchors"):
        with pytest.raises(sqlite3.IntegrityError, match=r"never|leave only"):
            db.execute(statement)
    db.close()


def test_a_reader_sees_what_the_writer_committed_and_cannot_write(journal: SqliteJournal, path: Path) -> None:
    reader = SqliteJournal.open_readonly(path)
    tell(journal)
    assert len(reader.read("1")) == 8
    with pytest.raises(JournalUnavailable, match="reading only"):
        reader.append([event()])
    with pytest.raises(JournalUnavailable, match="reading only"):
        reader.new_run_id()
    reader.close()


def test_a_reader_wants_a_journal_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no journal"):
        SqliteJournal.open_readonly(tmp_path / "journal.db")
    assert list(tmp_path.iterdir()) == []


def test_a_closed_journal_says_so(journal: SqliteJournal) -> None:
    journal.close()
    journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.append([event()])
    with pytest.raises(JournalUnavailable, match="closed"):
        journal.read("1")


def test_a_newer_schema_is_refused_with_a_sentence(path: Path) -> None:
    open_at(path).close()
    tamper(path, "PRAGMA user_version = 7")
    for opened in (open_at, SqliteJournal.open_readonly):
        with pytest.raises(JournalUnavailable, match=r"newer Opsdeck .*schema 7.*knows 1"):
            opened(path)


def test_migrations_are_recorded(journal: SqliteJournal, path: Path) -> None:
    found = sqlite3.connect(path).execute("SELECT version, engine FROM migrations").fetchall()
    assert found == [(1, "engine-a")]


@pytest.mark.parametrize("content", [b"", b"not a database at all, but long enough to be read as one" * 20])
def test_what_is_no_journal_is_never_taken_for_a_new_one(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(JournalCorrupt, match=r"not a journal|damaged") as refused:
        open_at(path)
    assert "audit seal" in str(refused.value.hint)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE runs (id)")
    db.close()
    with pytest.raises(JournalCorrupt, match="not a journal of Opsdeck"):
        open_at(path)


@pytest.mark.parametrize(("version", "safe"), [
    ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False), ((3, 50, 6), False),
    ((3, 50, 7), True), ((3, 51, 0), False), ((3, 51, 2), False), ((3, 51, 3), True), ((3, 52, 0), True),
    ((4, 0, 0), True)])
def test_wal_is_used_only_where_its_reset_race_is_fixed(version: tuple[int, ...], safe: bool) -> None:
    assert schema.wal_is_safe(version) is safe


@pytest.mark.parametrize("mode", ["wal", "persist"])
def test_both_modes_record_verify_and_change_into_each_other(path: Path, mode: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    open_at(path).close()
    monkeypatch.setattr(schema, "journal_mode", lambda: mode)
    journal = open_at(path)
    with journal.transaction() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == mode
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
    tell(journal)
    reader = SqliteJournal.open_readonly(path)
    assert reader.verify().events == 25
    reader.close()
    journal.close()
    monkeypatch.undo()
    journal = open_at(path)
    assert journal.verify().breaks == []
    journal.close()
