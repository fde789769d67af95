"""The supervisor: starts, stops and finds long-lived processes that outlive the engine.

A process is named "service/process", as in the config. Under the home it has

    run/<service>-<process>.json    who it is: pid, start time, boot, token (see `record`)
    run/<service>-<process>.lock    locked while somebody starts or stops it
    log/<service>-<process>.log     its output; a log over 8 MB is put aside at the next start

Its environment is its config's `env` over PATH, HOME, LANG, LC_ALL, TZ, TMPDIR, USER and LOGNAME of
the engine: no secret of the engine reaches it, and no PYTHONPATH, which would let whoever starts an
engine put code into a server. MLflow unpickles models unless it is told not to; it is told not to,
and `env` is where an operator says otherwise. Nothing is expanded in a command. It runs in the home
unless `cwd` says otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from engine.config import Config, Process
from engine.errors import ActionFailed, NotFound
from engine.procedures.actions import ProcessStatus
from engine.supervision import output, readiness
from engine.supervision.record import TOKEN, Record, boot_id, lives, read, remove, signal_group

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME")
DEFAULTS = {"PATH": "/usr/local/bin:/usr/bin:/bin", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
SETTLE = 0.3  # seconds a process without a ready check must live to count as started
LOCK_WITHIN = 60.0
KILL_WITHIN = 5.0
LAUNCHER = Path(__file__).with_name("launcher.py")


def processes(config: Config) -> dict[str, Process]:
    """Every process of the config, by "service/process"."""
    return {f"{service}/{name}": process for service, entry in config.services.items()
            for name, process in entry.processes.items()}


class ProcessSupervisor:
    """Satisfies `engine.procedures.actions.Supervisor`.

    `known` may be a live mapping: a name is looked up when it is used. Any number of supervisors,
    in any number of engines, may share a home.
    """

    def __init__(self, home: Path, known: Mapping[str, Process]) -> None:
        self._home = home
        self._known = known

    def log(self, name: str) -> Path:
        """Where the process writes. Raises NotFound for a name that is not one."""
        return self._home / "log" / f"{self._stem(name)}.log"

    async def status(self, name: str) -> ProcessStatus:
        """Raises NotFound for a name that the config does not have."""
        return await self._status(name, self._process(name))

    async def start(self, name: str) -> ProcessStatus:
        """Start it unless it runs, and wait until it is ready, at most `ready_within`.

        Raises ActionFailed with the end of its log when it ends at once or does not get ready. One
        that this call started is ended again then; one that ran before is left alone.
        """
        process = self._process(name)
        async with self._lock(name) as lock:
            record = self._record(name)
            fresh = record is None or not record.alive()
            if fresh:
                if record is not None:
                    await self._end(name, record, 0.0)
                await self._refuse_squatter(name, process)
                offset = output.rotate(self.log(name))
                record = await self._launch(name, process, lock)
        assert record is not None
        problem = await self._wait_ready(name, process, record)
        if problem is None:
            return await self._status(name, process)
        if not fresh:
            raise ActionFailed(f"{name} runs with pid {record.pid}, but {problem}.", where=name,
                               hint=f"It was left running. Restart it, or read {self.log(name)}.")
        async with self._lock(name):
            await self._end(name, record, 2.0)
        raise ActionFailed(f"{name} was started, but {problem}. It is stopped again.", where=name,
                           hint=output.tail(self.log(name), offset))

    async def stop(self, name: str, grace_s: float = 10.0) -> ProcessStatus:
        """End it and everything it started: SIGTERM, then SIGKILL after `grace_s` seconds.

        Stopping what does not run is not an error. Raises ActionFailed if it cannot be ended,
        NotFound for a name that neither the config nor this home knows.
        """
        if not self._path(name).exists():
            self._process(name)
        async with self._lock(name):
            record = self._record(name)
            if record is not None:
                await self._end(name, record, grace_s)
        return ProcessStatus(name, "stopped", None, None, None)

    async def stop_all(self, grace_s: float = 10.0) -> list[ProcessStatus]:
        """Stop every process recorded in this home, those gone from the config too.

        One that cannot be stopped does not keep the others running; its error is raised last.
        """
        names: list[str] = []
        problems: list[BaseException] = []
        for path in sorted((self._home / "run").glob("*.json")):
            try:
                record = read(path)
                names += [record.name] if record else []
            except ActionFailed as problem:
                problems.append(problem)
        ended = await asyncio.gather(*(self.stop(name, grace_s) for name in names),
                                     return_exceptions=True)
        problems += [each for each in ended if isinstance(each, BaseException)]
        if problems:
            raise problems[0]
        return [each for each in ended if isinstance(each, ProcessStatus)]

    async def _status(self, name: str, process: Process) -> ProcessStatus:
        record = self._record(name)
        if record is None:
            return ProcessStatus(name, "stopped", None, None, None)
        if not record.alive():
            return ProcessStatus(name, "dead", record.pid, record.started, False)
        ready = await readiness.answers(process.ready) if process.ready else None
        return ProcessStatus(name, "running", record.pid, record.started, ready)

    async def _refuse_squatter(self, name: str, process: Process) -> None:
        if process.ready and await readiness.answers(process.ready):
            raise ActionFailed(
                f"{name} was not started: something else already answers at {process.ready}.",
                where=name, hint="Find out what listens there and end it, or change the port.")

    async def _launch(self, name: str, process: Process, lock: int) -> Record:
        stem = self._stem(name)
        token = uuid.uuid4().hex
        base = {key: value for key in PASSED_ON if (value := os.environ.get(key)) is not None}
        spec = {
            "command": process.command, "cwd": str(process.cwd or self._home),
            "env": {**DEFAULTS, **base, **process.env, TOKEN: token},
            "log": str(self.log(name)), "record": str(self._home / "run" / f"{stem}.json"),
            "fields": {"name": name, "boot": boot_id(), "token": token}, "lock": lock}
        # A cancelled caller waits for this: closing `lock` while the thread uses it would let
        # another starter in, or hand the launcher a stranger's descriptor.
        task = asyncio.ensure_future(asyncio.to_thread(_run_launcher, spec, lock))
        try:
            problem = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            raise
        if problem is not None:
            self._path(name).unlink(missing_ok=True)
            raise ActionFailed(f"{name} could not be started: {problem}.", where=name)
        record = self._record(name)
        if record is None:
            raise ActionFailed(f"{name} was started and its record is gone.", where=name,
                               hint=f"Look who else writes to {self._home / 'run'}.")
        return record

    async def _wait_ready(self, name: str, process: Process, record: Record) -> str | None:
        """None when ready, else what is wrong, as the end of a sentence."""
        begun = time.monotonic()
        within = process.ready_within if process.ready else SETTLE
        pause = 0.02
        while record.alive():
            if process.ready and await readiness.answers(process.ready) and record.alive():
                return None
            waited = time.monotonic() - begun
            if waited >= within:
                return (f"it did not answer 200 at {process.ready} within {within:g} s"
                        if process.ready else None)
            await asyncio.sleep(min(pause, within - waited))
            pause = min(pause * 1.5, 0.25)
        return f"it ended {time.monotonic() - begun:.1f} s later"

    async def _end(self, name: str, record: Record, grace_s: float) -> None:
        """End the process and what it left behind, and forget it. The lock is held."""
        deadline = time.monotonic() + grace_s
        family = record.left_over()

        def gone() -> bool:
            family.update(record.left_over())
            killed = record.kill_left_over()
            return not (killed or record.alive() or any(lives(*each) for each in family.items()))

        try:
            if grace_s > 0:
                signal_group(record, signal.SIGTERM)
                signal_group(record, signal.SIGCONT)  # a stopped process cannot end by itself
                if await _until(lambda: not record.alive(), grace_s):
                    await _until(lambda: not record.left_over(), deadline - time.monotonic())
            signal_group(record, signal.SIGKILL)
            ended = await _until(gone, KILL_WITHIN)
        except PermissionError as error:
            raise ActionFailed(f"{name} (pid {record.pid}) belongs to another user.", where=name,
                               hint="Stop it as that user.") from error
        if not ended:
            raise ActionFailed(
                f"{name} (pid {record.pid}) does not end, not even by SIGKILL.", where=name,
                hint="It hangs in the kernel, most likely on a disk or a network filesystem.")
        remove(self._path(name), record)

    def _process(self, name: str) -> Process:
        self._stem(name)
        process = self._known.get(name)
        if process is None:
            names = ", ".join(sorted(self._known)) or "none"
            raise NotFound(f"There is no process {name} in the config.", hint=f"Known: {names}.")
        return process

    def _stem(self, name: str) -> str:
        """The file stem of a name. Two names that would share one are refused."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*/[a-z0-9][a-z0-9_.-]*", name):
            raise NotFound(f"{name!r} is not the name of a process.",
                           hint="Processes are named service/process, such as flights/gateway.")
        stem = name.replace("/", "-")
        twins = [other for other in self._known
                 if other != name and other.replace("/", "-") == stem]
        if twins:
            raise ActionFailed(f"{name} and {twins[0]} would share their files.", where=name,
                               hint="Rename one of them in opsdeck.yaml.")
        return stem

    def _path(self, name: str) -> Path:
        return self._home / "run" / f"{self._stem(name)}.json"

    def _record(self, name: str) -> Record | None:
        return read(self._path(name))

    @contextlib.asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[int]:
        """Hold the process's lock; gives the descriptor. Raises ActionFailed after a minute."""
        for folder in ("run", "log"):
            (self._home / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._home / "run" / f"{self._stem(name)}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not await _until(lambda: _try_lock(fd), LOCK_WITHIN):
                raise ActionFailed(f"Somebody else has been starting or stopping {name} for "
                                   f"{LOCK_WITHIN:g} s.", where=name)
            yield fd
        finally:
            os.close(fd)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _until(condition: Callable[[], bool], within: float) -> bool:
    """Wait until it holds; False if it does not within that many seconds."""
    deadline = time.monotonic() + within
    pause = 0.005
    while not condition():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, 0.1)
    return True


def _run_launcher(spec: dict[str, object], lock: int) -> str | None:
    """Start the process through `launcher.py`; the sentence of what went wrong, or None."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCHER)], input=json.dumps(spec).encode(),
        capture_output=True, pass_fds=(lock,), start_new_session=True, check=False)
    if done.returncode != 0:
        return done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it was killed"
    problem = json.loads(done.stdout)["problem"]
    return None if problem is None else str(problem)
