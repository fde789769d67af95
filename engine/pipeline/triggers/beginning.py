"""Beginning the runs that were decided on, one at a time for a model, and noting how they end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from engine.api import wire
from engine.api.backend import Caller
from engine.errors import DocumentError, JournalError, NotFound, OpsdeckError
from engine.journal.events import SYSTEM
from engine.pipeline.triggers import deciding
from engine.pipeline.triggers.book import Book
from engine.pipeline.triggers.deciding import Building, Cause, Fact
from engine.pipeline.triggers.projects import Registered
from engine.procedures.executor import Live
from engine.procedures.library import Library
from engine.procedures.recorder import Recorder

log = logging.getLogger("opsdeck")
Start = Callable[[Caller, wire.StartRun, str, Mapping[str, Any]], Awaitable[Any]]


class Beginner:
    """`start` makes a run under an id that was given out before, see `Starter.start`. `live` are the runs of
    this engine that have not ended."""

    def __init__(self, book: Book, recorder: Recorder, library: Library, start: Start,
                 live: Mapping[str, Live], clock: Callable[[], float]) -> None:
        self._book = book
        self._recorder = recorder
        self._library = library
        self._start = start
        self._live = live
        self._clock = clock

    def busy(self, model: str, names: frozenset[str]) -> str | None:
        """A run of the model (of one of these projects) that is not ours: somebody began it."""
        building = self._book.state.model(model).building
        for id, live in self._live.items():
            run = live.progress
            ours = building is not None and building.run == id
            if not ours and not run.finished and run.document.kind == "pipeline" and (
                    run.params.get("project") in names):
                return id
        return None

    async def go_on(self, model: str, of: Mapping[str, Registered]) -> None:
        """Note what has ended, and begin what is due. `of`: the projects of the model, by name.

        Raises JournalError, and NotFound or DocumentError where the procedure is not there: both may pass.
        """
        state = self._book.state.model(model)
        if state.building is not None:
            await self._follow(model, state.building, of)
            state = self._book.state.model(model)
        if state.waiting is None or state.building is not None:
            return
        one = of.get(state.waiting.cause.project)
        if one is None or one.project is None or self.busy(model, frozenset(of)):
            return
        quiet = one.triggers.quiet
        if not deciding.is_due(state, self._clock(), quiet):
            return
        await self._procedure(one.triggers.procedure)
        run = await self._recorder.call(self._recorder.journal.new_run_id)

        def build(now: Any) -> list[Fact]:
            known, moment = now.model(model), self._clock()
            due = deciding.is_due(known, moment, quiet)
            return [of_model(model, deciding.build(known, run, moment))] if due else []

        await self._book.note(build)
        building = self._book.state.model(model).building
        if building is not None:
            await self._follow(model, building, of)

    async def _follow(self, model: str, building: Building, of: Mapping[str, Registered]) -> None:
        """Make the run where it is not there: this engine, or one before it, has only said that it would."""
        if building.run in self._live:
            return
        row = await self._recorder.call(self._recorder.journal.run, building.run)
        if row is None:
            one = of.get(building.cause.project)
            if one is not None:
                await self._make(model, building, one)
        elif row.ended is not None:
            await self._ended(model, building.run, row.state, None)

    async def _make(self, model: str, building: Building, one: Registered) -> None:
        cause = building.cause
        try:
            params = await self._procedure(one.triggers.procedure)
            given = {"project": cause.project, "cause": cause.text, "folder": cause.folder,
                     "commit": cause.commit or ""}
            request = wire.StartRun(one.triggers.procedure,
                                    {name: value for name, value in given.items() if name in params})
            await self._start(caller_of(cause), request, building.run,
                              {"trigger": msgspec.to_builtins(cause)})
        except (JournalError, NotFound, DocumentError):
            raise
        except OpsdeckError as error:
            await self._ended(model, building.run, "refused", error.message)

    async def _procedure(self, id: str) -> frozenset[str]:
        entry = await asyncio.to_thread(self._library.get, id)
        return frozenset(entry.document.params)

    async def _ended(self, model: str, run: str, state: str, why: str | None) -> None:
        def end(now: Any) -> list[Fact]:
            known = now.model(model)
            if known.building is None or known.building.run != run:
                return []
            return [of_model(model, deciding.ended(known, state, self._clock(), why))]

        await self._book.note(end)


def caller_of(cause: Cause) -> Caller:
    """Who starts the run. Where a person asked for it, that person: so that they are not the one to approve
    what they began. Otherwise the engine, and any approver may who has not written it."""
    roles = frozenset({"operator"})
    if cause.uid >= 0:
        return Caller(cause.by, cause.uid, os.getpid(), roles, "trigger")
    return Caller(SYSTEM.user, SYSTEM.uid, os.getpid(), roles, SYSTEM.origin)


def of_model(model: str, fact: Fact) -> Fact:
    """The fact as it is recorded: with the model that it is of."""
    return Fact(fact.kind, {**fact.data, "model": model})
