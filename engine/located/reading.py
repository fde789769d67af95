"""Reading a YAML file into plain values that know their lines. No tag ever constructs anything.

Scalars follow the core schema of YAML 1.2: only `true` and `false` are booleans, so that `yes`,
`on`, `no` and a date stay the text that was written; a number with a leading zero is refused,
because YAML 1.1 reads it as octal. Keys are always text. Every other trap is a problem with its
line: tags, merge keys, keys given twice, a second document, invisible characters, and anything too
large or too deep (an alias counts as all that it stands for).
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.located.composing import MAX_NODES, compose
from engine.located.places import Level, Located, Mark, Problem, Where

__all__ = ["MAX_BYTES", "MAX_NODES", "Level", "Located", "Mark", "Problem", "Where", "load",
           "load_bytes"]

MAX_BYTES = 1_000_000

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u2060"
                     "\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")


def load(source: Path | str, name: str | None = None) -> Located:
    """Read a file (a Path) or a text (a str) called `name`. Never raises: see `problems`."""
    name = name or (str(source) if isinstance(source, Path) else "text")
    if isinstance(source, str):
        return _read(source, name)
    try:
        if source.exists() and not source.is_file() and not source.is_dir():
            return Located(name, "", problems=[Problem(name, 0, 0, "this is not a plain file")])
        with source.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        return Located(name, "", problems=[Problem(name, 0, 0, _unreadable(error))])
    return load_bytes(data, name)


def load_bytes(data: bytes, name: str) -> Located:
    """As `load`, for a file's bytes."""
    if len(data) > MAX_BYTES:
        return Located(name, "", problems=[_too_large(name)])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        hint = "save the file as UTF-8"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            hint = "it looks like UTF-16: save it as UTF-8"
        return Located(name, "", problems=[Problem(name, line, 1, "this is not UTF-8", hint)])
    return _read(text, name)


def _too_large(name: str) -> Problem:
    return Problem(name, 0, 0, f"the file is larger than {MAX_BYTES // 1_000_000} MB",
                   "keep data in files of their own")


def _unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a directory, not a file"
    return f"the file cannot be read: {(error.strerror or str(error)).lower()}"


def _read(text: str, name: str) -> Located:
    located = Located(name, text)
    if len(text) > MAX_BYTES:
        located.problems.append(_too_large(name))
        return located
    unseen = _UNSEEN.search(text)
    if unseen:
        line = text.count("\n", 0, unseen.start()) + 1
        column = unseen.start() - (text.rfind("\n", 0, unseen.start()) + 1) + 1
        code = ord(unseen.group())
        located.problems.append(Problem(
            name, line, column, f"there is an invisible character here (U+{code:04X})",
            "remove it: what people read must be what runs"))
        return located
    compose(located)
    return located
