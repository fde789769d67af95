"""Pages about runs at a real HTTP server: each arrives, also when the engine dies before it did."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from engine.config import Config
from engine.journal.events import ENGINE, SYSTEM, NewEvent
from engine.paging import Pager
from engine.procedures.recorder import Recorder
from tests.daemon.test_asking import Hook, hook  # noqa: F401  (a fixture)
from tests.procedures.kit import Kit, kit

TOLD = {"level": "page", "service": "flights", "run": "7", "text": "rollout 7 of flights: worse",
        "id": "0123456789abcdef"}


def config(hook: Hook) -> Config:  # noqa: F811
    return Config.model_validate({"alerts": {"webhooks": {"page": hook.url}}})


async def told(recorder: Recorder, kind: str, data: dict[str, Any]) -> None:
    await recorder.append([NewEvent(ENGINE, kind, time.time(), SYSTEM, data=data)])


def kinds(made: Kit) -> list[str]:
    return [event.kind for event in reversed(made.journal.tail(100, None, ENGINE))]


async def until(holds: Any) -> None:
    async with asyncio.timeout(5.0):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_page_that_was_recorded_and_not_seen_to_arrive_is_posted_by_the_next_engine(
        hook: Hook, tmp_path: Path) -> None:  # noqa: F811
    async with kit(tmp_path) as made:
        await told(made.recorder, "rollout.told", TOLD)
        pager = Pager(config(hook), made.recorder, clock=time.time)
        await pager.resume()
        await until(lambda: "notification.sent" in kinds(made))
        assert [body["id"] for body in hook.bodies] == hook.keys == [TOLD["id"]]
        assert hook.bodies[0]["text"] == TOLD["text"]
        await pager.resume()
        await pager.close()
        assert len(hook.bodies) == 1, "one that arrived is not posted again"


async def test_a_page_that_the_webhook_refused_to_the_end_is_not_posted_again(
        hook: Hook, tmp_path: Path) -> None:  # noqa: F811
    async with kit(tmp_path) as made:
        await told(made.recorder, "glass.broken", TOLD)
        await told(made.recorder, "notification.failed", {"id": TOLD["id"], "text": "it was not taken"})
        pager = Pager(config(hook), made.recorder, clock=time.time)
        await pager.resume()
        await pager.close()
        assert hook.bodies == []
