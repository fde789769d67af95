"""From the events of a YAML parser to plain values, refusing what the language does not have."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from engine.located.places import Located, Mark, Problem, Where

MAX_NODES = 20_000
MAX_DEPTH = 40

_INT = re.compile(r"[-+]?(?:[1-9][0-9]*|0|0o[0-7]+|0x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_ZERO = re.compile(r"[-+]?0[0-9_]+\Z")
_CONSTANTS: dict[str, bool | None] = {
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
    "null": None, "Null": None, "NULL": None, "~": None, "": None}


def compose(located: Located) -> None:
    """Read the text of `located` into its value and marks; what is wrong goes to its problems."""
    try:
        node = _Composer(located).document()
    except _Stop as stop:
        located.problems.append(stop.problem)
    except yaml.YAMLError as error:
        located.problems.append(_syntax(error, located))
    else:
        located.value = _flatten(node, (), located.marks)


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

    def document(self) -> _Node:
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
