"""The state of all triggers, and the one way to change it: recorded first, then held."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from engine.journal.events import SYSTEM, TRIGGERS, Actor, NewEvent
from engine.pipeline.triggers.deciding import Fact
from engine.pipeline.triggers.state import State, apply
from engine.procedures.recorder import Recorder, to_the_end

PREFIX = "trigger."
SNAPSHOT_EVERY = 200  # events: a start reads no more than that
_PAGE = 500


class Book:
    """`state` is what has been recorded."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float]) -> None:
        self.state = State()
        self._recorder = recorder
        self._clock = clock
        self._lock = asyncio.Lock()
        self._since_snapshot = 0

    async def open(self) -> None:
        """Learn what was recorded. Raises JournalError."""
        facts: list[Fact] = []
        before: int | None = None
        while True:
            page = await self._recorder.call(self._recorder.journal.tail, _PAGE, before, TRIGGERS)
            for event in page:
                facts.append(Fact(event.kind.removeprefix(PREFIX), event.data))
                if facts[-1].kind == "state":
                    break
            if len(page) < _PAGE or facts[-1].kind == "state":
                break
            before = page[-1].seq
        state = State()
        for fact in reversed(facts):
            state = apply(state, fact)
        self.state, self._since_snapshot = state, len(facts)

    async def note(self, decide: Callable[[State], Sequence[Fact]], actor: Actor = SYSTEM) -> list[Fact]:
        """Record what `decide` makes of the state, all or none, and hold it. Raises JournalError; then
        nothing has changed. `decide` is called alone: nobody changes the state until its facts are in."""
        async with self._lock:
            return await to_the_end(self._note(decide, actor))

    async def _note(self, decide: Callable[[State], Sequence[Fact]], actor: Actor) -> list[Fact]:
        facts = list(decide(self.state))
        if not facts:
            return facts
        state = self.state
        for fact in facts:
            state = apply(state, fact)
        told = list(facts)
        full = self._since_snapshot + len(facts) >= SNAPSHOT_EVERY
        if full:
            told.append(Fact("state", {"state": msgspec.to_builtins(state),
                                       "text": "everything known of triggers, to begin with at a start"}))
        now = self._clock()
        await self._recorder.append([NewEvent(run=TRIGGERS, kind=PREFIX + fact.kind, at=now, actor=actor,
                                              data=fact.data) for fact in told])
        self.state, self._since_snapshot = state, 0 if full else self._since_snapshot + len(facts)
        return facts
