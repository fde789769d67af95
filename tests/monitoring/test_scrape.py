"""Scraping real HTTP targets, well and otherwise."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from engine.monitoring.sources.scrape import ScrapeSource, open_targets, shown
from engine.monitoring.sources.source import Key, Reading, Trouble


@pytest.fixture
async def source(target, request):
    """The target's source, with a deadline that only what never ends can miss."""
    opened = await open_targets([target.url], getattr(request, "param", 10.0))
    yield opened[target.url]
    await opened[target.url].close()


async def test_a_well_target_is_read_whole(target, source):
    target.carries("flights", champion="7", challenger="8")
    target.lease.labels("flights").set(58.5)
    target.active.labels("flights", "challenger").set(3)
    target.serve("flights", "challenger", 0.02, times=4, error="timeout")
    reading = await source.read()
    assert reading.versions == {("flights", "champion"): "7", ("flights", "challenger"): "8"}
    assert reading.weights == {("flights", "champion"): 50, ("flights", "challenger"): 50}
    assert reading.in_flight == {("flights", "champion"): 0, ("flights", "challenger"): 3}
    assert reading.leases == {"flights": 58.5}
    [(key, histogram)] = reading.requests.items()
    assert key == Key("flights", "challenger", "timeout")
    assert histogram.total == 4
    assert len(histogram.bounds) == len(target.buckets)


@pytest.mark.parametrize(("mode", "kind", "says"), [
    ("hangs_up", "gone", "broke off"),
    ("status", "refused", "status 503"),
    ("redirect", "redirect", "points to 'http://127.0.0.1:1/elsewhere'"),
    ("huge", "huge", "more than 8 MB"),
    ("html", "not_text", "'text/html'"),
    ("packed", "not_text", "packed text"),
    ("binary", "rubbish", "not UTF-8"),
    ("rubbish", "rubbish", "cannot be trusted"),
    ("cut_off", "rubbish", "middle of a line"),
    ("empty", "empty", "without any metric of a service"),
])
async def test_a_target_in_trouble_is_told_of_in_a_sentence_and_never_raises(
        target, source, mode, kind, says):
    target.carries("flights", champion="7")
    target.serve("flights", "champion", 0.02)
    target.mode = mode
    said = await source.read()
    assert isinstance(said, Trouble)
    assert said.kind == kind
    assert says in said.text and target.url in said.text
    assert "hidden" not in said.text and "!" not in said.text
    target.mode = "well"
    assert isinstance(await source.read(), Reading)


@pytest.mark.parametrize("mode", ["slow", "dripping"])
@pytest.mark.parametrize("source", [0.3], indirect=True)
async def test_a_target_has_one_deadline_for_its_whole_answer(target, source, mode):
    target.mode = mode
    said = await source.read()
    assert (said.kind, said.text) == (
        "slow", f"{target.url} gave no whole answer within 0.3 s")


async def test_a_target_that_is_gone_is_told_of_and_read_again_when_it_is_back(target, source):
    target.carries("flights", champion="7")
    assert isinstance(await source.read(), Reading)
    await target.stop()
    said = await source.read()
    assert (said.kind, said.text) == ("gone", f"{target.url} cannot be reached: nothing answers "
                                              "there")
    await target.start()
    assert isinstance(await source.read(), Reading)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/", "http://[::1", "http://:bad/", ""])
async def test_an_address_that_is_none_is_told_of(url):
    [source] = (await open_targets([url], 0.5)).values()
    said = await source.read()
    assert isinstance(said, Trouble)
    await source.close()


async def test_a_redirect_is_not_followed(target, targets):
    elsewhere = await targets()
    opened = await open_targets([target.url, elsewhere.url], 0.5)
    target.mode = "redirect"
    await opened[target.url].read()
    assert elsewhere.asked == 0
    for source in opened.values():
        await source.close()


async def test_a_huge_answer_is_given_up_at_the_cap_and_not_read_to_its_end(target):
    import httpx
    target.mode = "huge"
    source = ScrapeSource(target.url, httpx.AsyncClient(), 5.0, largest=100_000)
    async with asyncio.timeout(2.0):
        assert (await source.read()).kind == "huge"
    await source.close()


async def test_closing_one_target_leaves_the_others_open(target, targets):
    other = await targets()
    for one in (target, other):
        one.carries("flights", champion="7")
    opened = await open_targets([target.url, other.url, target.url], 0.5)
    first, second = opened.values()
    await first.close()
    assert isinstance(await second.read(), Reading)
    await second.close()


def test_an_address_is_shown_without_passwords_and_queries():
    assert shown("http://me:secret@host:9/metrics?token=secret#x") == "http://host:9/metrics"


def test_importing_the_engines_monitoring_loads_no_http_client():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, engine.monitoring.collector, "
         "engine.monitoring.sources.scrape; print(*sys.modules)"],
        capture_output=True, text=True, check=True).stdout.split()
    assert not {"httpx", "numpy", "prometheus_client", "requests"} & set(loaded)
