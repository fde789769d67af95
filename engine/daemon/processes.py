"""What the kernel says about another process. Linux: /proc, SO_PEERCRED."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Peer:
    """The process that opened a connection, as the kernel recorded it at that moment.

    `pid` is 0 when it lives in a namespace that we cannot see into.
    """

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """SO_PEERCRED of a connected Unix socket; raises OSError."""
    size = struct.calcsize("3i")
    return Peer(*struct.unpack("3i", connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, size)))


@dataclass(frozen=True)
class Identity:
    """A process for good: a pid is given again, its start time in this boot is not."""

    pid: int
    ticks: int
    boot: str

    def alive(self) -> bool:
        """Whether this very process runs (a zombie does not)."""
        fields = _stat(self.pid)
        return (fields is not None and fields[0] not in "ZX" and self.boot == boot_id()
                and int(fields[19]) == self.ticks)


def identity(pid: int) -> Identity | None:
    """The process that has this pid now, or None."""
    fields = _stat(pid)
    return Identity(pid, int(fields[19]), boot_id()) if fields else None


def ancestors(pid: int) -> Iterator[int]:
    """The pid itself, its parent, and so on, without init."""
    seen: set[int] = set()
    while pid > 1 and pid not in seen:
        fields = _stat(pid)
        if fields is None:
            return
        yield pid
        seen.add(pid)
        pid = int(fields[1])


def session_of(pid: int) -> int | None:
    """The session a process is in, or None if it is gone."""
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None


def holds_open(pid: int, name: str, under: Path) -> bool:
    """Whether a process has a file of this name somewhere under a directory open."""
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            target = Path(os.readlink(descriptor))  # noqa: PTH115
            if target.name == name and target.is_relative_to(under):
                return True
    except OSError:
        return False
    return False


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(pid: int) -> list[str] | None:
    """/proc/PID/stat from field 3 (state) on; the name before it may hold spaces and brackets."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()
