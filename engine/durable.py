"""Small files that are whole and outlast a power cut, or are not there. Standard library only.

A file is written beside its place, put on the disk and renamed, and its name is put on the disk too: a
reader sees the old file or the whole new one. (`serving` and the launcher of `supervision` stand apart from
the engine and have their own.)
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def put(path: Path, data: bytes, mode: int | None = None) -> None:
    """Put a file in place; a `mode` of None keeps that of the file there, or else is 0644. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        kept = mode if mode is not None else path.stat().st_mode & 0o777 if path.exists() else 0o644
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, kept), "wb") as file:
            os.fchmod(file.fileno(), kept)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # what went wrong is what is told
            fresh.unlink()
        raise
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder outlast a power cut. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
