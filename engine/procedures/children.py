"""Runs that a step of another run starts: found again after a crash, and never started twice.

In the outer run's chain, before the child is made, stands

    child.started    id, procedure, about        under the step and attempt that start it

with the id that the journal gave out for it; the child's `run.created` has the cause, {"run", "step"}. When
the outer run is aborted, so is the child.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.api import wire
from engine.api.backend import Caller
from engine.errors import ActionFailed, OpsdeckError
from engine.journal.events import SYSTEM, Event, NewEvent
from engine.procedures.authors import WRITTEN_BY
from engine.procedures.executor import Executor, Live
from engine.procedures.run import TERMINAL
from engine.procedures.starting import Starter

log = logging.getLogger("opsdeck")
STARTED = "child.started"
POLL_S = 0.25


@dataclass(frozen=True)
class Ended:
    """How a child ended: `state` done, failed, rolled_back or aborted, and why."""

    id: str
    state: str
    reason: str | None


class Children:
    """The children of one engine's runs. `stop` ends a run for a reason, as `Stopper.stop` does."""

    def __init__(self, executor: Executor, starter: Starter,
                 stop: Callable[[Live, NewEvent], Awaitable[None]]) -> None:
        self._executor = executor
        self._starter = starter
        self._stop = stop
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, run: str, step: str, about: str) -> str | None:
        """The child that the step has started for this, if it still counts: it runs, or it has ended and the
        step has not told that yet, or it is done. None otherwise; then another may be started."""
        events = await self._events(run)
        for at in range(len(events) - 1, -1, -1):
            event = events[at]
            if event.kind != STARTED or event.step != step:
                continue
            id = str(event.data["id"])
            row = await self._call("run", id)
            told = any(later.kind == "step.outcome" and later.step == step for later in events[at:])
            if row is None or event.data.get("about") != about:
                return None
            return id if row.state not in TERMINAL or row.state == "done" or not told else None
        return None

    async def start(self, run: str, step: str, procedure: str, params: Mapping[str, Any], about: str) -> str:
        """Start a procedure as the person who began the outer run; its id. The child's own gates want whom
        they want, and who wrote the outer run's code is an author of the child's too. Raises OpsdeckError
        where it cannot begin, or the outer run goes back."""
        live = self._executor.live.get(run)
        if live is None or _goes_back(live):
            raise ActionFailed(f"run {run} goes back, so it starts no other run")
        outer = live.progress
        id = str(await self._call("new_run_id"))
        await self._executor.commit(live, [NewEvent(
            run, STARTED, self._executor.clock(), SYSTEM, step=step, attempt=outer.steps[step].attempt,
            data={"id": id, "procedure": procedure, "about": about,
                  "text": f"starts {procedure} as run {id}, for {about}"})])
        by = outer.initiator
        caller = Caller(by.user, by.uid, 0, frozenset({"operator"}), f"run {run}, step {step}")
        request = wire.StartRun(procedure=procedure, params=dict(params))
        await self._starter.start(caller, request, id, cause={
            "run": run, "step": step, "about": about, "approved": _approved(live),
            **({WRITTEN_BY: outer.written_by} if outer.written_by else {})})
        if _goes_back(live):  # it was aborted while the child began
            await self.abort(id, f"run {run} goes back")
        return id

    async def ended(self, id: str) -> Ended:
        """Wait until a child has ended."""
        while id in self._executor.live and not self._executor.live[id].progress.finished:
            await asyncio.sleep(POLL_S)
        events = await self._events(id)
        last = next((event for event in reversed(events) if event.kind == "run.finished"), None)
        if last is None:
            raise ActionFailed(f"run {id} does not go on, and has not ended",
                               hint=f"opsdeck show {id} tells how it stands")
        return Ended(id, str(last.data["state"]), last.data.get("reason"))

    async def abort(self, id: str, reason: str) -> None:
        """End a child that runs and undo what it did; nothing happens to one that goes back or has ended."""
        live = self._executor.live.get(id)
        if live is None or live.progress.finished or live.progress.going_back:
            return
        await self._stop(live, self._executor.planner.event(
            id, "run.abort", SYSTEM, rollback=True, reason=reason))

    @property
    def closing(self) -> bool:
        """Whether this engine ends, and the next one goes on with everything."""
        return self._executor.performer.closing

    def recorded(self, live: Live, events: Sequence[NewEvent]) -> None:
        """To be told of what was recorded: a run's abort is its children's."""
        if any(event.kind == "run.abort" for event in events):
            self.later(self._abort_all(live.progress.id))

    async def resume(self) -> None:
        """After a restart: end children whose outer run was aborted before they were. Raises JournalError."""
        for id, live in list(self._executor.live.items()):
            cause = (await self._events(id))[0].data.get("cause")
            if not isinstance(cause, dict) or "run" not in cause:
                continue
            outer = self._executor.live.get(str(cause["run"]))
            row = await self._call("run", str(cause["run"])) if outer is None else None
            if (outer is not None and outer.progress.going_back) or (
                    row is not None and row.state in ("aborted", "rolled_back")):
                await self.abort(live.progress.id, f"run {cause['run']}, which started it, was aborted")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _abort_all(self, run: str) -> None:
        for event in await self._events(run):
            if event.kind == STARTED:
                try:
                    await self.abort(str(event.data["id"]), f"run {run}, which started it, was aborted")
                except OpsdeckError as error:
                    log.error("run %s, started by run %s, is not aborted: %s", event.data["id"], run, error)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside the runs; an engine that closes gives it up."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def note(text: str) -> None:
        """For the engine's log: what nobody waits for any more."""
        log.info(text)

    async def _events(self, run: str) -> list[Event]:
        found: list[Event] = await self._call("read", run)
        return found

    async def _call(self, name: str, *arguments: Any) -> Any:
        recorder = self._executor.recorder
        return await recorder.call(getattr(recorder.journal, name), *arguments)


def _goes_back(live: Live) -> bool:
    return live.stopping or live.progress.going_back or any(one.kind == "run.abort" for one in live.pending)


def _approved(live: Live) -> list[dict[str, Any]]:
    """Who approved steps of the outer run, for the child's record."""
    return [{"user": answer.user, "step": step.id, "at": answer.at} for step in live.progress.steps.values()
            for answer in step.approvals]
