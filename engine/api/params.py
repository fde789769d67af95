"""A run's parameters as people give them: text from a form or the command line, or JSON.

Shared by the console's form, which validates as one types, and by the engine, whose word counts.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any

from engine.api.wire import Param

LONGEST = 10_000  # characters of one value
_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:/.*|command:\s*\S.*)\Z", re.DOTALL)
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}\Z")
_WORDS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}


def is_reference(text: object) -> bool:
    """Whether it names a secret: `env:NAME`, `file:/absolute/path` or `command:PROGRAM …`."""
    return isinstance(text, str) and "\0" not in text and bool(_REFERENCE.match(text))


def check_value(param: Param, text: str) -> str | None:
    """What is wrong with the text in a form's field, in a few words; None if nothing is.

    An empty field is a parameter that is not given.
    """
    if not text.strip():
        return "needed" if param.required else None
    try:
        parse_value(param, text)
    except ValueError as error:
        return str(error)
    return None


def parse_value(param: Param, given: Any) -> Any:
    """The typed value of a text, or of a JSON value, for a parameter.

    string → str, integer → int, number → float, boolean → bool, secret → its reference. Raises
    ValueError with a short sentence that says what is wanted and never repeats a secret.
    """
    if given is None:
        raise ValueError("null is no value; leave the parameter out")
    value = _PARSERS[param.type](given)
    if param.type in ("integer", "number"):
        _in_range(param, value)
    if isinstance(value, str) and param.type == "string":
        _well_formed(param, value)
    if param.choices and value not in [_choice(param, c) for c in param.choices]:
        listed = ", ".join(str(choice) for choice in param.choices)
        raise ValueError(f"one of {listed}")
    return value


def _choice(param: Param, choice: Any) -> Any:
    return _PARSERS[param.type](choice)


def _string(given: Any) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, int | float):
        return str(given)
    if not isinstance(given, str):
        raise ValueError("a text")
    if len(given) > LONGEST:
        raise ValueError(f"at most {LONGEST:,} characters")
    if "\0" in given:
        raise ValueError("a text without zero bytes")
    return given


def _integer(given: Any) -> int:
    if isinstance(given, bool):
        raise ValueError("a whole number")
    if isinstance(given, int):
        text = str(given)
    elif isinstance(given, float) and given.is_integer() and abs(given) < 1e15:
        return int(given)
    else:
        text = given.strip() if isinstance(given, str) else ""
    if not _INTEGER.match(text):
        raise ValueError("a whole number")
    return int(text)


def _number(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError("a number")
    try:
        value = float(given.strip().replace("_", " ") if isinstance(given, str) else given)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None
    if not math.isfinite(value):
        raise ValueError("a finite number")
    return value


def _boolean(given: Any) -> bool:
    if isinstance(given, bool):
        return given
    value = _WORDS.get(given.strip().lower()) if isinstance(given, str) else None
    if value is None:
        raise ValueError("true or false")
    return value


def _secret(given: Any) -> str:
    text = given.strip() if isinstance(given, str) else ""
    if not is_reference(text) or len(text) > LONGEST:
        raise ValueError("a reference such as env:TOKEN, file:/path or command:PROGRAM, "
                         "never the secret itself")
    return text


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "string": _string, "integer": _integer, "number": _number, "boolean": _boolean,
    "secret": _secret}


def _in_range(param: Param, value: float) -> None:
    low, high = param.min, param.max
    if (low is None or value >= low) and (high is None or value <= high):
        return
    if low is None:
        raise ValueError(f"at most {high:g}")
    raise ValueError(f"at least {low:g}" if high is None else f"from {low:g} to {high:g}")


def _well_formed(param: Param, value: str) -> None:
    if param.pattern is None:
        return
    # The whole value must match: `$` alone would let a newline pass at the end.
    if not compiled(param.pattern).fullmatch(value):
        raise ValueError(f"text that matches {param.pattern}")


@functools.lru_cache(maxsize=256)
def compiled(pattern: str) -> re.Pattern[str]:
    """The compiled pattern of a parameter. Raises ValueError with a sentence if it is none."""
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern} cannot be read: {error}") from None
