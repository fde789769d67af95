"""Stands between a stage and a project's command, so that nothing of the command outlives the stage.

Run by path, `python -I -S guard.py OUT`, with one JSON line on standard input: command, folder, variables,
limits {name: number}, timeout and grace in seconds. OUT is the descriptor that the command prints to. When
standard input ends, because the stage does or says so, the command is ended: SIGTERM, `grace`, SIGKILL.
Last of all it prints one JSON line: problem, status, cause, seconds, cpu_s, peak_kb.

A process of its own for two reasons: as the subreaper it sees every descendant of the command, those that
went into sessions of their own as well; and the peak memory of the command is then its own, since a child
begins with what its parent has resident, which in a stage is hundreds of megabytes. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
LEFT = 0.2  # seconds for what the command left running to go by itself


def become(spec: dict[str, Any], out: int, problem: int, parent: int) -> NoReturn:
    """Turn this process into the command. `problem` takes a sentence; it closes on success."""
    step = "its limits could not be set"
    try:
        os.setsid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(127)
        for name, value in spec["limits"].items():
            kind = getattr(resource, name)
            hard = resource.getrlimit(kind)[1]
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            # Past the soft limit of time the kernel says so; past the hard one it kills.
            later = most + 2 if name == "RLIMIT_CPU" and hard == resource.RLIM_INFINITY else most
            resource.setrlimit(kind, (most, later))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        step = f"the folder {spec['folder']} could not be entered"
        os.chdir(spec["folder"])
        step = f"{spec['command'][0]} could not be executed"
        os.execvpe(spec["command"][0], spec["command"], spec["variables"])
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        os.write(problem, f"{step}: {reason}".encode())
    os._exit(127)


def send(pid: int, number: int) -> None:
    """To the command's group, and to the command where it left the group."""
    for call in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            call(pid, number)


def wait(pid: int, handle: int, spec: dict[str, Any]) -> str:
    """Until the command ends, or is ended: why it was, "" if it ended by itself."""
    cause, end, last = "", time.monotonic() + spec["timeout"], None
    watching = [handle, 0]
    while True:
        moment = end if last is None else last
        ready, _, _ = select.select(watching, [], [], max(0.0, moment - time.monotonic()))
        if handle in ready:
            return cause
        if last is not None:
            send(pid, signal.SIGKILL)
            last = time.monotonic() + 1.0
            continue
        if 0 in ready and os.read(0, 4096):
            continue
        cause = "stopped" if 0 in ready else "timeout"
        send(pid, signal.SIGTERM)
        last, watching = time.monotonic() + spec["grace"], [handle]


def sweep(pid: int) -> None:
    """End what the command left behind. Orphans come to this process, so it ends when it has no child."""
    began = time.monotonic()
    while True:
        try:
            found, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if found == 0:
            if time.monotonic() - began > LEFT:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                for child in children():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(child, signal.SIGKILL)
            time.sleep(0.01)


def children() -> list[int]:
    """The pids whose parent is this process, from /proc/PID/stat, field 4."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError), \
                    open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123
                if int(stat.read().rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(name))
    return found


def main() -> None:
    spec, out = json.loads(sys.stdin.buffer.readline()), int(sys.argv[1])
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    system = ctypes.CDLL(None)
    system.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    system.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the command may not look into what watches over it
    reading, writing = os.pipe()
    began, parent = time.monotonic(), os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        become(spec, out, writing, parent)
    os.close(writing)
    os.close(out)
    handle = os.pidfd_open(pid)
    problem = b""
    while piece := os.read(reading, 4096):
        problem += piece
    cause = wait(pid, handle, spec)
    _, status, usage = os.wait4(pid, 0)
    seconds = time.monotonic() - began
    sweep(pid)
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps({"problem": problem.decode(errors="replace"), "status": status, "cause": cause,
                          "seconds": seconds, "cpu_s": usage.ru_utime + usage.ru_stime,
                          "peak_kb": usage.ru_maxrss}), flush=True)


if __name__ == "__main__":
    main()
