"""An engine with made-up rollouts in a thread, and the command `opsdeck rollout` against it."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from engine import home as homes
from engine.api import wire
from engine.api.light import Client, connect
from engine.cli.main import main
from engine.config import Config
from engine.daemon import sockets
from engine.daemon.identity import Gatekeeper
from engine.daemon.server import Server
from tests.daemon.memory import MemoryApp, MemoryBackend
from tests.daemon.rollouts import rollout


class Terminal(io.StringIO):
    """Standard input or output that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@dataclass
class Done:
    code: int
    out: str
    err: str


@dataclass
class Engine:
    """Starts and stops on one home; what its backend knows outlives it, as a journal would."""

    path: Path
    backend: MemoryBackend = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = None
    _server: Server | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        self.home = homes.at(self.path)
        homes.prepare(self.home)
        self.backend = MemoryBackend(self.home)

    def start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self.backend.changed = asyncio.Condition()
            app = MemoryApp(self.backend)
            self._server = Server(app.backend, Gatekeeper(self.home, Config(), app.sessions), grace_s=0.1)
            serving = asyncio.create_task(self._server.run_on(sockets.listen(self.home)))
            await self._server.ready.wait()
            ready.set()
            await serving

        self._thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        assert self._loop is not None and self._server is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._server.stop)
        self._thread.join(10)

    def roll(self, run: str = "41", **given: Any) -> wire.Rollout:
        """Let it have a rollout, and the run that it is."""
        found = rollout(run, **given)
        self.backend.rolling[run] = found
        self.backend.views[run] = wire.RunView(
            run, found.procedure, found.state, [], "Roll out", found.by, found.started, found.ended,
            found.at, {"service": found.service, "to": found.challenger, "requests": 200}, found.service, 1,
            False, None, None, "0" * 64)
        return found

    def now(self, run: str = "41", **changed: Any) -> None:
        self.backend.rolling[run] = msgspec.structs.replace(self.backend.rolling[run], **changed)

    def soon(self, act: Callable[[Client], object], when: Callable[[], object]) -> threading.Thread:
        """Once something holds, do this to the engine from another thread."""
        def doing() -> None:
            until(when)
            act(connect(self.home))

        thread = threading.Thread(target=doing, daemon=True)
        thread.start()
        return thread

    def asked(self, what: str) -> list[Any]:
        """What the engine was asked to do under a name, oldest first."""
        return [given for kind, _, given in self.backend.seen if kind == what]

    def opsdeck(self, *words: str, typed: str | None = None) -> Done:
        """`opsdeck rollout …` against this engine; see `command`."""
        return command("--home", str(self.path), "rollout", *words, typed=typed)


def command(*words: str, typed: str | None = None) -> Done:
    """`opsdeck …` in this process; `typed` is what a person at a terminal types, None: no terminal."""
    out = io.StringIO() if typed is None else Terminal()
    err = io.StringIO()
    given = io.StringIO() if typed is None else Terminal(typed)
    with redirect_stdout(out), redirect_stderr(err), mock.patch("sys.stdin", given):
        code = main([*words])
    return Done(code, out.getvalue(), err.getvalue())


def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds; AssertionError if it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.01)
