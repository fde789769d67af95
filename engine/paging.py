"""Telling people: alerts and broken glass go to the journal, and to the webhook of their level."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

from engine import webhooks
from engine.config import Config
from engine.errors import JournalError
from engine.journal.events import ENGINE, SYSTEM, NewEvent
from engine.procedures.executor import Live
from engine.procedures.recorder import Recorder

log = logging.getLogger("opsdeck")
LOOKED_AT = 1000  # of the engine's own events, for pages that may not have arrived
RESUMED_S = 3600.0  # what is older is no news
OF_RUNS = ("rollout.told", "glass.broken")


class Pager:
    """Records events of monitoring and posts the ones that want a person.

    A webhook gets JSON `{"level", "kind", "service", "text", "at"}`; one that fails is tried again,
    then said in the journal. Nothing here blocks or fails the caller. What says a run has an `id` too: it
    is recorded once it arrived, and an engine that died before that posts it again with the same id, which
    is its `Idempotency-Key` as well.
    """

    def __init__(self, config: Config, recorder: Recorder, *, clock: Callable[[], float]) -> None:
        self._config = config
        self._recorder = recorder
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: dict[tuple[str, str], float] = {}

    def use_config(self, config: Config) -> None:
        """Send by another config from now on."""
        self._config = config

    def on_event(self, kind: str, data: dict[str, Any]) -> None:
        """An event of the collector: `alert.fired`, `alert.cleared`, `target.stale` …"""
        self._spawn(self._tell(kind, data))

    def break_glass(self, text: str, live: Live) -> None:
        """Page the owner of the service: somebody opened a gate alone."""
        self._spawn(self._tell("glass.broken", _of_run(live, f"run {live.progress.id}: {text}")))

    def rollout(self, text: str, live: Live) -> None:
        """Page the owner of the service: its rollout went back, or cannot."""
        self._spawn(self._tell("rollout.told", _of_run(
            live, f"rollout {live.progress.id} of {live.progress.service}: {text}")))

    async def resume(self) -> None:
        """Post what an engine that died within the last hour had recorded and not seen arrive."""
        events = await self._recorder.call(self._recorder.journal.tail, LOOKED_AT, None, ENGINE)
        settled = {event.data.get("id") for event in events if event.kind in ("notification.sent",
                                                                             "notification.failed")}
        for event in reversed(events):
            lately = self._clock() - event.at <= RESUMED_S
            if lately and event.kind in OF_RUNS and event.data.get("id", "") not in {"", *settled}:
                self._spawn(self._post_page(event.kind, event.at, event.data))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, kind: str, data: dict[str, Any]) -> None:
        at = self._clock()
        await self._record(kind, at, data)
        wanted = data.get("level") in self._config.alerts.webhooks
        if not wanted or kind == "alert.cleared" or self._repeated(kind, data, at):
            return
        await self._post_page(kind, at, data)

    async def _post_page(self, kind: str, at: float, data: dict[str, Any]) -> None:
        url = self._config.alerts.webhooks.get(data.get("level", ""))
        if url is None:
            return
        which = {"id": data["id"], "run": data.get("run")} if kind in OF_RUNS else {}
        problem = await webhooks.post(url, {"kind": kind, "at": at, **data}, id=which.get("id"))
        if problem is not None:
            await self._record("notification.failed", self._clock(), {
                "text": f"the {data['level']} webhook did not take {kind}: it {problem}", **which})
        elif which:
            await self._record("notification.sent", self._clock(), {
                "text": f"the {data['level']} webhook took {kind}", **which})

    def _repeated(self, kind: str, data: dict[str, Any], at: float) -> bool:
        """Whether the same was sent less than `alerts.repeat` ago: nobody is paged twice for it."""
        if kind != "alert.fired":
            return False
        key = (kind, str(data.get("id")))
        last = self._sent.get(key)
        if last is not None and at - last < self._config.alerts.repeat:
            return True
        self._sent[key] = at
        return False

    async def _record(self, kind: str, at: float, data: dict[str, Any]) -> None:
        try:
            await self._recorder.append([NewEvent(run=ENGINE, kind=kind, at=at, actor=SYSTEM,
                                                  data=data)])
        except JournalError as error:
            log.error("not in the journal: %s %s (%s)", kind, data.get("text", ""), error)

    async def close(self) -> None:
        """Give what is under way a moment, then let go."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=1.0)
            for task in late:
                task.cancel()


def _of_run(live: Live, text: str) -> dict[str, Any]:
    run = live.progress.id
    return {"level": "page", "service": live.progress.service, "run": run, "text": text,
            "id": hashlib.sha256(f"{run} {text}".encode()).hexdigest()[:16]}
