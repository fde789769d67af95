"""What a stage may use and its project's code may not see: passwords of the registry, of stores, of packages.

Both run as one user, who may read the environment of each of its processes, and the memory too. So these come
on standard input, are gone from there once they are read, and this process lets nobody look into it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import UsageError

_PR_SET_DUMPABLE = 4
_USING = threading.RLock()
_names: set[str] = set()


def take() -> None:
    """Put them into the environment of this process. Raises UsageError for what is not an object of texts."""
    # Of a process that is not dumpable, /proc shows environment, memory and files to root alone (proc(5)).
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    data = b""
    while piece := os.read(0, 1 << 16):
        data += piece
    with contextlib.suppress(OSError):  # a pipe is empty now
        os.ftruncate(0, 0)  # of a file, the process that started this one has it open as well
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    try:
        found = json.loads(data)
        os.environ.update(found)
    except (ValueError, TypeError) as error:
        raise UsageError("what this stage is given in secret is no object of JSON") from error
    _names.update(found)


@contextmanager
def using() -> Iterator[None]:
    """While they are asked for: nobody withholds them meanwhile."""
    with _USING:
        yield


@contextmanager
def withheld() -> Iterator[None]:
    """Without them, for starting processes that take this one's environment along."""
    with _USING:
        kept = {name: os.environ.pop(name) for name in _names if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(kept)
