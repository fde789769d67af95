"""What this process computes with: recorded beside verdicts, so that they can be recomputed alike."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import platform
import sys

import engine


@functools.cache
def made_by() -> dict[str, str]:
    """Versions of Opsdeck, Python and the C library, machine, system, and `lock`: the sha256 of the sorted
    `name==version` lines of all that is installed. Blocking: reads the metadata of every distribution."""
    lines = sorted({f"{one.name.lower()}=={one.version}" for one in importlib.metadata.distributions()})
    return {"opsdeck": engine.__version__, "python": platform.python_version(),
            "libc": " ".join(platform.libc_ver()), "machine": platform.machine(), "system": sys.platform,
            "lock": hashlib.sha256("\n".join(lines).encode()).hexdigest()}
