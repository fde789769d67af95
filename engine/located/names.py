"""The known name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name most like `word`, or None if none is near."""
    names = list(known)
    plain = {name.lower().replace("-", "_"): name for name in names}
    same = plain.get(word.lower().replace("-", "_"))
    if same is not None and same != word:
        return same
    found = difflib.get_close_matches(word, [name for name in names if name != word], 1, cutoff)
    return found[0] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest name, or all of them if they are few."""
    names = sorted(set(known))
    close = nearest(word, names)
    if close is not None:
        return f"did you mean `{close}`?"
    if not names:
        return "there is none"
    listed = ", ".join(f"`{name}`" for name in names[:12])
    return f"known: {listed}{' …' if len(names) > 12 else ''}"
