"""Taking things out of a project's folders: `python -m engine.pipeline.building.removing ROOT`, for what the
steps' user owns, or the functions, for what is one's own.

What goes is renamed away first, into a folder under `work/`, so that it is whole in its place or not there;
then it is removed. A process that dies in between leaves that folder to the next `publishing.sweep`. Paths
within ROOT on standard input, as a JSON list; a line for each of the two: {"away", "used"} and {"bytes"}.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ActionFailed, OpsdeckError, UsageError
from engine.pipeline.building import publishing
from engine.pipeline.building.places import Area

PARTS = {"runs": 2, "failed": 2, "environments": 2, "stages": 3}


@dataclass
class Away:
    """`gone`: the paths that were renamed away; `used`: those that somebody uses at this moment."""

    gone: list[str]
    used: list[str]


@contextlib.contextmanager
def away(area: Area, paths: Sequence[str]) -> Iterator[tuple[Away, Path]]:
    """Rename these away, into a folder that goes with all that is in it when the block ends. Raises
    UsageError for a path that is none of a run's, stage's, failure's or environment's, ActionFailed."""
    for path in paths:
        _checked(path)
    with publishing.working(area, f"gone.{os.getpid()}.{os.urandom(4).hex()}") as folder:
        done = Away([], [])
        for at, path in enumerate(paths):
            (done.gone if _moved(area.root / path, folder / "output" / str(at)) else done.used).append(path)
        yield done, folder / "output"


def _checked(path: str) -> None:
    parts = path.split("/")
    if len(parts) != PARTS.get(parts[0]) or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise UsageError(f"{path[:80]!r} is nothing that is removed")


def _moved(path: Path, to: Path) -> bool:
    """False: it is in use, or not there any more."""
    try:
        if path.parent.name != "environments":
            path.rename(to)
            return True
        handle = os.open(path.with_name(f"{path.name}.used"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.rename(to)
            return True
        finally:
            os.close(handle)
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError as error:
        raise ActionFailed(f"it cannot be removed: {error.strerror}", where=str(path)) from error


def size(path: Path) -> int:
    """Bytes that its removal sets free: what has another name elsewhere, as files of uv's cache, counts for
    nothing."""
    total = 0
    for at, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(Path(at) / name)
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                    total += found.st_size
    return total


def drop(folder: Path) -> int:
    """Remove what was renamed away, whatever modes the project's code gave its folders; the bytes."""
    for at, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(at) / name
            if not path.is_symlink():
                path.chmod(0o700)
    freed = size(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return freed


def main(root: str) -> int:
    try:
        with away(Area(Path(root)), json.load(sys.stdin)) as (done, folder):
            print(json.dumps({"away": done.gone, "used": done.used}), flush=True)
            freed = drop(folder)
        print(json.dumps({"bytes": freed}), flush=True)
    except OpsdeckError as error:
        print(json.dumps({"error": error.message, "where": error.where}), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
