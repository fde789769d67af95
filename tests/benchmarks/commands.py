"""How long the short commands take from a cold process, and one call over the socket.

The engine behind them is the real daemon on an in-memory backend: what is measured is the command,
the client and the server.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from engine import home as homes
from engine.api.light import Client
from engine.daemon import lifecycle
from tests.benchmarks.figure import Figure
from tests.daemon.opsdeck_in_memory import PROGRAM

COMMAND = (sys.executable, "-P", "-c", "import sys; from engine.cli.main import main; sys.exit(main())")
TIMES = 20


def cold(*words: str, home: Path | None = None) -> list[float]:
    """Milliseconds of each of so many fresh processes."""
    env = {**os.environ, "OPSDECK_HOME": str(home)} if home else None
    took = []
    for _ in range(TIMES):
        before = time.perf_counter()
        subprocess.run([*COMMAND, *words], check=True, capture_output=True, env=env)
        took.append(1000 * (time.perf_counter() - before))
    return took


def calls(socket: Path) -> float:
    """Median milliseconds of a call."""
    light, took = Client(socket), []
    for _ in range(200):
        before = time.perf_counter()
        light.status()
        took.append(1000 * (time.perf_counter() - before))
    return statistics.median(took)


def figures() -> list[Figure]:
    bare = statistics.median(_bare())
    with tempfile.TemporaryDirectory() as folder:
        home = homes.at(Path(folder) / "home")
        lifecycle.PROGRAM = PROGRAM
        before = time.perf_counter()
        lifecycle.start(home)
        start = 1000 * (time.perf_counter() - before)
        try:
            version = cold("--version")
            status = cold("status", home=home.path)
            light = calls(home.socket)
        finally:
            lifecycle.stop(home, timeout=10, force=True)
    return [
        Figure("opsdeck --version, cold", statistics.median(version), "ms", 80, "lower",
               f"bare python {bare:.0f} ms, worst of {TIMES} {max(version):.0f} ms"),
        Figure("opsdeck status, cold", statistics.median(status), "ms", 250, "lower",
               f"worst of {TIMES} {max(status):.0f} ms"),
        Figure("API call over the socket", light, "ms", 5, "lower",
               "GET /v1/status, a connection each"),
        Figure("engine start until its socket answers", start, "ms", 2000, "lower",
               "daemon alone, without journal and collectors")]


def _bare() -> list[float]:
    took = []
    for _ in range(TIMES):
        before = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        took.append(1000 * (time.perf_counter() - before))
    return took


if __name__ == "__main__":
    for figure in figures():
        print(f"{figure.name:<45} {figure.value:8.1f} {figure.unit}  (target {figure.target:g})  "
              f"{figure.note}")
