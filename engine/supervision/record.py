"""What is known of one supervised process, and what the kernel says about it now.

A pid alone names nobody: it is recycled. A process is the recorded one when its pid, its start time
(/proc/PID/stat, field 22) and the boot agree. What it started is found by a token in the
environment, which no stranger has.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed

TOKEN = "OPSDECK_SUPERVISED"


@dataclass(frozen=True)
class Record:
    """The content of `$home/run/<service>-<process>.json`. `ticks`: start time since boot."""

    name: str
    pid: int
    ticks: int
    boot: str
    started: float
    token: str

    def alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return self.boot == boot_id() and lives(self.pid, self.ticks)

    def left_over(self) -> dict[int, int]:
        """Other living processes that it or its children started: pid and start time.

        One that ends is missing as soon as its memory is released, which is before its sockets are:
        see `lives`.
        """
        if self.boot != boot_id():
            return {}
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return {pid: stat.ticks for pid in pids
                if pid != self.pid and self._started(pid) and (stat := _stat(pid)) is not None}

    def kill_left_over(self) -> int:
        """SIGKILL them; how many there were. A pid that is recycled meanwhile is not hit: the
        descriptor holds on to the process that was looked at."""
        pids = self.left_over()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                try:
                    if self._started(pid):
                        signal.pidfd_send_signal(fd, signal.SIGKILL)
                finally:
                    os.close(fd)
        return len(pids)

    def _started(self, pid: int) -> bool:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        # A zombie's environment is empty.
        return f"{TOKEN}={self.token}".encode() in environ.split(b"\0")


@dataclass(frozen=True)
class _Stat:
    state: str
    ticks: int


def _stat(pid: int) -> _Stat | None:
    """The fields 3 and 22 of /proc/PID/stat (proc(5)); None if there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(fields[0], int(fields[19]))


def lives(pid: int, ticks: int) -> bool:
    """Whether the process with that pid and start time runs, or still gives back what it holds."""
    stat = _stat(pid)
    return stat is not None and stat.ticks == ticks and stat.state not in "ZXx"


def boot_id() -> str:
    """Changes at each boot: pids and start times of an earlier one mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read(path: Path) -> Record | None:
    """The record at `path`, or None if there is none.

    Raises ActionFailed if it cannot be read: to start a second process beside an unknown first one
    would be worse than to ask a person.
    """
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        return Record(**{key: data[key] for key in Record.__dataclass_fields__})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ActionFailed(
            "The record of this process cannot be read, so nobody knows whether it runs.",
            where=str(path),
            hint="End the process by hand if it runs, remove the file, then try again.") from error


def remove(path: Path, record: Record) -> None:
    """Forget `record`, unless another process has been recorded there meanwhile."""
    if read(path) == record:
        path.unlink(missing_ok=True)


def signal_group(record: Record, number: int) -> None:
    """Send a signal to its process group, if it is still the recorded process.

    Raises PermissionError when it belongs to somebody else.
    """
    if record.alive():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(record.pid, number)
