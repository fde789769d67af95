"""A lock in pip's format: every package by one version with its hashes, in this one file. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

PINNED = re.compile(r"^([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*(==|@)")
# What takes packages from elsewhere, so that the same lock would not always be the same.
_ELSEWHERE = re.compile(r"^(-r|-c|-e|--requirement|--constraint|--editable)(?![\w-])\s*=?\s*(\S*)")


def faults(text: str) -> Iterator[tuple[int, str, str]]:
    """What keeps the same lock from always being the same: line, sentence, and what to do."""
    for number, line in _requirements(text):
        if (elsewhere := _ELSEWHERE.match(line)) is not None:
            yield (number, f"The lock takes packages from elsewhere: {elsewhere[1]} {elsewhere[2]}".rstrip(),
                   "Write one file with all of them: uv pip compile --generate-hashes.")
        elif PINNED.match(line) and "--hash=" not in line:
            yield (number, f"The lock pins {line.split()[0]} without a hash.",
                   "Make it with hashes: uv pip compile --generate-hashes.")
        elif not line.startswith("-") and not PINNED.match(line):
            yield (number, f"The lock does not pin {line.split()[0]} to one version.",
                   "Make it anew: uv pip compile --generate-hashes.")


def _requirements(text: str) -> Iterator[tuple[int, str]]:
    """The file's requirements with the line each begins on: continued lines joined, comments left out."""
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        start = start or number
        joined += line.removesuffix("\\")
        if not line.endswith("\\"):
            if joined.strip():
                yield start, joined.strip()
            joined, start = "", 0
