"""Digests of files, remembered as long as the file looks the same.

A file that changed within the last two seconds is never remembered: a second change in the same tick of the
file system's clock would look like none. The time of the inode is part of how it looks, and nobody can set
that one back.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from engine.errors import ActionFailed
from engine.pipeline.building.listing import Signature, signature
from engine.reproduce import digests

SETTLED_NS = 2_000_000_000
MOST = 50_000  # files


class Memo:
    """The digests in one file. `save` after use; a file that cannot be read or written is an empty memo."""

    def __init__(self, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._known: dict[str, tuple[Signature, str]] = {}
        self._fresh = False
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            for name, (seen, digest) in json.loads(path.read_text()).items():
                self._known[name] = (tuple(seen), str(digest))

    def digest(self, path: Path) -> str:
        """SHA-256 of a file's bytes. Blocks for one that must be read. Raises UsageError where there is no
        file, ActionFailed when it cannot be read or changes while it is."""
        return self.seen(path)[1]

    def seen(self, path: Path) -> tuple[Signature, str]:
        """As `digest`, with how the file looked when it was read."""
        name, looks = os.path.abspath(path), signature(path)  # noqa: PTH100  (links stay)
        known = self._known.get(name)
        if known is not None and looks is not None and known[0] == looks:
            self._known[name] = self._known.pop(name)
            return known
        found = digests.file(path).sha256
        if looks is None or signature(path) != looks:
            raise ActionFailed("The file changed while its digest was computed.", where=str(path),
                               hint="Wait until it is written, then run this again.")
        self._known.pop(name, None)
        if 0 <= max(looks[3], looks[4]) <= self._clock() - SETTLED_NS:
            self._known[name] = (looks, found)
            self._fresh = True
        return looks, found

    def save(self) -> None:
        """Write what was learned; the newest 50,000 files. What another process wrote meanwhile is lost."""
        if not self._fresh:
            return
        kept = dict(list(self._known.items())[-MOST:])
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        with contextlib.suppress(OSError):  # a memo that is not kept costs time alone
            fresh.write_text(json.dumps(kept))
            fresh.replace(self._path)
        self._fresh = False
