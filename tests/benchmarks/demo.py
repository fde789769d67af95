"""The demo: how long each part of its set-up takes, from raw flights to live traffic, and its memory.

The parts run as the procedure `setup` runs them, in a new home, with what can run side by side side
by side; the engine's own share (a few tenths of a second) is not in it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure


def figures() -> list[Figure]:
    """Set up a demo, let it run for a quarter of a minute, take its measure, and end it."""
    with tempfile.TemporaryDirectory(prefix="opsdeck-demo-") as folder:
        return asyncio.run(_measure(Path(folder)))


async def _measure(home: Path) -> list[Figure]:
    import yaml

    from engine.config import Config
    from engine.demo import configs
    from engine.demo.layout import RPS
    from engine.supervision.supervisor import ProcessSupervisor, processes

    parts: list[tuple[str, float]] = []
    begun = last = time.monotonic()

    def part(name: str) -> None:
        nonlocal last
        now = time.monotonic()
        parts.append((name, now - last))
        last = now

    layout = configs.prepare(home, running=False)
    supervisor = ProcessSupervisor(home, processes(Config.model_validate(
        yaml.safe_load(layout.config.read_text()))))
    try:
        gateway = asyncio.create_task(supervisor.start("flights/gateway"))
        await _step(home, "prepare")
        await gateway
        part("read the flights")
        await asyncio.gather(*(_step(home, "train", "--variant", variant)
                               for variant in ("champion", "challenger")))
        part("train both, side by side")
        await _step(home, "register")
        part("log and register both")
        await asyncio.gather(*(supervisor.start(f"flights/{variant}")
                               for variant in ("champion", "challenger")))
        part("start both model servers")
        await supervisor.start("flights/replayer")
        await _until(lambda: layout.predictions.exists() and layout.predictions.stat().st_size)
        part("start the traffic, first prediction")
        total = time.monotonic() - begun
        await _until(lambda: _status(layout.replayer).get("sent", 0) > 15 * RPS)
        status = _status(layout.replayer)
        memory = {name: _pss_mb((await supervisor.status(f"flights/{name}")).pid or 0)
                  for name in ("champion", "challenger", "gateway", "replayer")}
    finally:
        await supervisor.stop_all()
    rate = status["sent"] / (status["at"] - status["started"])
    return [
        Figure("demo: from a warm install to live traffic", total, "s", 40.0, "lower",
               ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts)),
        Figure("demo: memory of servers, gateway and traffic", sum(memory.values()), "MB PSS",
               500.0, "lower", ", ".join(f"{name} {mb:.0f}" for name, mb in memory.items())),
        Figure("demo: memory of the replayer", memory["replayer"], "MB PSS", 80.0, "lower"),
        Figure("demo: rate of the traffic, 50 asked for", rate, "requests/s", 0.98 * RPS, "higher",
               f"{sum(status['errors'].values())} errors in {status['sent']}"),
    ]


async def _step(home: Path, module: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"engine.demo.{module}", "--home", str(home), *arguments,
        stdout=subprocess.DEVNULL)
    if await process.wait() != 0:
        raise RuntimeError(f"the demo's step {module} failed")


async def _until(condition: Any, within: float = 60.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the demo's traffic did not start")
        await asyncio.sleep(0.05)


def _status(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.exists() else {}


def _pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
