"""Starts one process in a session of its own and goes away; run as a script by the supervisor.

Reads a JSON object on standard input: command, cwd, env, log, record (path), fields (of the record)
and lock (a locked descriptor it inherited). Prints `{"problem": sentence or null}`.

It stands between the engine and the process for three reasons: the process becomes init's child
and not the engine's; the record with its pid is written by the process itself *before* the command
is executed, so that no crash of the engine leaves a process that nobody knows of; and the lock is
held until the command runs, even when the engine dies in between. The standard library only: it
starts in about 15 ms with `python -I -S`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any, NoReturn


def start_ticks() -> int:
    """When this process was started, in clock ticks since boot: /proc/self/stat, field 22."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123
        return int(stat.read().rpartition(")")[2].split()[19])


def write_record(path: str, record: dict[str, Any]) -> None:
    """Write atomically and durably: a reader sees the old record or the whole new one."""
    fresh = f"{path}.{os.getpid()}"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(fd, json.dumps(record).encode())
    os.fsync(fd)
    os.close(fd)
    os.replace(fresh, path)  # noqa: PTH105


def become(spec: dict[str, Any], pipe: int) -> NoReturn:
    """Turn this process into the command. `pipe` takes a problem; it closes on success."""
    step = "its log could not be opened"
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        log = os.open(spec["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        for source, target in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        step = "its record could not be written"
        write_record(spec["record"], {**spec["fields"], "pid": os.getpid(), "ticks": start_ticks(),
                                      "started": time.time()})
        step = f"its folder {spec['cwd']} could not be entered"
        os.chdir(spec["cwd"])
        step = f"{spec['command'][0]} could not be executed"
        os.execvpe(spec["command"][0], spec["command"], spec["env"])
    except BaseException as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        os.write(pipe, f"{step}: {reason}".encode())
    os._exit(127)


def main() -> None:
    spec = json.load(sys.stdin)
    os.set_inheritable(spec["lock"], False)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        become(spec, writing)
    os.close(writing)
    problem = b""
    while piece := os.read(reading, 4096):
        problem += piece
    if problem:
        os.waitpid(pid, 0)
    print(json.dumps({"problem": problem.decode(errors="replace") or None}))


if __name__ == "__main__":
    main()
