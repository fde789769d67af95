"""What kind of thing a column holds, by the name of its Arrow type. Pure."""

from __future__ import annotations

from typing import Literal

Family = Literal["whole number", "number", "text", "true or false", "time with a zone", "time without a zone",
                 "date", "nothing", "other"]
NUMBERS = ("whole number", "number")
WORDS = ("text", "true or false")
TIMES = ("time with a zone", "time without a zone", "date")


def family(name: str) -> Family:
    """`int32` is a whole number, `double` and decimals are numbers, a dictionary of texts is text."""
    if name.startswith(("int", "uint")):
        return "whole number"
    if name in ("halffloat", "float", "double") or name.startswith("decimal"):
        return "number"
    if name in ("string", "large_string", "string_view") or (
            name.startswith("dictionary<values=") and "string" in name):
        return "text"
    if name == "bool":
        return "true or false"
    if name.startswith("timestamp["):
        return "time with a zone" if "tz=" in name else "time without a zone"
    if name.startswith("date"):
        return "date"
    return "nothing" if name == "null" else "other"


def difference(expected: str, seen: str, typed: bool) -> Literal["none", "width", "kind"]:
    """`width`: another type of the same kind, or whole numbers for numbers; `kind`: another kind.

    Types that were guessed from text (`typed` False) differ by kind only, and a column without any value
    has no kind to differ by.
    """
    if expected == seen or "null" in (expected, seen):
        return "none"
    old, new = family(expected), family(seen)
    if (old == new and old != "other") or (old == "number" and new == "whole number"):
        return "width" if typed else "none"
    return "kind"
