"""One command of a project, run to its end under limits; and in words why it ended otherwise."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NoReturn

from engine.errors import ActionFailed, OpsdeckError
from engine.pipeline.child.lines import Lines
from engine.pipeline.project.model import Limits
from engine.words import span

GUARD = Path(__file__).with_name("guard.py")
GRACE = 1.0  # seconds from SIGTERM to SIGKILL; an aborted step itself has two
TICK = 0.25  # seconds between two calls of `tick`
NEVER = 10 * 365 * 86400.0
Cause = Literal["", "memory", "killed", "timeout", "cpu", "file", "stopped"]
# What programs print when memory is refused to them: Python, C++, NumPy's BLAS, the loader, the shell.
REFUSED = re.compile(r"\bMemoryError\b|bad_alloc|[Cc]annot allocate memory|[Oo]ut of memory"
                     r"|Unable to allocate |failed to map segment|ENOMEM|can't start new thread"
                     r"|pthread_create failed")
TOO_LARGE = re.compile(r"\bFile too large\b|\[Errno 27\]")
BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Stopped(SystemExit):
    """This stage was asked to end (SIGTERM or SIGINT). Exits with 128 and the signal's number."""


@dataclass(frozen=True)
class Ended:
    """How a command ended. `code` or `signal` is there; `cause`: what ended it before its time; `peak_mb`:
    the largest resident memory of it or of a process it waited for (MB of 10**6 bytes); `tail`: its last
    lines."""

    code: int | None
    signal: int | None
    cause: Cause
    seconds: float
    cpu_s: float
    peak_mb: float
    tail: tuple[str, ...]

    @property
    def well(self) -> bool:
        return self.code == 0 and not self.cause


def variables(python: Path, home: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a project's command: nothing of the engine's own but the language.

    `python`: the project's interpreter, whose folder comes first on PATH; `home`: HOME and TMPDIR.
    """
    given = {"PATH": f"{python.parent}:{BASE_PATH}", "HOME": str(home), "TMPDIR": str(home),
             "LANG": os.environ.get("LANG", "C.UTF-8"), "PYTHONUNBUFFERED": "1",
             "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1", "MPLBACKEND": "Agg"}
    if (python.parent.parent / "pyvenv.cfg").exists():
        given["VIRTUAL_ENV"] = str(python.parent.parent)
    return {**given, **more}


def run(command: Sequence[str], *, folder: Path, variables: Mapping[str, str], limits: Limits, log: Path,
        say: Callable[[str], None], secrets: Sequence[str] = (), tick: Callable[[], None] | None = None,
        told: Callable[[str], str] = str) -> Ended:
    """Run `command` in `folder` with exactly `variables` until it ends, and everything it started with it.

    Its output goes to `log`, line by line as `told` makes them, and to `say`; `tick` is called four times a
    second, and may raise to end it. Raises ActionFailed when it cannot be started. When this raises, or this
    process dies, the command is ended.
    """
    spec = {"command": list(command), "folder": str(folder), "variables": dict(variables), "grace": GRACE,
            "timeout": min(limits.timeout, NEVER), "limits": rlimits(limits)}
    reading, writing = os.pipe()
    try:
        guard = subprocess.Popen([sys.executable, "-I", "-S", str(GUARD), str(writing)], env={},
                                 pass_fds=(writing,), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 start_new_session=True)
    except OSError as error:
        os.close(reading)
        raise ActionFailed(f"{command[0]} cannot be run: {error.strerror}.", where=str(folder)) from error
    finally:
        os.close(writing)
    try:
        with log.open("w", encoding="utf-8", errors="replace") as kept:
            lines = Lines(kept, say, secrets, told=told)
            _write(guard, json.dumps(spec).encode() + b"\n")
            report = _follow(guard, reading, lines, tick)
    finally:
        os.close(reading)
        _close(guard)
    return _ended(report, limits, tuple(lines.tail), str(command[0]), folder)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT raise Stopped here, so that what is open can be closed. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise Stopped(128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def failure(ended: Ended, what: str, key: str, limits: Limits, log: str = "log.txt") -> OpsdeckError | None:
    """The error of a command that did not end well, None for one that did. Pure.

    `what` was run, such as "the training"; `key`: of the project file, under which `limits` stands.
    """
    if ended.well:
        return None
    last = ended.tail[-1] if ended.tail else "it printed nothing"
    match ended.cause:
        case "memory" if limits.memory_mb:
            return ActionFailed(f"{what} was ended for memory at its limit of {limits.memory_mb} MB.",
                                where=key, hint=f"Raise {key}.limits.memory_mb or use fewer rows.")
        case "memory":
            return ActionFailed(f"{what} was ended for memory: the machine had no more for it (it had used "
                                f"{ended.peak_mb:.0f} MB).", where=key,
                                hint="Use fewer rows or a machine with more memory; "
                                     f"{key}.limits.memory_mb keeps it from taking other programs' memory.")
        case "killed":
            return ActionFailed(f"{what} was killed from outside (SIGKILL), having used {ended.peak_mb:.0f} "
                                "MB.", where=key,
                                hint="The kernel does so when the machine has no more memory, and its log "
                                     f"says it (dmesg); {key}.limits.memory_mb has it end before that. "
                                     "Otherwise somebody did: retry this step.")
        case "timeout":
            return ActionFailed(f"{what} was ended at its limit of {span(limits.timeout)}.", where=key,
                                hint=f"Raise {key}.limits.timeout, or give it less to do.")
        case "cpu":
            return ActionFailed(f"{what} was ended at its limit of {span(limits.cpu or 0.0)} of processor "
                                "time.", where=key, hint=f"Raise {key}.limits.cpu, or give it less to do.")
        case "file":
            return ActionFailed(f"{what} wrote a file past its limit of {limits.file_mb} MB.", where=key,
                                hint=f"Raise {key}.limits.file_mb, or write less.")
    if ended.signal is not None:
        return ActionFailed(f"{what} was ended by {_named(ended.signal)}; its last line: {last}", where=key,
                            hint=f"{log} has what it printed.")
    return ActionFailed(f"{what} exited with {ended.code}: {last}", where=key,
                        hint=f"{log} has all that it printed.")


def tool(name: str) -> Path | None:
    """Where a program of the engine's own host is, beside this interpreter or on the PATH."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which(name)
    return Path(found) if found else None


def rlimits(limits: Limits) -> dict[str, int]:
    """As the names and numbers of setrlimit; bytes and seconds."""
    given = {"RLIMIT_AS": limits.memory_mb and limits.memory_mb * 10**6,
             "RLIMIT_CPU": limits.cpu and math.ceil(limits.cpu),
             "RLIMIT_FSIZE": limits.file_mb and limits.file_mb * 10**6, "RLIMIT_NOFILE": 4096}
    return {name: value for name, value in given.items() if value}


def _write(guard: subprocess.Popen[bytes], data: bytes) -> None:
    assert guard.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # a guard that died is told of by what it does not report
        guard.stdin.write(data)
        guard.stdin.flush()


def _follow(guard: subprocess.Popen[bytes], reading: int, lines: Lines, tick: Callable[[], None] | None
            ) -> bytes:
    """Feed what is printed until the guard has reported and the output is read; the report."""
    assert guard.stdout is not None
    reporting, report, due = guard.stdout.fileno(), b"", time.monotonic() + TICK
    open_ends = {reading, reporting}
    while open_ends:
        ready, _, _ = select.select(list(open_ends), [], [], max(0.0, due - time.monotonic()))
        for end in ready:
            piece = os.read(end, 1 << 16)
            if not piece:
                open_ends.discard(end)
            elif end == reading:
                lines.feed(piece)
            else:
                report += piece
        if time.monotonic() >= due:
            due = time.monotonic() + TICK
            if tick is not None:
                tick()
    lines.feed(b"", last=True)
    if tick is not None:
        tick()
    return report


def _close(guard: subprocess.Popen[bytes]) -> None:
    """End of input ends the command if it still runs, and the guard goes once all of it is gone."""
    assert guard.stdin is not None and guard.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        guard.stdin.close()
    try:
        guard.wait(GRACE + 5.0)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    guard.stdout.close()


def _ended(report: bytes, limits: Limits, tail: tuple[str, ...], program: str, folder: Path) -> Ended:
    try:
        told: dict[str, Any] = json.loads(report)
    except ValueError as error:
        raise ActionFailed(f"What watches over {program} was ended, and {program} with it.",
                           where=str(folder), hint="The machine may have run out of memory; look at its "
                                                   "kernel log.") from error
    if told["problem"]:
        raise ActionFailed(f"{program} cannot be run: {told['problem']}.", where=str(folder),
                           hint="Look at its name, and whether the project's environment has it.")
    status = int(told["status"])
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    code = None if number is not None else os.WEXITSTATUS(status)
    peak = told["peak_kb"] * 1024 / 1e6
    cause = told["cause"] or _cause(code, number, float(told["cpu_s"]), peak, limits, tail)
    return Ended(code, number, cause, float(told["seconds"]), float(told["cpu_s"]), peak, tail)


def _cause(code: int | None, number: int | None, cpu_s: float, peak_mb: float, limits: Limits,
           tail: tuple[str, ...]) -> Cause:
    """Why it ended, where it was neither its time nor us. Pure. A shell gives 128 and the number for a child
    that a signal ended."""
    if code == 0:
        return ""
    said = "\n".join(tail[-30:])
    number = code - 128 if number is None and code and code > 128 else number
    if limits.cpu and (number == signal.SIGXCPU or (number == signal.SIGKILL and cpu_s >= limits.cpu)):
        return "cpu"
    if limits.file_mb and (number == signal.SIGXFSZ or TOO_LARGE.search(said)):
        return "file"
    # A program that is refused memory may also just break. The limit itself never sends SIGKILL.
    near = limits.memory_mb is not None and peak_mb > 0.7 * limits.memory_mb
    if REFUSED.search(said) or (near and number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS)):
        return "memory"
    return "killed" if number == signal.SIGKILL else ""


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
