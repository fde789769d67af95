"""The watchdog of leases: `python -m engine.rollout.traffic.watchdog --home HOME`.

A process of its own that outlives the engine. When a lease is not renewed in time it sets the fallback
through the router's own adapter, again and again until it stands or the lease is ended or granted anew,
and writes down what it did (`leases.Fallback`). One to a home. It ends by itself when there has been no
lease to watch for a while; whoever grants or renews one sees that it lives.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec
from pydantic import TypeAdapter, ValidationError

from engine.config_routers import Router
from engine.errors import ActionFailed, OpsdeckError
from engine.rollout.traffic.adapters import make
from engine.rollout.traffic.leases import Fallback, Lease, Leases
from engine.rollout.traffic.weights import same

IDLE = 120.0
LOOK = 0.5      # seconds between two looks at the leases, at most
AGAIN = (0.25, 5.0)  # seconds between attempts, growing from the first to the second
LOG_LIMIT = 1 << 20
NEAR = 0.2      # percent by which a router that cannot express the fallback exactly may miss it


@dataclass
class Watchdog:
    """Watches the leases of one home until there has been none for `idle_s` seconds."""

    leases: Leases
    say: Callable[[str], None]
    idle_s: float = IDLE
    _tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)
    _broken: set[str] = field(default_factory=set)

    async def watch(self, give_up: Callable[[], None]) -> None:
        """`give_up` is called under the lock of the leases, at a moment when there is none to watch."""
        idle_since = self.leases.clock()
        while self.leases.folder.exists():
            wait, busy = self._look()
            if busy:
                idle_since = self.leases.clock()
            elif self.leases.clock() - idle_since >= self.idle_s:
                with contextlib.suppress(TimeoutError), self.leases.locked():
                    if not self._look()[1]:
                        give_up()
                        return
            await asyncio.sleep(wait)

    def _look(self) -> tuple[float, bool]:
        """Begin with the leases that ran out, stop with those that are gone. How long to sleep, and
        whether there is anything to watch."""
        found, broken = self.leases.granted()
        for name in set(broken) - self._broken:
            self.say(f"{name} is no lease; it cannot be watched")
        self._broken = set(broken)
        left = {lease.id: self.leases.seconds_left(lease) for lease in found}
        for id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[id]
                if not task.cancelled():
                    task.result()
            elif left.get(id) != 0:
                task.cancel()
        for lease in found:
            if left[lease.id] == 0 and lease.id not in self._tasks and not self._is_done(lease):
                self._tasks[lease.id] = asyncio.create_task(self._fall_back(lease), name=lease.service)
        running = [seconds for seconds in left.values() if seconds > 0]
        return min([LOOK, *(max(0.01, seconds) for seconds in running)]), bool(running or self._tasks)

    def _is_done(self, lease: Lease) -> bool:
        if lease.id not in self._done and self.leases.settled(lease):
            self._done.add(lease.id)
        return lease.id in self._done

    async def _fall_back(self, lease: Lease) -> None:
        words = ", ".join(f"{name} {weight:.3g} %" for name, weight in lease.fallback.items())
        self.say(f"the lease on the split of {lease.service} was not renewed: back to {words}")
        note = Fallback(lease.id, lease.service, lease.fallback, began=time.time())
        pause, last = AGAIN
        router: Any = None
        while True:
            note = msgspec.structs.replace(note, attempts=note.attempts + 1)
            try:
                router = router or make(lease.service, TypeAdapter(Router).validate_python(lease.router))
                note = msgspec.structs.replace(note, weights=await _set(router, lease), problem=None,
                                               stood=time.time())
            except (OpsdeckError, ValidationError, OSError) as error:
                note = self._failed(note, str(error))
            except Exception as error:  # a defect of an adapter must not end what keeps other leases
                note = self._failed(note, f"{type(error).__name__}: {error}")
            self._note(note)
            if note.stood is not None:
                self._done.add(lease.id)
                self.say(f"{lease.service} is back at {words}, after {note.attempts} attempts")
                return
            await asyncio.sleep(pause)
            pause = min(last, pause * 2)

    def _failed(self, note: Fallback, problem: str) -> Fallback:
        if problem != note.problem:
            self.say(f"{note.service} is not back yet: {problem}")
        return msgspec.structs.replace(note, problem=problem)

    def _note(self, note: Fallback) -> None:
        """A full disk must not keep traffic where it is, only what is known of it."""
        try:
            self.leases.note(note)
        except (OSError, ActionFailed) as error:
            self.say(f"what was done for {note.service} could not be written down: {error}")


async def _set(router: Any, lease: Lease) -> dict[str, float]:
    """The fallback, in force as read back. Raises OpsdeckError where it is not."""
    stands: dict[str, float] = await router.shift(lease.service, lease.fallback)
    if not same(stands, lease.fallback, NEAR):
        words = ", ".join(f"{name} {weight:.3g} %" for name, weight in stands.items())
        raise ActionFailed(f"The fallback was set, but {words} is in force.")
    return stands


def take_lock(leases: Leases) -> int | None:
    """The descriptor that holds the watchdog's lock, with the pid in it; None where another has it."""
    with leases.locked():
        fd = os.open(leases.watchdog_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return fd


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="watchdog", description="Keeps the leases on splits of traffic.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--idle", type=float, default=IDLE, metavar="SECONDS")
    parser.add_argument("--detach", action="store_true", help="come back when it watches")
    asked = parser.parse_args(arguments)
    leases = Leases(asked.home)
    if not asked.detach:
        return _run(leases, asked.idle, lambda problem: None)
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os.setsid()
        os._exit(_detached(leases, asked.idle, writing))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    if said != "watching":
        print(said or "it ended before it watched", file=sys.stderr)
        return 1
    return 0


def _detached(leases: Leases, idle_s: float, pipe: int) -> int:
    """The watchdog itself, its output in a log, after telling `pipe` that it watches or why not."""
    def tell(problem: str) -> None:
        os.write(pipe, (problem or "watching").encode())
        os.close(pipe)

    try:
        log = _log(leases.folder)
    except OSError as error:
        tell(f"its log cannot be opened: {error}")
        return 1
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log.fileno(), 1), (log.fileno(), 2)):
        os.dup2(source, target)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    status = _run(leases, idle_s, tell)
    sys.stdout.flush()
    return status


def _run(leases: Leases, idle_s: float, tell: Callable[[str], None]) -> int:
    try:
        lock = take_lock(leases)
    except OSError as error:
        tell(f"its lock cannot be made: {error}")
        return 1
    tell("")
    if lock is None:
        return 0
    _say(f"watching the leases in {leases.folder}, pid {os.getpid()}")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Watchdog(leases, _say, idle_s).watch(lambda: os.close(lock)))
    _say("there is no lease left to watch")
    return 0


def _log(folder: Path) -> IO[bytes]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "watchdog.log"
    large = path.exists() and path.stat().st_size > LOG_LIMIT
    return path.open("wb" if large else "ab", buffering=0)


def _say(text: str) -> None:
    # On a full disk nothing can be said, and traffic must go back all the same.
    with contextlib.suppress(OSError):
        print(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), " ".join(text.split()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
