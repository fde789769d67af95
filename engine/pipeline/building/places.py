"""The folders of a pipeline in the engine's home, and the small files in them. Light to import.

    pipelines/<project>/
        stages/<stage>/<key>/{record.json, output/}     what passed, by its key
        runs/<run>/<stage>.json                         which key each stage of a run came to
        failed/<run>.<stage>.<attempt>/                 what did not pass
        work/<run>.<stage>.<attempt>/                   while it runs, with a lock beside it
        environments/<digest>/                          virtual environments
        memo.json                                       digests of files, the engine's own
        engine/{stages,runs,failed,work}/               a system engine's own, see below

In a single-user engine all of it is the user's, 0700. In a system engine stages run as the steps' user, who
owns the first five, and the engine's own process must not write where that user can put a link in its way:
what stages of the engine's user make, and what the engine notes itself, is below engine/. Each of the two
reads what the other has made, and nobody else does: the project's folder is the engine's, and its group,
which alone may pass through it, that of the steps' user.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import durable
from engine.errors import ActionFailed, UsageError
from engine.pipeline.stages.table import STAGES, Stage

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_FOLDERS = ("stages", "runs", "failed", "work")
LARGEST = 64 << 20  # bytes of a record that are read


@dataclass(frozen=True)
class Area:
    """The folders that one user writes."""

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def failed(self) -> Path:
        return self.root / "failed"

    def stage(self, name: str) -> Path:
        return self.root / "stages" / plain(name)

    def noted(self, run: str, stage: str) -> Path:
        """Where it is noted what a stage of a run came to."""
        return self.root / "runs" / plain(run) / f"{plain(stage)}.json"


@dataclass(frozen=True)
class Places:
    """A project's folders. `apart`: whether the engine's own are apart, which a system engine's are."""

    root: Path
    apart: bool = False

    @property
    def steps(self) -> Area:
        return Area(self.root)

    @property
    def own(self) -> Area:
        """The engine's."""
        return Area(self.root / "engine") if self.apart else self.steps

    @property
    def environments(self) -> Path:
        return self.root / "environments"

    @property
    def memo(self) -> Path:
        return self.root / "memo.json"

    def area(self, stage: Stage) -> Area:
        """Where a stage's process writes."""
        return self.own if stage.user == "engine" else self.steps

    def result(self, run: str, stage: str) -> dict[str, Any] | None:
        """What a stage of a run came to, as the last attempt noted it; None if none did.

        {"stage", "key", "cached", "passed", "says", "result", "output" (absolute)}. Raises ActionFailed for
        a note that cannot be read.
        """
        for area in dict.fromkeys((self.own, self.steps)):
            found = read_json(area.noted(run, stage))
            if found is not None:
                return found
        return None

    def output_of(self, noted: Mapping[str, Any]) -> Path:
        """Where a stage's output lies, by its note. Raises ActionFailed for a note that leads elsewhere: one
        of a system engine's steps is another user's."""
        found = Path(str(noted.get("output")))
        if self.apart and (".." in found.parts or not found.is_relative_to(self.root)):
            raise ActionFailed("what was noted of a stage leads out of the project's folder",
                               where=str(found), hint="run the stage again")
        return found

    def results(self, run: str, stages: Mapping[str, Stage] = STAGES) -> dict[str, dict[str, Any]]:
        """As `result`, for every stage of the run that has one, by name and in the stages' order."""
        found = {name: self.result(run, name) for name in stages}
        return {name: one for name, one in found.items() if one is not None}


def of(home: Path, project: str) -> Places:
    """The places of a project; nothing is made. Raises UsageError for a name that is no project's."""
    root = home / "pipelines" / plain(project)
    return Places(root, (root / "engine").is_dir())


def make(home: Path, project: str, steps_user: str | None = None) -> Places:
    """The places of a project, made where they are missing. `steps_user`: a system engine's.

    Raises ActionFailed when they cannot be made, as on a full disk.
    """
    root = home / "pipelines" / plain(project)
    try:
        if steps_user is None:
            for folder in (root.parent, root, *(root / name for name in (*_FOLDERS, "environments"))):
                folder.mkdir(mode=0o700, exist_ok=True)
            return Places(root)
        owner = pwd.getpwnam(steps_user)
        _folder(root.parent, 0o711)
        _folder(root, 0o700)
        found = root.stat()
        if (found.st_gid, stat.S_IMODE(found.st_mode)) != (owner.pw_gid, 0o710):
            os.chown(root, -1, owner.pw_gid)
            root.chmod(0o710)
        for name in (*_FOLDERS, "environments"):
            if not (root / name).is_dir():
                _folder(root / name, 0o755)
                os.chown(root / name, owner.pw_uid, owner.pw_gid)
        for folder in (root / "engine", *(root / "engine" / name for name in _FOLDERS)):
            _folder(folder, 0o755)
    except KeyError as error:
        raise ActionFailed(f"there is no user {steps_user}, who runs the stages", where="opsdeck.yaml",
                           hint="engine: steps_user names one that is there") from error
    except OSError as error:
        raise ActionFailed(f"the pipeline's folders cannot be made: {error.strerror}", where=str(root)
                           ) from error
    return Places(root, True)


def plain(name: str) -> str:
    """The name, which is safe as part of a path. Raises UsageError for another."""
    if not _PLAIN.fullmatch(name):
        raise UsageError(f"{name[:60]!r} cannot name a project, a stage or a run",
                         hint="letters, digits, dots, dashes and underscores do")
    return name


def write_json(path: Path, value: Mapping[str, Any], mode: int = 0o600) -> None:
    """Put a file in place whole and lasting, or not at all. Raises OSError."""
    durable.put(path, json.dumps(value, sort_keys=True, allow_nan=False).encode(), mode)


def read_plain(path: Path, root: Path, limit: int) -> bytes:
    """Up to `limit` bytes of a plain file below `root`, past no link. Raises OSError, ValueError for a path
    that is not below."""
    at = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        *folders, name = path.relative_to(root).parts
        for folder in folders:
            below = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
            os.close(at)
            at = below
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=at)
    finally:
        os.close(at)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a plain file")
        return file.read(limit)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a plain file, None where there is no file. Raises ActionFailed for anything else."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            found = json.loads(file.read(LARGEST))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ActionFailed(f"what was noted here cannot be read: {error}", where=str(path),
                           hint="remove the file; what it tells is made anew") from error
    if not isinstance(found, dict):
        raise ActionFailed("what was noted here is not an object of JSON", where=str(path),
                           hint="remove the file; what it tells is made anew")
    return found


def _folder(path: Path, mode: int) -> None:
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(mode)
