"""Shell steps as processes that outlive the engine and can be found again.

Each attempt has a folder. A lock file in it is locked before the fork and inherited by everything
the step starts, so "the lock is held" means "something of it is alive", whoever asks. A one-line
`sh` in front of the command writes its pid into the lock file first and the exit status last: an
engine that was killed meanwhile reads there what its predecessor would have seen.

    lock     held (flock) while any process of the attempt lives; its first line is the session's
             leader, written before the command starts, its second the exit status
    stdout, stderr                      raw output, 0600
    said/{result.json, progress.jsonl}  what the process of an action said, see `carried` and `curves`

The folder is the engine's. Of a step that runs as another user only `said/` is that user's, and the lock may
be written: what the engine opens by name in the folder can be replaced by nobody, least of all by a link.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ActionFailed

# If its pid cannot be written the command must not run: an empty lock file means "never started".
_SHIM = 'l=$1; shift; echo $$ >>"$l" || exit 126; "$@"; s=$?; echo $s >>"$l"; exit $s'
KILL_GRACE = 2.0
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME")


@dataclass(frozen=True)
class Attempt:
    """The folder of one attempt of one step."""

    path: Path

    @property
    def stdout(self) -> Path:
        return self.path / "stdout"

    @property
    def stderr(self) -> Path:
        return self.path / "stderr"

    @property
    def said(self) -> Path:
        """Where the process of an action may write."""
        return self.path / "said"

    @property
    def result(self) -> Path:
        """Where the process of an action says what it came to."""
        return self.said / "result.json"

    @property
    def progress(self) -> Path:
        """Where the process of an action appends the points of a curve."""
        return self.said / "progress.jsonl"

    @property
    def references(self) -> Path:
        """Which secrets the process of an action was given."""
        return self.path.with_name(f"{self.path.name}.secrets")

    @property
    def masked(self) -> Path:
        """Is there once the output on the disk holds no secret any more."""
        return self.path / "masked"

    def pid(self) -> int | None:
        """The session's leader, or None if the attempt never started."""
        return self._line(0)

    def status(self) -> int | None:
        """The exit status, or None if the command has not ended (or was killed before it could)."""
        return self._line(1)

    def _line(self, number: int) -> int | None:
        """A line of the lock file, if it was written whole. The step's user may have written anything."""
        try:
            with (self.path / "lock").open("rb") as file:
                lines = file.read(64).splitlines(keepends=True)
        except OSError:
            return None
        if number >= len(lines) or not re.fullmatch(rb"[0-9]{1,10}\n", lines[number]):
            return None
        return int(lines[number])

    def alive(self) -> bool:
        """Whether any process of the attempt still lives."""
        try:
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def holders(self) -> list[int]:
        """The processes that hold the lock file open, those that left the session too."""
        lock = os.path.realpath(self.path / "lock")
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if any(str(fd.readlink()) == lock for fd in (entry / "fd").iterdir()):
                    found.append(int(entry.name))
        return found

    def signal(self, number: int) -> None:
        """Send a signal to everything of the attempt that lives.

        The group is signalled only while its leader is seen to hold the lock: a pid alone may have
        been given to a stranger since.
        """
        alive = self.alive()
        holders = self.holders() if alive else []
        pid = self.pid()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid is not None and (pid in holders or (alive and self._leads(pid))):
                os.killpg(pid, number)
        for other in holders:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(other, number)


    def _leads(self, pid: int) -> bool:
        """Whether it is the leader, where the kernel does not show us what it holds open: a process of the
        steps' user that leads a session, while the exit status is not written yet."""
        try:
            user = self.said.stat().st_uid
            return (user != os.geteuid() and self.status() is None and os.getsid(pid) == pid
                    and Path(f"/proc/{pid}").stat().st_uid == user)
        except OSError:
            return False


@dataclass
class Child:
    """A started attempt whose leader is our child: `pidfd` becomes readable when it ends."""

    attempt: Attempt
    process: subprocess.Popen[bytes]
    pidfd: int

    @property
    def session(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send a signal to the process group, and to whatever left it but holds the lock."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)
        self.attempt.signal(number)

    def reap(self) -> int:
        """The leader has ended: end what is left of its group, then take its exit status.

        In this order, because the group's number is ours only until the leader is waited for.
        """
        self.signal(signal.SIGKILL)
        code = self.process.wait()
        os.close(self.pidfd)
        return code


def spawn(attempt: Attempt, argv: Sequence[str] | str, *, environ: Mapping[str, str],
          stdin: bytes | None, cwd: Path, user: str | None = None, keep: bool = False, umask: int = -1
          ) -> Child:
    """Start a command in a session of its own. A string runs in `sh`. `keep`: its output goes after what
    the files of the attempt hold already. `umask`: the engine's own if it is -1.

    Raises ActionFailed if it cannot be started: then nothing ran.
    """
    attempt.said.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = ["/bin/sh", "-c", argv] if isinstance(argv, str) else list(argv)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(attempt.path / "lock", flags, 0o600)
    files = [os.open(p, flags | os.O_APPEND | (0 if keep else os.O_TRUNC), 0o600)
             for p in (attempt.stdout, attempt.stderr)]
    source = _stdin(stdin)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        owner = pwd.getpwnam(user) if user else None
        if owner is not None:
            _lend(attempt, owner)
        process = subprocess.Popen(
            ["/bin/sh", "-c", _SHIM, "step", str(attempt.path / "lock"), *command],
            stdin=source, stdout=files[0], stderr=files[1], env=dict(environ), cwd=cwd,
            pass_fds=(lock,), start_new_session=True,
            user=owner.pw_uid if owner else None, group=owner.pw_gid if owner else None,
            extra_groups=[] if owner else None, umask=umask)
        return Child(attempt, process, os.pidfd_open(process.pid))
    except BlockingIOError:
        raise ActionFailed("another process already runs this attempt",
                           where=str(attempt.path)) from None
    except (OSError, KeyError, ValueError) as error:
        raise ActionFailed(f"the command could not be started: {error}") from error
    finally:
        for fd in (lock, source, *files):
            os.close(fd)


def _lend(attempt: Attempt, owner: pwd.struct_passwd) -> None:
    """Let another user through to the lock, and write into `said/`; nobody else comes in. Raises OSError."""
    for folder in (attempt.path.parent.parent, attempt.path.parent):
        folder.chmod(0o711)
    for path, mode in ((attempt.path, 0o710), (attempt.path / "lock", 0o660)):
        os.chown(path, -1, owner.pw_gid)
        path.chmod(mode)
    if attempt.said.stat().st_uid != owner.pw_uid:
        attempt.said.chmod(0o755)
        os.chown(attempt.said, owner.pw_uid, owner.pw_gid)


def _stdin(data: bytes | None) -> int:
    """A descriptor to read `data` from; a memory file, so that no secret touches the disk."""
    if data is None:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def environment(base: Mapping[str, str], *, scrub: bool, extra: Mapping[str, str], user: str | None = None
                ) -> dict[str, str]:
    """What a step sees: everything, or (a system engine) only what names no secret, plus `extra`. `user`: who
    runs it, if that is not the engine's own; it has a home and a place for temporary files of its own."""
    kept = {k: v for k, v in base.items() if not scrub or k in PASSED_ON}
    if user is not None:
        kept.pop("TMPDIR", None)
        with contextlib.suppress(KeyError):  # that there is no such user is told when it is started
            kept |= {"HOME": pwd.getpwnam(user).pw_dir, "USER": user, "LOGNAME": user}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", **kept, **extra}


def boot_id() -> str:
    """Changes at each boot of the machine: files of an earlier boot may have been lost."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
