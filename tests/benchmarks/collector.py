"""What it costs to watch a fleet of 20 services with two variants each, 50 requests/s a service.

Every service shows 125 buckets for success and for one kind of error in each variant, the layout
of the embedded gateway. CPU is that of the collector's own thread, so that the targets, which run
in another thread, do not count.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from aiohttp import web

from engine.config import Config
from engine.monitoring.collector import Collector
from engine.monitoring.history import History
from engine.monitoring.history_store import COARSE_S, FINE_S, MIDDLE_S, Store
from engine.monitoring.points import Point
from engine.monitoring.sources.exposition import Parser
from tests.benchmarks.figure import Figure

SERVICES, VARIANTS, RPS = 20, ("champion", "challenger"), 50
BOUNDS = tuple(0.0005 * 1.1**i for i in range(125))
NAME = "http_server_request_duration_seconds"


class Fleet:
    """The counters of all services, and their expositions."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        shape = (SERVICES, len(VARIANTS), 2, len(BOUNDS) + 1)
        self.own = np.zeros(shape, dtype=np.int64)
        self.texts: list[str] = []
        self.live()

    def live(self) -> None:
        """One more second of traffic everywhere."""
        for index in np.ndindex(self.own.shape[:2]):
            some = self.rng.lognormal(np.log(0.02), 0.8, RPS // len(VARIANTS))
            self.own[index][0] += np.bincount(np.searchsorted(BOUNDS, some),
                                              minlength=len(BOUNDS) + 1)
            self.own[index][1][60] += self.rng.random() < 0.1
        self.texts = [self._text(n) for n in range(SERVICES)]

    def _text(self, n: int) -> str:
        lines = [f"# TYPE {NAME} histogram"]
        edges = [*map(str, BOUNDS), "+Inf"]
        for v, variant in enumerate(VARIANTS):
            for e, error in enumerate(("", "timeout")):
                labels = f'service="s{n}",variant="{variant}",error_type="{error}"'
                total = self.own[n][v][e].cumsum().tolist()
                lines += [f'{NAME}_bucket{{{labels},le="{edge}"}} {count}.0'
                          for edge, count in zip(edges, total, strict=True)]
            pair = f'service="s{n}",variant="{variant}"'
            lines += [f"http_server_active_requests{{{pair}}} 2.0",
                      f"opsdeck_traffic_weight_percent{{{pair}}} 50.0",
                      f'opsdeck_model_info{{{pair},version="7"}} 1.0']
        return "\n".join(lines) + "\n"


class Memory:
    """A source whose text is already here: what is left is reading and folding it."""

    def __init__(self, fleet: Fleet, n: int) -> None:
        self.name, self._fleet, self._n, self._parser = f"s{n}", fleet, n, Parser()

    async def read(self):
        return self._parser.parse(self._fleet.texts[self._n])

    async def close(self) -> None:
        return None


def collector(urls: list[str], **more) -> Collector:
    limits = {"p99_ms": {"above": 500}, "error_ratio": {"above": 0.05}, "age_s": {"above": 30}}
    config = Config.model_validate({"services": {
        f"s{n}": {"scrape": [url], "limits": limits} for n, url in enumerate(urls)}})
    return Collector(config, None, on_event=lambda *_: None, on_tick=lambda: None, **more)


async def cpu_of_a_tick(watch: Collector, fleet: Fleet, at: list[float], ticks: int = 20) -> float:
    """Median CPU in ms of a tick and of the rows for the consoles."""
    await watch.open()
    spent = []
    for _ in range(ticks):
        fleet.live()
        at[0] += 1.0
        began = time.thread_time()
        await watch.tick(at[0])
        watch.services()
        spent.append(time.thread_time() - began)
    await watch.close()
    return 1000 * sorted(spent[5:])[len(spent[5:]) // 2]


def folded() -> Figure:
    fleet, at = Fleet(), [0.0]

    async def open_sources(urls, deadline_s):
        return {url: Memory(fleet, n) for n, url in enumerate(urls)}

    watch = collector([f"http://s{n}/" for n in range(SERVICES)], open_sources=open_sources,
                      monotonic=lambda: at[0])
    ms = asyncio.run(cpu_of_a_tick(watch, fleet, at))
    return Figure("collector: parse, fold, judge and rows of 20×2, CPU a second", ms, "ms", 20,
                  "lower", f"{sum(text.count(chr(10)) for text in fleet.texts)} lines")


def scraped() -> Figure:
    fleet, at = Fleet(), [0.0]
    ready, port, done = threading.Event(), [0], threading.Event()

    async def serve() -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.Response(text=fleet.texts[int(request.match_info["n"])])
        app = web.Application()
        app.router.add_get("/{n}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port[0] = runner.addresses[0][1]
        ready.set()
        await asyncio.to_thread(done.wait)
        await runner.cleanup()

    server = threading.Thread(target=lambda: asyncio.run(serve()))
    server.start()
    try:
        ready.wait(10)
        watch = collector([f"http://127.0.0.1:{port[0]}/{n}" for n in range(SERVICES)],
                          monotonic=lambda: at[0])
        ms = asyncio.run(cpu_of_a_tick(watch, fleet, at))
    finally:
        done.set()
        server.join()
    return Figure("collector: the same with 20 targets over HTTP (httpx), CPU a second", ms, "ms",
                  50, "lower", "the issue asks for httpx; it is most of this")


def parser() -> list[Figure]:
    from prometheus_client.parser import text_string_to_metric_families
    fleet, reader = Fleet(), Parser()
    before = "".join(fleet.texts)
    fleet.live()
    texts = [before, "".join(fleet.texts)]
    lines = texts[0].count("\n")

    def best(work, times: int) -> float:
        spent = []
        for n in range(times):
            began = time.thread_time()
            work(texts[n % 2])
            spent.append(time.thread_time() - began)
        return 1e6 * min(spent) / lines

    first = best(reader.parse, 1)
    ours = best(reader.parse, 10)
    theirs = best(lambda text: list(text_string_to_metric_families(text)), 2)
    return [Figure("collector: parser, CPU a line", ours, "us", 1, "lower",
                   f"{first:.1f} us the first time a line is seen"),
            Figure("collector: parser, times as fast as prometheus_client", theirs / ours, "x", 20,
                   "higher")]


def a_point(rng: np.random.Generator, seconds: int = 1) -> Point:
    some = rng.lognormal(np.log(0.02), 0.8, seconds * RPS // len(VARIANTS))
    own = np.bincount(np.searchsorted(BOUNDS, some), minlength=len(BOUNDS) + 1).tolist()
    return Point(seconds, len(some), {"timeout": 1.0} if rng.random() < 0.1 else {}, 2.0, BOUNDS,
                 {n: float(count) for n, count in enumerate(own) if count})


def history() -> list[Figure]:
    """Half an hour is written as it would be; from its rows follows what days take."""
    rng = np.random.default_rng(2)
    at = [1_795_000_000.0]
    pool = [{variant: a_point(rng) for variant in VARIANTS} for _ in range(500)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        kept = History(path, keep_s=7 * 86400, clock=lambda: at[0], on_event=lambda *_: None)

        async def live(seconds: int) -> float:
            spent = time.process_time()
            for second in range(seconds):
                for n in range(SERVICES):
                    kept.record(f"s{n}", at[0], pool[(second * SERVICES + n * 7) % len(pool)])
                at[0] += 1
                if second % 10 == 9:
                    await kept.flush()
            spent = time.process_time() - spent
            await kept.close()
            return 1000 * spent / seconds

        ms = asyncio.run(live(1800))
        with sqlite3.connect(path) as db:
            rows = {step: (count, size) for step, count, size in db.execute(
                "SELECT step, count(*), sum(length(body)) FROM points GROUP BY step")}
        full = path.stat().st_size / sum(size for _, size in rows.values())
        each = {step: full * size / count for step, (count, size) in rows.items()}
    day = each[COARSE_S] * 1440 * SERVICES / 1e6
    whole = (each[FINE_S] * 900 + each[MIDDLE_S] * 2160 + each[COARSE_S] * 10080) * SERVICES / 1e6
    sizes = ", ".join(f"{each[step]:.0f} B each {step} s" for step in (FINE_S, MIDDLE_S, COARSE_S))
    return [Figure("history: CPU a second to keep 20×2", ms, "ms", 10, "lower", "worker's thread"),
            Figure("history: kept a day, 20×2", day, "MB", 20, "lower", sizes),
            Figure("history: largest file, seven days of 20×2", whole, "MB", 150, "lower")]


def read_a_week() -> Figure:
    rng = np.random.default_rng(3)
    pool = [{variant: a_point(rng, 60) for variant in VARIANTS} for _ in range(50)]
    begun = 1_795_000_020
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        store = Store(path, 8 * 86400)
        with store._transaction():
            for n in range(10080):
                store._put(COARSE_S, "s0", begun + 60 * n, pool[n % len(pool)])
        store.close()
        kept = History(path, keep_s=8 * 86400, clock=lambda: begun + 7 * 86400.0,
                       on_event=lambda *_: None)

        async def read() -> float:
            began = time.perf_counter()
            found = await kept.read("s0", 7 * 86400, 160)
            took = time.perf_counter() - began
            assert len(found.values["*/p99_ms"]) > 150
            await kept.close()
            return 1000 * took

        return Figure("history: read seven days of a service in 160 columns",
                      asyncio.run(read()), "ms", 1000, "lower", "off the event loop")


def figures() -> list[Figure]:
    return [folded(), scraped(), *parser(), *history(), read_a_week()]
