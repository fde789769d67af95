"""Small pieces of sentences that several chapters share. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

SERVICE = r"^[a-z0-9][a-z0-9._-]*$"


def megabytes(count: int) -> str:
    """Bytes as people count them on a disk: `812 MB`, `3.4 GB`, `less than 1 MB`."""
    if count < 1_000_000:
        return "less than 1 MB" if count else "nothing"
    return f"{count / 1e9:.1f} GB" if count >= 1_000_000_000 else f"{count / 1e6:.0f} MB"


def span(seconds: float) -> str:
    """A duration in its largest two units: `2 d 3 h`, `3 min 5 s`, `2.5 s`, `40 ms`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)


def percents(weights: Mapping[str, float]) -> str:
    """`champion 95 %, challenger 5 %`."""
    return ", ".join(f"{name} {weight:g} %" for name, weight in weights.items()) or "no variants"


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint: the nearest known name, or all of them."""
    names = sorted(known)
    match = difflib.get_close_matches(word, names, 1)
    return f"Did you mean {match[0]}?" if match else f"Known: {', '.join(names) or 'none'}."
