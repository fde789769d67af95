"""The emergency journal: recording the safe direction when nothing else can be written."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import JournalError, JournalUnavailable
from engine.journal.emergency import SIZE, Emergency
from engine.journal.events import NewEvent
from tests.journal.kit import event, fill


def abort(run: str = "1", **data: object) -> NewEvent:
    return event(run, "run.abort", reason="p99 over 2 s", **data)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "emergency.journal"


def reopened(file: Path) -> list[NewEvent]:
    again = Emergency.open(file)
    pending = again.pending()
    again.close()
    return pending


def test_records_are_kept_until_they_are_cleared(file: Path) -> None:
    emergency = Emergency.open(file)
    emergency.record(abort("1"))
    emergency.record(event("2", "run.abort", step="drain", attempt=2))
    assert emergency.pending() == [abort("1"), event("2", "run.abort", step="drain", attempt=2)]
    assert reopened(file) == emergency.pending()
    emergency.clear()
    assert emergency.pending() == []
    assert reopened(file) == []
    emergency.close()


def test_the_file_is_allocated_and_private_from_the_start(file: Path) -> None:
    Emergency.open(file).close()
    found = file.stat()
    assert (found.st_size, found.st_mode & 0o777) == (SIZE, 0o600)
    assert found.st_blocks * 512 >= SIZE


def test_an_abort_is_recorded_on_a_disk_without_a_byte_left(small_disk: Path) -> None:
    emergency = Emergency.open(small_disk / "emergency.journal")
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "proof").write_bytes(b"x" * 4096)
    for number in range(20):
        emergency.record(abort(str(number)))
    emergency.clear()
    emergency.record(abort("last"))
    emergency.close()
    assert reopened(small_disk / "emergency.journal") == [abort("last")]


def test_a_disk_too_full_to_prepare_it_is_told_at_the_start(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(JournalUnavailable, match="cannot be prepared: No space left"):
        Emergency.open(small_disk / "emergency.journal")


def test_a_preparation_that_was_cut_short_is_completed(file: Path) -> None:
    file.parent.mkdir()
    file.write_bytes(b"\0" * 100)
    emergency = Emergency.open(file)
    emergency.record(abort())
    emergency.close()
    assert file.stat().st_size == SIZE
    assert reopened(file) == [abort()]


def test_when_it_is_full_it_says_so_and_keeps_what_it_has(file: Path) -> None:
    emergency = Emergency.open(file)
    recorded = 0
    with pytest.raises(JournalUnavailable, match=r"full \(64 KiB, \d+ records\)"):
        while True:
            emergency.record(abort(text="x" * 500))
            recorded += 1
    assert recorded > 80
    assert len(reopened(file)) == recorded
    emergency.clear()
    emergency.record(abort())
    emergency.close()


def test_what_is_not_json_is_refused(file: Path) -> None:
    emergency = Emergency.open(file)
    with pytest.raises(JournalError, match="cannot be recorded"):
        emergency.record(abort(thing=object()))
    assert emergency.pending() == []
    emergency.close()


def test_a_write_that_fails_is_unavailable_and_not_a_crash(file: Path) -> None:
    emergency = Emergency.open(file)
    emergency.close()
    with pytest.raises(JournalUnavailable, match="cannot be written"):
        emergency.record(abort())


@given(cut=st.integers(1, 200))
def test_a_torn_last_record_is_passed_over_and_written_over(cut: int, scratch: Path) -> None:
    file = scratch / "torn.journal"
    file.unlink(missing_ok=True)
    emergency = Emergency.open(file)
    emergency.record(abort("1"))
    end = emergency._end
    emergency.record(abort("2", text="x" * 200))
    torn = emergency._end - cut
    emergency.close()
    content = bytearray(file.read_bytes())
    content[torn:] = bytes(len(content) - torn)
    file.write_bytes(content)
    assert torn > end
    emergency = Emergency.open(file)
    assert emergency.pending() == [abort("1")]
    emergency.record(abort("3"))
    emergency.close()
    assert reopened(file) == [abort("1"), abort("3")]


def test_a_damaged_record_does_not_take_the_others_with_it(file: Path) -> None:
    emergency = Emergency.open(file)
    ends = []
    for run in "123":
        emergency.record(abort(run))
        ends.append(emergency._end)
    emergency.close()
    content = bytearray(file.read_bytes())
    content[ends[1] - 5] ^= 1
    file.write_bytes(content)
    assert reopened(file) == [abort("1"), abort("3")]


def test_a_damaged_header_does_not_bring_cleared_records_back(file: Path) -> None:
    emergency = Emergency.open(file)
    emergency.record(abort("old", text="x" * 300))
    emergency.record(abort("old"))
    emergency.clear()
    emergency.record(abort("new"))
    emergency.close()
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert reopened(file) == [abort("new")]


def test_records_survive_kill_9(file: Path) -> None:
    child = os.fork()
    if not child:
        emergency = Emergency.open(file)
        emergency.record(abort("1"))
        emergency.record(abort("2"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert reopened(file) == [abort("1"), abort("2")]
