"""Following a file through rotation, truncation, half lines and garbage: each line once, none lost."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.monitoring.sources import tail as tails
from engine.monitoring.sources.tail import Tail
from engine.serving.log_file import LogFile

NOW = 1_795_000_000.0


def all_of(tail: Tail, now: float = NOW) -> list[bytes]:
    found: list[bytes] = []
    ended = False
    while not ended:
        lines, ended = tail.read(now)
        found += lines
    return found


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def begun(path: Path, data: bytes = b"") -> Tail:
    """A tail that is past what is there now."""
    append(path, data)
    tail = Tail(path)
    assert all_of(tail) == []
    return tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lines.jsonl"


def test_it_begins_at_the_end_and_hands_on_what_is_added(path: Path) -> None:
    tail = begun(path, b"old\n")
    append(path, b"one\ntwo\n")
    assert all_of(tail) == [b"one", b"two"]
    assert all_of(tail) == []


def test_a_file_that_is_not_there_yet_is_no_problem_and_is_read_from_its_start(path: Path) -> None:
    tail = Tail(path)
    assert all_of(tail) == [] and tail.problem is None
    append(path, b"one\n")
    assert all_of(tail) == [b"one"]


def test_a_line_is_handed_on_when_it_is_finished(path: Path) -> None:
    tail = begun(path)
    append(path, b"one\ntw")
    assert all_of(tail) == [b"one"]
    append(path, b"o\nthr")
    assert all_of(tail) == [b"two"]
    append(path, b"ee\n")
    assert all_of(tail) == [b"three"]


def test_a_line_that_was_begun_before_the_start_is_read_whole(path: Path) -> None:
    tail = begun(path, b"old\nhal")
    append(path, b"f\n")
    assert all_of(tail) == [b"half"]


def test_what_stands_in_a_renamed_file_is_read_before_the_new_one(path: Path) -> None:
    tail = begun(path, b"old\n")
    append(path, b"one\n")
    path.rename(path.with_name("lines.jsonl.20260101T000000Z"))
    append(path, b"two\n")
    assert all_of(tail) == [b"one", b"two"]


def test_a_renamed_file_that_still_grows_is_followed_until_a_new_one_is_there(path: Path) -> None:
    tail = begun(path)
    moved = path.with_name("lines.jsonl.1")
    path.rename(moved)
    append(moved, b"one\n")
    assert all_of(tail) == [b"one"]
    append(moved, b"two\n")
    append(path, b"three\n")
    assert all_of(tail) == [b"two", b"three"]


def test_lines_of_several_rotations_between_two_looks_are_all_read_in_order(path: Path) -> None:
    tail = begun(path, b"old\n")
    log = LogFile(path, max_bytes=40, max_age_s=1e9, keep=50, keep_age_s=1e9)
    wanted = []
    for i in range(40):
        line = b'{"at":%.1f,"i":%d}' % (NOW + i, i)
        log.write(line + b"\n", 1, NOW + i)
        wanted.append(line)
    log.close()
    assert len(list(path.parent.iterdir())) > 10
    assert all_of(tail) == wanted


def test_a_file_that_is_copied_and_truncated_begins_anew(path: Path) -> None:
    tail = begun(path, b"old old old\n")
    append(path, b"one\n")
    assert all_of(tail) == [b"one"]
    os.truncate(path, 0)
    append(path, b"two\n")
    assert all_of(tail) == [b"two"]


def test_a_truncated_file_that_has_grown_past_the_old_place_is_found_out(path: Path) -> None:
    tail = begun(path, b"old\n")
    path.write_bytes(b"new one\nnew two\n")
    assert all_of(tail) == [b"new one", b"new two"]


def test_a_half_line_that_its_writer_cuts_off_does_not_bring_the_file_again(path: Path) -> None:
    """As the prediction log does when it starts after a kill."""
    tail = begun(path, b"old\n")
    append(path, b"one\nhal")
    assert all_of(tail) == [b"one"]
    log = LogFile(path, max_bytes=1 << 20, max_age_s=1e9, keep=3, keep_age_s=1e9)
    log.write(b"two\n", 1, NOW)
    log.close()
    assert path.read_bytes() == b"old\none\ntwo\n"
    assert all_of(tail) == [b"two"]


def test_lines_that_a_full_disk_took_back_do_not_bring_the_file_again(path: Path) -> None:
    tail = begun(path, b"old\n")
    append(path, b"one\ntwo\nthr")
    assert all_of(tail) == [b"one", b"two"]
    os.truncate(path, len(b"old\none\n"))
    assert all_of(tail) == []
    append(path, b"four\n")
    assert all_of(tail) == [b"four"]


def test_a_line_without_end_is_left_out_and_costs_no_memory(path: Path, monkeypatch: pytest.MonkeyPatch
                                                           ) -> None:
    monkeypatch.setattr(tails, "CHUNK", 64)
    monkeypatch.setattr(tails, "LONGEST", 64)
    tail = begun(path)
    append(path, b"x" * 200 + b"\none\n" + b"y" * 500)
    assert all_of(tail) == [b"one"]
    append(path, b"\ntwo\n")
    assert all_of(tail) == [b"two"]
    assert tail.overlong == 2


def test_it_reads_back_the_files_that_were_written_since(path: Path) -> None:
    for name, age, text in (("lines.jsonl.20260101T000000Z", 500, b"too old\n"),
                            ("lines.jsonl.20260102T000000Z", 90, b"one\n"),
                            ("lines.jsonl.20260103T000000Z-000001", 50, b"two\n"),
                            ("lines.jsonl.key", 10, b"a key\n"), ("lines.jsonl.1.gz", 10, b"packed\n")):
        append(path.with_name(name), text)
        os.utime(path.with_name(name), (NOW - age, NOW - age))
    append(path, b"three\n")
    os.utime(path, (NOW, NOW))
    assert all_of(Tail(path, back_s=100)) == [b"one", b"two", b"three"]
    assert all_of(Tail(path)) == []


def test_reading_back_is_bounded_and_begins_with_a_whole_line(path: Path, monkeypatch: pytest.MonkeyPatch
                                                            ) -> None:
    monkeypatch.setattr(tails, "BACK_BYTES", 30)
    older = path.with_name("lines.jsonl.1")
    append(older, b"".join(b"old %d\n" % i for i in range(10)))
    append(path, b"".join(b"new %d\n" % i for i in range(4)))
    now = time.time()
    os.utime(older, (now - 5, now - 5))
    found = all_of(Tail(path, back_s=100), now)
    assert found == [b"new %d" % i for i in range(4)]  # with 6 bytes of `old 9`, which is no whole line


def test_what_cannot_be_read_is_told_and_goes_on_when_it_can(path: Path) -> None:
    path.mkdir()
    tail = Tail(path)
    assert all_of(tail) == []
    assert tail.problem == f"{path} cannot be read: it is not a regular file"
    path.rmdir()
    append(path, b"old\n")
    assert all_of(tail) == [] and tail.problem is None
    append(path, b"one\n")
    assert all_of(tail) == [b"one"]


def test_a_pipe_in_its_place_does_not_hang_it(path: Path) -> None:
    os.mkfifo(path)
    tail = Tail(path)
    assert all_of(tail) == []
    assert "not a regular file" in str(tail.problem)


def test_no_descriptor_is_left_open(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    tail = begun(path)
    for i in range(5):
        append(path, b"%d\n" % i)
        path.rename(path.with_name(f"lines.jsonl.{i}"))
        append(path, b"")
        all_of(tail)
    tail.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


ACT = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 30)),
    st.tuples(st.just("half"), st.integers(1, 30)),
    st.tuples(st.just("rotate"), st.just(0)),
    st.tuples(st.just("read"), st.just(0)))


@settings(max_examples=80, deadline=None)
@given(st.lists(ACT, max_size=30))
def test_whatever_is_written_rotated_and_read_each_line_comes_once_and_in_order(
        tmp_path_factory: pytest.TempPathFactory, acts: list[Any]) -> None:
    path = tmp_path_factory.mktemp("tail") / "lines.jsonl"
    tail = begun(path)
    wanted: list[bytes] = []
    found: list[bytes] = []
    half, stamp = b"", 0
    for i, (act, size) in enumerate(acts):
        if act == "write":
            rest = b"%d:" % i + b"x" * size
            append(path, rest + b"\n")
            wanted.append(half + rest)
            half = b""
        elif act == "half":
            rest = b"%d~" % i + b"x" * size
            append(path, rest)
            half += rest
        elif act == "rotate" and not half:
            stamp += 1
            path.rename(path.with_name(f"lines.jsonl.20260101T{stamp:06d}Z"))
            append(path, b"")
        elif act == "read":
            found += all_of(tail)
    found += all_of(tail)
    tail.close()
    assert found == wanted
