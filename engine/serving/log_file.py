"""The file under the prediction log: private, rotated, kept no longer than it may be.

It never raises at its owner: what cannot be written is counted and said once on standard error,
and the next write tries again. A record is written whole or not at all, also when the disk fills
in the middle of it or the process before this one was killed.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from pathlib import Path

_STAMP = re.compile(r"\.\d{8}T\d{6}Z(-\d{6})?")
_FIRST_AT = re.compile(rb'\{"at":([0-9.]+)')
_TAIL = 1 << 20


class LogFile:
    """An append-only file that becomes `PATH.20261120T101530Z` when it is too large or too old."""

    def __init__(self, path: Path, *, max_bytes: int, max_age_s: float, keep: int,
                 keep_age_s: float) -> None:
        """`keep` and `keep_age_s` bound the rotated files by number and by seconds since rotation.
        """
        self._path = path
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._keep = keep
        self._keep_age_s = keep_age_s
        self._fd: int | None = None
        self._size = 0
        self._since = 0.0
        self._failing: str | None = None
        self.dropped = 0

    def write(self, chunk: bytes, records: int, now: float) -> None:
        """Append `records` whole lines; `now` is UTC seconds. Counts them as dropped on failure."""
        try:
            fd = self._ready(len(chunk), now)
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(fd, rest):]
        except OSError as error:
            self.dropped += records
            self._cut()
            self._report(error)
            return
        self._size += len(chunk)
        if self._failing is not None:
            self._failing = None
            self._say(f"written again; {self.dropped} records were dropped so far.")

    def tick(self, now: float) -> None:
        """Rotate by age, keep retention and notice a file that was moved away; call it at leisure.
        """
        try:
            if self._fd is not None:
                self._close_if_moved()
            if self._fd is None and self._path.exists():
                self._open(now)
            if self._fd is not None and self._size and now - self._since >= self._max_age_s:
                self._rotate(now)
            self._expire(now)
        except OSError as error:
            self._report(error)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def rotated(self) -> list[Path]:
        """The rotated files, oldest first."""
        name = self._path.name
        return sorted(file for file in self._path.parent.glob(f"{_glob_safe(name)}.*")
                      if _STAMP.fullmatch(file.name[len(name):]))

    def _ready(self, more: int, now: float) -> int:
        if self._fd is None:
            self._open(now)
        elif self._size and (self._size + more > self._max_bytes
                             or now - self._since >= self._max_age_s):
            self._rotate(now)
            self._open(now)
        if self._fd is None:
            raise OSError("the file is not open")
        return self._fd

    def _open(self, now: float) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError("it is not a regular file")
            os.fchmod(fd, 0o600)
            self._size = _cut_partial_line(fd)
            self._since = _first_record_at(fd, now) if self._size else now
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def _rotate(self, now: float) -> None:
        self._path.rename(self._next_name(now))
        self.close()
        self._expire(now)

    def _next_name(self, now: float) -> Path:
        """A name that sorts behind all there are, also within one second or on a clock set back."""
        stamp, turn = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now)), 0
        if files := self.rotated():
            newest, _, number = files[-1].name[len(self._path.name) + 1:].partition("-")
            if newest >= stamp:
                stamp, turn = newest, int(number or 0) + 1
        return self._path.with_name(f"{self._path.name}.{stamp}" + (f"-{turn:06d}" if turn else ""))

    def _expire(self, now: float) -> None:
        files = self.rotated()
        surplus = files[:max(0, len(files) - self._keep)]
        old = [file for file in files if now - file.stat().st_mtime > self._keep_age_s]
        for file in {*surplus, *old}:
            file.unlink(missing_ok=True)

    def _close_if_moved(self) -> None:
        assert self._fd is not None
        ours = os.fstat(self._fd)
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            self.close()
            return
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            self.close()

    def _cut(self) -> None:
        """Take back the part of a chunk that was written; a file that cannot be cut is left."""
        if self._fd is None:
            return
        try:
            os.ftruncate(self._fd, self._size)
        except OSError:
            self.close()

    def _report(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._failing:
            self._failing = reason
            self._say(f"cannot be written ({reason}); serving goes on, records are dropped.")

    def _say(self, text: str) -> None:
        print(f"The prediction log {self._path} {text}", file=sys.stderr, flush=True)


def _glob_safe(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def _cut_partial_line(fd: int) -> int:
    """Cut what a killed process left after the last line break; returns the size that remains."""
    size = os.fstat(fd).st_size
    start = max(0, size - _TAIL)
    tail = os.pread(fd, size - start, start)
    whole = start + tail.rfind(b"\n") + 1 if b"\n" in tail or start == 0 else size
    if whole != size:
        os.ftruncate(fd, whole)
    return whole


def _first_record_at(fd: int, otherwise: float) -> float:
    match = _FIRST_AT.match(os.pread(fd, 64, 0))
    return float(match[1]) if match else otherwise
