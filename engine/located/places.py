"""Values that know their lines, and problems that name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Where = tuple[str | int, ...]
Level = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a file. Lines and columns count from 1; line 0 is the whole file."""

    file: str
    line: int
    column: int
    message: str
    hint: str | None = None
    level: Level = "error"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        warning = "warning: " if self.level == "warning" else ""
        text = f"{place}: {warning}{self.message}"
        return f"{text}\n  {self.hint}" if self.hint else text


class Misplaced(ValueError):
    """What a model finds wrong at one place inside the value that it looks at: `path` from there, by the
    keys of the file."""

    def __init__(self, path: Where, message: str) -> None:
        super().__init__(message)
        self.path = path


@dataclass(frozen=True)
class Mark:
    """Where a value is written. `raw` is its text where that is not the value itself."""

    line: int
    column: int
    raw: str | None = None
    body: int | None = None  # the first line of a literal block's text


@dataclass
class Located:
    """A file's plain value, the place of each part of it, and the problems found in reading it.

    `value` is None when the file could not be read as one YAML document; then `problems` says why.
    """

    name: str
    text: str
    value: Any = None
    problems: list[Problem] = field(default_factory=list)
    marks: dict[Where, Mark] = field(default_factory=dict)

    def mark(self, path: Where) -> Mark:
        """The place of a path, or of the nearest thing round it that has one."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.marks:
                return self.marks[path[:end]]
        return Mark(1, 1)

    def line_of(self, path: Where) -> int:
        """The line of a key, of a list's item, or of the nearest thing round it (from 1)."""
        return self.mark(path).line

    def raw(self, path: Where) -> str | None:
        """What is written at a path where YAML read it as something else than text (`1.10`)."""
        found = self.marks.get(path)
        return found.raw if found else None

    def at(self, path: Where) -> Any:
        """The value at a path; None where there is none."""
        value = self.value
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def problem(self, path: Where, message: str, hint: str | None = None, level: Level = "error",
                *, offset: int = 0) -> Problem:
        """A problem at a path; `offset` is in characters of the text there, for block scalars."""
        mark = self.mark(path)
        line = mark.line
        if mark.body is not None and offset >= 0:
            text = self.at(path)
            line = mark.body + (text.count("\n", 0, offset) if isinstance(text, str) else 0)
        return Problem(self.name, line, mark.column, message, hint, level)
