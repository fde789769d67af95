"""A step's output: capped for the journal, digested, masked, and made harmless for a screen."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from engine.journal.events import canonical
from engine.procedures import expressions

WINDOW = 1 << 18  # bytes of masked output looked at together

_CONTROL = re.compile(
    r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?"   # operating system commands, titles and clipboards
    r"|\x1b[PX^_][^\x1b]*(?:\x1b\\)?"       # device control and other strings
    r"|\x1b\[[0-?]*[ -/]*[@-~]?"            # control sequences: colours, cursor, modes
    r"|\x1b[ -/]*[0-~]?"                    # other escapes
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Text that no terminal acts on: escape sequences, control and bidi characters are removed.

    A carriage return starts a new line (progress bars become lines); tabs and newlines stay.
    """
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def collect(stdout: Path, stderr: Path, cap: int, secrets: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The kept standard output (UTF-8, invalid bytes replaced) and what is known of all of it.

    Both files are masked in place first if the step had secrets. Longer output keeps its beginning
    and its end, `cap` bytes in all; `file` names where the whole is. Blocks for large files.
    """
    if secrets:
        for path in (stdout, stderr):
            _mask_file(path, secrets)
        (stdout.parent / "masked").touch()
    kept, size, digest = _read(stdout, cap)
    errors, error_size, _ = _read(stderr, cap // 4)
    known: dict[str, Any] = {"bytes": size, "sha256": digest, "stderr": errors,
                             "stderr_bytes": error_size}
    if size > cap or error_size > cap // 4:
        known["file"] = str(stdout if size > cap else stderr)
    parsed = _json(kept) if size <= cap else None
    if parsed is not None:
        known["json"] = parsed
    return kept, known


def _read(path: Path, cap: int) -> tuple[str, int, str]:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return "", 0, hashlib.sha256().hexdigest()
    with path.open("rb") as file:
        if size <= cap:
            data = file.read()
            return data.decode("utf-8", "replace"), len(data), hashlib.sha256(data).hexdigest()
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        head = file.read(cap // 4)
        file.seek(size - (cap - cap // 4))
        tail = file.read(cap - cap // 4)
    left = size - len(head) - len(tail)
    middle = f"\n[… {left:,} bytes left out here …]\n"
    return head.decode("utf-8", "replace") + middle + tail.decode("utf-8", "replace"), size, digest


def _json(text: str) -> Any:
    stripped = text.strip()
    if not stripped or stripped[0] not in "{[\"0123456789-tfn":
        return None
    try:
        found = json.loads(stripped, parse_constant=_no_constant)
        canonical(found)  # what the journal cannot hold, such as half a surrogate pair, is no JSON here
    except (ValueError, RecursionError):
        return None
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _mask_file(path: Path, secrets: Sequence[str]) -> None:
    """Rewrite a file with every secret masked. An attempt that still writes is over by then."""
    if not path.exists():
        return
    masker = expressions.Masker(secrets)
    fresh = path.with_suffix(".masked")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with path.open("rb") as source, os.fdopen(handle, "wb") as target:
        while chunk := source.read(1 << 20):
            target.write(masker.feed(chunk))
        target.write(masker.flush())
    fresh.replace(path)


def chunk(path: Path, offset: int, limit: int, secrets: Sequence[str] = ()) -> tuple[str, int]:
    """Up to `limit` bytes from `offset`, ending before an unfinished UTF-8 character and harmless, and
    the offset to go on from. With secrets whole lines are given, so that none is seen in parts."""
    try:
        with path.open("rb") as file:
            if secrets:
                return _masked_lines(file, offset, secrets)
            file.seek(offset)
            data = file.read(limit)
    except FileNotFoundError:
        return "", offset
    if len(data) == limit:
        data = data[:_whole(data)]
    return harmless(data.decode("utf-8", "replace")), offset + len(data)


def _masked_lines(file: BinaryIO, offset: int, secrets: Sequence[str]) -> tuple[str, int]:
    """The whole lines from the one that `offset` is in; a line longer than a window is withheld."""
    start = max(0, offset - WINDOW)
    file.seek(start)
    before = file.read(offset - start)
    start = offset - len(before) + before.rfind(b"\n") + 1 if b"\n" in before else start
    file.seek(start)
    data = file.read(WINDOW)
    end = data.rfind(b"\n") + 1
    if not end:
        return "", offset if len(data) < WINDOW else start + len(data)
    masker = expressions.Masker(secrets)
    shown = masker.feed(data[:end]) + masker.flush()
    return harmless(shown.decode("utf-8", "replace")), start + end


def _whole(data: bytes) -> int:
    """The length of `data` without an unfinished character at its end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        need = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return len(data) - back if need > back else len(data)
    return len(data)
