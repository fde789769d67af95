"""Whether rows are unique, by 64-bit hashes: two different keys share one with a chance of 3e-8 in a
million."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
_PAIR = 0xC2B2AE3D27D4EB4F


class KeyTally:
    """Counts rows whose key another row has too. Rows without a whole key are left out."""

    def __init__(self) -> None:
        self._parts: list[Hashes] = []
        self.rows = 0

    def add(self, found: Hashes) -> None:
        self._parts.append(found)
        self.rows += len(found)

    def duplicates(self) -> int:
        """How many rows repeat the key of an earlier one."""
        import numpy as np

        if not self._parts:
            return 0
        every = np.concatenate(self._parts)
        every.sort()
        return int((every[1:] == every[:-1]).sum())


def hashes(columns: Sequence[Any]) -> Hashes:
    """A hash for each row of Arrow arrays of one length; rows with a null are left out."""
    import numpy as np
    import pyarrow.compute as pc

    whole = None
    for column in columns:
        if column.null_count:
            valid = pc.is_valid(column)
            whole = valid if whole is None else pc.and_(whole, valid)
    total: Hashes = np.zeros(0, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for at, column in enumerate(columns):
            one = _hashed(column if whole is None else column.filter(whole))
            total = one if at == 0 else mixed(total * np.uint64(_PAIR) + one)
    return total


def _hashed(column: Any) -> Hashes:
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _hashed(column.cast(kind.value_type))
    if pa.types.is_floating(kind):
        return mixed((column.cast(pa.float64()).to_numpy(zero_copy_only=False) + 0.0).view(np.uint64))
    if pa.types.is_uint64(kind):
        return mixed(column.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind):
        return mixed(column.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64))
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return mixed(column.cast(pa.int64()).to_numpy(zero_copy_only=False).view(np.uint64))
    if pa.types.is_date32(kind):
        return _hashed(column.cast(pa.int32()))
    return _texts(column.cast(pa.large_string()))


def mixed(values: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele, Lea and Flood 2014): one to one, and every bit counts."""
    import numpy as np

    with np.errstate(over="ignore"):
        x = values + np.uint64(_BASE)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def _texts(column: Any) -> Hashes:
    """A polynomial in an odd base over the bytes of each text, modulo 2^64, and its length."""
    import numpy as np

    if not len(column):
        return np.zeros(0, dtype=np.uint64)
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[column.offset:column.offset + len(column) + 1]
    first, last = int(ends[0]), int(ends[-1])
    raw = np.frombuffer(data, dtype=np.uint8)[first:last] if last > first else np.zeros(0, np.uint8)
    starts, lengths = ends[:-1] - first, np.diff(ends)
    with np.errstate(over="ignore"):
        # powers[j] * byte j, summed up to j: a text's sum is a difference, taken back to power 0.
        count = last - first + 1
        base = np.uint64(_BASE)
        inverse = np.uint64(pow(_BASE, -1, 1 << 64))
        powers = np.concatenate([np.ones(1, np.uint64), np.full(count - 1, base)]).cumprod(dtype=np.uint64)
        back = np.concatenate([np.ones(1, np.uint64), np.full(count - 1, inverse)]).cumprod(dtype=np.uint64)
        # A byte is spread over 64 bits first: small coefficients make small lattices, and collisions.
        spread = mixed(np.arange(256, dtype=np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), (spread[raw] * powers[:-1]).cumsum(dtype=np.uint64)])
        value = (sums[starts + lengths] - sums[starts]) * back[starts]
        return mixed(value ^ mixed(lengths.astype(np.uint64)))
