"""Rotation into archives: nothing lost, nothing twice, and archives verify like the database."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, JournalCorrupt
from engine.journal import archive, reading
from engine.journal.events import ENGINE, NewEvent
from engine.journal.sqlite import SqliteJournal
from tests.journal.kit import ALICE, event, intent, killed_at, open_at, row, tamper, tell

DAY = 86400.0


@pytest.fixture
def aged(path: Path) -> SqliteJournal:
    """Three runs of day 0, one that has not ended, and two runs of day 10."""
    journal = open_at(path, anchor_every=7)
    tell(journal)
    journal.append([event("8", "run.created")], row=row("8"))
    tell(journal, runs=2, at=10 * DAY)
    return journal


def rotate(journal: SqliteJournal) -> int:
    return journal.rotate(older_than_s=5 * DAY, now=11 * DAY, at_least=1)


def story(journal: SqliteJournal) -> list[tuple[Any, ...]]:
    return [(e.seq, e.run, e.n, e.hash) for e in journal.export() if e.kind != "journal.archived"]


def archives(path: Path) -> list[Path]:
    return sorted((path.parent / "archive").glob("*"))


def test_old_finished_runs_move_and_everything_still_reads_and_verifies(aged: SqliteJournal,
                                                                        path: Path) -> None:
    before, read = story(aged), aged.read("2")
    assert rotate(aged) == 25
    assert len(archives(path)) == 1
    with aged.transaction() as db:
        assert db.execute("SELECT count(*) FROM events WHERE run IN ('1', '2', '3')").fetchone() == (0,)
    assert story(aged) == before
    assert aged.read("2") == read
    assert aged.read("2", after=5) == read[5:]
    assert aged.run("2") == row("2", "done", ended=1005.5)
    verdict = aged.verify()
    assert (verdict.archived, verdict.breaks) == (25, [])


def test_unfinished_and_recent_runs_stay(aged: SqliteJournal) -> None:
    rotate(aged)
    with aged.transaction() as db:
        stay = {run for (run,) in db.execute("SELECT DISTINCT run FROM events")}
    assert stay == {ENGINE, "8", "4", "5"}


def test_the_rotation_is_itself_recorded_with_the_files_digest(aged: SqliteJournal, path: Path) -> None:
    rotate(aged)
    said = aged.read(ENGINE)[-1]
    assert said.kind == "journal.archived"
    assert said.data["file"] == archives(path)[0].name
    assert said.data["events"] == 25


def test_rotating_again_moves_nothing_twice(aged: SqliteJournal, path: Path) -> None:
    assert rotate(aged) == 25
    assert rotate(aged) == 0
    assert aged.rotate(older_than_s=0.0, now=30 * DAY, at_least=1) == 18
    assert len(archives(path)) == 2
    assert aged.verify().breaks == []


def test_few_events_are_not_worth_a_file(aged: SqliteJournal) -> None:
    assert aged.rotate(older_than_s=5 * DAY, now=11 * DAY, at_least=26) == 0
    assert aged.verify().archived == 0


def test_paging_backwards_goes_on_into_archives(aged: SqliteJournal) -> None:
    rotate(aged)
    seen, before = [], None
    while page := aged.tail(5, before_seq=before):
        seen += [e.seq for e in page]
        before = page[-1].seq
    assert seen == sorted({e.seq for e in aged.export()}, reverse=True)
    assert [e.n for e in aged.tail(3, run="2")] == [8, 7, 6]


def test_an_archived_run_can_be_noted_on_but_never_started_again(aged: SqliteJournal) -> None:
    newest = aged.read("2")[-1]
    rotate(aged)
    (note,) = aged.append([event("2", "run.note")])
    assert (note.n, note.prev) == (newest.n + 1, newest.hash)
    with pytest.raises(Conflict, match="finished and archived"):
        aged.append([intent("2", "s0")])
    assert aged.verify().breaks == []


def test_broken_runs_are_not_rotated(aged: SqliteJournal, path: Path) -> None:
    tamper(path, "UPDATE events SET uid = 7 WHERE run = '2' AND n = 3")
    assert rotate(aged) == 17
    assert len(aged.verify().breaks) == 1


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_a_flipped_byte_in_an_archive_is_found_wherever_it_is(aged: SqliteJournal, path: Path) -> None:
    rotate(aged)
    (file,) = archives(path)
    for at in range(0, file.stat().st_size, 37):
        flip(file, at)
        found = aged.verify().breaks
        assert len(found) == 1 and found[0].startswith(f"archive 1 (archive/{file.name}) has changed: "), at
        flip(file, at)
    assert aged.verify().breaks == []


def test_a_rewritten_archive_names_its_first_bad_event(aged: SqliteJournal, path: Path) -> None:
    rotate(aged)
    (file,) = archives(path)
    text = gzip.decompress(file.read_bytes()).replace(b'"stdout":"ok', b'"stdout":"ko', 1)
    file.write_bytes(gzip.compress(text))
    assert "event 3 of run 1 (seq 6, step.outcome) does not match its hash" in aged.verify().breaks[0]


def test_a_lost_archive_is_one_break_that_can_be_sealed(aged: SqliteJournal, path: Path) -> None:
    rotate(aged)
    archives(path)[0].unlink()
    found = aged.verify().breaks
    assert len(found) == 1 and "cannot be read" in found[0]
    with pytest.raises(JournalCorrupt, match="gone"):
        aged.read("2")
    aged.seal(NewEvent(run=ENGINE, kind="", at=11 * DAY, actor=ALICE, data={"reason": "disk replaced"}))
    assert aged.verify().breaks == []
    aged.append([event("8", "run.note"), event(ENGINE)])
    assert aged.verify().breaks == []


@pytest.mark.parametrize("change", [
    "UPDATE archives SET sha256 = 'x'", "UPDATE archives SET file = 'x'", "DELETE FROM archives",
    "UPDATE archives SET id = 2"])
def test_an_edited_list_of_archives_is_found(aged: SqliteJournal, path: Path, change: str) -> None:
    rotate(aged)
    tamper(path, change)
    assert aged.verify().breaks != []


def test_a_reader_beside_the_engine_follows_a_rotation(aged: SqliteJournal, path: Path) -> None:
    reader = SqliteJournal.open_readonly(path)
    assert reader.verify().archived == 0
    rotate(aged)
    verdict = reader.verify()
    assert (verdict.archived, verdict.breaks) == (25, [])
    reader.close()


def test_large_histories_take_several_files(aged: SqliteJournal, path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.journal import rotation
    monkeypatch.setattr(rotation, "MOST_EVENTS", 10)
    before = story(aged)
    assert rotate(aged) == 25
    assert len(archives(path)) > 1
    assert story(aged) == before
    assert aged.verify().breaks == []


def test_the_file_of_a_rotation_that_never_committed_is_removed(aged: SqliteJournal, path: Path) -> None:
    with aged.transaction() as db:
        rows = list(reading.events(db, run="1"))
    orphan = path.parent / "archive" / archive.write(path.parent / "archive", 1, rows).file
    unfinished = orphan.with_name(".000001-feedfeedfeed.jsonl.gz.unfinished")
    unfinished.write_bytes(b"half")
    assert aged.verify().archived == 0
    assert rotate(aged) == 25
    assert len(archives(path)) == 1 and not orphan.exists()
    assert aged.verify().breaks == []


def test_a_file_that_holds_something_unknown_is_left_alone(aged: SqliteJournal, path: Path) -> None:
    rotate(aged)
    stray = archives(path)[0].with_name("000009-feedfeedfeed.jsonl.gz")
    stray.write_bytes(archives(path)[0].read_bytes())
    aged.rotate(older_than_s=0.0, now=30 * DAY, at_least=1)
    assert stray.exists()


# ---- a crash at every boundary

def test_a_kill_at_every_boundary_of_a_rotation_loses_and_doubles_nothing(aged: SqliteJournal,
                                                                         path: Path) -> None:
    before = story(aged)
    aged.close()
    pristine = path.read_bytes()
    number, done = 0, False
    while not done:
        for file in path.parent.rglob("*"):
            if file.is_file():
                file.unlink()
        path.write_bytes(pristine)
        done = killed_at(number, lambda: open_at(path, engine_id="child"), rotate)
        journal = open_at(path)
        assert story(journal) == before, f"killed at boundary {number}"
        assert journal.verify().breaks == [], f"killed at boundary {number}"
        rotate(journal)
        assert story(journal) == before
        verdict = journal.verify()
        assert (verdict.archived, verdict.breaks) == (25, [])
        files = archives(path)
        assert len(files) == 1 and [len(list(archive.read(f))) for f in files] == [25]
        journal.close()
        number += 1
    assert number > 25
