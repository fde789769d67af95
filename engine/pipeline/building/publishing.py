"""A stage's work folder: held while it runs, put in place by one rename, swept when its process died.

Light to import. A folder under `stages/` is whole or not there: everything in it is on the disk before it
gets its name. Of two processes that make the same, one's stays.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import durable
from engine.errors import ActionFailed, OpsdeckError
from engine.pipeline.building import places
from engine.pipeline.building.places import Area

RECORD = "record.json"
KEPT_FAILURES = 20  # of a project


@contextlib.contextmanager
def working(area: Area, name: str) -> Iterator[Path]:
    """An empty folder of that name under `work/`, with `output/` in it, held until the block ends; what is
    left of it then is removed. Leftovers of processes that died are removed first. Raises ActionFailed."""
    place, lock = area.work / places.plain(name), area.work / f"{name}.lock"
    try:
        sweep(area)
        handle = _held(lock)
        assert handle is not None
    except OSError as error:
        raise ActionFailed(f"the work folder cannot be made: {error.strerror}", where=str(area.work),
                           hint="look at the disk and its permissions") from error
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o700)
        (place / "output").mkdir(mode=0o700)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            lock.unlink()
        os.close(handle)


@contextlib.contextmanager
def aside(area: Area, name: str) -> Iterator[Path]:
    """An empty folder under `work/` that is removed when the block ends: of that name, or with a number after
    it while another block, of any process, has the first. Raises ActionFailed."""
    try:
        area.work.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in itertools.count(1):
            place = area.work / (places.plain(name) if number == 1 else f"{name}.{number}")
            lock = area.work / f"{place.name}.lock"
            handle = _held(lock, wait=False)
            if handle is None:
                continue
            _removed(place)
            with contextlib.suppress(FileExistsError):  # what could not be removed stays, and is not used
                place.mkdir(mode=0o700)
                break
            os.close(handle)
        assert handle is not None
    except OSError as error:
        raise ActionFailed(f"the work folder cannot be made: {error.strerror}", where=str(area.work),
                           hint="look at the disk and its permissions") from error
    try:
        yield place
    finally:
        _removed(place)
        with contextlib.suppress(FileNotFoundError):
            lock.unlink()
        os.close(handle)


def sweep(area: Area) -> list[str]:
    """Remove what processes that died left under `work/`, and the oldest failures; their names."""
    swept = []
    for name in sorted({entry.name.removesuffix(".lock") for entry in area.work.iterdir()}):
        entry, lock = area.work / name, area.work / f"{name}.lock"
        handle = _held(lock, wait=False)
        if handle is None:
            continue
        try:
            _removed(entry)
            swept.append(entry.name)
            with contextlib.suppress(FileNotFoundError):
                lock.unlink()
        finally:
            os.close(handle)
    failures = sorted((p for p in area.failed.iterdir() if p.is_dir()), key=_changed, reverse=True)
    for old in failures[KEPT_FAILURES:]:
        shutil.rmtree(old, ignore_errors=True)
    return swept


def publish(work: Path, target: Path, area: Area, *, shared: bool = False) -> bool:
    """Give a work folder its place. False: the same was there already, whole, and this one is dropped.
    `shared`: others read it.

    Raises ActionFailed when it cannot be written; then nothing is in place.
    """
    try:
        _sync(work)
        folder_of(target, shared=shared)
        for _ in range(10):
            try:
                work.rename(target)
                durable.sync_folder(target.parent)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            if intact(target, target.name) is not None:
                os.utime(target)  # as young as this one: nobody removes it before it is noted
                return False
            with contextlib.suppress(FileNotFoundError):
                target.rename(area.work / f"damaged.{os.getpid()}.{os.urandom(4).hex()}")
    except OSError as error:
        raise ActionFailed(f"what the stage made cannot be put in place: {error.strerror}",
                           where=str(target), hint="look at the disk, then run it again") from error
    raise ActionFailed("what the stage made cannot be put in place: it is taken again and again",
                       where=str(target))


def file_failure(work: Path, area: Area) -> Path:
    """Keep what did not pass under `failed/`, for whoever looks; where it lies then."""
    target = area.failed / work.name
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)
    return target


def note(area: Area, run: str, stage: str, key: str, kept: Path, record: Mapping[str, Any], *, cached: bool,
         passed: bool = True, shared: bool = False) -> dict[str, Any]:
    """Note what a stage of a run came to, see `places`; the step's result. `shared`: others read it.

    Raises ActionFailed when it cannot be written.
    """
    result = {"says": record.get("says", ""), **record.get("result", {}), "cached": cached}
    path = area.noted(run, stage)
    try:
        folder_of(path, shared=shared)
        places.write_json(path, {
            "stage": stage, "key": key, "cached": cached, "passed": passed, "says": record.get("says", ""),
            "result": record.get("result", {}), "output": str(kept / "output")}, 0o644 if shared else 0o600)
    except OSError as error:
        raise ActionFailed(f"what {stage} came to cannot be noted: {error.strerror}", where=str(path),
                           hint="look at the disk, then run it again") from error
    return result


def folder_of(path: Path, *, shared: bool) -> None:
    """Make the folder a file is to lie in. Raises OSError."""
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shared:
            path.parent.chmod(0o755)


def outputs(folder: Path) -> dict[str, dict[str, Any]]:
    """The files of an output folder by relative path: {"sha256", "bytes"}. Raises ActionFailed for what is
    no plain file, such as a link."""
    found: dict[str, dict[str, Any]] = {}
    for at, folders, names in os.walk(folder):
        for name in sorted([*folders, *names]):
            path = Path(at) / name
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            relative = path.relative_to(folder).as_posix()
            if not stat.S_ISREG(mode):
                raise ActionFailed(f"the stage left {relative}, which is neither a file nor a folder",
                                   where=str(path), hint="write a copy in its place")
            with path.open("rb") as file:
                found[relative] = {"sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                                   "bytes": path.stat().st_size}
    return dict(sorted(found.items()))


def intact(folder: Path, key: str | None = None) -> dict[str, Any] | None:
    """The record of what is in place, or None unless it is of that key and every file of its output is
    there with its size. Contents are not read."""
    try:
        record = places.read_json(folder / RECORD)
        if record is None or (key is not None and record["key"] != key):
            return None
        for name, known in record["outputs"].items():
            found = (folder / "output" / name).lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_size != known["bytes"]:
                return None
    except (OSError, OpsdeckError, KeyError, TypeError, AttributeError):
        return None
    return record


def _removed(folder: Path) -> None:
    """Also where the project's code has taken its own rights away."""
    with contextlib.suppress(OSError):
        if not folder.is_symlink():
            folder.chmod(0o700)
        for at, folders, _ in os.walk(folder):
            for name in folders:
                path = Path(at) / name
                if not path.is_symlink() and not os.access(path, os.R_OK | os.W_OK | os.X_OK):
                    path.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _held(lock: Path, *, wait: bool = True) -> int | None:
    """A locked handle of that file, which is in place once it is locked; None if another holds it."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        except BlockingIOError:
            os.close(handle)
            return None
        except FileNotFoundError:
            pass
        os.close(handle)


def _sync(folder: Path) -> None:
    for at, _, names in os.walk(folder, topdown=False):
        for name in names:
            handle = os.open(Path(at) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        durable.sync_folder(Path(at))


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
