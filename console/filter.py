"""The `/` filter: every word must occur, case aside; `!` at the front turns it round. Pure."""

from __future__ import annotations


def matches(filter: str, *texts: str | None) -> bool:
    """Whether the texts of one row pass. An empty filter, or a lone `!`, passes everything."""
    inverted = filter.startswith("!")
    words = filter.removeprefix("!").casefold().split()
    if not words:
        return True
    text = " ".join(t for t in texts if t).casefold()
    return all(word in text for word in words) != inverted
