"""What counts once: a session, a request with its retries, or a request alone.

Failures come in bursts, because whoever fails tries again. A judge that took each of them as evidence of
its own would take one bad session for a bad model. So a request belongs to a unit, by the first that is
there:

    the session header (`session_header` in the config)    all requests of a session
    x-retry-of: ID                                         the chain that the request with this
                                                           correlation id belongs to
    x-correlation-id, the caller's or the one it was given  requests that keep one id are one chain

A unit is counted at its first answer, and lasts for `window_s` from the arrival of that request; then
its key is a new unit. It fails once for each type of error at most, and once for "any".

Each variant remembers at most LIMIT units, which is 3,300 new ones a second over a minute. Beyond that
the oldest is forgotten early: what comes of it later is counted as another unit. Keys are kept as 64-bit
hashes that differ from process to process.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from engine.serving.correlation import is_correlation_id

LIMIT = 200_000
RETRY_HEADER = "x-retry-of"
ANY = "any"
# A unit's value: the milliseconds at which it began, above one bit for each type that it failed with.
_BITS = {"timeout": 1, "out_of_memory": 2, "invalid_input": 4, "model_error": 8, "unavailable": 16}
_SHIFT, _MASK = 5, 31
# Two are forgotten for each that comes, so that the past goes quicker than it grows, and never at once.
_FORGET = 2


class UnitKeys:
    """From a request's headers to the key of its unit. Remembers which retries are of which chain."""

    def __init__(self, session_header: str) -> None:
        self._session_header = session_header
        self._chains: OrderedDict[int, int] = OrderedDict()

    def __call__(self, headers: Mapping[str, str], correlation: str) -> int:
        """The key; `correlation` is the request's own checked id."""
        if session := headers.get(self._session_header):
            return hash(f" {session}")  # no correlation id has a space: the two never meet
        before = headers.get(RETRY_HEADER)
        if before is None or not is_correlation_id(before):
            return hash(correlation)
        own, first = hash(correlation), hash(before)
        key = self._chains.get(first, first)
        if own != key:
            self._chains[own] = key
            if len(self._chains) > LIMIT:
                self._chains.popitem(last=False)
        return key


class Units:
    """The units of one variant: how many there were, and how many failed, by type and for "any"."""

    __slots__ = ("_seen", "_window_ms", "count", "failures")

    def __init__(self, window_s: float) -> None:
        self.count = 0
        self.failures: dict[str, int] = {}
        self._window_ms = int(window_s * 1000)
        self._seen: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._seen)

    def answered(self, key: int, arrived: float, error_type: str) -> None:
        """A request of this unit that arrived at `arrived` (monotonic seconds) has its answer;
        `error_type` is "" for a success."""
        seen, now_ms = self._seen, int(arrived * 1000)
        value = seen.get(key)
        if value is None or now_ms - (value >> _SHIFT) >= self._window_ms:
            seen.pop(key, None)
            seen[key] = value = now_ms << _SHIFT
            self.count += 1
            self._forget(now_ms)
        if error_type and not value & (bit := _BITS[error_type]):
            seen[key] = value | bit
            self._failed(error_type)
            if not value & _MASK:
                self._failed(ANY)

    def _failed(self, error_type: str) -> None:
        self.failures[error_type] = self.failures.get(error_type, 0) + 1

    def _forget(self, now_ms: int) -> None:
        seen = self._seen
        if len(seen) > LIMIT:
            seen.popitem(last=False)
        for _ in range(_FORGET):
            oldest = next(iter(seen))
            if now_ms - (seen[oldest] >> _SHIFT) < self._window_ms:
                return
            del seen[oldest]
