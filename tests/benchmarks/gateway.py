"""What the gateway adds to a request, and what it and a model server weigh.

The gateway runs alone on the first core, with everything on: split between two variants, metrics
scraped each second, prediction log with redaction, correlation and trace ids, units and bins. The
load and the trivial variant share the last core. All of it is on the loopback interface.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.serving.instruments import BOUNDS, quantile
from tests.benchmarks.figure import Figure
from tests.benchmarks.http_load import BODY
from tests.serving.harness import call, free_port
from tests.serving.onnx_models import write_model

CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE, LOAD_CORE = CORES[0], CORES[-1]
THROUGHPUT_S, ROUNDS, ROUND_S, RPS = 5, 4, 3.0, 500


def figures() -> list[Figure]:
    """Takes about a minute."""
    with tempfile.TemporaryDirectory(prefix="gw") as directory:
        home = Path(directory)
        with _process("tests.benchmarks.trivial_upstream", str(upstream := free_port()),
                      core=LOAD_CORE):
            measured = _gateway(home, upstream)
        measured += _model_server(write_model(home / "model"), home)
    return [*measured, _histogram_error()]


def _gateway(home: Path, upstream: int) -> list[Figure]:
    port = free_port()
    config = home / "gateway.json"
    variants = ("champion", "challenger")
    config.write_text(json.dumps({
        "service": "flights", "port": port, "admin_socket": str(home / "admin.sock"),
        "state_file": str(home / "state.json"), "champion": "champion",
        "variants": {name: {"url": f"http://127.0.0.1:{upstream}"} for name in variants},
        "initial_weights": {"champion": 95, "challenger": 5},
        "prediction_bins": {"output": "late_probability", "edges": [n / 10 for n in range(1, 10)]},
        "prediction_log": {"path": str(home / "log" / "p.jsonl"), "redact": ["hash:carrier"]}}))
    with _process("engine.serving.gateway", "--config", str(config), core=GATEWAY_CORE) as gateway:
        _until_ready(port)
        _closed_loop(port, 1)
        requests_per_s, tool = _closed_loop(port, THROUGHPUT_S)
        with _scraped(port):
            added = _added_p99(upstream, port)
            call(home / "admin.sock", "PUT", "/mirror",
                 {"variant": "challenger", "percent": 100, "lease_s": 600})
            mirrored = _added_p99(upstream, port)
        memory = _pss_mb(gateway.pid)
        dropped = re.search(rb"dropped_total{.*} (\S+)", call(port, "GET", "/metrics").body)
    shared = "" if GATEWAY_CORE != LOAD_CORE else "; one core only, shared with the load"
    lost = float(dropped[1]) if dropped else math.nan
    return [
        Figure("gateway: requests/s on one core, everything on", requests_per_s, "requests/s",
               3000, "higher", f"{tool}, 16 connections; {lost:g} log records dropped{shared}"),
        Figure("gateway: added p99 at 500 requests/s", added["p99"], "ms", 5, "lower",
               f"open loop; p50 +{added['p50']:.2f} ms; direct p99 {added['direct']:.2f} ms{shared}"),
        Figure("gateway: added p99 at 500 requests/s, all of them mirrored", mirrored["p99"], "ms", 5,
               "lower", f"p50 +{mirrored['p50']:.2f} ms{shared}"),
        Figure("gateway: memory after the load (PSS)", memory, "MB", 60, "lower"),
    ]


def _closed_loop(port: int, seconds: int) -> tuple[float, str]:
    """Requests per second, and what made them."""
    if (wrk := shutil.which("wrk")) is None:
        done = _load(port, "--seconds", str(seconds))
        return done["requests"] / done["seconds"], "own load generator"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\n"
                     "wrk.headers['content-type'] = 'application/json'\n")
        script.flush()
        shown = _on_core(LOAD_CORE, wrk, "-t1", "-c16", f"-d{seconds}", "-s", script.name,
                         f"http://127.0.0.1:{port}/invocations")
    if "Non-2xx" in shown or "Socket errors" in shown:
        raise RuntimeError(f"The load was not answered as it should be:\n{shown}")
    return float(shown.partition("Requests/sec:")[2].split()[0]), "wrk"


def _added_p99(upstream: int, port: int) -> dict[str, float]:
    """Percentiles through the gateway less those without it, in ms, from alternating rounds."""
    direct: list[float] = []
    through: list[float] = []
    for _ in range(ROUNDS):
        for latencies, where in ((direct, upstream), (through, port)):
            done = _load(where, "--rps", str(RPS), "--seconds", str(ROUND_S))
            if done["failed"]:
                raise RuntimeError(f"{done['failed']} requests failed.")
            latencies += done["latencies_ms"]
    p50 = [float(np.quantile(one, 0.5)) for one in (direct, through)]
    p99 = [float(np.quantile(one, 0.99)) for one in (direct, through)]
    return {"p50": p50[1] - p50[0], "p99": p99[1] - p99[0], "direct": p99[0]}


def _model_server(model: Path, home: Path) -> list[Figure]:
    starts = []
    memory = 0.0
    for _ in range(5):
        port = free_port()
        began = time.perf_counter()
        with _process("engine.serving.model_server", "--model", str(model), "--port", str(port),
                      core=LOAD_CORE) as server:
            _until_ready(port)
            starts.append(time.perf_counter() - began)
            row = {"inputs": {"distance": [1.0], "temp": [2.0], "hour": [3]}}
            for _ in range(50):
                call(port, "POST", "/invocations", row)
            memory = _pss_mb(server.pid)
    return [Figure("model server: start to first answer", statistics.median(starts), "s", 0.3,
                   "lower", f"median of 5, the quickest {min(starts):.2f} s; "
                            f"the interpreter and onnxruntime alone take {_imports():.2f} s"),
            Figure("model server: memory (PSS)", memory, "MB", 65, "lower", "a linear model")]


def _imports() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import onnxruntime"], check=True)
    return time.perf_counter() - began


def _histogram_error() -> Figure:
    """The largest relative error of p99 over log-normal latencies from 0.2 ms to 60 s, in %."""
    rng = np.random.default_rng(20)
    worst, note = 0.0, ""
    for median in (0.001, 0.005, 0.02, 0.1, 0.5, 2.0):
        for sigma in (0.2, 0.5, 1.0):
            drawn = np.sort(rng.lognormal(math.log(median), sigma, 50_000).clip(0.0002, 60.0))
            counts = np.bincount(np.searchsorted(BOUNDS, drawn), minlength=len(BOUNDS) + 1)
            estimate = quantile(counts.tolist(), 0.99)
            assert estimate is not None
            error = abs(estimate / float(np.quantile(drawn, 0.99)) - 1) * 100
            if error > worst:
                worst, note = error, f"worst: median {median * 1000:g} ms, sigma {sigma:g}"
    return Figure("gateway: error of p99 on log-normal latencies", worst, "%", 5, "lower", note)


@contextlib.contextmanager
def _process(module: str, *arguments: str, core: int) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        yield started
    finally:
        started.terminate()
        started.wait(15)


def _on_core(core: int, *command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120,
                          preexec_fn=lambda: os.sched_setaffinity(0, {core})).stdout


def _load(port: int, *arguments: str) -> dict[str, Any]:
    shown = _on_core(LOAD_CORE, sys.executable, "-m", "tests.benchmarks.http_load", str(port),
                     *arguments)
    done: dict[str, Any] = json.loads(shown)
    return done


def _until_ready(port: int, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if call(port, "GET", "/ping").status == 200:
                return
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


@contextlib.contextmanager
def _scraped(port: int) -> Iterator[None]:
    """A scrape each second, as the collector makes them."""
    stop = threading.Event()

    def scrape() -> None:
        while not stop.wait(1.0):
            call(port, "GET", "/metrics")

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _pss_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


if __name__ == "__main__":
    for figure in figures():
        print(f"{figure.name}: {figure.value:.2f} {figure.unit} (target {figure.target:g}) "
              f"{figure.note}")
