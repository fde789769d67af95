"""Following a file of lines that somebody else writes, rotates and truncates.

The place is kept in memory only, and always after a whole line: a line that is not finished is read again
when it is. What was read before a restart is the caller's to decide: `back_s` seconds of files that were
written since are read again, or nothing.

A file that was renamed is read to its end before the new one begins, and those that were rotated in
between are read too. One that was cut to less than was read begins anew if it begins otherwise; if its
first bytes are the same, its writer has taken something back, and it goes on from its new end.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 18
LONGEST = 1 << 20  # a longer line is no line of ours
BACK_BYTES = 64 << 20
HEAD = 64
_BROKEN = (errno.EIO, errno.ESTALE, errno.EBADF)  # after these an open file is of no more use
# What rotated files are called: PATH.20261120T101530Z and PATH.1; a key or an archive beside it is none.
_ROTATED = re.compile(r"[.-](\d{1,14}|\d{8}T\d{6}Z(-\d{6})?)")


@dataclass
class _Open:
    """A file that is being read: all before `at` is done with, and `head` are its first bytes."""

    fd: int
    at: int
    head: bytes
    skipping: bool = False
    leaving: bool = False


class Tail:
    """Follows one path. Its calls block; no two at the same time.

    `problem` says why the file cannot be read, None where it can or is not there yet. `overlong` counts
    lines that were left out because they never ended.
    """

    def __init__(self, path: Path, *, back_s: float = 0.0) -> None:
        self.path = path
        self.problem: str | None = None
        self.overlong = 0
        self._back_s = back_s
        self._file: _Open | None = None
        self._begun = False

    def read(self, now: float) -> tuple[list[bytes], bool]:
        """The next whole lines without their line breaks, some 256 KiB at most, and whether that was all.

        `now`: UTC seconds, used at the first call alone. Raises nothing: see `problem`.
        """
        try:
            if not self._begun:
                self._start(now)
                self._begun = True
            lines, ended = self._read()
        except OSError as error:
            self.problem = f"{self.path} cannot be read: {error.strerror or error}"
            if error.errno in _BROKEN:
                self.close()
            return [], True
        self.problem = None
        return lines, ended

    def close(self) -> None:
        """Let go of the file; another `read` begins as the first did."""
        self._drop()
        self._begun = False

    def _start(self, now: float) -> None:
        files = [(path, status) for path, status in self._rotated()
                 if status.st_mtime >= now - self._back_s] if self._back_s else []
        try:
            files.append((self.path, self.path.stat()))
        except FileNotFoundError:
            if not files:
                return
        if not self._back_s:
            self._file = self._open(self.path)
            self._file.at = _after_last_line(self._file.fd, os.fstat(self._file.fd).st_size)
            return
        room, first, skip = BACK_BYTES, 0, 0
        for at in reversed(range(len(files))):
            room -= files[at][1].st_size
            if room < 0:
                first, skip = at, -room
                break
        self._file = self._open(files[first][0])
        self._file.at, self._file.skipping = skip, skip > 0

    def _read(self) -> tuple[list[bytes], bool]:
        if self._file is None:
            try:
                self._file = self._open(self.path)
            except FileNotFoundError:
                return [], True
        file = self._file
        self._check_cut(file)
        chunk = os.pread(file.fd, CHUNK, file.at)
        if len(chunk) == CHUNK and b"\n" not in chunk:
            chunk = os.pread(file.fd, LONGEST, file.at)
        end = chunk.rfind(b"\n") + 1
        if end:
            file.at += end
            lines = chunk[:end - 1].split(b"\n")
            if file.skipping:
                file.skipping = False
                del lines[0]
            return [line for line in lines if line.strip()], len(chunk) < CHUNK and self._newest(file)
        if len(chunk) >= LONGEST:
            self.overlong += not file.skipping
            file.skipping = True
            file.at += len(chunk)
            return [], False
        return [], not self._go_on(file)

    def _check_cut(self, file: _Open) -> None:
        head, size = os.pread(file.fd, len(file.head), 0), os.fstat(file.fd).st_size
        if head != file.head and not (head and size == len(head) and file.head.startswith(head)):
            file.at, file.skipping = 0, False
        elif size < file.at:
            file.at = size
        file.head = os.pread(file.fd, min(HEAD, file.at), 0)

    def _newest(self, file: _Open) -> bool:
        try:
            return _same(os.fstat(file.fd), self.path.stat())
        except FileNotFoundError:
            return True

    def _go_on(self, file: _Open) -> bool:
        """At the end of a file: open the one that was begun after it, if there is one."""
        if self._newest(file):
            return False
        if not file.leaving:
            file.leaving = True  # its writer may have added to it before it was renamed
            return True
        ours = os.fstat(file.fd)
        known = [(status.st_mtime_ns, path.name) for path, status in self._rotated() if _same(status, ours)]
        place = known[0] if known else (ours.st_mtime_ns, "")
        later = [path for path, status in self._rotated()
                 if (status.st_mtime_ns, path.name) > place and not _same(status, ours)]
        following = self._open(later[0] if later else self.path)
        self._drop()
        self._file = following
        return True

    def _rotated(self) -> list[tuple[Path, os.stat_result]]:
        """The rotated files, the oldest first."""
        found = list(self._siblings())
        found.sort(key=lambda one: (one[1].st_mtime_ns, one[0].name))
        return found

    def _siblings(self) -> Iterator[tuple[Path, os.stat_result]]:
        name = self.path.name
        try:
            entries = list(os.scandir(self.path.parent))
        except FileNotFoundError:
            return
        for entry in entries:
            if not (entry.name.startswith(name) and _ROTATED.fullmatch(entry.name, len(name))):
                continue
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue  # removed meanwhile by whoever rotates
            if stat.S_ISREG(status.st_mode):
                yield Path(entry.path), status

    @staticmethod
    def _open(path: Path) -> _Open:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError("it is not a regular file")
        return _Open(fd, 0, b"")

    def _drop(self) -> None:
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _after_last_line(fd: int, size: int) -> int:
    """Where the line begins that is being written at the end of a file, its size if none is."""
    start = max(0, size - LONGEST)
    end = os.pread(fd, size - start, start)
    return start + end.rfind(b"\n") + 1 if b"\n" in end or start == 0 else size
