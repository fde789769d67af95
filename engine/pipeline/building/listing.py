"""The files of a project that its patterns name, and whether one has changed since. Light to import.

A pattern is a path in the folder, where `*` and `?` stay within a name and `**` spans folders; one that
names a folder means all in it. Hidden files and folders and `__pycache__` are never meant by a `*`: what is
in them does not belong to a model, and changes by itself.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from engine.errors import ActionFailed, UsageError

Signature = tuple[int, int, int, int, int]


def signature(path: Path | str) -> Signature | None:
    """Device and inode, size, times of content and of the inode in ns; None where there is no file."""
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ActionFailed(f"the file cannot be looked at: {error.strerror}", where=str(path)) from error
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def listed(folder: Path, patterns: Iterable[str]) -> list[str]:
    """The relative paths of the files that match, in the order of their names. Raises ActionFailed when a
    folder cannot be read, UsageError for a match behind a link to a folder that is not named itself."""
    wanted = sorted(set(patterns))
    plain = [one for one in wanted if not set("*?[") & set(one)]
    globs = [_compiled(one) for one in wanted if set("*?[") & set(one)]
    found: set[str] = set()
    for one in plain:
        place = folder / one
        if place.is_dir():
            base = one.strip("/").removeprefix("./")
            found.update(f"{base}/{below}" if base not in ("", ".") else below for below in _files(place))
        elif place.is_file():
            found.add(one.removeprefix("./"))
    if globs:
        links: list[str] = []
        found.update(path for path in _files(folder, links) if any(glob.fullmatch(path) for glob in globs))
        for link in links:
            _covered(folder, link, globs, wanted)
    return sorted(found)


def matching(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Those of paths that were listed which the patterns name, in order. Pure."""
    wanted = list(patterns)
    plain = {one.strip("/").removeprefix("./") for one in wanted if not set("*?[") & set(one)}
    globs = [_compiled(one) for one in wanted if set("*?[") & set(one)]
    return sorted(path for path in paths if any(
        base in ("", ".") or path == base or path.startswith(f"{base}/") for base in plain)
        or any(glob.fullmatch(path) for glob in globs))


def _covered(folder: Path, link: str, globs: Sequence[re.Pattern[str]], wanted: Sequence[str]) -> None:
    """What lies behind a link would be missed when it changes, and is not kept with the run."""
    if link in wanted:
        return
    for below in _files(folder / link):
        if any(glob.fullmatch(f"{link}/{below}") for glob in globs):
            raise UsageError(f"{link} is a link to a folder, and {link}/{below} in it would not be noticed "
                             "when it changes", where=str(folder / link),
                             hint="put the folder itself in the link's place")


def changed(folder: Path, patterns: Sequence[str], before: dict[str, tuple[Signature, str]]) -> str | None:
    """The first file that is not as it was in a sentence: come, gone, or with another content.

    `before`: by path the signature and the sha256. A file that only looks different is read.
    """
    now = listed(folder, patterns)
    for path in sorted({*now, *before}):
        if path not in before:
            return f"{path} has come"
        if path not in now:
            return f"{path} is gone"
        seen, digest = before[path]
        if signature(folder / path) == tuple(seen):
            continue
        try:
            with (folder / path).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == digest:
                    continue
        except OSError as error:
            return f"{path} cannot be read any more ({error.strerror})"
        return f"{path} has changed"
    return None


def _files(folder: Path, links: list[str] | None = None) -> Iterator[str]:
    """Every file below, but for hidden ones and caches; a link to a folder is not followed, and told in
    `links`."""
    def broken(error: OSError) -> None:
        raise ActionFailed(f"the folder cannot be read: {error.strerror}", where=error.filename,
                           hint="look at its permissions") from error

    for at, folders, names in os.walk(folder, onerror=broken):
        folders[:] = [name for name in folders if _meant(name)]
        base = os.path.relpath(at, folder)
        prefix = "" if base == "." else f"{base}/"
        if links is not None:
            links += [prefix + name for name in folders if (Path(at) / name).is_symlink()]
        for name in names:
            if _meant(name) and os.path.isfile(os.path.join(at, name)):  # noqa: PTH113, PTH118  (many files)
                yield prefix + name


def _meant(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__"


def _compiled(pattern: str) -> re.Pattern[str]:
    text = pattern.removeprefix("./").strip("/")
    out, at = "", 0
    while at < len(text):
        if text.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif text.startswith("**", at):
            out, at = out + ".*", at + 2
        elif text[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif text[at] == "?":
            out, at = out + "[^/]", at + 1
        elif text[at] == "[" and (end := text.find("]", at + 2)) > 0:
            inner = text[at + 1:end]
            negated = inner.startswith("!")
            out += "[" + ("^" if negated else "") + re.escape(inner[negated:]).replace(r"\-", "-") + "]"
            at = end + 1
        else:
            out, at = out + re.escape(text[at]), at + 1
    return re.compile(out + "(?:/.*)?", re.DOTALL)
