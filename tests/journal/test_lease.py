"""The home's lock: one holder, named, dropped with its process, never inherited."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from engine.errors import HomeBusy
from engine.journal import lease

HOLD = """
import sys
from pathlib import Path
from engine.journal import lease
lock = lease.take(Path(sys.argv[1]), engine="other", clock=lambda: 1000.0)
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "engine.lock"


def test_the_lock_names_its_holder(file: Path) -> None:
    with lease.take(file, engine="engine-a", clock=lambda: 1000.0) as lock:
        assert lease.holder(file) == lock.holder == lease.Holder(os.getpid(), "engine-a", 1000.0)
        assert lock.still_held()
    assert lease.holder(file) is None
    assert not lock.still_held()


def test_a_home_that_is_not_there_is_made_private(file: Path) -> None:
    with lease.take(file):
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert file.stat().st_mode & 0o777 == 0o600


def test_nobody_holds_a_home_that_is_not_there(file: Path) -> None:
    assert lease.holder(file) is None
    assert not file.parent.exists()


def test_another_process_is_refused_and_told_by_whom(file: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "held\n"
    with pytest.raises(HomeBusy) as refused:
        lease.take(file)
    assert refused.value.message == ("another engine holds this home: other, "
                                     f"pid {process.pid}, since 1970-01-01T00:16:40Z")
    assert refused.value.exit_code == 2
    process.kill()
    process.communicate()
    lease.take(file).release()


def test_the_same_process_cannot_take_it_twice(file: Path) -> None:
    with lease.take(file), pytest.raises(HomeBusy):
        lease.take(file)


def test_a_released_lock_can_be_taken_again_and_released_twice(file: Path) -> None:
    lock = lease.take(file)
    lock.release()
    lock.release()
    lease.take(file).release()


def test_a_removed_lock_file_is_noticed(file: Path) -> None:
    lock = lease.take(file)
    file.unlink()
    assert not lock.still_held()
    with lease.take(file) as newer:
        assert newer.still_held()
        assert not lock.still_held()
    lock.release()


def test_a_child_does_not_inherit_the_lock(file: Path) -> None:
    """A server that a step started outlives the engine; it must not keep the home locked."""
    lock = lease.take(file)
    child = subprocess.Popen([sys.executable, "-c", "print('here', flush=True); input()"],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, close_fds=False)
    assert child.stdout and child.stdout.readline() == "here\n"
    lock.release()
    assert lease.holder(file) is None
    lease.take(file).release()
    child.communicate("\n")


def test_asking_who_holds_it_does_not_keep_an_engine_from_starting(file: Path) -> None:
    lease.take(file).release()
    asking = os.open(file, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    timer = threading.Timer(0.01, os.close, [asking])
    timer.start()
    lease.take(file).release()
    timer.join()


def test_a_file_removed_between_opening_and_locking_guards_nothing(
        file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fcntl.flock, 0

    def flock(handle: int, how: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            file.unlink()
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with lease.take(file) as lock:
        assert lock.still_held()
        with pytest.raises(HomeBusy):
            lease.take(file)


def test_a_lock_file_with_rubbish_in_it_is_taken(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("rubbish")
    with lease.take(file, engine="engine-a"):
        found = lease.holder(file)
        assert found and found.engine == "engine-a"
