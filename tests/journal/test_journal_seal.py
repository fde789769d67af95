"""Sealing: going on after a break without hiding it, and setting aside what nothing can read."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import FenceLost, JournalCorrupt, UsageError
from engine.journal.aside import set_aside
from engine.journal.events import ENGINE, GENESIS, NewEvent
from engine.journal.sqlite import SqliteJournal
from tests.journal.kit import ALICE, FILES, event, intent, killed_at, open_at, row, tamper, tell

BREAK_2 = "event 3 of run 2 (seq 8, step.outcome) does not match its hash"


def seal_event(reason: str = "bad sector, INC-7") -> NewEvent:
    return NewEvent(run=ENGINE, kind="journal.sealed", at=3000.0, actor=ALICE, data={"reason": reason})


@pytest.fixture
def broken(path: Path, journal: SqliteJournal) -> SqliteJournal:
    tell(journal)
    tamper(path, "UPDATE events SET data = replace(data, 'ok', 'ko') WHERE run = '2' AND n = 3")
    assert journal.verify().breaks == [BREAK_2]
    return journal


def test_a_seal_names_the_break_and_makes_it_known(broken: SqliteJournal) -> None:
    sealed = broken.seal(seal_event())
    assert sealed.run == ENGINE and sealed.actor == ALICE
    assert [b["text"] for b in sealed.data["breaks"]] == [BREAK_2]
    verdict = broken.verify()
    assert verdict.breaks == []
    assert verdict.seals == [f"sealed 1970-01-01T00:50:00Z by alice (bad sector, INC-7): {BREAK_2}"]


def test_after_a_seal_the_chain_goes_on_in_a_new_segment(broken: SqliteJournal, path: Path) -> None:
    broken.seal(seal_event())
    broken.append([event("2", "run.note")], row=row("2"))
    segment, note = broken.read("2")[-2:]
    assert (segment.kind, segment.n, segment.prev) == ("journal.segment", 9, GENESIS)
    assert (note.n, note.prev) == (10, segment.hash)
    broken.close()
    again = open_at(path)
    again.append([event("2", "run.note")])
    assert again.verify().breaks == []
    again.close()


def test_the_damaged_rows_stay_as_they_were_found(broken: SqliteJournal) -> None:
    before = broken.read("2")
    broken.seal(seal_event())
    assert broken.read("2")[:8] == before


def test_further_damage_behind_a_seal_is_a_new_break(broken: SqliteJournal, path: Path) -> None:
    broken.seal(seal_event())
    tamper(path, "UPDATE events SET data = replace(data, 'ko', 'ok') WHERE run = '2' AND n = 5")
    assert broken.verify().breaks == []  # nothing was replaced: the row holds "ok"
    tamper(path, "UPDATE events SET user = 'mallory' WHERE run = '2' AND n = 5")
    assert broken.verify().breaks == [f"{BREAK_2}; it was sealed, and changed since"]


def test_a_seal_that_is_edited_accepts_nothing(broken: SqliteJournal, path: Path) -> None:
    broken.seal(seal_event())
    tamper(path, "UPDATE events SET user = 'bob' WHERE kind = 'journal.sealed'")
    assert len(broken.verify().breaks) == 2


def test_the_engines_own_chain_can_be_sealed(path: Path, journal: SqliteJournal) -> None:
    tell(journal)
    tamper(path, "UPDATE events SET uid = 7 WHERE run = 'engine'")
    with pytest.raises(JournalCorrupt, match="the engine's chain is broken"):
        journal.append([event()])
    journal.seal(seal_event())
    journal.append([event()])
    verdict = journal.verify()
    assert verdict.breaks == [] and len(verdict.seals) == 1


@pytest.mark.parametrize("damage", [
    "DELETE FROM events WHERE run = '2' AND n >= 7", "DELETE FROM events WHERE run = '2'",
    "DELETE FROM events WHERE run = '2' AND n = 4", "UPDATE anchors SET digest = 'x' WHERE id = 2",
    "DELETE FROM anchors WHERE id = 1", "DELETE FROM anchors WHERE id = (SELECT max(id) FROM anchors)",
    "UPDATE runs SET state = 'failed' WHERE id = '2'", "DELETE FROM meta WHERE key = 'tail'",
    "UPDATE events SET hash = 'x' WHERE seq = 25", "UPDATE events SET seq = 99 WHERE seq = 7",
    "UPDATE events SET run = '4' WHERE run = '2' AND n = 8", "UPDATE events SET n = 'x' WHERE seq = 9"])
@pytest.mark.parametrize("anchored", [True, False])
def test_every_kind_of_damage_can_be_sealed_and_stays_known(path: Path, damage: str, anchored: bool) -> None:
    journal = open_at(path, anchor_every=10)
    tell(journal)
    if anchored:
        journal.anchor()
    tamper(path, damage)
    assert journal.verify().breaks != []
    journal.seal(seal_event())
    assert journal.verify().breaks == []
    for run in ("1", "2", "3", ENGINE):
        journal.append([event(run, "run.note")], row=row(run) if run != ENGINE else None)
    tell(journal, runs=2)
    verdict = journal.verify()
    assert verdict.breaks == [] and len(verdict.seals) == 1
    journal.close()
    reader = SqliteJournal.open_readonly(path)
    assert reader.verify() == open_and_verify(path)
    reader.close()


def open_and_verify(path: Path) -> object:
    journal = open_at(path)
    try:
        return journal.verify()
    finally:
        journal.close()


def test_two_breaks_at_two_times_take_two_seals(broken: SqliteJournal, path: Path) -> None:
    broken.seal(seal_event("first"))
    broken.append([event("2", "run.note", text="after")])
    tamper(path, "UPDATE events SET uid = 7 WHERE run = '2' AND n = 10")
    assert broken.verify().breaks == ["event 10 of run 2 (seq 28, run.note) does not match its hash"]
    broken.seal(seal_event("second"))
    broken.append([event("2", "run.note")])
    verdict = broken.verify()
    assert verdict.breaks == [] and len(verdict.seals) == 2


def test_there_is_nothing_to_seal_where_everything_holds(journal: SqliteJournal) -> None:
    tell(journal)
    with pytest.raises(UsageError, match="nothing to seal"):
        journal.seal(seal_event())
    assert journal.verify().events == 25


def test_a_broken_index_of_the_database_is_rebuilt_and_the_table_believed(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    tamper(path, "PRAGMA writable_schema = ON",
           "UPDATE sqlite_schema SET sql = replace(sql, '(started)', '(ended)') WHERE name = 'runs_started'")
    journal.close()
    journal = open_at(path)
    assert any("damaged" in text for text in journal.verify().breaks)
    assert "its indexes were rebuilt" in journal.seal(seal_event()).data["text"]
    assert journal.verify().breaks == []
    assert len(journal.runs()) == 3
    journal.close()


# ---- a file that SQLite itself cannot read


def ruin(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(b"\xff" * 8192 + content[8192:])


def aside(path: Path) -> str:
    return str(set_aside(path, seal_event(), engine_id="engine-b", clock=lambda: 3000.0).data["aside"])


def test_a_ruined_file_is_set_aside_and_a_new_journal_names_it(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    journal.close()
    ruin(path)
    ruined = path.read_bytes()
    with pytest.raises(JournalCorrupt, match="damaged"):
        open_at(path)
    text = aside(path)
    assert path.with_name("journal.db.damaged-19700101T005000Z").read_bytes() == ruined
    assert "journal.db.damaged-19700101T005000Z" in text
    journal = open_at(path)
    verdict = journal.verify()
    assert verdict.breaks == [] and "journal.db.damaged" in verdict.seals[0]
    assert int(journal.new_run_id()) > 3
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []
    journal.close()


def test_what_sqlite_kept_beside_the_file_goes_with_it(path: Path) -> None:
    """A rollback journal that stayed would be played into the new file."""
    journal = open_at(path)
    tell(journal)
    journal.close()
    ruin(path)
    beside = path.with_name("journal.db-journal")
    beside.write_bytes(b"\xd9\xd5\x05\xf9 as a killed commit leaves it")
    aside(path)
    assert not beside.exists()
    kept = path.with_name("journal.db.damaged-19700101T005000Z-journal")
    assert kept.read_bytes().endswith(b"as a killed commit leaves it")


def test_what_can_still_be_read_is_saved_from_a_damaged_file(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    journal.append([event("8", "run.created")], row=row("8"))
    journal.close()
    text = aside(path)
    assert "runs that had not ended: 8" in text
    journal = open_at(path)
    assert journal.new_run_id() == "4"
    journal.append([event()])
    assert journal.tail(1)[0].seq > 26
    assert journal.verify().breaks == []
    journal.close()


def test_archives_are_taken_over_when_the_database_is_set_aside(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    tell(journal, at=1900.0)
    assert journal.rotate(older_than_s=500.0, now=2000.0, at_least=1) == 25
    before = journal.read("2")
    journal.close()
    ruin(path)
    aside(path)
    journal = open_at(path)
    assert journal.read("2") == before
    tell(journal, runs=1)
    verdict = journal.verify()
    assert (verdict.archived, verdict.breaks) == (25, [])
    journal.close()


def test_an_engine_of_the_old_file_cannot_write_to_the_new_one(path: Path) -> None:
    old = open_at(path)
    tell(old)
    aside(path)
    old._disconnect()
    with pytest.raises(FenceLost):
        old.append([intent("1", "next")])


def test_a_kill_at_every_boundary_of_setting_aside_can_be_repeated(path: Path) -> None:
    journal = open_at(path)
    tell(journal)
    journal.close()
    ruin(path)
    ruined = path.read_bytes()
    number, done = 0, False
    while not done:
        for file in path.parent.iterdir():
            file.unlink()
        path.write_bytes(ruined)
        done = killed_at(number, lambda: path, aside, FILES)
        try:
            journal = open_at(path)
        except JournalCorrupt:
            assert path.read_bytes() == ruined, f"killed at boundary {number}"
            aside(path)
            journal = open_at(path)
        assert "journal.db.damaged" in journal.verify().seals[0], f"killed at boundary {number}"
        assert journal.verify().breaks == []
        assert path.with_name("journal.db.damaged-19700101T005000Z").read_bytes() == ruined
        journal.close()
        number += 1
    assert number > 12
