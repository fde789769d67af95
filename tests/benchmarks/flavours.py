"""One linear model, as ONNX on our model server and as scikit-learn on MLflow's own: how many times less
the first takes. The targets are ratios, so that they hold on any machine.
"""

from __future__ import annotations

import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.benchmarks.figure import Figure
from tests.serving.harness import call, free_port, wait_for

ROW = {"inputs": {"distance": [1.0], "temp": [2.0], "hour": [3.0]}}
STARTS, REQUESTS = 3, 300
BIN = Path(sys.executable).parent


class Taken(NamedTuple):
    """Medians: start to the first 200 at /ping (s), memory of all its processes (MB PSS) after the
    requests, and one row over a new connection (ms)."""

    start_s: float
    memory_mb: float
    row_ms: float


def figures() -> list[Figure]:
    """Takes about half a minute."""
    with tempfile.TemporaryDirectory(prefix="flavours-") as folder:
        pickled = subprocess.run([sys.executable, "-m", "tests.end_to_end.mlflow_twins", folder],
                                 check=True, capture_output=True, text=True).stdout.strip()
        ours = _measure(sys.executable, "-m", "engine.serving.model_server", "--model",
                        str(Path(folder) / "onnx"))
        theirs = _measure(str(BIN / "mlflow"), "models", "serve", "-m", pickled, "--env-manager", "local",
                          "--host", "127.0.0.1")
    return [_ratio("start", theirs.start_s, ours.start_s, "s", 10),
            _ratio("memory (PSS)", theirs.memory_mb, ours.memory_mb, "MB", 4),
            _ratio("one row", theirs.row_ms, ours.row_ms, "ms", 2)]


def _ratio(what: str, theirs: float, ours: float, unit: str, target: float) -> Figure:
    return Figure(f"ONNX here against scikit-learn on MLflow's server: {what}", theirs / ours, "times",
                  target, "higher", f"{ours:.3g} {unit} against {theirs:.3g} {unit}")


def _measure(*command: str) -> Taken:
    taken = [_once(*command) for _ in range(STARTS)]
    return Taken(*(statistics.median(values) for values in zip(*taken, strict=True)))


def _once(*command: str) -> Taken:
    port = free_port()
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "UVICORN_LOG_LEVEL": "warning",
                        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}
    begun = time.perf_counter()
    server = psutil.Popen([*command, "--port", str(port)], env=env, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _answers(server, port), "the start", 120)
        start = time.perf_counter() - begun
        rows = [_row_ms(port) for _ in range(REQUESTS)]
        family = [server, *server.children(recursive=True)]
        memory = sum(each.memory_full_info().pss for each in family) / 2**20
    finally:
        server.terminate()
        server.wait(30)
    return Taken(start, memory, statistics.median(rows))


def _answers(server: psutil.Popen, port: int) -> bool:
    if server.poll() is not None:
        raise RuntimeError(f"The server ended with {server.returncode}.")
    try:
        return call(port, "GET", "/ping").status == 200
    except (OSError, http.client.HTTPException):
        return False


def _row_ms(port: int) -> float:
    begun = time.perf_counter()
    answer = call(port, "POST", "/invocations", ROW)
    if answer.status != 200:
        raise RuntimeError(f"The server answered with {answer.status}.")
    return (time.perf_counter() - begun) * 1000
