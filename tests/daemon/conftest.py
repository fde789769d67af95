"""Engines to test against: one in this event loop, and one in a process of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import home as homes
from engine.config import Config
from engine.daemon import sockets
from engine.daemon.identity import Gatekeeper
from engine.daemon.server import Server
from engine.home import Home
from tests.daemon.awaited import Awaited
from tests.daemon.memory import MemoryApp, MemoryBackend
from tests.daemon.people import unix_users  # noqa: F401  (a fixture)


@dataclass
class Running:
    """An engine in this loop, and a client of it."""

    home: Home
    app: MemoryApp
    server: Server
    client: Awaited
    task: asyncio.Task[None]

    @property
    def backend(self) -> MemoryBackend:
        return self.app.backend

    async def stop(self) -> None:
        self.server.stop()
        await asyncio.wait_for(self.task, 10)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    home = homes.at(tmp_path / "home")
    homes.prepare(home)
    app = MemoryApp(MemoryBackend(home))
    server = Server(app.backend, Gatekeeper(home, Config(), app.sessions), grace_s=2.0)
    listener = sockets.listen(home)
    task = asyncio.create_task(server.run_on(listener))
    await asyncio.wait_for(server.ready.wait(), 10)
    engine = Running(home, app, server, Awaited(home.socket), task)
    try:
        yield engine
    finally:
        await engine.stop()


@pytest.fixture
def engine_process() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an engine in a process of its own; returns once it says that it is ready, or has ended."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, mode: str = "single-user") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon.engine_process", str(path), mode],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()
