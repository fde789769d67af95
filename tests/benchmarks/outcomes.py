"""What it costs to join 100 predictions a second with their labels, and to take up where an engine ended.

The log's lines are those that the gateway writes for the demo's flights. CPU is the whole process's.
"""

from __future__ import annotations

import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.config import Outcomes, Service
from engine.monitoring.outcome_reader import OutcomeReader
from tests.benchmarks.figure import Figure
from tests.monitoring.strata import summed

RPS, SECONDS, HOUR = 100, 600, 3600
FEATURES = {name: [17.25] for name in (
    "carrier", "origin", "month", "hour", "weekday", "distance", "dep_delay", "temp", "dewp", "humid",
    "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")}


def predictions(first: int, count: int, at: float) -> bytes:
    return b"".join(json.dumps({
        "at": at, "correlation_id": f"a1b2c3d4-{i}-UA1545", "trace_id": "0123456789abcdef" * 2,
        "service": "flights", "variant": "champion" if i % 10 else "challenger", "version": "1",
        "key_hash": "00000000000000ff", "latency_ms": 2.841, "status": 200, "error_type": "",
        "features": FEATURES, "predictions": [{"probability": 0.2271873950958252}], "omitted": None},
        separators=(",", ":")).encode() + b"\n" for i in range(first, first + count))


def labels(first: int, count: int, at: float) -> bytes:
    return b"".join(json.dumps({
        "at": at, "correlation_id": f"a1b2c3d4-{i}-UA1545", "key": "N14228",
        "landed": "2013-04-01T05:00:00Z", "late": i % 5 == 0, "delay_min": 12}).encode() + b"\n"
        for i in range(first, first + count))


def figures() -> list[Figure]:
    return list(asyncio.run(_measured()))


async def _measured() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        service = Service(outcomes=Outcomes(predictions=home / "p", labels=home / "l", label="late"))
        found = [*await _following(service), *await _reading_back(service)]
    return iter(found)


async def _following(service: Service) -> list[Figure]:
    """`SECONDS` looks of a second each, without the waiting between them."""
    outcomes, now = service.outcomes, time.time()
    assert outcomes is not None
    reader = OutcomeReader({"flights": service}, lambda: now)
    await reader.look()
    spent, n = 0.0, 0
    with outcomes.predictions.open("ab", 0) as log, outcomes.labels.open("ab", 0) as truth:
        for second in range(SECONDS):
            log.write(predictions(second * RPS, RPS, now))
            if second >= 10:
                truth.write(labels((second - 10) * RPS, RPS, now))
            begun = time.process_time()
            await reader.look()
            n += sum(one for one, _ in summed(reader.take("flights")).values())
            spent += time.process_time() - begun
    assert n == (SECONDS - 10) * RPS
    return [Figure("CPU at 100 predictions and 100 labels a second", 100 * spent / SECONDS, "%", 1, "lower",
                   "of one core")]


async def _reading_back(service: Service) -> list[Figure]:
    """An hour of predictions, read when an engine starts; all of them then wait."""
    outcomes, now = service.outcomes, time.time()
    assert outcomes is not None
    big = outcomes.model_copy(update={"waiting": 2 * RPS * HOUR})
    outcomes.predictions.write_bytes(b"")
    with outcomes.predictions.open("ab") as log:
        for second in range(HOUR // 4):
            log.write(predictions(second * RPS, RPS, now))
    size = outcomes.predictions.stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reader = OutcomeReader({"flights": Service(outcomes=big)}, lambda: now)
    begun = time.perf_counter()
    longest, done = 0.0, asyncio.create_task(reader.look())
    while not done.done():
        before = time.perf_counter()
        await asyncio.sleep(0)
        longest = max(longest, time.perf_counter() - before)
    took = time.perf_counter() - begun
    tally = reader.tally("flights")
    assert tally is not None
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
    return [
        Figure("15 minutes of predictions read back at the start", took, "s", 5, "lower",
               f"{tally.predictions:,} lines, {size >> 20} MiB"),
        Figure("longest hold of the event loop meanwhile", 1000 * longest, "ms", 50, "lower"),
        Figure("memory of a prediction that waits", grown / max(1, tally.predictions), "B", 500, "lower",
               "250,000 may wait, if not told otherwise")]
