"""A real HTTP target that can be told to misbehave, a clock that stands still, and waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine.config import Config

BUCKETS = [0.0005 * 1.1**i for i in range(125)]
PAIR = ["service", "variant"]


class Target:
    """A service's metrics over HTTP, in the exposition of prometheus_client itself.

    `mode`: well, slow, dripping, status, redirect, huge, html, packed, rubbish, cut_off, binary,
    empty, hangs_up. `asked` counts the requests that came.
    """

    def __init__(self) -> None:
        self.mode = "well"
        self.asked = 0
        self.buckets = BUCKETS
        self.restart()
        self._release = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def restart(self) -> None:
        """Begin all counters again, as a restarted process does."""
        self.registry = CollectorRegistry()
        make = {"registry": self.registry}
        self.durations = Histogram("http_server_request_duration_seconds", "", [
            *PAIR, "error_type"], buckets=self.buckets, **make)
        self.active = Gauge("http_server_active_requests", "", PAIR, **make)
        self.weight = Gauge("opsdeck_traffic_weight_percent", "", PAIR, **make)
        self.lease = Gauge("opsdeck_traffic_lease_seconds", "", ["service"], **make)
        self.info = Gauge("opsdeck_model_info", "", [*PAIR, "version"], **make)
        self.units = Counter("opsdeck_units", "", PAIR, **make)
        self.unit_failures = Counter("opsdeck_unit_failures", "", [*PAIR, "error_type"], **make)
        self.predictions = Counter("opsdeck_predictions", "", [*PAIR, "bin"], **make)

    def carries(self, service: str, **versions: str) -> None:
        """Name variants of a service with their versions, traffic split evenly."""
        for variant, version in versions.items():
            self.info.labels(service, variant, version).set(1)
            self.weight.labels(service, variant).set(100 / len(versions))
            self.active.labels(service, variant).set(0)

    def serve(self, service: str, variant: str, seconds: float, times: int = 1,
              error: str = "") -> None:
        for _ in range(times):
            self.durations.labels(service, variant, error).observe(seconds)

    @property
    def text(self) -> str:
        return generate_latest(self.registry).decode()

    async def start(self, port: int = 0) -> None:
        app = web.Application()
        app.router.add_get("/{any:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port or self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self._release.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._release = asyncio.Event()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        metrics = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        match self.mode:
            case "slow":
                await self._release.wait()
            case "dripping":
                return await self._drip(request, b"# one more\n", pause=True)
            case "huge":
                return await self._drip(request, b"# one more line\n" * 65536, pause=False)
            case "hangs_up":
                assert request.transport is not None
                request.transport.abort()
            case "status":
                return web.Response(status=503, text="overloaded")
            case "redirect":
                raise web.HTTPFound("http://user:hidden@127.0.0.1:1/elsewhere?key=hidden")
            case "html":
                return web.Response(text="<html>Log in</html>", content_type="text/html")
            case "packed":
                packed = web.Response(text=self.text, headers=metrics)
                packed.enable_compression(web.ContentCoding.gzip)
                return packed
            case "binary":
                return web.Response(body=b"\xff\xfe\x00" * 99, headers=metrics)
            case "rubbish":
                return web.Response(text=self.text.replace(' 0.0\n', ' zero\n'), headers=metrics)
            case "cut_off":
                return web.Response(text=self.text[:len(self.text) // 2].rstrip(), headers=metrics)
            case "empty":
                return web.Response(text="# nothing of ours\nup 1\n", headers=metrics)
        return web.Response(text=self.text, headers=metrics)

    async def _drip(self, request: web.Request, piece: bytes, pause: bool) -> web.StreamResponse:
        form = "application/json" if "/api/" in request.path else "text/plain"
        response = web.StreamResponse(headers={"Content-Type": form})
        await response.prepare(request)
        with suppress(ConnectionError):
            while not self._release.is_set():
                await response.write(piece)
                if pause:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._release.wait(), 0.05)
        return response


class Clock:
    """Time that moves only when told to: `wall` and `monotonic` in seconds."""

    def __init__(self) -> None:
        self.mono = 1000.0
        self.wall = 1_795_000_000.0

    def monotonic(self) -> float:
        return self.mono

    def time(self) -> float:
        return self.wall

    def pass_(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def targets() -> AsyncIterator[Callable]:
    """Starts another running target at each call."""
    started: list[Target] = []

    async def start() -> Target:
        target = Target()
        await target.start()
        started.append(target)
        return target

    yield start
    for target in started:
        await target.stop()


@pytest.fixture
async def target(targets) -> Target:
    return await targets()


@pytest.fixture
def config_of() -> Callable[..., Config]:
    """A config from services as they would be written in YAML, and settings of the engine."""
    def make(services: dict, **engine: object) -> Config:
        return Config.model_validate({"services": services, "engine": engine})
    return make


@pytest.fixture
def history_file(tmp_path: Path) -> Path:
    return tmp_path / "history.db"
