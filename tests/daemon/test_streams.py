"""Streams: the newest always, never a queue, and an end that says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import sse, wire
from engine.api.backend import OutputChunk
from engine.daemon import streams
from engine.daemon.streams import RunBox
from engine.errors import EngineUnreachable, JournalCorrupt
from tests.daemon.conftest import Running
from tests.daemon.memory import MemoryBackend
from tests.daemon.test_routes import request


async def test_a_stream_gives_a_snapshot_at_once_and_one_for_each_change(running: Running) -> None:
    seen = []
    async with asyncio.timeout(10):
        async for snapshot in running.client.snapshots():
            seen.append(snapshot.seq)
            if len(seen) == 3:
                break
            await running.backend.notify()
    assert seen == [0, 1, 2]


async def test_a_reader_that_stops_gets_the_newest_and_no_backlog(running: Running) -> None:
    reader, writer = await asyncio.open_unix_connection(running.home.socket, limit=1024)
    writer.write(request("GET", "/v1/stream"))
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    changes = 3000
    for _ in range(changes):
        await running.backend.notify()
        await asyncio.sleep(0)
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    decoder, seqs = sse.Decoder(), []
    async with asyncio.timeout(10):
        while not seqs or seqs[-1] < changes:
            # Chunk sizes of the transfer encoding lie between messages; the decoder skips them.
            for message in decoder.feed((await reader.read(65536)).replace(b"\r\n", b"\n")):
                if message.event == "snapshot":
                    seqs.append(int(message.id or -1))
    writer.close()
    assert seqs[-1] == changes
    assert seqs == sorted(seqs)
    assert len(seqs) < changes / 2, "a stopped reader was sent everything it had missed"


async def test_a_silent_stream_is_kept_alive_by_pings(running: Running,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "PING", 0.05)
    reader, writer = await asyncio.open_unix_connection(running.home.socket)
    writer.write(request("GET", "/v1/stream"))
    async with asyncio.timeout(10):
        await reader.readuntil(b"event: ping")
    writer.close()


async def test_a_run_is_followed_through_its_output_to_its_end(running: Running) -> None:
    view = await running.client.start_run(wire.StartRun("ask"))
    text, states = "", []
    async with asyncio.timeout(10):
        async for event in running.client.follow(view.id):
            if isinstance(event, OutputChunk):
                text += event.text
                if text == "hello\nworld\n":
                    await running.client.act(view.id, "abort", wire.Act())
                continue
            states.append(event.state)
            if len(states) == 1:
                await running.backend.print(view.id, "hello\n")
                await running.backend.print(view.id, "world\n")
    assert text == "hello\nworld\n"
    assert states[-1] == "aborted"


async def test_an_engine_that_stops_ends_its_streams_and_says_so(running: Running) -> None:
    view = await running.client.start_run(wire.StartRun("ask"))
    with pytest.raises(EngineUnreachable, match="the engine is stopping"):
        async for _ in running.client.follow(view.id):
            running.server.stop()
    await asyncio.wait_for(asyncio.shield(running.task), 10)


async def test_a_failure_in_the_middle_of_a_stream_arrives_as_the_error_it_is(
        running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(self: MemoryBackend, id: str) -> AsyncIterator[wire.RunView | OutputChunk]:
        yield await self.run(id)
        raise JournalCorrupt("event 4 does not match its hash", where="run 1")

    monkeypatch.setattr(MemoryBackend, "follow", failing)
    view = await running.client.start_run(wire.StartRun("ask"))
    with pytest.raises(JournalCorrupt, match="event 4"):
        async for event in running.client.follow(view.id):
            assert isinstance(event, wire.RunView)


async def test_a_reader_that_leaves_ends_the_backends_stream(
        running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    left = asyncio.Event()
    whole = MemoryBackend.snapshots

    async def watched(self: MemoryBackend, caller: object) -> AsyncIterator[wire.Snapshot]:
        try:
            async for snapshot in whole(self, caller):  # type: ignore[arg-type]
                yield snapshot
        finally:
            left.set()

    monkeypatch.setattr(MemoryBackend, "snapshots", watched)
    _, writer = await asyncio.open_unix_connection(running.home.socket)
    writer.write(request("GET", "/v1/stream"))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        async for _ in running.client.snapshots():
            break
    writer.close()
    await asyncio.wait_for(left.wait(), 10)


def chunk(offset: int, size: int, step: str = "drain") -> OutputChunk:
    return OutputChunk("1", step, 1, offset, offset + size, "x" * size, False)


def test_output_that_nobody_reads_stays_bounded_and_keeps_its_end() -> None:
    box = RunBox()
    for at in range(25_000):  # 100 MB
        box.put(chunk(at * 4096, 4096))
    taken = box.take()
    assert sum(len(c.text) for c in taken if isinstance(c, OutputChunk)) <= streams.OUTPUT_CAP
    last = taken[-1]
    assert isinstance(last, OutputChunk)
    assert last.next == 25_000 * 4096
    assert box.take() == []


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 9000)), max_size=60),
       st.integers(1, 20_000))
def test_what_a_box_gives_is_the_output_in_order_with_gaps_only_where_it_dropped(
        pieces: list[tuple[str, int]], cap: int) -> None:
    box, ends, total = RunBox(cap), {"a": 0, "b": 0}, 0
    for step, size in pieces:
        box.put(chunk(ends[step], size, step))
        ends[step] += size
        total += size
    given_back = [c for c in box.take() if isinstance(c, OutputChunk)]
    seen = {"a": 0, "b": 0}
    for one in given_back:
        assert one.offset >= seen[one.step]
        assert one.next - one.offset == len(one.text)
        seen[one.step] = one.next
    if total <= cap:
        assert seen == ends
    if given_back:
        assert given_back[-1].next == ends[pieces[-1][0]]
