"""What the process of an action says it came to, read with suspicion: it may be another user's.

The file is one JSON object, {"result": …} or {"error": a sentence, "hint": …, "result": …}. A link, a pipe,
a file that has a second name or is too large is not read at all.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.errors import ActionFailed
from engine.journal.events import canonical
from engine.procedures.output import harmless
from engine.procedures.secrets import mask

RESULT_CAP = 256 * 1024  # bytes: a result is journaled; what is larger belongs into a file
SENTENCE = 4000  # characters


@dataclass(frozen=True)
class Said:
    """`there`: whether the process left anything; `problem`: why that cannot be used."""

    there: bool = False
    result: Any = None
    error: str | None = None
    problem: str | None = None


def read(path: Path, secrets: Sequence[str]) -> Said:
    """What the process wrote, with secrets masked. Blocks; raises nothing."""
    try:
        data = regular(path, RESULT_CAP + 1)
    except FileNotFoundError:
        return Said()
    except OSError as why:
        return Said(True, problem=f"its result cannot be read: {why.strerror}")
    if data is None:
        return Said(True, problem="its result is not a plain file, and was not read")
    if len(data) > RESULT_CAP:
        return Said(True, problem=f"its result is larger than {RESULT_CAP // 1024} KiB; put it into a file")
    try:
        found = json.loads(data, parse_constant=_no_constant)
        canonical(found)
    except (ValueError, TypeError, OverflowError, RecursionError) as why:
        return Said(True, problem=f"its result is not JSON ({str(why)[:200]})")
    if not isinstance(found, dict) or not ({"result", "error"} & found.keys()):
        return Said(True, problem='its result has neither "result" nor "error"')
    found = _masked(found, secrets)
    error, hint = found.get("error"), found.get("hint")
    if error is None:
        return Said(True, found.get("result"))
    text = harmless(str(error))[:SENTENCE].strip() or "it failed and did not say why"
    said = f"{text}\n  {harmless(str(hint))[:SENTENCE].strip()}" if hint else text
    return Said(True, found.get("result"), said)


def verdict(said: Said, code: int | None, stderr: str) -> tuple[Literal["done", "failed"], str | None]:
    """The state and the error of an attempt whose process ended with `code`."""
    if said.error is not None:
        return "failed", said.error
    if code == 0:
        return ("failed", said.problem) if said.problem else ("done", None)
    return "failed", _ending(code, stderr)


def keep_references(path: Path, references: Sequence[str]) -> None:
    """Note which secrets a process is given, for an engine that must mask what it prints. Never values."""
    if references:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(list(references), file)


def references(path: Path) -> list[dict[str, str]]:
    """What `keep_references` noted, as `rendering.resolve` takes it."""
    try:
        return [{"secret": str(one)} for one in json.loads(path.read_text())]
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ActionFailed("which secrets the process was given cannot be read", where=str(path)) from error


def regular(path: Path, limit: int, offset: int = 0) -> bytes | None:
    """Up to `limit` bytes of a plain file with one name; None for anything else. Raises OSError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            return None
        raise error
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            return None
        file.seek(offset)
        return file.read(limit)


def _ending(code: int | None, stderr: str) -> str:
    number = -code if code is not None and code < 0 else (code or 0) - 128
    if number in signal.valid_signals():
        killed = "; the machine may have been out of memory" if number == signal.SIGKILL else ""
        return f"it was ended by {signal.Signals(number).name}{killed}"
    last = harmless(stderr).strip().splitlines()
    said = f": {last[-1][:200]}" if last else ""
    return f"it exited with {code}{said}"


def _masked(value: Any, secrets: Sequence[str]) -> Any:
    if not secrets:
        return value
    if isinstance(value, str):
        return mask(value, secrets)
    if isinstance(value, dict):
        return {mask(key, secrets): _masked(item, secrets) for key, item in value.items()}
    return [_masked(item, secrets) for item in value] if isinstance(value, list) else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
