"""Leases on splits whose routers know of none: kept in files, and seen to by a watchdog process.

    HOME/rollouts/NAME.lease.json      the engine's: what is in force for how long, and what then
    HOME/rollouts/NAME.fallback.json   the watchdog's: what it did about a lease that ran out
    HOME/rollouts/leases.lock          held for the moment in which either looks at them or writes one
    HOME/rollouts/watchdog.lock        held by the watchdog as long as it lives

Time is CLOCK_BOOTTIME, which no change of the date moves and which all processes share; a lease of
another boot of this machine is over, however long it was. The date in a file is there for people.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from engine import durable
from engine.config_routers import Router
from engine.errors import ActionFailed

LEASE_LIMIT_S = 86400.0
_START_WITHIN = 20.0
_LOCK_WITHIN = 2.0
T = TypeVar("T")
_LEASE, _FALLBACK = ".lease.json", ".fallback.json"


class Lease(msgspec.Struct, frozen=True):
    """`fallback`: percents that come into force at `until` (seconds of CLOCK_BOOTTIME in the boot `boot`),
    set through `router`, as the config has it. `id` is another with each grant, `lease_s` how long it was
    given for the last time; `date` is for people."""

    id: str
    service: str
    fallback: dict[str, float]
    lease_s: float
    until: float
    boot: str
    date: float
    router: dict[str, Any]

    def left(self, now: float, boot: str) -> float:
        """Seconds until it runs out; 0 when it has."""
        return max(0.0, self.until - now) if boot == self.boot else 0.0


class Fallback(msgspec.Struct, frozen=True):
    """What the watchdog did about the lease of this id that ran out. Times are seconds since the epoch.

    `stood`: when the fallback was in force, as read back in `weights`; None while it is not. `problem` is
    what stood in the way the last time.
    """

    lease: str
    service: str
    fallback: dict[str, float]
    began: float
    attempts: int = 0
    stood: float | None = None
    weights: dict[str, float] | None = None
    problem: str | None = None


class Leases:
    """The leases of one home. The engine alone grants, renews and ends; the watchdog looks."""

    def __init__(self, home: Path, clock: Callable[[], float] | None = None) -> None:
        self.folder = home / "rollouts"
        self._home = home
        self.clock = clock or boottime

    # The engine's side.

    def grant(self, service: str, fallback: Mapping[str, float], lease_s: float, router: Router) -> Lease:
        """Let the present or next split of a service hold for `lease_s` seconds, then `fallback`
        (percent, whole split). Takes the place of the lease there is, also of one that ran out.

        Raises ActionFailed where it cannot be written, ValueError for a time that is none.
        """
        lease = Lease(uuid.uuid4().hex, service, dict(fallback), lease_s, self._until(lease_s), boot_id(),
                      time.time() + lease_s, router.model_dump(mode="json"))
        with self._told(service, "granted"), self.locked():
            self._path(service, _FALLBACK).unlink(missing_ok=True)
            durable.put(self._path(service, _LEASE), msgspec.json.encode(lease), 0o600)
        return lease

    def renew(self, service: str, lease_s: float) -> Lease:
        """Let the lease hold for `lease_s` seconds from now. Raises ActionFailed where there is none, or
        none any more: what ran out once is not taken up again."""
        with self._told(service, "renewed"), self.locked():
            lease = self.lease(service)
            if lease is None:
                raise ActionFailed(f"There is no lease on the split of {service} to renew.",
                                   hint="Set the weights again with a lease.")
            if self.seconds_left(lease) <= 0:
                raise ActionFailed(f"The lease on the split of {service} has run out; its traffic goes back.",
                                   hint="See what is in force before you set other weights.")
            lease = msgspec.structs.replace(lease, lease_s=lease_s, until=self._until(lease_s),
                                            date=time.time() + lease_s)
            durable.put(self._path(service, _LEASE), msgspec.json.encode(lease), 0o600)
        return lease

    def end(self, service: str) -> None:
        """There is no lease any more; the split stays as it is. The watchdog gives up on it at once."""
        with self._told(service, "ended"), self.locked():
            self._path(service, _LEASE).unlink(missing_ok=True)

    def ran_out(self, service: str) -> bool:
        """Whether there is a lease that was not renewed in time."""
        lease = self.lease(service)
        return lease is not None and self.seconds_left(lease) <= 0

    def left(self, service: str) -> float | None:
        """Seconds until the lease runs out, 0 when it has; None without one."""
        lease = self.lease(service)
        return None if lease is None else self.seconds_left(lease)

    def ensure_watchdog(self) -> None:
        """Start the watchdog unless it lives; returns when it watches. Raises ActionFailed.

        It is a session of its own with init as its parent, so that it outlives the engine.
        """
        try:
            if self.watchdog() is not None:
                return
        except OSError as error:
            raise ActionFailed(f"Whether the watchdog of leases lives cannot be told ({error}).",
                               where=str(self.folder), hint="Without it no lease is kept.") from error
        command = [sys.executable, "-I", "-m", "engine.rollout.traffic.watchdog", "--home", str(self._home),
                   "--detach"]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=_START_WITHIN, cwd="/")
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ActionFailed(f"The watchdog of leases could not be started ({error}).",
                               where=str(self.folder), hint="Without it no lease is kept.") from error
        if done.returncode != 0:
            raise ActionFailed(f"The watchdog of leases could not be started: {done.stderr.strip()[-400:]}",
                               where=str(self.folder), hint="Without it no lease is kept.")

    def resume(self) -> list[Lease]:
        """For an engine that starts: a watchdog for the leases that are not settled, if there are any.
        Returns those; after a start of the machine they have run out. Raises ActionFailed."""
        found = [lease for lease in self.granted()[0] if not self.settled(lease)]
        if found:
            self.ensure_watchdog()
        return found

    # What both look at.

    def settled(self, lease: Lease) -> bool:
        """Whether its fallback stood once: what was set since is somebody's wish."""
        try:
            note = self.fallback(lease.service)
        except ActionFailed:
            return False
        return note is not None and note.lease == lease.id and note.stood is not None

    def lease(self, service: str) -> Lease | None:
        return _read(self._path(service, _LEASE), Lease)

    def fallback(self, service: str) -> Fallback | None:
        """What the watchdog did about the last lease that ran out, until another is granted."""
        return _read(self._path(service, _FALLBACK), Fallback)

    def seconds_left(self, lease: Lease) -> float:
        return lease.left(self.clock(), boot_id())

    def watchdog(self) -> int | None:
        """The pid of the watchdog that lives; None without one, 0 where it has not written it yet."""
        with self.locked():
            try:
                fd = os.open(self.watchdog_lock, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(os.pread(fd, 32, 0).decode(errors="replace").strip() or 0)
            finally:
                os.close(fd)
        return None

    # The watchdog's side.

    @property
    def watchdog_lock(self) -> Path:
        return self.folder / "watchdog.lock"

    def granted(self) -> tuple[list[Lease], list[str]]:
        """Every lease there is, and the names of files that hold none."""
        found, broken = [], []
        for path in sorted(self.folder.glob(f"*{_LEASE}")):
            try:
                lease = _read(path, Lease)
            except ActionFailed:
                broken.append(path.name)
            else:
                found += [] if lease is None else [lease]
        return found, broken

    def note(self, fallback: Fallback) -> None:
        """Write down what was done, unless it was for a lease that another has followed. Raises OSError,
        ActionFailed."""
        with self.locked():
            now = self.lease(fallback.service)
            if now is None or now.id == fallback.lease:
                durable.put(self._path(fallback.service, _FALLBACK), msgspec.json.encode(fallback), 0o600)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the files. Raises OSError, also when another holds the lock for seconds: whoever is
        frozen with it must not freeze the watchdog."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self.folder / "leases.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(fd, time.monotonic() + _LOCK_WITHIN)
            yield
        finally:
            os.close(fd)

    def _until(self, lease_s: float) -> float:
        if not 0 < lease_s <= LEASE_LIMIT_S:
            raise ValueError(f"a lease lasts up to {LEASE_LIMIT_S:g} s, not {lease_s:g} s")
        return self.clock() + lease_s

    @contextlib.contextmanager
    def _told(self, service: str, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ActionFailed(f"The lease on the split of {service} could not be {what} "
                               f"({error.strerror or error}).", where=str(self.folder)) from error

    def _path(self, service: str, ending: str) -> Path:
        return self.folder / (quote(service, safe="") + ending)


def _lock(fd: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError("another process holds the lock of the leases") from None
            time.sleep(0.005)


def boottime() -> float:
    """Seconds since this machine started, also while it slept; no clock that is set moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@cache
def boot_id() -> str:
    """Another with each start of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ActionFailed(f"{path.name} cannot be read ({error}).", where=str(path),
                           hint="Look at it, then remove it.") from error
