"""Routers and leases: a real HAProxy, a real watchdog, an engine-like process that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from engine.config_routers import HAProxy
from engine.rollout.traffic.haproxy import HAProxyRouter
from engine.rollout.traffic.leases import Leases
from engine.rollout.traffic.verify import judge
from tests.benchmarks.figure import Figure
from tests.rollout.traffic.haproxies import SERVERS, RealHAProxy, running
from tests.serving.harness import wait_for

ENGINE = Path(__file__).parents[1] / "rollout/traffic/leasing_engine.py"
LEASE_S = 2.0
KILLS = 5


def figures() -> list[Figure]:
    with running() as proxy, tempfile.TemporaryDirectory(prefix="bt") as folder:
        leases = Leases(Path(folder))
        found = [_shift(proxy)]
        began = time.monotonic()
        leases.ensure_watchdog()
        started = time.monotonic() - began
        pid = leases.watchdog() or 0
        try:
            after = [_killed(proxy, leases) for _ in range(KILLS)]
            memory = psutil.Process(pid).memory_info().rss / 2**20
        finally:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: leases.watchdog() is None, "the watchdog's end")
    return [
        *found,
        Figure("watchdog: started and watching", started, "s", 1.0, "lower"),
        Figure("engine killed: champion has all requests, from the last renewal", max(after), "s",
               LEASE_S + 0.5, "lower", f"the slowest of {KILLS}, lease {LEASE_S:g} s"),
        Figure("watchdog: memory", memory, "MiB", 64.0, "lower"),
        Figure("requests until a 5 % that gets none is found out", judge(
            {"champion": 95.0, "challenger": 5.0}, {}).short, "", 1000, "lower", "α = 1e-6"),
    ]


def _shift(proxy: RealHAProxy) -> Figure:
    router = HAProxyRouter({"flights": HAProxy(kind="haproxy", socket=proxy.admin, backend="flights",
                                               servers=SERVERS)})

    async def times() -> list[float]:
        taken = []
        for percent in range(100):
            began = time.monotonic()
            await router.shift("flights", {"champion": 100.0 - percent, "challenger": float(percent)})
            taken.append((time.monotonic() - began) * 1000)
        return taken

    return Figure("HAProxy: a shift, read back (p95)", statistics.quantiles(asyncio.run(times()), n=20)[-1],
                  "ms", 50.0, "lower")


def _killed(proxy: RealHAProxy, leases: Leases) -> float:
    """Seconds from the last renewal to the last request that is not the champion's."""
    proxy.tell("set weight flights/s1 100;set weight flights/s2 0")
    config = leases.folder.parent / "opsdeck.yaml"
    config.write_text(json.dumps({"services": {"flights": {"router": {
        "kind": "haproxy", "socket": str(proxy.admin), "backend": "flights", "servers": SERVERS}}}}))
    engine = subprocess.Popen([sys.executable, str(ENGINE), str(leases.folder.parent), str(config),
                               str(LEASE_S), "50"], stdout=subprocess.PIPE, text=True)
    assert engine.stdout is not None
    for _ in range(3):
        engine.stdout.readline()
    renewed = time.monotonic()
    engine.kill()
    engine.communicate()
    wait_for(lambda: proxy.ask(10) == {"champion": 10}, "the champion's traffic", LEASE_S + 10)
    return time.monotonic() - renewed
