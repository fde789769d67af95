"""Shadow traffic: a share of the requests is sent a second time, to a variant whose answers nobody gets.

Which requests those are depends on their sticky key alone, and is independent of the split: the same keys
are mirrored whichever variant serves them. What the variant serves anyway is not sent to it twice. The
second request begins when the first has its answer, so it can neither delay nor fail it; while too many
are under way, further ones are dropped and counted.

A mirror is kept in memory only and ends with its lease, so it never outlives whoever asked for it by more.
"""

from __future__ import annotations

import asyncio
import math
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from engine.errors import UsageError
from engine.serving.split import SPACE
from engine.serving.weights import check_lease

# Multiplying by an odd number permutes the hashes, and spreads each range of the split's line over the
# whole of it (Knuth, The Art of Computer Programming 3, 6.4: 2**64 by the golden ratio).
_SPREAD = 0x9E3779B97F4A7C15


class Mirror:
    """The mirror of one service; `most` second requests are under way at a time."""

    def __init__(self, service: str, variants: Sequence[str], most: int) -> None:
        self._service = service
        self._variants = list(variants)
        self._most = most
        self._below = 0
        self._percent = 0.0
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self.variant: str | None = None

    def set(self, variant: object, percent: object, lease_s: object) -> None:
        """Mirror `percent` of the keys to `variant` for `lease_s` from now, in place of any mirror before.

        Raises UsageError when one of them is not valid.
        """
        if not isinstance(variant, str) or variant not in self._variants:
            raise UsageError(f"There is no variant {variant!r} to mirror to.",
                             hint=f"The variants are: {', '.join(self._variants)}.")
        if (isinstance(percent, bool) or not isinstance(percent, (int, float))
                or not math.isfinite(percent) or not 0 < percent <= 100):
            raise UsageError("percent must be a number above 0 and up to 100.",
                             hint="To end a mirror, delete it.")
        granted = check_lease(lease_s)
        self.clear()
        loop = asyncio.get_running_loop()
        self.variant, self._percent = variant, float(percent)
        self._below = round(percent / 100 * SPACE)
        self._deadline = loop.time() + granted
        self._timer = loop.call_at(self._deadline, self._run_out)

    def clear(self) -> None:
        """Mirror no more; what is under way ends by itself."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.variant = None

    def view(self) -> dict[str, Any]:
        """The mirror as the admin socket tells it."""
        if self.variant is None:
            return {"service": self._service, "mirror": None}
        left = max(0.0, self._deadline - asyncio.get_running_loop().time())
        return {"service": self._service, "mirror": {
            "variant": self.variant, "percent": self._percent, "expires_in_s": round(left, 3)}}

    def takes(self, key_hash: int, served_by: str) -> bool:
        """Whether a request with this hash, which `served_by` answers, is mirrored."""
        return (self.variant is not None and self.variant != served_by
                and key_hash * _SPREAD % SPACE < self._below)

    def start(self, again: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Begin a second request; False when it is dropped."""
        if len(self._under_way) >= self._most:
            return False
        task = asyncio.get_running_loop().create_task(again())
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return True

    async def close(self) -> None:
        """Mirror no more, and break off what is under way."""
        self.clear()
        under_way = list(self._under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            traceback.print_exception(error, file=sys.stderr)

    def _run_out(self) -> None:
        print(f"The mirror of {self._service} to {self.variant} has ended, for its lease ran out.",
              file=sys.stderr, flush=True)
        self.clear()
