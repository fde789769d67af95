"""In which order to set a router's weights where they cannot be set at once. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping


def in_order(now: Mapping[str, float], wanted: Mapping[str, float]) -> list[str]:
    """The variants of `wanted` whose weight changes, in the order to set them one by one.

    Weights are the router's own. No half-way split gives a variant a greater share than it had before
    or gets in the end, where there is such an order, and never is every weight 0. So on the way to a
    canary's first share, and on the way back, nobody is exposed to more of it than was asked for.
    """
    standing = {name: now.get(name, 0.0) for name in wanted}
    bounds = {name: max(_share(standing, name), _share(wanted, name)) for name in wanted}
    left = [name for name in wanted if wanted[name] != standing[name]]
    order: list[str] = []
    while left:
        name = min(left, key=lambda name: _cost(standing, name, wanted[name], bounds))
        standing[name] = wanted[name]
        left.remove(name)
        order.append(name)
    return order


def _cost(standing: Mapping[str, float], name: str, weight: float, bounds: Mapping[str, float]
          ) -> tuple[float, float]:
    """How far setting this weight next overshoots; of two that do so equally, the rise comes first."""
    after = {**standing, name: weight}
    if math.fsum(after.values()) <= 0:
        return math.inf, 0.0
    overshoot = max(_share(after, other) - bounds[other] for other in after)
    return max(0.0, round(overshoot, 12)), standing[name] - weight


def _share(weights: Mapping[str, float], name: str) -> float:
    total = math.fsum(weights.values())
    return weights[name] / total if total > 0 else 0.0
