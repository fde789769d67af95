"""Asking for approvals at a real HTTP server: once for each gate, also across failures and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine import asking, webhooks
from engine.asking import Asker
from engine.config import Config
from engine.journal.events import ENGINE
from engine.procedures.executor import Live
from tests.procedures.kit import BOB, EVE, Kit, kit

GATE = """
- id: drain
  title: Drain it
  shell: "echo ran"
  irreversible: test
  approvals: {min: 1, roles: [approver], not_initiator: true, expires: 30m}
"""
TWICE = GATE.replace('"echo ran"', '"false"') + "  on_failure: ask\n"


class Hook:
    """An HTTP server that answers as it is told: `statuses` first, then 200."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses: list[int] = []
        self.bodies: list[Any] = []
        self.keys: list[str] = []
        self.held: asyncio.Event | None = None

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        self.keys.append(request.headers["idempotency-key"])
        if self.held is not None:
            await self.held.wait()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="ok")


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    app = web.Application()
    made = Hook("")
    app.router.add_post("/s3cret", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/s3cret"
    yield made
    await runner.cleanup()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "PAUSE", 0.01)


def config(hook: Hook, format: str = "json") -> Config:
    return Config.model_validate({"alerts": {"approvals": {"url": hook.url, "format": format}}})


@contextlib.asynccontextmanager
async def engine(home: Path, settings: Config, **more: Any) -> AsyncIterator[tuple[Kit, Asker]]:
    """An executor whose every change the asker hears of; runs of an engine before it are taken up."""
    async with kit(home, config=settings) as k:
        asker = Asker(settings, k.recorder, clock=time.time, host="ops1", **more)

        def changed(run: str) -> None:
            if run in k.executor.live:
                asker.gate_opened(k.executor.live[run])

        k.executor._on_change = changed
        await asker.open(await k.recover())
        try:
            yield k, asker
        finally:
            await asker.close()


async def until(holds: Callable[[], Any], within: float = 10.0) -> None:
    end = time.monotonic() + within
    while not holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


async def settled(asker: Asker) -> None:
    await until(lambda: not asker._tasks)


def told(k: Kit) -> list[str]:
    return [event.kind for event in k.journal.read(ENGINE) if event.kind in asking.KINDS]


async def waiting(k: Kit, steps: str = GATE) -> Live:
    live = await k.start(steps)
    await k.waiting(live, "drain")
    k.executor.changed(live)  # as the engine does after each start
    return live


async def test_a_gate_that_opens_is_asked_about_once_however_often_the_run_changes(hook: Hook, tmp_path: Path
                                                                                 ) -> None:
    async with engine(tmp_path, config(hook), evidence=lambda live, step: f"{step}: errors are fewer"
                      ) as (k, asker):
        live = await waiting(k)
        for _ in range(5):
            asker.gate_opened(live)
        await settled(asker)
        asker.gate_opened(live)
        assert len(hook.bodies) == 1 and told(k) == ["gate.asking", "gate.asked"]
        digest = live.progress.steps["drain"].digest
        sent = hook.bodies[0]
        assert sent["commands"] == {
            "approve": f"opsdeck approve {live.progress.id} drain --digest {digest}",
            "reject": f"opsdeck reject {live.progress.id} drain"}
        assert (sent["evidence"], sent["started_by"], sent["roles"], sent["command"], sent["host"]) == (
            "drain: errors are fewer", "ann", ["approver"], "echo ran", "ops1")
        assert sent["expires"] == pytest.approx(time.time() + 1800, abs=60)
        assert hook.keys == [f"{live.progress.id}/drain/{digest}"]
        text = " ".join(str(event.data) for event in k.journal.read(ENGINE))
        assert "s3cret" not in text


@pytest.mark.parametrize("format", ["slack", "teams"])
async def test_it_speaks_the_format_of_the_config(hook: Hook, tmp_path: Path, format: str) -> None:
    async with engine(tmp_path, config(hook, format)) as (k, asker):
        await waiting(k)
        await settled(asker)
        assert set(hook.bodies[0]) == ({"text", "blocks"} if format == "slack"
                                       else {"type", "summary", "attachments"})


async def test_only_approvals_are_asked_for_and_only_when_nothing_stands_before_them(hook: Hook,
                                                                                    tmp_path: Path) -> None:
    async with engine(tmp_path, config(hook)) as (k, asker):
        await waiting(k, GATE.replace("approvals: {min: 1, roles: [approver], not_initiator: true, "
                                      "expires: 30m}", 'confirm: "yes"'))
        both = await waiting(k, GATE + '  confirm: "yes"\n')
        await settled(asker)
        assert hook.bodies == []
        await k.act(both, "confirm", step="drain")
        await until(lambda: hook.bodies)
        assert hook.bodies[0]["run"] == both.progress.id


async def test_a_restart_asks_nothing_twice(hook: Hook, tmp_path: Path) -> None:
    for _ in range(3):
        async with engine(tmp_path, config(hook)) as (k, asker):
            if not hook.bodies:
                await waiting(k)
            await settled(asker)
            assert len(k.executor.live) == 1
    assert len(hook.bodies) == 1


async def test_what_was_asked_is_found_behind_thousands_of_other_events(
        hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAGE", 7)
    async with engine(tmp_path, config(hook)) as (k, asker):
        await waiting(k)
        await settled(asker)
        one = k.executor.planner.event(ENGINE, "alert.fired", text="x")
        k.journal.append([one] * 40)
    async with engine(tmp_path, config(hook)) as (k, asker):
        await settled(asker)
    assert len(hook.bodies) == 1


async def test_an_engine_that_ended_while_it_asked_is_followed_by_one_more_question_that_says_so(
        hook: Hook, tmp_path: Path) -> None:
    hook.held = asyncio.Event()
    for times in (1, 2, 2):  # the third engine finds two begun, and leaves it at that
        async with engine(tmp_path, config(hook)) as (k, asker):
            if times == 1:
                await waiting(k)
            await until(lambda times=times: len(hook.bodies) == times)
            for task in asker._tasks:
                task.cancel()  # as a kill would, between sending and recording
            await settled(asker)
            assert told(k) == ["gate.asking"] * times
    hook.held.set()
    assert [body["again"] for body in hook.bodies] == [False, True]
    assert hook.keys[0] == hook.keys[1]


async def test_a_webhook_that_fails_for_a_moment_is_tried_again_with_the_same_key(hook: Hook, tmp_path: Path
                                                                                ) -> None:
    hook.statuses = [503, 429]
    async with engine(tmp_path, config(hook)) as (k, asker):
        await waiting(k)
        await settled(asker)
        assert told(k) == ["gate.asking", "gate.asked"]
    assert len(hook.bodies) == 3 and len(set(hook.keys)) == 1


@pytest.mark.parametrize(("status", "tries", "text"), [
    (500, 3, "answered 500, ok; tried 3 times"), (404, 1, "answered 404, ok"), (302, 1, "answered 302, ok")])
async def test_one_that_goes_on_failing_is_recorded_and_left(hook: Hook, tmp_path: Path, status: int,
                                                            tries: int, text: str) -> None:
    hook.statuses = [status] * 9
    for _ in range(2):
        async with engine(tmp_path, config(hook)) as (k, asker):
            if not hook.bodies:
                await waiting(k)
            await settled(asker)
            assert told(k) == ["gate.asking", "gate.unasked"]
            last = k.journal.read(ENGINE)[-1].data["text"]
    assert len(hook.bodies) == tries
    assert last == f"nobody was asked to approve run 1, drain: {hook.url[:-7]} {text}"


async def test_nobody_listening_is_recorded_and_the_run_goes_on(hook: Hook, tmp_path: Path) -> None:
    hook.url = "http://127.0.0.1:9/s3cret"
    async with engine(tmp_path, config(hook)) as (k, asker):
        live = await waiting(k)
        await settled(asker)
        assert told(k) == ["gate.asking", "gate.unasked"]
        await k.act(live, "approve", BOB, step="drain")
        assert (await k.ended(live)).state == "done"


async def test_a_gate_that_is_answered_meanwhile_is_not_asked_about_again(hook: Hook, tmp_path: Path) -> None:
    hook.statuses = [503] * 9
    hook.held = asyncio.Event()
    async with engine(tmp_path, config(hook)) as (k, asker):
        live = await waiting(k)
        await until(lambda: hook.bodies)
        await k.act(live, "approve", BOB, step="drain")
        await k.ended(live)
        hook.held.set()
        await settled(asker)
        assert "it was answered meanwhile" in k.journal.read(ENGINE)[-1].data["text"]
    assert len(hook.bodies) == 1


async def test_a_gate_that_opens_for_a_second_attempt_is_another_question(hook: Hook, tmp_path: Path) -> None:
    async with engine(tmp_path, config(hook)) as (k, asker):
        live = await waiting(k, TWICE)
        await k.act(live, "approve", BOB, step="drain")
        await k.until(live, lambda view: any(s.gate and s.gate.kind == "failed" for s in view.steps))
        await k.act(live, "retry", EVE, step="drain")
        await until(lambda: len(hook.bodies) == 2)
        await settled(asker)
    assert hook.bodies[0]["commands"]["approve"] != hook.bodies[1]["commands"]["approve"]


async def test_without_a_journal_nothing_is_sent_and_the_next_change_asks(hook: Hook, tmp_path: Path) -> None:
    async with engine(tmp_path, config(hook)) as (k, asker):
        asker._begun = None
        live = await waiting(k)
        asker.gate_opened(live)
        assert not asker._tasks  # what was asked before is not known yet
        asker._begun = {}
        with contextlib.closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            asker.gate_opened(live)
            await settled(asker)
            other.execute("ROLLBACK")
        assert hook.bodies == [] and told(k) == []
        asker.gate_opened(live)
        await settled(asker)
        assert len(hook.bodies) == 1 and told(k) == ["gate.asking", "gate.asked"]


async def test_a_config_without_the_webhook_asks_nobody_and_a_new_one_is_followed(hook: Hook, tmp_path: Path
                                                                                ) -> None:
    async with engine(tmp_path, Config()) as (k, asker):
        live = await waiting(k)
        await settled(asker)
        assert told(k) == []
        asker.use_config(config(hook))
        asker.gate_opened(live)
        await settled(asker)
        assert len(hook.bodies) == 1
