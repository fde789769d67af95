"""Whose turn it is to look: each source has a task of its own, so that none waits for another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.errors import JournalError, OpsdeckError
from engine.pipeline.triggers.looking import SETTLE, Unsettled
from engine.pipeline.triggers.sight import Sight

log = logging.getLogger("opsdeck")
BEAT = 1.0    # seconds between two looks at whose turn it is
RETRY = 30.0  # seconds after a look that failed, where the source itself says nothing shorter


@dataclass
class _Turn:
    """When a source is asked next, by a clock that only goes forward."""

    next: float = 0.0
    task: asyncio.Task[None] | None = None


class Turns:
    """`woken` is set when a look has ended or a source is to look at once."""

    def __init__(self, sight: Sight, monotonic: Callable[[], float]) -> None:
        self.woken = asyncio.Event()
        self._sight = sight
        self._monotonic = monotonic
        self._turns: dict[str, _Turn] = {}

    def take(self, source: str, every: float, look: Callable[[], Awaitable[None]]) -> None:
        """Have a source look if it is its turn and it does not look already."""
        turn = self._turns.setdefault(source, _Turn())
        moment = self._monotonic()
        if turn.task is not None or moment < turn.next:
            return
        turn.next = moment + every
        turn.task = asyncio.create_task(self._looking(source, turn, look), name=source)

    def hurry(self, source: str) -> None:
        """It is this source's turn."""
        self._turns.setdefault(source, _Turn()).next = 0.0
        self.woken.set()

    async def close(self) -> None:
        """End every look."""
        tasks = [turn.task for turn in self._turns.values() if turn.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _looking(self, source: str, turn: _Turn, look: Callable[[], Awaitable[None]]) -> None:
        try:
            try:
                await look()
                await self._sight.back(source)
            except Unsettled as error:
                log.info("%s waits: %s", source, error)
                moment = self._monotonic()
                turn.next = min(max(turn.next, moment + BEAT), moment + SETTLE)
            except JournalError:
                raise
            except (OpsdeckError, OSError) as error:
                turn.next = max(turn.next, self._monotonic() + RETRY)
                await self._sight.lost(source, getattr(error, "message", str(error)))
        except JournalError as error:
            log.error("%s waits: %s", source, error)
        except Exception as error:
            turn.next = max(turn.next, self._monotonic() + RETRY)
            log.exception("%s failed", source)
            told = f"an error of the engine's own, {type(error).__name__}; its log says more"
            with contextlib.suppress(JournalError):  # the log has it
                await self._sight.lost(source, told)
        finally:
            turn.task = None
            self.woken.set()
