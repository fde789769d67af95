"""What is on the disk is in memory too, whoever is cancelled while it is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Conflict, JournalError
from tests.procedures.kit import Kit, kit, states

STEPS = """
- {{id: ask, title: Ask, manual: "go?"}}
- {{id: act, title: Act, shell: "echo x >> {mark}", irreversible: t}}
"""


class Held:
    """Holds the next commit: it is on the disk when `begun` is set, and is told of after `go`."""

    def __init__(self, k: Kit) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        self._append = k.recorder.append
        k.recorder.append = self._held  # type: ignore[method-assign]

    async def _held(self, *args: Any, **more: Any) -> Any:
        written = await self._append(*args, **more)
        self.begun.set()
        await self.go.wait()
        return written


async def cancelled_after_the_commit(task: asyncio.Task[Any], held: Held) -> None:
    """Cancel twice while the commit is under way: the patience of one must not hide the other."""
    await held.begun.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    held.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_verb_cancelled_during_its_commit_leaves_memory_as_the_journal(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with kit(tmp_path) as k:
        live = await k.start(STEPS.format(mark=mark))
        await k.waiting(live, "ask")
        held = Held(k)
        answering = asyncio.create_task(k.act(live, "answer", step="ask", text="yes"))
        await held.begun.wait()
        second = asyncio.create_task(k.act(live, "answer", step="ask", text="no"))
        await cancelled_after_the_commit(answering, held)
        with pytest.raises(Conflict):
            await second
        view = await k.ended(live)
        events = await k.recorder.call(k.journal.read, live.progress.id)
        assert live.progress.n == events[-1].n
    assert view.state == "done" and mark.read_text() == "x\n"


async def test_a_run_whose_starter_is_cancelled_during_the_commit_is_driven(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        held = Held(k)
        starting = asyncio.create_task(k.start('- {id: a, title: A, shell: "true", effect: none}'))
        await cancelled_after_the_commit(starting, held)
        [live] = k.executor.live.values()
        assert (await k.ended(live)).state == "done"


async def test_a_commit_that_ends_while_the_engine_closes_starts_nothing_more(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with kit(tmp_path) as k:
        live = await k.start(STEPS.format(mark=mark))
        await k.waiting(live, "ask")
        held = Held(k)
        answering = asyncio.create_task(k.act(live, "answer", step="ask", text="yes"))
        await held.begun.wait()
        await k.executor.close()
        held.go.set()
        await answering
        assert states(await k.until(live, lambda v: True))["act"] == "intent"
        assert not live.tasks and not mark.exists()
    async with kit(tmp_path) as k:
        view = await k.ended((await k.recover())[0])
    assert view.state == "done" and mark.read_text() == "x\n"


async def test_a_cancelled_verb_whose_commit_fails_changes_nothing(tmp_path: Path) -> None:
    async with kit(tmp_path) as k:
        live = await k.start(STEPS.format(mark=tmp_path / "mark"))
        await k.waiting(live, "ask")
        append, begun, go = k.recorder.append, asyncio.Event(), asyncio.Event()

        async def failing(*args: Any, **more: Any) -> Any:
            begun.set()
            await go.wait()
            raise JournalError("the disk is full")

        k.recorder.append = failing  # type: ignore[method-assign]
        answering = asyncio.create_task(k.act(live, "answer", step="ask", text="yes"))
        await begun.wait()
        answering.cancel()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await answering
        k.recorder.append = append  # type: ignore[method-assign]
        await k.act(live, "answer", step="ask", text="yes")
        assert (await k.ended(live)).state == "done"


@pytest.mark.parametrize("turns", range(6))
async def test_an_engine_closes_at_whatever_moment_a_run_wakes_up(tmp_path: Path, turns: int) -> None:
    """Each turn of the loop is another place at which the cancellation meets the wake."""
    async with kit(tmp_path) as k:
        live = await k.start(STEPS.format(mark=tmp_path / "mark"), head="review_every: 9999d")
        await k.waiting(live, "ask")
        live.due = k.executor.clock() + 3600.0
        live.wake.set()
        async with asyncio.timeout(5):
            while live.wake.is_set():  # until the driver waits again, now with a time to wake up at
                await asyncio.sleep(0)
        live.wake.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await k.executor.close()
        assert live.driver is not None and live.driver.cancelled()
