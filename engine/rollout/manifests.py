"""What two versions say of themselves, and how they differ: JSON files beside the models.

An approval binds to them: a version whose manifest changes while it is rolled out is not the one that
somebody looked at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed

LIMIT = 4 << 20
MOST = 200
Difference = tuple[str, str, str]  # key, old, new; "" for what is not there


def read(paths: Mapping[str, Path]) -> tuple[dict[str, str], dict[str, Any]]:
    """By variant the sha256 of its manifest's bytes, and its content. Blocking.

    Raises ActionFailed for one that cannot be read, is no JSON object, or is huge.
    """
    digests: dict[str, str] = {}
    contents: dict[str, Any] = {}
    for variant, path in paths.items():
        try:
            with path.open("rb") as file:
                data = file.read(LIMIT + 1)
        except OSError as error:
            raise ActionFailed(f"the manifest of {variant} cannot be read: {error.strerror}",
                               where=str(path)) from error
        if len(data) > LIMIT:
            raise ActionFailed(f"the manifest of {variant} is larger than {LIMIT >> 20} MiB", where=str(path))
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ActionFailed(f"the manifest of {variant} is not JSON: {error}", where=str(path)) from error
        digests[variant] = hashlib.sha256(data).hexdigest()
        contents[variant] = value
    return digests, contents


def differences(old: Any, new: Any) -> list[Difference]:
    """Every value that differs, by its path in the manifest ("inputs.0.name"), sorted. At most `MOST`."""
    before, after = dict(_flat(old)), dict(_flat(new))
    keys = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return [(key, before.get(key, ""), after.get(key, "")) for key in keys[:MOST]]


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [one for key, item in value.items()
                for one in _flat(item, f"{path}.{key}" if path else str(key))]
    if isinstance(value, list) and value:
        return [one for at, item in enumerate(value) for one in _flat(item, f"{path}.{at}")]
    return [(path or "value", value if isinstance(value, str) else json.dumps(value, sort_keys=True))]
