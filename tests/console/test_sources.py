"""The sources: a live engine that comes and goes, and a recording of one."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.fake import FakeSource
from console.fake_world import World
from console.live import LiveSource
from console.replay import ReplaySource, read, record
from console.source import Tick
from engine.api import wire
from engine.errors import EngineUnreachable, NotFound, NotPermitted, UsageError
from tests.console.scenes import FIXED
from tests.console.terminal import fake_engine

DEADLINE_S = 20.0


@pytest.fixture(scope="module")
def socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("live")
    with fake_engine(home, "--hz", "50", "--rollouts"):
        yield home / "engine.sock"


def streams() -> int:
    return sum(thread.name == "opsdeck-stream" for thread in threading.enumerate())


async def no_streams() -> None:
    deadline = time.monotonic() + DEADLINE_S
    while streams():
        assert time.monotonic() < deadline, "a stream's thread is still there"
        await asyncio.sleep(0.01)


async def first(source: LiveSource, wanted: str) -> Tick:
    async with asyncio.timeout(DEADLINE_S):
        async for tick in source.ticks():
            if tick.link.state == wanted:
                return tick
    raise AssertionError("the ticks ended")


async def test_a_slow_reader_gets_the_newest_snapshot_and_not_the_ones_between(
        socket: Path) -> None:
    source = LiveSource(socket)
    seen: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        async for tick in source.ticks():
            assert tick.snapshot is not None
            seen.append(tick.snapshot.seq)
            if len(seen) == 4:
                break
            held = time.monotonic() + 0.3
            while time.monotonic() < held:
                await asyncio.sleep(0.02)
    await source.close()
    steps = [b - a for a, b in itertools.pairwise(seen[1:])]
    assert all(step >= 8 for step in steps), seen


async def test_closing_frees_every_thread_that_waits_in_a_stream(socket: Path) -> None:
    source = LiveSource(socket)
    await first(source, "live")
    following = source.follow("184")
    assert isinstance(await anext(following), wire.RunView)
    assert streams() >= 1
    await source.close()
    await no_streams()


async def test_leaving_a_run_frees_its_thread(socket: Path) -> None:
    source = LiveSource(socket)
    following = source.follow("184")
    await anext(following)
    await following.aclose()  # type: ignore[attr-defined]
    await no_streams()
    await source.close()


async def test_a_run_that_has_ended_ends_the_following(socket: Path) -> None:
    source = LiveSource(socket)
    async with asyncio.timeout(DEADLINE_S):
        items = [item async for item in source.follow("176")]
    assert isinstance(items[0], wire.RunView) and items[0].state == "done"
    await source.close()


async def test_a_run_that_is_not_there_is_told_as_such(socket: Path) -> None:
    source = LiveSource(socket)
    with pytest.raises(NotFound):
        await anext(source.follow("9999"))
    await source.close()


async def test_an_engine_that_is_not_there_is_a_tick_with_a_sentence(tmp_path: Path) -> None:
    source = LiveSource(tmp_path / "engine.sock")
    tick = await first(source, "lost")
    assert tick.snapshot is None and tick.heard is None
    assert tick.link.reason is not None and tick.link.reason.startswith("No engine answers at")
    with pytest.raises(EngineUnreachable):
        await source.run("1")
    await source.close()


async def test_an_engine_that_starts_later_is_found_by_itself(tmp_path: Path) -> None:
    source = LiveSource(tmp_path / "engine.sock")
    ticks = source.ticks()
    assert (await anext(ticks)).link.state == "lost"
    with fake_engine(tmp_path):
        async with asyncio.timeout(DEADLINE_S):
            while (tick := await anext(ticks)).link.state != "live":
                pass
        assert tick.snapshot is not None
    await source.close()


async def test_a_calm_engine_that_sends_nothing_is_still_heard(tmp_path: Path) -> None:
    with fake_engine(tmp_path, "--hz", "0"):
        source = LiveSource(tmp_path / "engine.sock")
        ticks = source.ticks()
        async with asyncio.timeout(DEADLINE_S):
            one, other = await anext(ticks), await anext(ticks)
        assert one.snapshot is other.snapshot and one.heard is not None
        assert other.heard is not None and other.heard > one.heard + 1.0
        await source.close()


async def test_a_recording_shows_what_was_seen_and_lets_nothing_be_done(tmp_path: Path) -> None:
    path = tmp_path / "night.jsonl"
    ticking = FakeSource(World(services=3), interval=0.01)
    with path.open("w") as file:
        assert await record(ticking, file, 0.1) >= 2
    source = ReplaySource(read(path), speed=1000.0, clock=lambda: FIXED)
    seen = []
    async for tick in source.ticks():
        seen.append(tick.snapshot)
        if len(seen) == 2:
            break
    assert [s.seq for s in seen if s] == [1, 2]
    assert (await source.run("184")).procedure == "rollback-model"
    assert await source.library() and await source.events(5, None)
    with pytest.raises(NotPermitted, match="recording"):
        await source.act("184", "abort", wire.Act())


def test_a_damaged_recording_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "damaged.jsonl"
    path.write_text('{"after": 0, "kind": "library", "data": []}\n{"after": 1}\n')
    with pytest.raises(UsageError) as refused:
        read(path)
    assert refused.value.where == f"{path}:2"


async def test_rollouts_come_over_the_socket_by_service_and_by_run(socket: Path) -> None:
    source = LiveSource(socket)
    try:
        found = await source.rollouts()
        assert {r.run for r in found} == {"171", "170", "169", "168", "167"}
        by_service, by_run = await source.rollout("recommend"), await source.rollout("169")
        assert by_service.run == by_run.run == "169" and len(by_run.metrics) == 10
        with pytest.raises(NotFound):
            await source.rollout("churn")
    finally:
        await source.close()


async def test_a_recording_shows_the_rollouts_that_ran(tmp_path: Path) -> None:
    source = FakeSource(World(), interval=0.01)
    source.world.roll_out()
    path = tmp_path / "recording.jsonl"
    with path.open("w") as file:
        await record(source, file, 0.05)
    shown = ReplaySource(read(path), speed=1000.0)
    async for _ in shown.ticks():
        if len(await shown.rollouts()) >= 3:
            break
    assert {r.service for r in await shown.rollouts()} == {"search-rank", "recommend", "spam"}
    assert (await shown.rollout("recommend")).run == "169"
    with pytest.raises(NotFound):
        await shown.rollout("churn")
    await shown.close()
