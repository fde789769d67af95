"""Verification: whatever is changed, removed or reordered is found, and the first bad event is named."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import JournalCorrupt
from engine.journal.events import ENGINE
from engine.journal.rows import COLUMNS, Row, row_hash
from engine.journal.sqlite import SqliteJournal
from tests.journal.kit import event, intent, open_at, row, tamper, tampering, tell

EVENTS = 25  # of `told`: seq 1 is the engine's, 2 to 4 create the runs, 23 to 25 finish them


@pytest.fixture(scope="module")
def told(scratch: Path) -> Path:
    """A closed journal of three finished runs: anchors over seq 1-10, 11-20 and 21-25."""
    path = scratch / "told.db"
    journal = open_at(path, anchor_every=10)
    tell(journal)
    journal.close()
    return path


@pytest.fixture
def damaged(told: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(told, tmp_path / "journal.db"))


def breaks(path: Path) -> list[str]:
    journal = SqliteJournal.open_readonly(path)
    try:
        return journal.verify().breaks
    finally:
        journal.close()


def test_an_untouched_journal_holds(told: Path) -> None:
    journal = SqliteJournal.open_readonly(told)
    verdict = journal.verify()
    assert (verdict.events, verdict.chains, verdict.anchors, verdict.archived) == (EVENTS, 4, 3, 0)
    assert verdict.breaks == [] and verdict.seals == []
    journal.close()


def test_an_empty_journal_holds(journal: SqliteJournal) -> None:
    assert journal.verify().events == 0
    assert journal.verify().breaks == []


@pytest.mark.parametrize("change", [
    "data = replace(data, 'ok', 'ko')", "data = data || ' '", "at = at + 0.000001", "kind = 'step.skipped'",
    "user = 'mallory'", "uid = 0", "origin = 'embedded'", "step = 's9'", "step = NULL", "attempt = 2",
    "attempt = NULL", "data = CAST(x'7b22ff7d' AS TEXT)", "data = CAST(data AS BLOB)", "data = '{'"])
def test_a_changed_column_names_its_event(damaged: Path, change: str) -> None:
    tamper(damaged, f"UPDATE events SET {change} WHERE run = '2' AND n = 3")
    found = breaks(damaged)
    assert len(found) == 1
    assert found[0].startswith("event 3 of run 2 (seq 8, step.")
    assert found[0].endswith("does not match its hash")


def test_a_changed_hash_names_its_event_once(damaged: Path) -> None:
    tamper(damaged, f"UPDATE events SET hash = '{'0' * 64}' WHERE run = '2' AND n = 3")
    assert breaks(damaged) == ["event 3 of run 2 (seq 8, step.outcome) does not match its hash"]


def test_the_first_bad_event_of_each_chain_is_named(damaged: Path) -> None:
    tamper(damaged, "UPDATE events SET uid = 7 WHERE (run = '1' AND n >= 4) OR (run = '3' AND n = 2)")
    assert [text.split(" (")[0] for text in breaks(damaged)] == ["event 4 of run 1", "event 2 of run 3"]


def test_a_deleted_event_names_the_gap(damaged: Path) -> None:
    tamper(damaged, "DELETE FROM events WHERE run = '2' AND n = 3")
    assert breaks(damaged) == [
        "event 4 of run 2 (seq 13, step.intent) is where event 3 should be: events are missing "
        "or out of order"]


def test_swapped_events_name_the_first(damaged: Path) -> None:
    tamper(damaged, "UPDATE events SET n = -1 WHERE run = '2' AND n = 3",
           "UPDATE events SET n = 3 WHERE run = '2' AND n = 4",
           "UPDATE events SET n = 4 WHERE run = '2' AND n = -1")
    found = breaks(damaged)
    assert len(found) == 1
    assert found[0].startswith("event 4 of run 2 (seq 8,")


def test_the_newest_events_of_a_run_cannot_vanish(damaged: Path) -> None:
    tamper(damaged, "DELETE FROM events WHERE run = '2' AND n >= 7")
    found = breaks(damaged)
    assert any("the newest events of run 2 are gone: anchor 3 knew event 8, it ends at event 6" in text
               for text in found)


def test_a_whole_run_cannot_vanish_even_with_its_index_entry(damaged: Path) -> None:
    tamper(damaged, "DELETE FROM events WHERE run = '2'", "DELETE FROM runs WHERE id = '2'")
    found = breaks(damaged)
    assert found[0] == "run 2 is gone, anchor 1 knew 3 events of it"


def test_events_that_no_anchor_covers_yet_cannot_vanish_either(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    assert journal.verify().anchors == 0
    tamper(path, "DELETE FROM events WHERE run = '3' AND n >= 7")
    found = journal.verify().breaks
    assert found == ["the newest events are not complete: seq 22, 25 are gone (run 3)"]
    journal.close()


def test_an_event_slipped_in_is_found(damaged: Path) -> None:
    """A forged chain of its own, hashes and all, that only an anchor can disown."""
    other = open_at(damaged.with_name("other.db"))
    other.append([event("7", "run.created")])
    other.close()
    tamper(damaged, f"ATTACH '{damaged.with_name('other.db')}' AS other",
           f"INSERT INTO main.events ({COLUMNS}) SELECT -5, {COLUMNS[5:]} FROM other.events")
    tamper(damaged, "UPDATE events SET seq = 26 WHERE seq = -5")
    assert breaks(damaged) == ["the events from seq 26 on are not those that were recorded"]


def test_the_order_between_runs_cannot_be_changed(damaged: Path) -> None:
    """Each chain still holds, and ends where the anchor saw it end."""
    tamper(damaged, "UPDATE events SET seq = -1 WHERE seq = 6", "UPDATE events SET seq = 6 WHERE seq = 7",
           "UPDATE events SET seq = 7 WHERE seq = -1")
    assert breaks(damaged) == ["the events of seq 1 to 10 are not those of anchor 1"]


def test_a_forged_event_with_a_good_hash_of_its_own_does_not_fit_the_next(damaged: Path) -> None:
    with tampering(damaged) as db:
        db.row_factory = lambda _, values: Row._make(values)
        row = db.execute(f"SELECT {COLUMNS} FROM events WHERE run = '2' AND n = 3").fetchone()
        forged = row_hash(row._replace(user="mallory"))
        db.execute("UPDATE events SET user = 'mallory', hash = ? WHERE seq = ?", (forged, row.seq))
    assert breaks(damaged) == ["event 4 of run 2 (seq 13, step.intent) does not follow the event before it"]


@pytest.mark.parametrize("change", ["at = 5", "first_seq = 9", "last_seq = 15", "digest = 'x'",
                                    "heads = '[]'", "heads = '{'", "prev = 'x'", "hash = 'x'"])
def test_an_edited_anchor_is_named(damaged: Path, change: str) -> None:
    tamper(damaged, f"UPDATE anchors SET {change} WHERE id = 2")
    assert breaks(damaged) == ["anchor 2 does not match its hash"]


@pytest.mark.parametrize("id", [1, 2, 3])
def test_a_removed_anchor_is_named(damaged: Path, id: int) -> None:
    tamper(damaged, f"DELETE FROM anchors WHERE id = {id}")
    assert breaks(damaged) == [f"anchor {id} is gone"]


@pytest.mark.parametrize("change", ["state = 'running'", "ended = NULL", "service = 'x'", "n = 3",
                                    "sum = 'x'", "procedure = 'x'", "\"by\" = 'mallory'", "started = 1",
                                    "id = '4'"])
def test_an_edited_index_entry_is_named(damaged: Path, change: str) -> None:
    tamper(damaged, f"UPDATE runs SET {change} WHERE id = '2'")
    assert len(breaks(damaged)) == 1
    assert "run" in breaks(damaged)[0]


@pytest.mark.parametrize("change", ["UPDATE meta SET value = 'x' WHERE key = 'tail'",
                                    "UPDATE meta SET value = replace(value, '3,', '2,') WHERE key = 'tail'",
                                    "DELETE FROM meta WHERE key = 'tail'"])
def test_an_edited_record_of_the_newest_events_is_found(damaged: Path, change: str) -> None:
    tamper(damaged, change)
    assert breaks(damaged) != []


ODD = st.one_of(st.none(), st.integers(-2**40, 2**40), st.floats(allow_nan=False), st.text(max_size=70),
                st.binary(max_size=70))
TARGETS = {
    "events": COLUMNS.split(", "),
    "anchors": ["id", "at", "first_seq", "last_seq", "digest", "heads", "prev", "hash"],
    "runs": ["id", "procedure", "state", "by", "started", "ended", "service", "n", "sum"],
}


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_change_of_any_single_column_is_found(told: Path, data: st.DataObject) -> None:
    path = Path(shutil.copy(told, told.with_name("mutated.db")))
    table = data.draw(st.sampled_from(["events", "events", "events", "anchors", "runs"]), label="table")
    column = data.draw(st.sampled_from(TARGETS[table]), label="column")
    with tampering(path) as db:
        stored = [(r, repr(v)) for r, v in db.execute(f'SELECT rowid, "{column}" FROM {table}')]
        rowid, before = data.draw(st.sampled_from(stored), label="row")
        others = [eval(v) for _, v in stored]
        value = data.draw(st.one_of(ODD, st.sampled_from(others)), label="value")
        new_rowid = value if column in ("seq", "id") and isinstance(value, int) and table != "runs" else rowid
        try:
            db.execute(f'UPDATE {table} SET "{column}" = ? WHERE rowid = ?', (value, rowid))
            after = db.execute(f'SELECT "{column}" FROM {table} WHERE rowid = ?', (new_rowid,)).fetchone()
        except (sqlite3.IntegrityError, sqlite3.OperationalError, OverflowError, UnicodeEncodeError):
            assume(False)
        assume(after is not None and repr(after[0]) != before)
    assert breaks(path) != []


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_on_the_disk_is_found(damaged: Path, bit: int) -> None:
    content = bytearray(damaged.read_bytes())
    at = content.index(b'"stdout":"ok') + len('"stdout":"')
    content[at] ^= 1 << bit
    damaged.write_bytes(content)
    assert "does not match its hash" in breaks(damaged)[0]


def test_a_torn_page_is_a_break_and_not_an_exception(damaged: Path) -> None:
    content = bytearray(damaged.read_bytes())
    for at in range(content.index(b'"stdout":"ok') // 4096 * 4096, len(content), 4096):
        content[at:at + 64] = b"\xff" * 64
    damaged.write_bytes(content)
    try:
        found = breaks(damaged)
    except JournalCorrupt as error:
        found = [error.message]
    assert any("damaged" in text or "cannot be read" in text for text in found)


def test_a_broken_chain_refuses_appends_still_reads_and_leaves_others_alone(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    tamper(path, "UPDATE events SET data = replace(data, 'ok', 'ko') WHERE run = '2' AND n = 3")
    with pytest.raises(JournalCorrupt, match="event 3 of run 2") as refused:
        journal.append([intent("2", "next")])
    assert "audit seal" in str(refused.value.hint)
    with pytest.raises(JournalCorrupt):
        journal.append([event("1", "run.note"), event("2", "run.note")])
    assert journal.read("2")[2].data == {"stdout": "ko\n"}
    assert len(list(journal.export())) == 25
    journal.append([event("1", "run.note"), event(ENGINE)])
    assert len(journal.read("1")) == 9
    journal.close()


def test_a_break_deep_in_a_long_chain_refuses_appends_once_verified(path: Path) -> None:
    journal = open_at(path)
    journal.append([event("1", number=n) for n in range(1500)])
    tamper(path, "UPDATE events SET user = 'mallory' WHERE n = 7")
    journal.append([event("1")])
    assert journal.verify().breaks == ["event 7 of run 1 (seq 7, engine.note) does not match its hash"]
    with pytest.raises(JournalCorrupt, match="event 7 of run 1"):
        journal.append([event("1")])
    journal.close()


def test_an_unreadable_row_is_still_exported(path: Path) -> None:
    journal = open_at(path)
    journal.append([event("1", "run.created", note="x")], row=row("1"))
    tamper(path, "UPDATE events SET data = CAST(x'7b22ff' AS TEXT)")
    assert journal.read("1")[0].data == {"unreadable": '{"\\udcff'}
    journal.close()


def test_verifying_beside_a_writer_does_not_mistake_new_events_for_damage(path: Path) -> None:
    writer = open_at(path, anchor_every=5)
    reader = SqliteJournal.open_readonly(path)
    for _ in range(20):
        tell(writer, runs=1, steps=1)
        assert reader.verify().breaks == []
    reader.close()
    writer.close()
