"""Starting an engine apart from who starts it, stopping the right process, saying how it is.

The record (`$home/engine.json`) names the process by pid, start time and boot: a pid alone may be a
stranger's by the time somebody wants to stop it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from engine.api import problems, wire
from engine.api.light import connect
from engine.daemon.processes import Identity, identity
from engine.daemon.sockets import answers
from engine.errors import EngineUnreachable, HomeBusy, NotPermitted, OpsdeckError, UsageError
from engine.home import Home, prepare
from engine.journal.lease import holder

POLL = 0.02  # seconds between two looks at a socket that is about to answer
SETTLE = 1.0  # seconds that an engine may have the lock and no record yet
PROGRAM = (sys.executable, "-P", "-m", "engine.cli.main")


@dataclass(frozen=True)
class Started:
    """An engine that answers. `already`: it ran before, or another start was faster."""

    info: wire.EngineInfo
    already: bool


class Report(msgspec.Struct):
    """What a detached engine tells who started it, once, through a pipe."""

    pid: int
    problem: wire.Problem | None = None


def start(home: Home, *, timeout: float = 60.0) -> Started:
    """Start the home's engine in a session of its own, and return when its socket answers.

    Two starts at once give one engine. Raises what kept it from starting, and UsageError for a
    system engine, which systemd starts.
    """
    if answers(home.socket):
        return Started(connect(home).engine(), already=True)
    if home.mode == "system":
        raise UsageError("the system's engine is started by systemd, not by a command",
                         hint="systemctl start opsdeck")
    prepare(home)
    deadline = time.monotonic() + timeout
    while True:
        report = _read_report(_spawn(home), home, deadline)
        if report.problem is None:
            info = connect(home).engine()
            return Started(info, already=info.pid != report.pid)
        error = problems.from_wire(report.problem)
        if not isinstance(error, HomeBusy) or not _wait_for_other(home, deadline):
            raise error
        if answers(home.socket):
            return Started(connect(home).engine(), already=True)


def _wait_for_other(home: Home, deadline: float) -> bool:
    """Wait while an engine that has the home starts or ends: True when it answers or is gone.

    False when what has the home is no engine (an embedded run), or nothing changes in time.
    """
    settled = time.monotonic() + SETTLE
    while (now := time.monotonic()) < deadline:
        if answers(home.socket):
            return True
        if recorded(home) is None and now > settled:
            return holder(home.lock) is None
        time.sleep(POLL)
    return False


def _spawn(home: Home) -> int:
    """Start the process; returns the reading end of the pipe its report comes through."""
    reading, writing = os.pipe()
    try:
        log = os.open(home.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            command = [*PROGRAM, "--home", str(home.path), "engine", "serve", "--detached",
                       "--report", str(writing)]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home.path,
                pass_fds=(writing,), start_new_session=True)
        finally:
            os.close(log)
    except OSError as error:
        os.close(reading)
        raise OpsdeckError(f"the engine cannot be started: {error.strerror}",
                           where=str(home.path)) from error
    finally:
        os.close(writing)
    process.wait()  # it forks at once, so that the engine is init's child and not ours
    return reading


def _read_report(reading: int, home: Home, deadline: float) -> Report:
    data = b""
    try:
        while True:
            ready, _, _ = select.select([reading], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise EngineUnreachable("the engine has not answered in time and still starts",
                                        where=str(home.path), hint=f"its log is {home.log}")
            piece = os.read(reading, 65536)
            if not piece:
                break
            data += piece
    finally:
        os.close(reading)
    try:
        return msgspec.json.decode(data, type=Report)
    except msgspec.DecodeError:
        raise OpsdeckError("the engine ended while it was starting", where=str(home.path),
                           hint=f"its log is {home.log}") from None


def report(descriptor: int, error: OpsdeckError | None = None) -> None:
    """Tell who started this process that it serves, or why it does not; closes the pipe."""
    problem = None if error is None else problems.to_wire(error, time.time())
    try:
        os.write(descriptor, msgspec.json.encode(Report(os.getpid(), problem)))
    except BrokenPipeError:
        return  # who started us has left; we go on
    finally:
        os.close(descriptor)


def write_record(home: Home, version: str) -> None:
    """Leave word of this process in the home, whole or not at all."""
    me = identity(os.getpid())
    assert me is not None
    fresh = home.record.with_name(f"engine.json.{os.getpid()}")
    fresh.write_text(json.dumps({**asdict(me), "socket": str(home.socket), "version": version}))
    fresh.chmod(0o600)
    fresh.replace(home.record)


def recorded(home: Home) -> Identity | None:
    """The process that the record names, if that very process still runs."""
    try:
        found = json.loads(home.record.read_text())
        process = Identity(int(found["pid"]), int(found["ticks"]), str(found["boot"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process if process.alive() else None


def stop(home: Home, *, timeout: float = 60.0, force: bool = False) -> int | None:
    """End the home's engine with SIGTERM and wait; returns its pid, None if none ran.

    `force`: SIGKILL when it has not ended in time. Raises EngineUnreachable when it has not and
    force was not asked for.
    """
    process = recorded(home)
    if process is None:
        return None
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    try:
        if not process.alive():  # the pid may have changed hands before we held the handle
            return None
        _send(handle, signal.SIGTERM)
        if not _ended(handle, timeout):
            if not force:
                raise EngineUnreachable(
                    f"the engine (pid {process.pid}) has not ended in {timeout:.0f} s",
                    where=str(home.path),
                    hint="wait, or end it with `opsdeck engine stop --force`; runs resume after it")
            _send(handle, signal.SIGKILL)
            _ended(handle, timeout)
    finally:
        os.close(handle)
    return process.pid


def _send(handle: int, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return
    except PermissionError:
        raise NotPermitted("the engine belongs to another user, who may stop it") from None


def _ended(handle: int, timeout: float) -> bool:
    ready, _, _ = select.select([handle], [], [], timeout)
    return bool(ready)


def status(home: Home) -> dict[str, Any]:
    """`{"pid", "socket", "version", "state"}`; state is `stopped` when nothing runs or answers.

    With `problem`, `config_problem` and `restart` (see `wire.EngineInfo`) where there is any.
    """
    if answers(home.socket):
        info = connect(home).engine()
        more = {"problem": info.problem, "config_problem": info.config_problem, "restart": info.restart}
        return {"pid": info.pid, "socket": info.socket, "version": info.version,
                "state": info.state, **{name: value for name, value in more.items() if value}}
    process = recorded(home)
    return {"pid": process.pid if process else None, "socket": str(home.socket), "version": None,
            "state": "starting" if process else "stopped"}
