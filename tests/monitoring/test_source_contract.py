"""What every adapter of `Source` keeps to: a scrape of the target, and a real Prometheus before it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from engine.monitoring.histograms import quantile
from engine.monitoring.sources.prometheus import open_prometheus
from engine.monitoring.sources.scrape import open_targets
from engine.monitoring.sources.source import Reading, Source, Trouble
from engine.monitoring.windows import TargetFold

DEADLINE_S = 10.0
MISSING = "needs a real Prometheus: apt-get install prometheus"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """A Prometheus that scrapes one port every 200 ms: its address, and the port.

    One for all tests, because it waits five seconds before it first scrapes.
    """
    if shutil.which("prometheus") is None:
        pytest.skip(MISSING)
    folder = tmp_path_factory.mktemp("prometheus")
    port, scraped = free_port(), free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
        f"scrape_configs: [{{job_name: t, static_configs: [{{targets: ['127.0.0.1:{scraped}']}}]}}]")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml",
             f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{port}"],
            stdout=log, stderr=subprocess.STDOUT)
    yield f"http://127.0.0.1:{port}", scraped
    process.terminate()
    process.wait(20)


@pytest.fixture(params=["scrape", "prometheus"])
def adapter(request) -> str:
    return request.param


@pytest.fixture
async def opened(adapter) -> AsyncIterator[Callable[..., Awaitable[Source]]]:
    """Opens a source of the adapter over an address that answers it directly."""
    sources: list[Source] = []

    async def start(url: str, deadline_s: float = DEADLINE_S) -> Source:
        open_sources = open_targets if adapter == "scrape" else open_prometheus
        sources.append((await open_sources([url], deadline_s))[url])
        return sources[-1]

    yield start
    for source in sources:
        await source.close()


@pytest.fixture
async def source(adapter, target, opened, request) -> Source:
    """A source that tells of the target, by way of Prometheus or directly."""
    if adapter == "scrape":
        return await opened(target.url)
    address, scraped = request.getfixturevalue("prometheus")
    source = await opened(address)
    await trouble(source)  # what the test before told has been forgotten
    await target.stop()
    await target.start(scraped)
    return source


async def until(source: Source, true: Callable[[Reading], bool]) -> Reading:
    """Readings until one is as wanted: a Prometheus takes a moment to start and to scrape."""
    async with asyncio.timeout(20):
        while True:
            said = await source.read()
            if isinstance(said, Reading) and true(said):
                return said
            await asyncio.sleep(0.05)


async def trouble(source: Source) -> Trouble:
    """Readings until there is none."""
    async with asyncio.timeout(20):
        while not isinstance(said := await source.read(), Trouble):
            await asyncio.sleep(0.05)
    return said


async def test_a_reading_holds_every_family(target, source, adapter):
    target.carries("flights", champion="7", challenger="8")
    target.active.labels("flights", "champion").set(3)
    target.lease.labels("flights").set(42)
    target.serve("flights", "champion", 0.02, times=95)
    target.serve("flights", "challenger", 0.3, times=5, error="timeout")
    said = await until(source, lambda said: len(said.requests) == 2 and bool(said.leases))
    assert said.measures
    assert said.versions == {("flights", "champion"): "7", ("flights", "challenger"): "8"}
    assert said.weights == {("flights", "champion"): 50, ("flights", "challenger"): 50}
    assert said.in_flight == {("flights", "champion"): 3, ("flights", "challenger"): 0}
    assert said.leases == {"flights": 42}
    found = {key[:3]: histogram for key, histogram in said.requests.items()}
    assert found["flights", "champion", ""].total == 95
    assert found["flights", "challenger", "timeout"].total == 5
    assert quantile(found["flights", "champion", ""], 0.5) == pytest.approx(0.02, rel=0.1)
    assert len(found["flights", "champion", ""].bounds) == len(target.buckets)
    assert not said.units and not said.unit_failures and not said.predictions
    assert 0.0 <= said.age_s < 5.0
    assert (said.age_s > 0) == (adapter == "prometheus")


async def test_counters_come_as_they_stand_and_a_restart_is_what_was_counted_since(target, source):
    loop, fold = asyncio.get_running_loop(), TargetFold(60.0)

    async def counted(total: float) -> float:
        """The requests that folding finds until the counter stands at `total`."""
        requests = 0.0
        while True:
            said = await until(source, lambda said: bool(said.requests))
            requests += sum(one.requests for one in fold.fold(said, loop.time()))
            taken = fold.reading is said  # one that came late may be no newer than the last
            if taken and sum(one.total for one in said.requests.values()) == total:
                return requests

    target.carries("flights", champion="7")
    target.serve("flights", "champion", 0.02, times=1000)
    assert await counted(1000) == 0
    target.serve("flights", "champion", 0.02, times=7)
    assert await counted(1007) == 7
    target.restart()
    target.serve("flights", "champion", 0.02, times=3)
    assert await counted(3) == 3


async def test_units_and_predictions_come_as_they_stand_by_type_and_by_bin(target, source):
    target.carries("flights", champion="7", challenger="8")
    target.serve("flights", "champion", 0.02)
    target.units.labels("flights", "champion").inc(90)
    target.units.labels("flights", "challenger").inc(0)
    for error_type in ("timeout", "any"):
        target.unit_failures.labels("flights", "champion", error_type).inc(2)
    for bin_, times in (("..0.5", 60), ("0.5..", 28), ("invalid", 0)):
        target.predictions.labels("flights", "champion", bin_).inc(times)
    said = await until(source, lambda said: bool(said.predictions))
    assert {tally[:3]: count for tally, count in said.units.items()} == {
        ("flights", "champion", ""): 90, ("flights", "challenger", ""): 0}
    assert {tally[:3]: count for tally, count in said.unit_failures.items()} == {
        ("flights", "champion", "timeout"): 2, ("flights", "champion", "any"): 2}
    assert {tally[:3]: count for tally, count in said.predictions.items()} == {
        ("flights", "champion", "..0.5"): 60, ("flights", "champion", "0.5.."): 28,
        ("flights", "champion", "invalid"): 0}


async def test_a_counter_that_is_no_count_is_rubbish(target, source):
    target.carries("flights", champion="7")
    target.serve("flights", "champion", 0.02)
    await until(source, lambda said: bool(said.requests))
    target.units.labels("flights", "champion").inc(float("inf"))
    assert (await trouble(source)).kind == "rubbish"


async def test_a_target_that_is_gone_is_trouble_and_then_read_again(target, source):
    target.carries("flights", champion="7")
    target.serve("flights", "champion", 0.02)
    await until(source, lambda said: bool(said.requests))
    await target.stop()
    assert (await trouble(source)).kind in ("gone", "empty")
    await target.start()
    await until(source, lambda said: bool(said.requests))


@pytest.mark.parametrize(("mode", "kind"), [
    ("hangs_up", "gone"), ("status", "refused"), ("redirect", "redirect"), ("html", "not_text"),
    ("packed", "not_text"), ("huge", "huge")])
async def test_what_is_no_answer_is_trouble_in_a_sentence(target, opened, mode, kind):
    target.mode = mode
    source = await opened(target.url)
    said = await source.read()
    assert isinstance(said, Trouble)
    assert said.kind == kind
    assert said.text.startswith(source.name) and "hidden" not in said.text


@pytest.mark.parametrize("mode", ["slow", "dripping"])
async def test_a_read_keeps_to_its_deadline(target, opened, mode):
    target.mode = mode
    source = await opened(target.url, 0.3)
    async with asyncio.timeout(5):
        assert (await source.read()).kind == "slow"


async def test_where_nothing_answers_is_trouble(opened):
    source = await opened(f"http://127.0.0.1:{free_port()}")
    said = await source.read()
    assert said.kind == "gone"
    assert said.text.endswith("nothing answers there")


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/", "http://[::1", ""])
async def test_an_address_that_is_none_is_trouble(opened, url):
    assert isinstance(await (await opened(url)).read(), Trouble)


async def test_the_name_of_a_source_hides_passwords(opened):
    source = await opened("http://me:secret@127.0.0.1:1/metrics?token=secret")
    assert "secret" not in source.name
    assert "secret" not in (await source.read()).text
