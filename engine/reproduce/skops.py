"""The schema of a skops archive without memory addresses. Pure.

skops names every object by its address in the process that saved it, and files by that or by a random
name (skops.io `get_state`: `__id__`, `file`). Both are numbered anew here in the order of appearance.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from engine.reproduce.archives import FIRST

SCHEMA = FIRST
LIMIT = 64 << 20


def read(content: BinaryIO) -> tuple[dict[str, str], Any] | None:
    """New names of files by their old ones, and the schema with them; None if it is not of skops."""
    content.seek(0)
    data = content.read(LIMIT + 1)
    try:
        schema = json.loads(data) if len(data) <= LIMIT else None
    except (ValueError, RecursionError):
        schema = None
    if not isinstance(schema, dict) or not {"protocol", "_skops_version", "__class__"} <= schema.keys():
        return None
    numbers: dict[int, int] = {}
    files: dict[str, str] = {}
    return files, _renumbered(schema, numbers, files)


def _renumbered(value: Any, numbers: dict[int, int], files: dict[str, str]) -> Any:
    if isinstance(value, list):
        return [_renumbered(item, numbers, files) for item in value]
    if not isinstance(value, dict):
        return value
    made: dict[str, Any] = {}
    for key, item in value.items():
        if key == "__id__" and isinstance(item, int):
            made[key] = numbers.setdefault(item, len(numbers))
        elif key == "file" and isinstance(item, str) and "__loader__" in value:
            made[key] = files.setdefault(item, f"{len(files)}{PurePosixPath(item).suffix}")
        else:
            made[key] = _renumbered(item, numbers, files)
    return made
