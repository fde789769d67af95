"""The demo's processes, all real: model servers, gateway and traffic, under the supervisor."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.config import Config
from engine.demo import configs, export, faults, flights, register, train
from engine.demo.layout import VARIANTS, Layout, ports
from engine.supervision.supervisor import ProcessSupervisor, processes

Live = tuple[Layout, ProcessSupervisor]


@pytest.fixture
async def live(trained: Layout, tmp_path: Path) -> AsyncIterator[Live]:
    """A running demo: prepared as `opsdeck demo` does, its models laid out as `register` does."""
    layout = configs.prepare(tmp_path, running=False, rps=200)
    (layout.root / "data").symlink_to(trained.root / "data")
    for variant, version in zip(VARIANTS, ("1", "2"), strict=True):
        register.lay_out(layout, train.load_report(trained, variant),
                         (trained.training(variant) / "model.onnx").read_bytes(), version)
    config = Config.model_validate(yaml.safe_load(layout.config.read_text()))
    supervisor = ProcessSupervisor(layout.home, processes(config))
    try:
        await asyncio.gather(*(supervisor.start(f"flights/{name}")
                               for name in ("champion", "challenger", "gateway")))
        await supervisor.start("flights/replayer")
        yield layout, supervisor
    finally:
        await supervisor.stop_all()


def status(layout: Layout) -> Any:
    return json.loads(layout.replayer.read_bytes()) if layout.replayer.exists() else {
        "ok": 0, "errors": {}, "labels": 0, "labels_due": 0, "sent": 0}


def predictions(layout: Layout) -> dict[str, Any]:
    """What the gateway logged, by correlation id."""
    lines = layout.predictions.read_text().splitlines()
    return {line["correlation_id"]: line for line in map(json.loads, lines)}


def pss_mb(pid: int) -> float:
    """The process's proportional share of memory, in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no Pss")


async def until(condition: Callable[[], Any], within: float = 20.0) -> Any:
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)
    return found


@pytest.mark.slow
async def test_the_demo_predicts_labels_suffers_and_recovers(live: Live) -> None:
    layout, supervisor = live

    # Flights are predicted by both variants, and what comes back is what the model says.
    await until(lambda: status(layout)["labels"] >= 100)
    assert status(layout)["errors"] == {}
    logged = predictions(layout)
    assert {line["variant"] for line in logged.values()} == set(VARIANTS)
    session = export.session((layout.model("champion") / "model.onnx").read_bytes())
    about, rows = flights.load_about(layout), flights.load(layout)
    label = json.loads(layout.labels.read_text().splitlines()[0])
    line = logged[label["correlation_id"]]
    row = rows[rows["tail"] == label["key"].encode()]
    row = row[[label["landed"] == replayed for replayed in map(_stamp, row["land"])]]
    inputs = export.feed(row, {"carrier": about.carrier, "origin": about.origin})
    if line["variant"] == "champion":
        expected = session.run([export.OUTPUT], inputs)[0][0]
        assert line["predictions"][0]["probability"] == pytest.approx(float(expected), abs=1e-6)
    assert line["features"]["temp"][0] == pytest.approx(float(row["temp"][0]), abs=1e-4)

    # Every type of error that is injected is seen as that type.
    for kind in faults.ERRORS:
        faults.inject(layout.home, "champion", kind, 15)
    await until(lambda: set(status(layout)["errors"]) == set(faults.ERRORS))
    faults.clear(layout.home)

    # Latency that is injected is there.
    faults.inject(layout.home, "champion", "latency", 400)
    await until(lambda: [line for line in predictions(layout).values()
                         if line["status"] == 200 and line["latency_ms"] >= 400])
    faults.clear(layout.home)

    # A server that is killed costs errors until it is started again.
    before = status(layout)["errors"]["unavailable"]
    pid = faults.kill(layout.home, "champion", faults.supervised(layout.home))
    assert (await until_state(supervisor, "flights/champion", "dead")).pid == pid
    await until(lambda: status(layout)["errors"]["unavailable"] > before + 10)
    await supervisor.start("flights/champion")
    answered = status(layout)["ok"]
    await until(lambda: status(layout)["ok"] > answered + 50)

    # All of it fits: the whole demo, with an engine and a console, has 700 MB.
    pids = {name: (await supervisor.status(f"flights/{name}")).pid
            for name in (*VARIANTS, "gateway", "replayer")}
    assert all(pids.values())
    assert pss_mb(pids["replayer"] or 0) <= 80
    assert sum(pss_mb(pid or 0) for pid in pids.values()) <= 300


async def until_state(supervisor: ProcessSupervisor, name: str, state: str) -> Any:
    deadline = time.monotonic() + 10
    while (found := await supervisor.status(name)).state != state:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    return found


def _stamp(seconds: Any) -> str:
    from engine.demo.replayer import stamp

    return stamp(float(seconds))


async def test_two_demos_do_not_disturb_each_other(live: Live, tmp_path_factory: Any) -> None:
    layout, supervisor = live
    other = configs.prepare(tmp_path_factory.mktemp("other"), running=False)
    assert not set(ports(layout).values()) & set(ports(other).values())
    stranger = ProcessSupervisor(other.home, processes(Config.model_validate(
        yaml.safe_load(other.config.read_text()))))
    faults.inject(other.home, "champion", "unavailable", 100)
    await stranger.start("flights/gateway")
    try:
        await stranger.stop_all()
        answered = (await until(lambda: status(layout)["ok"] and status(layout)))["ok"]
        await until(lambda: status(layout)["ok"] > answered + 50)
        assert status(layout)["errors"] == {}
        assert (await supervisor.status("flights/gateway")).state == "running"
    finally:
        await stranger.stop_all()
