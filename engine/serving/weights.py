"""The traffic of one service: its weights in force, changed atomically, and the lease on them.

A change is on disk before it is in force and before it is acknowledged. The way back is never
blocked: a lease that runs out takes effect in memory at once and is written after, and so does a
change to all traffic to the champion, or to the weights that the traffic would come to by itself (the
lease's fallback, or those in force where no lease runs); where such a change cannot be written, it is
accepted and said not to be durable. What could not be written is tried again each second.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, Conflict, UsageError
from engine.serving.split import Split, check_weights
from engine.serving.traffic_state import Lease, State, StateCorrupt, load, save

LEASE_LIMIT_S = 86400.0
_SAVE_WITHIN_S = 5.0
_SAVE_AGAIN_S = 1.0


class Traffic:
    """The weights of one service. `split` is always a whole split: readers take it without a lock.

    `on_change` is called with the weights whenever other ones come into force.
    """

    def __init__(self, *, service: str, champion: str, initial: Mapping[str, float],
                 state_file: Path, on_change: Callable[[Mapping[str, float]], None],
                 clock: Callable[[], float] = time.time) -> None:
        """`initial`: percents of all variants, in the order that the split keeps."""
        self._service = service
        self._champion = champion
        self._variants = list(initial)
        self._initial = dict(initial)
        self._state_file = state_file
        self._on_change = on_change
        self._clock = clock
        self._changing = asyncio.Lock()
        # One thread, so that an older state can never overtake a newer one on its way to disk.
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="traffic-state")
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._saving_again: asyncio.Task[None] | None = None
        self.state = State(dict(initial), 0, None, "initial")
        self.split = Split(initial, champion)

    async def start(self) -> None:
        """Take up the state that was kept, or say why not and send everything to the champion."""
        try:
            kept = await asyncio.to_thread(load, self._state_file, self._service, self._variants)
        except StateCorrupt as error:
            self._say(f"The traffic state {self._state_file} is not usable: {error.message}. "
                      f"All traffic of {self._service} goes to {self._champion}; the file was "
                      "kept beside it with the ending .corrupt.")
            with contextlib.suppress(OSError):
                self._state_file.rename(self._state_file.with_name(
                    self._state_file.name + ".corrupt"))
            # The seconds since the epoch are beyond any revision a reader may still remember.
            kept = State(self._all_champion(), int(self._clock()), None, "state_corrupt")
        if kept is None:
            kept = State(self._initial, 1, None, "initial")
        if kept.lease is not None and kept.lease.expires_at <= self._clock():
            kept = self._expired(kept, "while the gateway was down")
        self._enforce(kept)
        if not await self._save(kept):
            self._save_later()

    async def close(self) -> None:
        for pending in (self._timer, self._saving_again):
            if pending is not None:
                pending.cancel()
        self._disk.shutdown(wait=False, cancel_futures=True)

    def lease_left(self) -> float | None:
        """Seconds until the lease runs out, None without one."""
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - asyncio.get_running_loop().time())

    def view(self) -> dict[str, Any]:
        """The state as the admin socket tells it."""
        left = self.lease_left()
        return {"service": self._service, "weights": self.state.weights,
                "champion": self._champion, "revision": self.state.revision,
                "cause": self.state.cause,
                "lease": None if left is None else {"expires_in_s": round(left, 3),
                                                    "fallback": self._resting(self.state)}}

    async def set_weights(self, weights: Mapping[str, object], lease_s: object = None,
                          if_revision: object = None,
                          fallback: Mapping[str, object] | None = None) -> bool:
        """Put weights in force; False when they are but could not be written (the way back only).

        `fallback` is the whole split that comes into force when the lease runs out; without it all
        traffic goes to the champion. Raises UsageError on weights, a fallback or a lease that are not
        valid, Conflict when the revision is not `if_revision`, ActionFailed when they could not be
        written and so are not in force.
        """
        checked = check_weights(weights, self._variants)
        granted = None if lease_s is None else check_lease(lease_s)
        expected = _check_revision(if_revision)
        after_it = None if fallback is None else self._check_fallback(fallback, granted)

        def change(state: State) -> State:
            self._expect(state, expected)
            return State(checked, state.revision + 1, self._lease(granted, after_it), "set")

        after = change(self.state)
        if not self._leads_back(after):
            await self._change(change)
            return True
        self._enforce(after)
        async with self._changing:
            saved = await self._save(self.state)
        if not saved:
            self._save_later()
        return saved

    async def renew(self, lease_s: object, if_revision: object = None) -> None:
        """Let the lease run `lease_s` from now. Raises Conflict when there is none, or like
        `set_weights`."""
        granted = check_lease(lease_s)
        expected = _check_revision(if_revision)

        def change(state: State) -> State:
            self._expect(state, expected)
            if state.lease is None:
                raise Conflict("There is no lease to renew.",
                               hint="Set the weights again with a lease.")
            lease = self._lease(granted, state.lease.fallback)
            return State(state.weights, state.revision, lease, state.cause)

        await self._change(change)

    async def _change(self, change: Callable[[State], State]) -> None:
        async with self._changing:
            while True:
                before = self.state
                after = change(before)
                saved = await self._save(after)
                if self.state is before:
                    break
                # Meanwhile the traffic went back: what was written is built on a state that is no
                # longer, so it is checked again and written again.
                self._save_later()
            if not saved:
                self._save_later()
                raise ActionFailed("The new state could not be written, so nothing was changed.",
                                   where=str(self._state_file),
                                   hint="Look for a full or read-only disk.")
            self._enforce(after)

    def _enforce(self, state: State) -> None:
        changed = state.weights != self.state.weights or self.state.revision == 0
        self.state = state
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._deadline = None
        if state.lease is not None:
            loop = asyncio.get_running_loop()
            # A wall clock that was set back must not stretch a lease beyond what was granted.
            left = min(state.lease.expires_at - self._clock(), state.lease.granted_s)
            self._deadline = loop.time() + max(0.0, left)
            self._timer = loop.call_at(self._deadline, self._run_out)
        if changed:
            self.split = Split(state.weights, self._champion)
            self._on_change(state.weights)

    def _run_out(self) -> None:
        self._enforce(self._expired(self.state, "without renewal"))
        self._save_later()

    def _expired(self, state: State, how: str) -> State:
        weights = self._resting(state)
        to = (f"all traffic goes back to {self._champion}" if weights == self._all_champion() else
              "the traffic goes back to " + ", ".join(
                  f"{name} {percent:g} %" for name, percent in weights.items() if percent))
        self._say(f"The lease on the weights of {self._service} ran out {how}; {to}.")
        return State(weights, state.revision + 1, None, "lease_expired")

    async def _save(self, state: State) -> bool:
        loop = asyncio.get_running_loop()
        saving = loop.run_in_executor(self._disk, save, self._state_file, self._service, state)
        try:
            await asyncio.wait_for(asyncio.shield(saving), _SAVE_WITHIN_S)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "the disk does not answer"
            self._say(f"The traffic state {self._state_file} cannot be written: {reason}.")
            return False
        return True

    def _save_later(self) -> None:
        if self._saving_again is None or self._saving_again.done():
            self._saving_again = asyncio.create_task(self._save_until_done())

    async def _save_until_done(self) -> None:
        while True:
            async with self._changing:
                if await self._save(self.state):
                    return
            await asyncio.sleep(_SAVE_AGAIN_S)

    def _all_champion(self) -> dict[str, float]:
        return {name: 100.0 if name == self._champion else 0.0 for name in self._variants}

    def _resting(self, state: State) -> dict[str, float]:
        """The weights that this state comes to when nobody does anything."""
        if state.lease is None:
            return state.weights
        return state.lease.fallback or self._all_champion()

    def _leads_back(self, after: State) -> bool:
        """Whether a new state, and what follows it by itself, are where the present one would go."""
        back = (self._all_champion(), self._resting(self.state))
        return after.weights in back and self._resting(after) in back

    def _check_fallback(self, fallback: Mapping[str, object],
                        granted_s: float | None) -> dict[str, float]:
        if granted_s is None:
            raise UsageError("A fallback comes into force when a lease runs out, and there is none.",
                             hint="Give lease_s too, or leave the fallback out.")
        try:
            return check_weights(fallback, self._variants)
        except UsageError as error:
            raise UsageError(f"fallback: {error.message}", hint=error.hint) from None

    def _lease(self, granted_s: float | None,
               fallback: dict[str, float] | None = None) -> Lease | None:
        if granted_s is None:
            return None
        return Lease(self._clock() + granted_s, granted_s, fallback)

    def _expect(self, state: State, revision: int | None) -> None:
        if revision is not None and revision != state.revision:
            raise Conflict(f"The weights are at revision {state.revision}, not {revision}.",
                           hint="Read them again and decide on what they are now.")

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def check_lease(lease_s: object) -> float:
    """A lease in seconds, above 0 and up to a day. Raises UsageError."""
    if (isinstance(lease_s, bool) or not isinstance(lease_s, (int, float))
            or not math.isfinite(lease_s) or not 0 < lease_s <= LEASE_LIMIT_S):
        raise UsageError("lease_s must be a number of seconds above 0 and up to 86400.")
    return float(lease_s)


def _check_revision(revision: object) -> int | None:
    if revision is not None and (isinstance(revision, bool) or not isinstance(revision, int)):
        raise UsageError("if_revision must be a whole number.")
    return revision

