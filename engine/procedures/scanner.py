"""Reading the text of expressions, templates and shell scripts without evaluating anything.

Pure, standard library only. What is found here is what `check` reports and what rendering relies
on: which paths an expression reads, where a template's expressions are, and whether an
interpolation in a shell script stands where quoting protects it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

OPEN, CLOSE = "${{", "}}"
MACROS = frozenset({"all", "exists", "exists_one", "map", "filter"})

Reference = tuple[str | int, ...]

_TOKEN = re.compile(r'''
      (?P<space>\s+|//[^\n]*)
    | (?P<string>[rRbB]{0,2}(?:"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'
                 |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    | (?P<number>0x[0-9a-fA-F]+u?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?[uU]?)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<open>["'])
    | (?P<mark>.)
''', re.VERBOSE | re.DOTALL)
_SIMPLE = re.compile(r"""["']([^"'\\]*)["']$""")


@dataclass(frozen=True)
class Token:
    """`kind` is string, number, name, open (a quote that never closes) or mark; `at` its offset."""

    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class Expression:
    """One `${{ … }}` of a template: the CEL inside and the offset of the `${{`."""

    source: str
    at: int


class TemplateError(ValueError):
    """A template that cannot be read; `at` is the offset, the text is a sentence."""

    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.at = at


def tokens(source: str, start: int = 0) -> Iterator[Token]:
    """The tokens of a CEL expression, spaces and comments left out; never raises."""
    for found in _TOKEN.finditer(source, start):
        kind = found.lastgroup or "mark"
        if kind != "space":
            yield Token(kind, found.group(), found.start())


def references(source: str) -> list[Reference]:
    """Every path an expression reads, in order, once each: ("steps", "look", "result", "weights").

    Constant indexes belong to the path (`x["a"]` is ("x", "a"), `x[0]` is ("x", 0)), computed ones
    end it. Names of functions and methods, and the variables that `map`, `filter`, `all`, `exists`
    and `exists_one` bind, are left out.
    """
    read = list(tokens(source))
    bound = _bound(read)
    found: dict[Reference, None] = {}
    at = 0
    while at < len(read):
        token = read[at]
        if token.kind != "name" or token.text in ("true", "false", "null", "in") or (
                at and read[at - 1].text == "."):
            at += 1
            continue
        path, at = _path(read, at)
        if path and path[0] not in bound:
            found[path] = None
    return list(found)


def _bound(read: list[Token]) -> set[str]:
    return {read[at + 3].text for at in range(len(read) - 4)
            if read[at].text == "." and read[at + 1].text in MACROS and read[at + 2].text == "("
            and read[at + 3].kind == "name" and read[at + 4].text == ","}


def _path(read: list[Token], at: int) -> tuple[Reference, int]:
    """The path that begins with the name at `at`, and the index after it; () for a function."""
    path: list[str | int] = [read[at].text]
    at += 1
    if at < len(read) and read[at].text == "(":
        return (), at
    while at + 1 < len(read):
        if read[at].text == "." and read[at + 1].kind == "name":
            if at + 2 < len(read) and read[at + 2].text == "(":
                break
            path.append(read[at + 1].text)
            at += 2
        elif read[at].text == "[" and at + 2 < len(read) and read[at + 2].text == "]":
            index = _constant(read[at + 1])
            if index is None:
                break
            path.append(index)
            at += 3
        else:
            break
    return tuple(path), at


def _constant(token: Token) -> str | int | None:
    if token.kind == "number" and token.text.isdecimal():
        return int(token.text)
    simple = _SIMPLE.match(token.text) if token.kind == "string" else None
    return simple.group(1) if simple else None


def nesting(source: str) -> int:
    """How deep the macros that walk a list (`map`, `filter` …) are nested in one another."""
    deepest = 0
    stack: list[bool] = []
    read = list(tokens(source))
    for at, token in enumerate(read):
        if token.text == "(" and token.kind == "mark":
            stack.append(at > 1 and read[at - 1].text in MACROS and read[at - 2].text == ".")
            deepest = max(deepest, sum(stack))
        elif token.text == ")" and token.kind == "mark" and stack:
            stack.pop()
    return deepest


def bodies(source: str, macros: Collection[str]) -> list[str]:
    """What stands in the parentheses of each call of these list macros."""
    found: list[str] = []
    begun: list[int | None] = []
    read = list(tokens(source))
    for at, token in enumerate(read):
        if token.kind == "mark" and token.text == "(":
            named = at > 1 and read[at - 1].text in macros and read[at - 2].text == "."
            begun.append(token.at + 1 if named else None)
        elif token.kind == "mark" and token.text == ")" and begun and (start := begun.pop()) is not None:
            found.append(source[start:token.at])
    return found


def parts(template: str) -> list[str | Expression]:
    """A template's plain text and its expressions, in order. Raises TemplateError.

    A `}}` inside a string or a map of the expression does not end it.
    """
    found: list[str | Expression] = []
    at = 0
    while (start := template.find(OPEN, at)) >= 0:
        if start > at:
            found.append(template[at:start])
        end = _end(template, start + len(OPEN))
        if end is None:
            raise TemplateError("`${{` is never closed by `}}`", start)
        source = template[start + len(OPEN):end].strip()
        if not source:
            raise TemplateError("there is nothing between `${{` and `}}`", start)
        found.append(Expression(source, start))
        at = end + len(CLOSE)
    if at < len(template):
        found.append(template[at:])
    return found


def _end(template: str, start: int) -> int | None:
    depth = 0
    for token in tokens(template, start):
        if token.kind == "open":
            return None
        if token.text == "{":
            depth += 1
        elif token.text == "}":
            if depth == 0:
                return token.at if template.startswith(CLOSE, token.at) else None
            depth -= 1
    return None


def has_template(value: object) -> bool:
    """Whether a value, however deep, has a `${{` in it."""
    if isinstance(value, str):
        return OPEN in value
    if isinstance(value, dict):
        return any(has_template(v) for v in value.values())
    return isinstance(value, list | tuple) and any(has_template(v) for v in value)
