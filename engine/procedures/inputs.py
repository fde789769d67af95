"""What an expression is given: plain values along the paths it reads, and no more than it may walk.

Pure. Evaluation holds the engine's loop and cannot be interrupted, so its cost is bounded before.
With S values read (64 characters of a text count as one), the longest list of L entries, and list
macros nested d deep, at most L^d * S values are compared. `map` and `filter` copy what they have
gathered at every entry: L^d * S copies, times L where `map` gathers something larger than one value
that it reads from outside. A comparison takes about 4 ns, a copy 0.2 µs, giving a value to the
library 2 µs, so each of the limits stands for less than half a second.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.procedures.scanner import Reference, bodies, nesting, references

MOST_VALUES = 50_000
MOST_COMPARED = 100_000_000
MOST_COPIED = 2_000_000
_TEXT = 64  # characters that count as one value


class TooMuch(Exception):
    """The expression would hold the engine for too long; the text says why, for a person."""


@dataclass(frozen=True)
class Shape:
    """What an expression's text alone says: the paths it reads, how deep its list macros are nested,
    whether any of them gathers, and what is read within a `map` from outside it."""

    paths: list[Reference]
    depth: int
    gathers: bool
    within: list[Reference]
    literals: int


@functools.lru_cache(maxsize=1024)
def shape(expr: str) -> Shape:
    """The shape of an expression."""
    gathered = bodies(expr, {"map"})
    paths = references(expr)
    free = set(paths)
    return Shape(paths, nesting(expr), bool(gathered or bodies(expr, {"filter"})),
                 [path for body in gathered for path in references(body) if path in free],
                 expr.count(",") + 1)


def given(expr: str, names: Iterable[str], context: Mapping[str, Any]) -> dict[str, Any]:
    """`names` of the context as CEL can take them, only what `expr` reads. Raises TooMuch."""
    found = shape(expr)
    taker = _Taker()
    values = {name: taker.part(context[name], [path[1:] for path in found.paths if path[0] == name])
              for name in names if name in context}
    if found.depth:
        _affordable(found, taker, values)
    return values


def _affordable(found: Shape, taker: _Taker, values: Mapping[str, Any]) -> None:
    longest = max(taker.longest, found.literals)
    size = taker.size + found.literals
    walked = longest ** found.depth * size
    if walked > MOST_COMPARED:
        raise TooMuch(f"it would walk a list of {longest:,} entries, {size:,} values in all")
    if found.gathers and any(_large(path, values) for path in found.within):
        walked *= longest
    if found.gathers and walked > MOST_COPIED:
        raise TooMuch(f"its map or filter would copy a list of {longest:,} entries, {size:,} values in "
                      "all, again and again")


def _large(path: Reference, values: Mapping[str, Any]) -> bool:
    value: Any = values
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return False
    return isinstance(value, list | dict) or (isinstance(value, str) and len(value) > _TEXT)


class _Taker:
    """Takes values over and counts them; `longest` is the longest list or map among them."""

    def __init__(self) -> None:
        self.size = 0
        self.longest = 0

    def part(self, value: Any, paths: list[Reference]) -> Any:
        """A value as far as `paths` lead into it; whole where one ends or none is known."""
        if not isinstance(value, Mapping) or not paths or not all(
                path and isinstance(path[0], str) for path in paths):
            return self.whole(value)
        return {key: self.part(value[key], [path[1:] for path in paths if path[0] == key])
                for key in dict.fromkeys(path[0] for path in paths) if key in value}

    def whole(self, value: Any) -> Any:
        """Secrets by their masked name, dates as text, broken text repaired."""
        self.size += 1
        if self.size > MOST_VALUES:
            raise TooMuch(f"it reads more than {MOST_VALUES:,} values")
        if isinstance(value, str):
            self.size += len(value) // _TEXT
            return value.encode("utf-8", "replace").decode() if not value.isascii() else value
        if value is None or isinstance(value, bool | int | float | bytes):
            return value
        if isinstance(value, Mapping):
            self.longest = max(self.longest, len(value))
            return {str(key): self.whole(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            self.longest = max(self.longest, len(value))
            return [self.whole(item) for item in value]
        return value.isoformat() if isinstance(value, dt.date | dt.datetime) else str(value)
