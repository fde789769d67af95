"""The traffic: real flights at their pace, whatever becomes of the gateway, and labels in time."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from engine.demo import flights, replayer
from engine.demo.layout import START, Layout
from engine.demo.replayer import Replayer, Requests


class Gateway:
    """A real HTTP server that answers every request; `behave` may do something else."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.behave: Callable[[], Any] | None = None
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append((headers, await request.json()))
        if self.behave is not None:
            answer = self.behave()
            return await answer if asyncio.iscoroutine(answer) else answer
        return web.json_response({"predictions": [{"probability": 0.1}]})


@contextlib.asynccontextmanager
async def listening(gateway: Gateway, port: int = 0) -> AsyncIterator[Gateway]:
    app = web.Application()
    app.router.add_post("/invocations", gateway.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        await runner.cleanup()


@pytest.fixture
def layout(prepared: Layout, tmp_path: Path) -> Layout:
    """A home of its own that shares the prepared flights."""
    own = Layout(tmp_path)
    own.root.mkdir()
    (own.root / "data").symlink_to(prepared.root / "data")
    return own


@contextlib.asynccontextmanager
async def replaying(layout: Layout, url: str, *, rps: float = 100.0, speed: float = 36_000.0,
                    start: dt.date = START) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(Replayer(layout, url, rps, speed, start).run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


def status(layout: Layout) -> Any:
    return json.loads(layout.replayer.read_bytes())


def labels(layout: Layout) -> list[Any]:
    if not layout.labels.exists():
        return []
    return [json.loads(line) for line in layout.labels.read_text().splitlines()]


async def until(condition: Callable[[], Any], within: float = 30.0) -> Any:
    """What the condition gives once it is true."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)
    return found


def test_a_request_holds_exactly_what_the_model_learned_from(prepared: Layout) -> None:
    requests, rows = Requests(prepared, "abc"), flights.load(prepared)
    about = flights.load_about(prepared)
    features = flights.features(rows)
    for flight in range(0, len(rows), 9973):
        split = json.loads(requests.body(flight))["dataframe_split"]
        assert split["columns"] == list(flights.FEATURES)
        carrier, origin, *numbers = split["data"][0]
        got = [about.carrier.index(carrier), about.origin.index(origin),
               *(np.nan if number is None else number for number in numbers)]
        assert np.array_equal(np.array(got, dtype=np.float32), features[flight], equal_nan=True)


def test_weather_that_was_not_recorded_is_null_because_json_has_no_nan(prepared: Layout) -> None:
    flight = int(np.flatnonzero(np.isnan(flights.load(prepared)["pressure"]))[0])
    text = Requests(prepared, "abc").body(flight).decode()
    assert "NaN" not in text and "null" in text


def test_a_key_is_the_aircraft_and_a_correlation_id_is_one_that_the_gateway_takes(
        prepared: Layout) -> None:
    from engine.serving.correlation import correlation_id

    requests = Requests(prepared, "0a1b2c3d")
    assert requests.key(0) == flights.load(prepared)["tail"][0].decode()
    given = requests.correlation(0, 12345)
    assert correlation_id(given) == given


async def test_flights_go_out_in_their_order_at_the_rate_that_was_asked_for(
        layout: Layout) -> None:
    async with listening(Gateway()) as gateway:
        begun = time.monotonic()
        async with replaying(layout, gateway.url, rps=200, speed=3600):
            await until(lambda: len(gateway.seen) >= 300)
            elapsed = time.monotonic() - begun
    assert len(gateway.seen) / elapsed == pytest.approx(200, rel=0.25)
    requests = Requests(layout, "x")
    first = replayer.Calendar(requests.rows["depart"])
    start = first.start(dt.datetime(2013, 3, 25, tzinfo=dt.UTC).timestamp())
    for headers, body in gateway.seen[:300]:
        number = int(headers["x-correlation-id"].split("-")[1])
        flight = first.moment(start, number / 200 * 3600).flight
        assert body == json.loads(requests.body(flight))
        assert headers["x-request-key"] == requests.key(flight)


async def test_a_label_comes_when_the_flight_has_landed_and_not_before(layout: Layout) -> None:
    polled: dict[float, str] = {}  # the simulated time by the real time that the status gives it
    async with listening(Gateway()) as gateway, replaying(layout, gateway.url):
        async def poll() -> None:
            while True:
                if layout.replayer.exists():
                    now = status(layout)
                    polled[now["at"]] = now["simulated"]
                await asyncio.sleep(0.05)

        polling = asyncio.create_task(poll())
        await until(lambda: len(labels(layout)) >= 100)
        last = labels(layout)[99]["at"]
        await until(lambda: max(polled) > last)
        polling.cancel()
    written = labels(layout)[:100]
    for label in written:
        assert label["landed"] <= polled[min(at for at in polled if at >= label["at"])]
    # Each label belongs to one prediction that was answered, and none comes twice.
    sent = {headers["x-correlation-id"]: headers["x-request-key"] for headers, _ in gateway.seen}
    assert {label["correlation_id"]: label["key"] for label in written}.items() <= sent.items()
    assert len({label["correlation_id"] for label in written}) == len(written)


async def test_labels_tell_the_truth_of_the_flight(layout: Layout) -> None:
    async with listening(Gateway()) as gateway, replaying(layout, gateway.url):
        await until(lambda: len(labels(layout)) >= 50)
    rows = flights.load(layout)
    about = flights.load_about(layout)
    for label in labels(layout):
        name = label["correlation_id"].rsplit("-", 1)[1]
        landed = dt.datetime.fromisoformat(label["landed"]).timestamp()
        [row] = rows[(rows["land"] == landed) & (rows["tail"] == label["key"].encode())]
        assert f"{about.carrier[row['carrier']]}{row['number']}" == name
        assert (label["late"], label["delay_min"]) == (row["late"], row["delay"])
        assert label["late"] == (label["delay_min"] > 30)


async def test_what_was_not_answered_well_gets_no_label_and_is_counted_by_type(
        layout: Layout) -> None:
    gateway = Gateway()
    gateway.behave = lambda: web.Response(status=502, headers={
        "x-opsdeck-error-type": "model_error"})
    async with listening(gateway), replaying(layout, gateway.url):
        await until(lambda: len(gateway.seen) >= 100)
    assert status(layout)["errors"] == {"model_error": status(layout)["sent"]}
    assert status(layout)["ok"] == 0 and labels(layout) == []


async def test_a_gateway_that_is_away_costs_errors_but_neither_pace_nor_process(
        layout: Layout) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begun = time.monotonic()
    async with replaying(layout, f"http://127.0.0.1:{port}"):
        await until(lambda: layout.replayer.exists() and status(layout)["not_sent"] > 50)
        assert status(layout)["errors"]["gateway away"] >= 1
        assert status(layout)["ok"] == 0
        async with listening(Gateway(), port) as gateway:
            await until(lambda: len(gateway.seen) >= 50)
        elapsed = time.monotonic() - begun
    done = status(layout)
    assert done["sent"] + done["not_sent"] == pytest.approx(100 * elapsed, rel=0.25)
    assert done["sent"] < done["not_sent"] + 150  # it did not hammer at what was away
    assert done["ok"] >= 50


async def test_a_gateway_that_never_answers_holds_a_bounded_number_of_requests(
        layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer, "DRAIN_S", 0.2)
    gateway = Gateway()
    gateway.behave = lambda: asyncio.sleep(60)
    async with listening(gateway):
        stop = asyncio.Event()
        running = Replayer(layout, gateway.url, 1000.0, 3600.0, START)
        task = asyncio.create_task(running.run(stop))
        await until(lambda: layout.replayer.exists() and status(layout)["not_sent"] > 100)
        assert status(layout)["in_flight"] <= replayer.IN_FLIGHT
        begun = time.monotonic()
        stop.set()
        await asyncio.wait_for(task, 10)
        assert time.monotonic() - begun < replayer.DRAIN_S + 2


async def test_labels_are_private_and_bounded_by_rotation(
        layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer, "LABEL_BYTES", 25_000)
    monkeypatch.setattr(replayer, "LABEL_FILES", 2)
    async with listening(Gateway()) as gateway, replaying(layout, gateway.url, rps=400):
        await until(lambda: layout.replayer.exists() and status(layout)["labels"] > 600)
    files = list(layout.root.glob("labels.jsonl*"))
    assert 2 <= len(files) <= 3
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        at = {json.loads(line)["at"] for line in file.read_text().splitlines()}
        assert file.stat().st_size <= 25_000 or len(at) == 1  # what landed at once stays together


async def test_after_the_last_day_of_the_year_the_first_comes_again(layout: Layout) -> None:
    async with (listening(Gateway()) as gateway,
                replaying(layout, gateway.url, speed=200_000.0, start=dt.date(2013, 12, 31))):
        done = await until(lambda: layout.replayer.exists() and status(layout)["lap"] == 1
                           and status(layout))
        assert done["simulated"].startswith("2013-01-")
        before = done["labels"]
        await until(lambda: status(layout)["labels"] > before)


def test_sigterm_ends_it_cleanly(layout: Layout) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "engine.demo.replayer", "--home", str(layout.home), "--url",
         "http://127.0.0.1:9"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 20
        while not layout.replayer.exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=10)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    assert out.startswith("sending 50 flights a second")
    assert status(layout)["state"] == "stopped"
    assert stat.S_IMODE(layout.replayer.stat().st_mode) == 0o600


@pytest.mark.parametrize(("arguments", "sentence"), [
    (["--rps", "0"], "--rps is 0"), (["--speed", "-1"], "--speed is -1"),
    (["--rps", "nan"], "--rps is nan"),
])
def test_a_rate_that_makes_no_sense_is_refused(
        tmp_path: Path, step: Callable[..., Any], arguments: list[str], sentence: str) -> None:
    done = step("replayer", "--home", str(tmp_path), "--url", "http://127.0.0.1:9", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
