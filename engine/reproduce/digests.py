"""SHA-256 of files and folders, streaming.

A folder's digest is over its files in the order of their names' bytes: for each its path, whether it is a
file or a link, and its content's digest or the link's target. Times, modes, owners and empty folders do
not count. A link that leads out of the folder is refused, since its content would not be covered; one that
stays inside is not followed, as what it leads to is covered by itself.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from engine.errors import ActionFailed, UsageError
from engine.reproduce.parts import Dataset

HEADER = b"opsdeck folder 1\n"
BLOCK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """`bytes` counts the content of all `files`."""

    sha256: str
    bytes: int
    files: int = 1


@dataclass(frozen=True)
class Entry:
    """A file or an inner link of a folder. `path` is relative, as bytes; `target` only for a link."""

    path: bytes
    sha256: str
    target: bytes | None
    size: int


def file(path: Path) -> Digest:
    """The digest of a regular file, or of the one a link leads to. Blocking; memory stays below 2 MiB.

    Raises UsageError for a missing file and for what is not a file, ActionFailed when it cannot be read or
    changes while it is read.
    """
    try:
        # Not to wait for ever for the writer of a named pipe.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise UsageError("There is no such file.", where=str(path)) from error
    except OSError as error:
        raise ActionFailed(f"The file cannot be read: {error.strerror}.", where=str(path),
                           hint="Look at its permissions.") from error
    with os.fdopen(handle, "rb", buffering=0) as content:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise UsageError("This is not a regular file, so it has no digest.", where=str(path))
        total, size, block = hashlib.sha256(), 0, memoryview(bytearray(BLOCK))
        try:
            while count := content.readinto(block):
                total.update(block[:count])
                size += count
        except OSError as error:
            raise ActionFailed(f"The file cannot be read: {error.strerror}.", where=str(path)) from error
        after = os.fstat(handle)
    if size != before.st_size or (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ActionFailed("The file changed while its digest was computed.", where=str(path),
                           hint="Wait until it is written, then run this again.")
    return Digest(total.hexdigest(), size)


def folder(path: Path, exclude: Sequence[str] = ()) -> Digest:
    """The digest of a folder (see the module). Blocking.

    `exclude`: patterns of names (`*.pyc`) or, with a slash, of relative paths (`data/raw/*`); a folder that
    matches is left out with all it holds. Raises UsageError for what is not a folder, for links that lead
    out and for pipes, sockets and devices; ActionFailed as `file` does.
    """
    total, size, count = hashlib.sha256(HEADER), 0, 0
    for entry in entries(path, exclude):
        kind = b"l" if entry.target is not None else b"f"
        content = entry.target if entry.target is not None else bytes.fromhex(entry.sha256)
        for piece in (kind, entry.path, content):
            total.update(len(piece).to_bytes(8, "big") + piece)
        size, count = size + entry.size, count + 1
    return Digest(total.hexdigest(), size, count)


def entries(path: Path, exclude: Sequence[str] = ()) -> Iterator[Entry]:
    """The entries of `folder`, in its order. Raises as `folder` does."""
    for relative, target in names(path, exclude):
        if target is not None:
            yield Entry(relative, "", target, 0)
        else:
            one = file(path / os.fsdecode(relative))
            yield Entry(relative, one.sha256, None, one.bytes)


def names(path: Path, exclude: Sequence[str] = ()) -> Iterator[tuple[bytes, bytes | None]]:
    """The relative paths of a folder's files and links in `folder`'s order, and each link's target. Raises
    UsageError as `folder` does."""
    root = path.resolve()
    if not root.is_dir():
        raise UsageError("There is no such folder.", where=str(path))
    for relative, kind in sorted(_walk(root, b"", tuple(exclude))):
        yield relative, _target(root / os.fsdecode(relative), root) if kind == "link" else None


def local(path: Path, uri: str | None = None) -> Dataset:
    """The entry of a local file or folder, by its content; `uri` is how the project names it. Blocking."""
    named = uri or path.absolute().as_uri()
    if path.is_dir():
        found = folder(path)
        return Dataset(named, "folder", found.sha256, bytes=found.bytes, files=found.files)
    found = file(path)
    return Dataset(named, "file", found.sha256, bytes=found.bytes, files=1)


def _walk(at: Path, prefix: bytes, exclude: tuple[str, ...]) -> Iterator[tuple[bytes, str]]:
    try:
        with os.scandir(at) as listed:
            found = list(listed)
    except OSError as error:
        raise ActionFailed(f"The folder cannot be read: {error.strerror}.", where=str(at),
                           hint="Look at its permissions.") from error
    for one in found:
        relative = prefix + os.fsencode(one.name)
        shown = os.fsdecode(relative)
        if any(fnmatch(shown if "/" in pattern else one.name, pattern) for pattern in exclude):
            continue
        if one.is_symlink():
            yield relative, "link"
        elif one.is_dir(follow_symlinks=False):
            yield from _walk(at / one.name, relative + b"/", exclude)
        elif one.is_file(follow_symlinks=False):
            yield relative, "file"
        else:
            raise UsageError("This is neither a file nor a folder, so the folder has no digest.",
                             where=str(at / one.name), hint="Move it out of the folder.")


def _target(link: Path, root: Path) -> bytes:
    target = link.readlink()
    try:
        leads = link.resolve()
    except (OSError, RuntimeError) as error:
        raise UsageError("This link leads round in a circle.", where=str(link), hint="Remove it.") from error
    if target.is_absolute() or not leads.is_relative_to(root):
        raise UsageError(f"This link leads out of its folder, to {target}, whose content is not covered.",
                         where=str(link),
                         hint="Put a copy in its place, or name what it leads to as data of its own.")
    return os.fsencode(target)
