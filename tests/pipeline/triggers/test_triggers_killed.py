"""An engine that is killed at any point of a trigger: nothing is built twice, and no cause is forgotten."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from engine.api.light import connect
from engine.journal.sqlite import SqliteJournal
from tests.end_to_end.command import Opsdeck
from tests.pipeline.triggers.engines import Place, engine, fast, until
from tests.pipeline.triggers.triggered import committed, git, project, repository


@pytest.mark.parametrize(("boundary", "side"), [
    ("trigger.asked", "after"), ("trigger.heard", "after"), ("trigger.building", "after"),
    ("run.created", "after"), ("trigger.ended", "before")])
def test_whatever_was_recorded_when_it_was_killed_a_commit_is_built_once(
        boundary: str, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", "{procedure: build, quiet: 50ms, commits: {every: 50ms}}")
    (folder / ".gitignore").write_text("data\n")
    repository(folder)
    place.register(flights=folder)
    place.go()
    pid = os.fork()
    if pid == 0:
        _doomed(place, folder, boundary, side)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it was not killed where it should have been"
    head = git(folder, "rev-parse", "HEAD")

    async def go_on() -> None:
        async with engine(place) as backend:
            shown = await until(backend, "flights", lambda t: t.recent and t.recent[-1].said.endswith("done"))
            assert shown.commit == head

    asyncio.run(go_on())
    assert [built[2] for built in place.built()] == [head]


def _doomed(place: Place, folder: Path, boundary: str, side: str) -> None:
    """Live until an event of that kind is about to be recorded, or has been."""
    try:
        real = SqliteJournal.append

        def append(journal, events, *, row=None):
            mine = any(event.kind == boundary for event in events)
            if mine and side == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            recorded = real(journal, events, row=row)
            if mine:
                os.kill(os.getpid(), signal.SIGKILL)
            return recorded

        SqliteJournal.append = append

        async def live() -> None:
            async with engine(place) as backend:
                await until(backend, "flights", lambda t: t.commit)
                committed(folder, "better", train="def main(inputs, output, params): return 2")
                await asyncio.sleep(20)

        asyncio.run(live())
    finally:
        os._exit(1)


@pytest.mark.slow
def test_a_real_engine_is_killed_and_the_next_goes_on_where_it_was(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", "{procedure: build, quiet: 100ms, commits: {every: 100ms}}")
    (folder / ".gitignore").write_text("data\n")
    repository(folder)
    place.register(flights=folder)
    opsdeck = Opsdeck(place.home.path)
    given = {"OPSDECK_SETTLE": "0"}
    assert opsdeck("engine", "start", env=given).returncode == 0
    try:
        client = connect(place.home)
        _until(lambda: client.triggers("flights")[0].commit)
        first = committed(folder, "better", train="def main(inputs, output, params): return 2")
        _until(lambda: len(place.built()) == 1)
        assert opsdeck("trigger", "flights", "--reason", "to see").returncode == 0
        second = committed(folder, "better still", train="def main(inputs, output, params): return 3")
        _until(lambda: str(client.triggers("flights")[0].waiting).count("better still"))
        shown = opsdeck("triggers", "flights").stdout
        assert "waits until run 1 has ended: one at a time for a model" in shown
        assert f"commit {second[:12]}: better still" in shown
        assert "flights" in opsdeck("triggers").stdout
        os.kill(client.engine().pid, signal.SIGKILL)
        assert opsdeck("engine", "start", env=given).returncode == 0
        place.go()
        _until(lambda: len(place.built()) == 2 and client.triggers("flights")[0].run is None)
    finally:
        opsdeck("engine", "stop")
    assert [built[2] for built in place.built()] == [first, second]


def _until(holds, within: float = 30.0) -> None:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within {within:.0f} s")
