"""Reading a YAML file into plain values that know their lines. No tag ever constructs anything.

Scalars follow the core schema of YAML 1.2: only `true` and `false` are booleans, so that `yes`,
`on`, `no` and a date stay the text that was written; a number with a leading zero is refused,
because YAML 1.1 reads it as octal. Keys are always text. Every other trap is a problem with its
line: tags, merge keys, keys given twice, a second document, invisible characters, and anything too
large or too deep (an alias counts as all that it stands for).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 40

Where = tuple[str | int, ...]
Level = Literal["error", "warning"]

_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u2060"
                     "\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_INT = re.compile(r"[-+]?(?:[1-9][0-9]*|0|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_ZERO = re.compile(r"[-+]?0[0-9_]+\Z")
_CONSTANTS: dict[str, bool | None] = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None}


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
    composer = _Composer(located)
    try:
        node = composer.document()
    except _Stop as stop:
        located.problems.append(stop.problem)
        return located
    except yaml.YAMLError as error:
        located.problems.append(_syntax(error, located))
        return located
    if node is not None:
        located.value = _flatten(node, (), located.marks)
    return located


class _Stop(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass
class _Node:
    """A value being read. `size` counts every node below it, aliases as what they stand for."""

    mark: Mark
    value: Any = None
    items: list[_Node] | None = None
    pairs: dict[str, tuple[Mark, _Node]] | None = None
    size: int = 1
    depth: int = 1


class _Composer:
    """Events to nodes, refusing what the language does not have and what grows too large."""

    def __init__(self, located: Located) -> None:
        self._located = located
        self._anchors: dict[str, _Node] = {}
        self._size = 0
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        self._events: Iterator[Any] = iter(yaml.parse(located.text, Loader=loader))

    def document(self) -> _Node | None:
        next(self._events)
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            raise _Stop(Problem(self._located.name, 1, 1, "the file is empty"))
        node = self._node(next(self._events), 1)
        next(self._events)
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            self._problem(event, "a second document begins here", "keep one document in one file")
        return node

    def _problem(self, event: Any, message: str, hint: str | None = None) -> None:
        mark = _mark(event)
        self._located.problems.append(
            Problem(self._located.name, mark.line, mark.column, message, hint))

    def _stop(self, event: Any, message: str, hint: str | None = None) -> _Stop:
        mark = _mark(event)
        return _Stop(Problem(self._located.name, mark.line, mark.column, message, hint))

    def _node(self, event: Any, depth: int) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if depth > MAX_DEPTH:
            raise self._stop(event, f"this is nested more than {MAX_DEPTH} levels deep")
        self._count(event, 1)
        if event.tag is not None:
            self._problem(event, f"the tag `{_tag(event.tag)}` is not part of this language",
                          "remove it; quote a value to make it text")
        if isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, depth)
        elif isinstance(event, yaml.MappingStartEvent):
            node = self._mapping(event, depth)
        else:
            node = self._scalar(event)
        if event.anchor:
            self._anchors[event.anchor] = node
        return node

    def _count(self, event: Any, nodes: int) -> None:
        self._size += nodes
        if self._size > MAX_NODES:
            raise self._stop(event, f"there are more than {MAX_NODES:,} values in this file",
                             "an alias counts as all that it stands for")

    def _alias(self, event: Any, depth: int) -> _Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise self._stop(event, f"nothing before this is anchored as `&{event.anchor}`")
        if depth + node.depth - 1 > MAX_DEPTH:
            raise self._stop(event, f"this is nested more than {MAX_DEPTH} levels deep")
        self._count(event, node.size)
        return node

    def _sequence(self, event: Any, depth: int) -> _Node:
        node = _Node(_mark(event), items=[])
        assert node.items is not None
        while not isinstance(inner := next(self._events), yaml.SequenceEndEvent):
            child = self._node(inner, depth + 1)
            node.items.append(child)
            node.size += child.size
            node.depth = max(node.depth, child.depth + 1)
        return node

    def _mapping(self, event: Any, depth: int) -> _Node:
        node = _Node(_mark(event), pairs={})
        assert node.pairs is not None
        while not isinstance(inner := next(self._events), yaml.MappingEndEvent):
            key = self._key(inner)
            child = self._node(next(self._events), depth + 1)
            node.size += child.size + 1
            node.depth = max(node.depth, child.depth + 1)
            if key in node.pairs:
                self._problem(inner, f"the key `{key}` is given twice",
                              f"it is already in line {node.pairs[key][0].line}")
            else:
                node.pairs[key] = (_mark(inner), child)
        return node

    def _key(self, event: Any) -> str:
        self._count(event, 1)
        if not isinstance(event, yaml.ScalarEvent):
            raise self._stop(event, "a key must be plain text",
                             "quote a value that begins with `{`, `[` or `*`")
        if event.value == "<<" and event.style in (None, ""):
            raise self._stop(event, "merge keys (`<<`) are not part of this language",
                             "write the keys out: what people read must be what runs")
        if event.value == "" and event.style in (None, ""):
            self._problem(event, "there is no key before the colon")
        return str(event.value)

    def _scalar(self, event: Any) -> _Node:
        mark = _mark(event)
        text: str = event.value
        if event.style == "|":
            return _Node(Mark(mark.line, mark.column, body=mark.line + 1), text)
        if event.style not in (None, ""):
            return _Node(mark, text)
        if _ZERO.match(text):
            self._problem(event, f"`{text}` can be read as an octal or as a decimal number",
                          f"write \"{text}\" for text, or leave out the zero")
            return _Node(mark, text)
        value = plain(text)
        return _Node(mark if value == text else Mark(mark.line, mark.column, raw=text), value)


def plain(text: str) -> Any:
    """An unquoted scalar's value by the core schema: null, bool, int, float, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= 40 and _INT.match(text):
        return int(text, 0) if text.lstrip("-+")[1:2] in ("o", "x") else int(text)
    if len(text) <= 40 and _FLOAT.match(text) and math.isfinite(number := float(text)):
        return number
    return text


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)


def _tag(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _flatten(node: _Node, path: Where, marks: dict[Where, Mark],
             key: Mark | None = None) -> Any:
    """The plain value of a node; notes the place of each path, a key's where there is one."""
    mark = node.mark
    if key is not None and (node.pairs is not None or node.items is not None):
        mark = key
    marks[path] = mark
    if node.pairs is not None:
        return {name: _flatten(child, (*path, name), marks, at)
                for name, (at, child) in node.pairs.items()}
    if node.items is not None:
        return [_flatten(child, (*path, i), marks) for i, child in enumerate(node.items)]
    if key is not None and node.value is None:
        marks[path] = Mark(key.line, key.column, raw=mark.raw)
    return node.value


_PLAIN_WORDS = (
    ("mapping values are not allowed", "a `:` here has no place",
     "quote a text that holds `: `, and look at the indentation"),
    ("did not find expected key", "the indentation does not fit, or a quote or bracket is wrong",
     "compare this line with the one above it"),
    ("did not find expected '-' indicator", "this does not fit the list above it",
     "compare the indentation with the other items"),
    ("did not find expected ',' or ']'", "a list in brackets is not closed", "add `]`"),
    ("did not find expected ',' or '}'", "a map in braces is not closed", "add `}`"),
    ("found unexpected end of stream", "a quote is never closed", None),
    ("could not find expected ':'", "this line is neither `key: value` nor a list's item",
     "quote a text that begins with a special character"),
    ("did not find expected <document start>", "the text goes on after the document has ended",
     "there must be a space after the `:` of a key"),
)


def _syntax(error: yaml.YAMLError, located: Located) -> Problem:
    mark = getattr(error, "problem_mark", None)
    said = str(getattr(error, "problem", None) or error).splitlines()[0]
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    lines = located.text.splitlines() or [""]
    line = min(line, len(lines))
    if "cannot start any token" in said:
        char = lines[line - 1][column - 1:column]
        if char == "\t":
            return Problem(located.name, line, column, "this line is indented with a tab",
                           "YAML wants spaces")
        return Problem(located.name, line, column, f"a value cannot begin with `{char}`",
                       "put it in quotes")
    context = str(getattr(error, "context", "") or "")
    for words, message, hint in _PLAIN_WORDS:
        if words in said:
            started = getattr(error, "context_mark", None)
            if started is not None and "quoted scalar" in context:
                line, column = started.line + 1, started.column + 1
            return Problem(located.name, line, column, message, hint)
    return Problem(located.name, line, column, f"this is not YAML: {said}")
