"""Counts of outcomes over all the seconds in which predictions were made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def summed(strata: Iterable[Mapping[str, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    """By variant, (n, y) of all seconds together."""
    total: dict[str, tuple[int, int]] = {}
    for one in strata:
        for variant, (n, y) in one.items():
            before = total.get(variant, (0, 0))
            total[variant] = (before[0] + n, before[1] + y)
    return total
