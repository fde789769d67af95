"""Shares in percent as the weights a router takes, and back. Pure.

Routers split by weight over the sum of the weights. Some take fractions, others whole numbers up to a
limit (Route 53 255, ALB 999), so that a share can only be met within half a step; a step is
100 / limit percent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from engine.errors import ActionFailed

SAME = 1e-3  # percent; weights that travel as 32-bit fractions come back a little off
FULL = 0.01  # percent by which a whole split may miss 100


def shares(weights: Mapping[str, float]) -> dict[str, float] | None:
    """Percents adding up to 100, or None where no weight is above 0."""
    total = math.fsum(weights.values())
    return {name: weight * 100.0 / total for name, weight in weights.items()} if total > 0 else None


def same(one: Mapping[str, float], other: Mapping[str, float], tolerance: float = SAME) -> bool:
    """Whether two splits are one; a variant that one does not name has 0 there."""
    return all(abs(one.get(name, 0.0) - other.get(name, 0.0)) <= tolerance for name in {*one, *other})


def whole_split(service: str, variants: Mapping[str, object], asked: Mapping[str, float]) -> dict[str, float]:
    """What was asked, for each of `variants`; those not named get 0.

    Raises ActionFailed for a variant that is not there, and for what is not a split of 100 percent.
    """
    for name in asked:
        if name not in variants:
            raise ActionFailed(f"{service} has no variant {name!r}; nothing was changed.",
                               hint=f"The variants are: {', '.join(variants)}.")
    split = {name: float(asked.get(name, 0.0)) for name in variants}
    missed = abs(math.fsum(split.values()) - 100)
    if not (missed <= FULL and all(0 <= weight <= 100 for weight in split.values())):
        words = ", ".join(f"{name} {weight:g}" for name, weight in split.items())
        raise ActionFailed(f"The weights asked for {service} ({words}) are not shares of 100 percent; "
                           "nothing was changed.", hint="Give weights from 0 to 100 that add up to 100.")
    return split


def whole_weights(split: Mapping[str, float], most: int) -> dict[str, int]:
    """Whole weights from 0 to `most` whose shares come nearest to `split` (percent, adding up to 100).

    A share of 0 has the weight 0, one above 0 never has. Percents that whole numbers meet exactly are
    met exactly, as themselves where that is possible (1 and 99 stay 1 and 99). Raises ActionFailed
    where a share cannot be met within half a step.
    """
    best, missed = _scaled(split, 100, most) or {}, math.inf
    if best:
        missed = _miss(best, split)
    for total in range(1, most * len(split) + 1):
        if missed < 1e-9:
            break
        weights = _scaled(split, total, most)
        if weights is not None and (miss := _miss(weights, split)) < missed - 1e-12:
            best, missed = weights, miss
    if missed > 50.0 / most:
        least = min(share for share in split.values() if share > 0)
        raise ActionFailed(
            f"A share of {least:g} % cannot be had there: the weights are whole numbers up to {most}. "
            "Nothing was changed.", hint=f"The least share is about {100.0 / (most + 1):.2g} %.")
    return best


def _scaled(split: Mapping[str, float], total: int, most: int) -> dict[str, int] | None:
    weights = {name: max(1, round(share * total / 100.0)) if share > 0 else 0
               for name, share in split.items()}
    return weights if max(weights.values()) <= most else None


def _miss(weights: Mapping[str, int], split: Mapping[str, float]) -> float:
    total = sum(weights.values())
    return max(abs(weights[name] * 100.0 / total - share) for name, share in split.items())
