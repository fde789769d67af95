"""The home's lock: one engine to a home, as long as its process lives.

The kernel drops the lock with the process, however it ends. It cannot see an engine that is frozen
while somebody removes its lock file; that one is stopped by the journal's fencing token instead.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from engine.errors import HomeBusy, JournalUnavailable
from engine.journal.faults import utc

PROBES = 5
PROBE_S = 0.005


class Holder(msgspec.Struct, frozen=True):
    """Who holds a home: the process, what it calls itself, and since when (seconds since the epoch)."""

    pid: int
    engine: str
    started: float

    def __str__(self) -> str:
        if not self.pid:
            return "a process that has not written its name yet"
        name = f"{self.engine}, " if self.engine else ""
        return f"{name}pid {self.pid}, since {utc(self.started)}"


class HomeLock:
    """A held lock. Made by `take`; give it up with `release`, or use it as a context manager."""

    def __init__(self, path: Path, handle: int, holder: Holder) -> None:
        self.path = path
        self.holder = holder
        self._handle: int | None = handle

    def still_held(self) -> bool:
        """Whether the lock file is still the one that is locked: False once it was removed or replaced,
        when another engine may have taken the home."""
        return self._handle is not None and _is_at(self._handle, self.path)

    def release(self) -> None:
        """Give the home up. The file stays, empty: removing it would race with the next holder."""
        if self._handle is not None:
            os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> HomeLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def take(path: Path, *, engine: str = "", clock: Callable[[], float] = time.time) -> HomeLock:
    """Take the lock file at `path`, and with it the home that it lies in, without waiting.

    `engine` is what the holder calls itself. Raises HomeBusy with the holder's name when another
    process has it, JournalUnavailable when the file cannot be made. Programs started later do not
    inherit it; a fork without exec would.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = _lock(path)
        if handle is None:
            raise HomeBusy(f"another engine holds this home: {holder(path)}", where=str(path.parent),
                           hint="use that engine, stop it with `opsdeck engine stop`, or name another "
                                "--home")
        me = Holder(os.getpid(), engine, clock())
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, msgspec.json.encode(me) + b"\n", 0)
        except OSError:
            os.close(handle)
            raise
    except OSError as error:
        raise JournalUnavailable(f"the home cannot be locked: {error.strerror}", where=str(path),
                                 hint="check the home's owner and space") from error
    return HomeLock(path, handle, me)


def holder(path: Path) -> Holder | None:
    """Who holds the lock file at `path` now; None when nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise JournalUnavailable(f"the home's lock cannot be read: {error.strerror}",
                                 where=str(path)) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        try:
            return msgspec.json.decode(os.pread(handle, 4096, 0), type=Holder)
        except msgspec.MsgspecError:
            return Holder(0, "", 0.0)
    else:
        return None
    finally:
        os.close(handle)


def _lock(path: Path) -> int | None:
    """The handle of the locked file, or None when another process has it."""
    for _ in range(PROBES):
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            time.sleep(PROBE_S)  # `holder` asks by taking the lock for an instant
        else:
            if _is_at(handle, path):
                return handle
            os.close(handle)  # removed between open and lock: this lock guards nothing
    return None


def _is_at(handle: int, path: Path) -> bool:
    try:
        there, here = path.stat(), os.fstat(handle)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
