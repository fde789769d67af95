"""Which variant a request goes to: sticky, by weight, the same on every replica of the gateway.

A request key is hashed to 64 bits, salted by the service, and each variant owns a range of that
line. The champion owns the middle: the first challenger grows from the left end, the second from
the right end, any further ones next to them, towards the middle:

    0 |-- challenger 1 --|-- challenger 3 --|---- champion ----|-- challenger 2 --| 2**64

So the assignment is a pure function of service, key and weights, and traffic that goes from the
champion to a challenger moves the least keys possible: with up to two challengers the share that
moves equals the share that changed hands, and a key that has a challenger at 5 % still has it at
25 %. (Three or more: an inner challenger's range shifts when the one outside it grows.)
"""

from __future__ import annotations

import hashlib
import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from engine.errors import UsageError

SPACE = 2**64
TOLERANCE = 0.01


class KeyHash:
    """64-bit hashes of request keys. The salt makes the splits of two services independent."""

    def __init__(self, service: str) -> None:
        self._salted = hashlib.blake2b(digest_size=8, key=hashlib.sha256(service.encode()).digest())

    def __call__(self, key: str) -> int:
        """A whole number in [0, 2**64), uniform over keys."""
        state = self._salted.copy()
        state.update(key.encode("utf-8", "surrogatepass"))
        return int.from_bytes(state.digest(), "big")


def check_weights(weights: Mapping[str, object], variants: Sequence[str]) -> dict[str, float]:
    """The weights of all `variants` in their order, in percent; those not named get 0.

    Raises UsageError when a variant is unknown, a weight is not a finite number in 0..100, or the
    sum is off 100 by more than 0.01.
    """
    known = ", ".join(variants)
    if not isinstance(weights, Mapping) or not weights:
        raise UsageError("The weights are missing.", hint=f"Give percents for: {known}.")
    checked = dict.fromkeys(variants, 0.0)
    for name, weight in weights.items():
        if name not in checked:
            raise UsageError(f"There is no variant {name!r}.", hint=f"The variants are: {known}.")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise UsageError(f"The weight of {name} is not a number.",
                             hint="Weights are percents from 0 to 100.")
        if not math.isfinite(weight) or not 0 <= weight <= 100:
            raise UsageError(f"The weight of {name} is {weight}.",
                             hint="Weights are percents from 0 to 100.")
        checked[name] = float(weight)
    total = math.fsum(checked.values())
    if abs(total - 100) > TOLERANCE + 1e-9:
        raise UsageError(f"The weights add up to {total:g}, not to 100.",
                         hint="Give every variant its percent; those not named get 0.")
    return checked


class Split:
    """An assignment of keys to variants that does not change; a new split replaces it whole."""

    def __init__(self, weights: Mapping[str, float], champion: str) -> None:
        """`weights`: percents in the order of the config, adding up to 100 ± 0.01."""
        total = math.fsum(weights.values())
        challengers = [name for name in weights if name != champion]
        # A variant of weight 0 has no range, so that no rounding can give it a key.
        left = [name for name in challengers[0::2] if weights[name] > 0]
        right = [name for name in challengers[1::2] if weights[name] > 0]
        left_ends = _edges([weights[name] / total for name in left])
        right_starts = [SPACE - edge for edge in _edges([weights[name] / total for name in right])]
        names, starts = list(left), [0, *left_ends]
        if weights[champion] > 0:
            names.append(champion)
        else:
            starts.pop()
        starts += reversed(right_starts)
        names += reversed(right)
        self._names = tuple(names)
        # Where the champion has nothing, the two sides meet within a rounding of each other.
        self._ends = list(itertools.accumulate([*starts[1:len(names)], SPACE], max))

    def variant(self, key_hash: int) -> str:
        """The variant that owns this hash."""
        return self._names[bisect_right(self._ends, key_hash)]

    def ranges(self) -> dict[str, tuple[int, int]]:
        """The half-open range of hashes of each variant that has one, from left to right."""
        starts = [0, *self._ends[:-1]]
        return {name: (start, end)
                for name, start, end in zip(self._names, starts, self._ends, strict=True)}


def _edges(shares: list[float]) -> list[int]:
    """The running sums of shares of the line, as whole numbers that stay on it."""
    return [min(SPACE, round(share * SPACE)) for share in itertools.accumulate(shares)]
