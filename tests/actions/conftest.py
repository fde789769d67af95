"""A context for actions: weights in memory, signals from a script, time that the test moves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.actions import register
from engine.config import Config
from engine.errors import NotFound
from engine.procedures.actions import Action, Context, ProcessStatus, Registry


class Weights:
    """A router without a network. `shift` is what happens to the weights; a test may replace it."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.now = dict(weights)
        self.asked: list[tuple[dict[str, float], float | None]] = []

    async def read(self, service: str) -> dict[str, float]:
        return dict(self.now)

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        self.asked.append((dict(weights), lease_s))
        self.now = dict(weights)
        return dict(self.now)


class Script:
    """Signals as a function of time, by (service, variant)."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.of: dict[tuple[str, str | None], Callable[[float], Mapping[str, Any]]] = {}

    def read(self, service: str, variant: str | None = None) -> Mapping[str, Any]:
        try:
            return self.of[service, variant](self._world.time)
        except KeyError:
            raise NotFound(f"There is no {variant or service}.") from None


class Recorded:
    """A supervisor that only keeps books; the real one has tests of its own."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.of: dict[str, ProcessStatus] = {}
        self.did: list[str] = []

    async def status(self, name: str) -> ProcessStatus:
        if name not in self.of:
            raise NotFound(f"There is no process {name} in the config.")
        return self.of[name]

    async def start(self, name: str) -> ProcessStatus:
        self.did.append(f"start {name}")
        if (await self.status(name)).state != "running":
            self.of[name] = ProcessStatus(name, "running", 4712, self._world.time, True)
        return self.of[name]

    async def stop(self, name: str, grace_s: float = 10.0) -> ProcessStatus:
        self.did.append(f"stop {name} grace {grace_s:g}")
        self.of[name] = ProcessStatus(name, "stopped", None, None, None)
        return self.of[name]


@dataclass
class World:
    """Everything one test may arrange and look at."""

    time: float = 1_700_000_000.0
    logged: list[str] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    config: Config = field(default_factory=Config)
    router: Any = None

    def __post_init__(self) -> None:
        self.router = Weights({"champion": 95.0, "challenger": 5.0})
        self.signals = Script(self)
        self.supervisor = Recorded(self)
        self.registry = Registry()
        register(self.registry)

    async def _sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)

    @property
    def context(self) -> Context:
        return Context(run="r-1", step="look", attempt=2, router=self.router,
                       supervisor=self.supervisor, signals=self.signals, secrets=self.secrets,
                       log=self.logged.append, clock=lambda: self.time, sleep=self._sleep,
                       extra={"config": self.config})

    def action(self, name: str) -> Action[Any]:
        found = self.registry.get(name)
        assert found is not None
        return found

    async def run(self, name: str, **params: Any) -> dict[str, Any]:
        action = self.action(name)
        assert action.run is not None
        return await action.run(self.context, action.params.model_validate(params))

    async def preview(self, name: str, **params: Any) -> Any:
        action = self.action(name)
        assert action.preview is not None
        return await action.preview(self.context, action.params.model_validate(params))


@pytest.fixture
def world() -> World:
    return World()


@dataclass
class Site:
    """An HTTP server that answers with `answer` (raw bytes; b"" hangs up) after `delay` seconds."""

    url: str = ""
    answer: bytes = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    delay: float = 0.0
    requests: list[str] = field(default_factory=list)

    def says(self, status: str, body: str = "", kind: str = "application/json") -> None:
        self.answer = (f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n"
                       f"content-length: {len(body.encode())}\r\n\r\n{body}").encode()

    def says_json(self, value: Any) -> None:
        self.says("200 OK", json.dumps(value))


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    page = Site()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n")
                      if line.startswith(b"content-length:")]
            body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
            page.requests.append((head + body).decode())
            await asyncio.sleep(page.delay)
            writer.write(page.answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        page.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield page
