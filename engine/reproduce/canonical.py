"""The one byte string of a JSON value, by the journal's rules, and values that have none refused. Pure.

Sorted keys, no spaces, UTF-8, floats as the shortest text that reads back as the same float. What JSON
would change silently is refused instead: NaN and infinities, integers that do not fit in 64 bits, keys
that are not text, text that is not Unicode.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec

from engine.errors import UsageError

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
DEEPEST = 100


def encode(value: Any) -> bytes:
    """Equal values have equal bytes. Raises UsageError, with the value's place, for what JSON cannot hold."""
    _refuse(value, "", 0)
    return msgspec.json.encode(value, order="deterministic")


def digest(value: Any) -> str:
    """SHA-256 of the canonical bytes, in hex."""
    return hashlib.sha256(encode(value)).hexdigest()


def number(value: float) -> float | str:
    """A float as JSON holds it: one that is not finite becomes its name, such as `"NaN"`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def as_number(value: float | str) -> float:
    """The inverse of `number`. Raises UsageError for any other text."""
    if isinstance(value, str):
        if value not in NOT_FINITE:
            raise UsageError(f"{value!r} is not a number.", hint=f"Known names: {', '.join(NOT_FINITE)}.")
        return NOT_FINITE[value]
    return value


def _refuse(value: Any, place: str, depth: int) -> None:
    if depth > DEEPEST:
        raise _refusal("it is nested too deeply", place[:80])
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _refusal(f"its key {key!r} is not text", place)
            _refuse(key, place, depth)
            _refuse(item, f"{place}.{key}" if place else key, depth + 1)
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            _refuse(item, f"{place}.{at}" if place else str(at), depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refusal("it is not Unicode text", place) from None
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise _refusal("it does not fit in 64 bits; write it as text", place)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _refusal(f"it is {number(value)}; write that as text", place)
    else:
        raise _refusal(f"it is a {type(value).__name__}, which JSON does not know", place)


def _refusal(why: str, place: str) -> UsageError:
    return UsageError(f"This value cannot be recorded: {why}.", where=place or "the value itself",
                      hint="A manifest holds text, numbers, true, false, null, lists and objects.")
