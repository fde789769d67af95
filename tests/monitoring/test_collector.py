"""The collector on real HTTP targets; the clock stands still between ticks unless told otherwise."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import wire
from engine.errors import NotFound
from engine.monitoring.collector import Collector, following
from engine.monitoring.histograms import quantile
from engine.monitoring.history import History
from engine.monitoring.sources.scrape import open_targets
from engine.monitoring.sources.source import ERROR_TYPES
from engine.monitoring.windows import Increment


class Watch:
    """A collector, its events, and a clock that a tick moves on by one second."""

    def __init__(self, config, clock, history=None, **more) -> None:
        self.clock = clock
        self.events: list[tuple[str, dict]] = []
        self.ticks = 0
        self.tapped: list[tuple[int, str, list[Increment], float, float]] = []
        self.collector = Collector(
            config, history, clock=clock.time, monotonic=clock.monotonic,
            on_event=lambda kind, data: self.events.append((kind, data)),
            on_tick=self._ticked, on_increments=self._happened, **more)

    def _ticked(self) -> None:
        self.ticks += 1

    def _happened(self, service: str, increments, now: float, stamp: float) -> None:
        """With the number of the tick that has not ended yet."""
        self.tapped.append((self.ticks + 1, service, list(increments), now, stamp))

    async def tick(self, times: int = 1, seconds: float = 1.0) -> None:
        for _ in range(times):
            await self.collector.tick(self.clock.monotonic())
            self.clock.pass_(seconds)

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.events]

    @property
    def row(self) -> wire.Service:
        return self.collector.services()[0]


def no_event(kind: str, data: dict) -> None:
    raise AssertionError(f"{kind}: {data['text']}")


@pytest.fixture
async def watching(clock):
    """Opens a collector on the fake clock for the test, and closes it."""
    opened: list[Watch] = []

    async def start(config, **more) -> Watch:
        watch = Watch(config, clock, **more)
        await watch.collector.open()
        opened.append(watch)
        return watch

    yield start
    for watch in opened:
        await watch.collector.close()


async def test_a_service_is_seen_as_it_is(target, config_of, watching):
    target.carries("flights", champion="7", challenger="8")
    target.lease.labels("flights").set(60)
    watch = await watching(config_of({"flights": {
        "scrape": [target.url], "limits": {"p99_ms": {"above": 150}, "rps": {"below": 1}}}}))
    await watch.tick()
    for _ in range(10):
        target.serve("flights", "champion", 0.02, times=19)
        target.serve("flights", "challenger", 0.3, error="timeout")
        await watch.tick()
    row = watch.row
    champion, challenger = sorted(row.variants, key=lambda one: one.version)
    assert (champion.name, champion.version, champion.weight) == ("champion", "7", 50.0)
    assert champion.rps == 19.0
    assert champion.p99_ms == pytest.approx(20, rel=0.1)
    assert challenger.p50_ms == pytest.approx(300, rel=0.1)
    assert challenger.errors == {**dict.fromkeys(ERROR_TYPES, 0.0), "timeout": 1.0}
    assert row.rps == 20.0
    assert row.p50_ms == pytest.approx(20, rel=0.1)
    assert row.p99_ms == pytest.approx(300, rel=0.1)
    assert row.error_ratio == pytest.approx(0.05)
    assert row.lease_s == 59.0
    assert row.limits == {"p99_ms": 150.0, "rps.below": 1.0}
    assert row.age_s == 1.0
    assert not champion.stale
    assert (row.drift, row.rollout, row.waiting, row.alerts) == (None, None, 0, [])
    assert len(row.trend_p99_ms) == 60
    assert row.trend_p99_ms[-1] == pytest.approx(300, rel=0.1)
    assert row.trend_p99_ms[0] is None
    assert watch.events == []
    assert watch.ticks == 11
    assert msgspec.json.decode(msgspec.json.encode(row), type=wire.Service) == row


async def test_the_tap_hears_of_each_service_at_each_tick_before_the_tick_ends(
        target, config_of, watching):
    target.carries("flights", champion="7", challenger="8")
    target.carries("fraud", champion="1")
    watch = await watching(config_of({"flights": {"scrape": [target.url]},
                                      "fraud": {"scrape": [target.url]}}))
    began, wall = watch.clock.mono, watch.clock.wall
    await watch.tick()
    target.serve("flights", "challenger", 0.3, times=2, error="timeout")
    await watch.tick()
    await target.stop()
    await watch.tick()
    assert [(tick, service) for tick, service, *_ in watch.tapped] == [
        (tick, service) for tick in (1, 2, 3) for service in ("flights", "fraud")]
    assert [(now, stamp) for _, service, _, now, stamp in watch.tapped if service == "fraud"] == [
        (began + n, wall + n) for n in range(3)]
    (first, second, third) = ([(one.variant, one.requests, one.errors) for one in increments]
                              for _, service, increments, *_ in watch.tapped if service == "flights")
    assert first == third == []
    assert sorted(second) == [("challenger", 2.0, {"timeout": 2.0}), ("champion", 0.0, {})]


async def test_what_is_mirrored_goes_to_the_tap_and_into_no_number_of_the_service(
        target, config_of, watching, clock, history_file):
    target.carries("flights", champion="7", challenger="8")
    history = History(history_file, keep_s=86400, clock=clock.time, on_event=no_event)
    watch = await watching(config_of({"flights": {
        "scrape": [target.url], "limits": {"p99_ms": {"above": 150}}}}), history=history)
    await watch.tick()
    target.serve("flights", "champion", 0.02, times=10)
    target.serve("flights", "challenger+mirror", 0.9, times=10, error="timeout")
    await watch.tick()
    seen = {one.variant: one.requests for one in watch.tapped[-1][2]}
    assert seen == {"champion": 10, "challenger": 0, "challenger+mirror": 10}
    assert {one.name for one in watch.row.variants} == {"champion", "challenger"}
    assert (watch.row.rps, watch.row.error_ratio, watch.kinds) == (10.0, 0.0, [])
    assert watch.row.trend_p99_ms[-1] == pytest.approx(20, rel=0.1)
    assert watch.collector.latency("flights", "challenger+mirror").total == 10
    assert watch.collector.read("flights", "challenger+mirror")["error_ratio"] == 1.0
    with pytest.raises(NotFound, match=r"no variant champion\+mirror"):
        watch.collector.read("flights", "champion+mirror")
    past = await history.read("flights", 60, 60)
    assert not any("mirror" in name for name in past.values)


async def test_it_says_how_old_the_oldest_data_is_and_gives_the_windows_latencies(
        target, config_of, watching):
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}))
    assert watch.collector.heard("flights") is None
    target.carries("flights", champion="7")
    await watch.tick()
    assert watch.collector.latency("flights", "champion") is None
    target.serve("flights", "champion", 0.02, times=10)
    await watch.tick()
    target.serve("flights", "champion", 0.2, times=5)
    await watch.tick(seconds=2.5)
    assert watch.collector.heard("flights") == watch.collector.read("flights")["age_s"] == 2.5
    latency = watch.collector.latency("flights", "champion")
    assert latency.total == 15 and quantile(latency, 0.5) == pytest.approx(0.02, rel=0.1)
    assert watch.collector.latency("flights", "gone") is None
    for ask in (watch.collector.heard, lambda name: watch.collector.latency(name, "champion")):
        with pytest.raises(NotFound, match="no service flight"):
            ask("flight")


async def test_signals_are_read_by_service_and_by_variant(target, config_of, watching):
    target.carries("flights", champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}))
    await watch.tick()
    target.serve("flights", "champion", 0.02, times=10)
    await watch.tick()
    whole = watch.collector.read("flights")
    champion = watch.collector.read("flights", "champion")
    assert set(whole) == set(champion) == {
        "rps", "p50_ms", "p95_ms", "p99_ms", "error_ratio", "errors", "in_flight", "weight",
        "version", "stale", "age_s"}
    assert whole["rps"] == champion["rps"] == 10.0
    assert champion["weight"] == 100.0 and whole["weight"] is None
    for args, says in ((("flight",), "no service flight"), (("flights", "blue"), "no variant blue")):
        with pytest.raises(NotFound, match=says):
            watch.collector.read(*args)


async def test_a_service_without_targets_is_a_stale_row(config_of, watching):
    watch = await watching(config_of({"fraud": {"versions": {"champion": "4"}}}))
    await watch.tick(10)
    row = watch.row
    assert row.age_s is row.rps is row.p99_ms is row.error_ratio is None
    assert row.trend_p99_ms == [None] * 60
    [champion] = row.variants
    assert champion == wire.Variant(name="champion", version="4", weight=None, rps=None,
                                    p50_ms=None, p95_ms=None, p99_ms=None, errors={}, stale=True)
    assert watch.events == []


@pytest.mark.parametrize(("mode", "reason"), [
    ("slow", "slow"), ("hangs_up", "gone"), ("status", "refused"), ("redirect", "redirect"),
    ("html", "not_text"), ("rubbish", "rubbish"), ("cut_off", "rubbish"), ("empty", "empty")])
async def test_a_target_in_trouble_goes_stale_with_one_event_and_comes_back_with_another(
        target, config_of, watching, mode, reason):
    target.carries("flights", champion="7")
    target.serve("flights", "champion", 0.02)
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}, scrape_interval=0.1))
    await watch.tick(3)
    before = watch.row.variants[0]
    target.mode = mode
    while "target.lost" not in watch.kinds:
        await watch.tick()
        assert len(watch.row.variants) == 1
    await watch.tick(5)
    row = watch.row
    assert row.variants[0].stale and row.age_s > 5
    assert row.rps is row.p99_ms is row.variants[0].rps is None
    assert (row.variants[0].version, row.variants[0].weight) == ("7", before.weight)
    [(_, lost)] = watch.events
    assert lost["reason"] == reason
    assert lost["services"] == ["flights"]
    assert target.url in lost["text"] and lost["text"].endswith("flights shows as stale")

    target.mode = "well"
    await target.stop()  # lets go of a request that hangs
    await target.start()
    async with asyncio.timeout(5):
        while watch.row.variants[0].stale:
            await watch.tick()
    assert watch.kinds == ["target.lost", "target.back"]


async def test_a_failed_scrape_or_two_is_not_yet_stale(target, config_of, watching):
    target.carries("flights", champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}))
    await watch.tick(2)
    target.mode = "status"
    await watch.tick(3)
    target.mode = "well"
    await watch.tick(2)
    assert not watch.row.variants[0].stale
    assert watch.row.rps == 0.0
    assert watch.events == []


async def test_a_target_that_was_never_there_is_told_of_and_ages_from_the_start(
        target, config_of, watching):
    await target.stop()
    watch = await watching(config_of({"flights": {
        "scrape": [target.url], "limits": {"age_s": {"above": 10, "for": 0}}}}))
    await watch.tick(20)
    assert watch.kinds == ["target.lost", "alert.fired"]
    assert watch.row.age_s is None
    assert watch.row.alerts[0].title == "no fresh data for 19 s, over 10 s"


async def test_counters_that_begin_again_are_no_burst_and_no_hole(target, config_of, watching):
    target.carries("flights", champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}))
    target.serve("flights", "champion", 0.02, times=5000)
    await watch.tick()
    for second in range(20):
        if second == 10:
            target.restart()
            target.carries("flights", champion="7")
        target.serve("flights", "champion", 0.02, times=7)
        await watch.tick()
    assert watch.row.rps == 7.0


async def test_one_target_may_carry_several_services_and_is_read_once(
        target, config_of, watching):
    target.carries("flights", champion="7")
    target.carries("pricing", champion="31")
    target.carries("stranger", champion="1")
    watch = await watching(config_of({"flights": {"scrape": [target.url, target.url]},
                                      "pricing": {"scrape": [target.url]}}))
    await watch.tick(3)
    assert target.asked == 3
    assert [(row.name, row.variants[0].version) for row in watch.collector.services()] == [
        ("flights", "7"), ("pricing", "31")]


async def test_a_target_that_hangs_makes_no_others_numbers_older(
        target, targets, config_of, watching):
    hangs = await targets()
    for one, service in ((target, "flights"), (hangs, "pricing")):
        one.carries(service, champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]},
                                      "pricing": {"scrape": [hangs.url]}}))
    await watch.tick(2)
    hangs.mode = "slow"
    await watch.tick()  # the first time it is waited for
    began = asyncio.get_running_loop().time()
    await watch.tick(4)
    assert asyncio.get_running_loop().time() - began < 0.8  # one deadline alone is 0.8 s
    assert target.asked == 7
    assert not watch.collector.services()[0].variants[0].stale


async def test_an_answer_that_does_not_name_the_service_is_told_of(target, config_of, watching):
    target.carries("flight", champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}))
    await watch.tick(20)
    assert watch.row.variants[0].stale
    [(kind, data)] = watch.events
    assert kind == "service.wrong"
    assert data["text"] == (f"{target.url} answers, but no metric there carries the label "
                            'service="flights"')
    target.carries("flights", champion="7")
    await watch.tick(40)
    assert watch.kinds == ["service.wrong", "service.well"]


async def test_variants_with_different_buckets_are_told_of_and_keep_their_own_numbers(
        target, targets, config_of, watching):
    other = await targets()
    other.buckets = [0.1, 0.2]
    other.restart()
    target.carries("flights", champion="7")
    other.carries("flights", challenger="8")
    watch = await watching(config_of({"flights": {"scrape": [target.url, other.url]}}))
    for _ in range(20):
        target.serve("flights", "champion", 0.02, times=5)
        other.serve("flights", "challenger", 0.02, times=5)
        await watch.tick()
    assert watch.row.p99_ms is None
    assert all(one.p99_ms for one in watch.row.variants)
    assert watch.row.rps == 10.0
    assert watch.kinds == ["service.wrong"]
    assert "cannot be merged" in watch.events[0][1]["text"]


async def test_a_limit_fires_and_clears_through_real_scrapes(target, config_of, watching):
    target.carries("flights", champion="7", challenger="8")
    watch = await watching(config_of({"flights": {"scrape": [target.url], "limits": {
        "p99_ms": {"above": 150, "for": "20s", "level": "page", "runbooks": ["high-latency"]}}}}))

    async def live(seconds: int, challenger_s: float) -> None:
        for _ in range(seconds):
            target.serve("flights", "champion", 0.02, times=95)
            target.serve("flights", "challenger", challenger_s, times=5)
            await watch.tick()

    await live(10, 0.02)
    await live(30, 0.4)
    assert watch.kinds == ["alert.fired"]
    [alert] = watch.collector.alerts()
    assert alert == watch.row.alerts[0]
    assert alert.title.startswith("p99 4") and alert.title.endswith("challenger only")
    fired = watch.events[0][1]
    assert msgspec.convert({key: fired[key] for key in (
        "id", "service", "level", "signal", "title", "since", "runbooks")}, wire.Alert)
    await live(100, 0.02)
    assert watch.kinds == ["alert.fired", "alert.cleared"]
    assert watch.collector.alerts() == []


async def test_an_alert_goes_on_over_a_restart_of_the_engine(target, config_of, watching, clock):
    target.carries("flights", champion="7")
    config = config_of({"flights": {"scrape": [target.url], "limits": {"age_s": {"above": 0.1,
                                                                               "for": 0}}}})
    before = wire.Alert(id="flights/age_s", service="flights", level="ticket", signal="age_s",
                        title="no fresh data for 1 h, over 0 s", since=clock.wall - 3600)
    watch = await watching(config, firing=[before])
    assert watch.collector.alerts() == [before]
    await watch.tick(40)
    assert watch.kinds == ["alert.cleared"]


async def test_an_adapters_own_fault_is_trouble_of_its_target_and_stops_nothing(
        target, config_of, watching):
    class Broken:
        name = "broken"

        async def read(self):
            raise ZeroDivisionError("a fault of the adapter")

        async def close(self):
            return None

    async def open_sources(urls, deadline_s):
        return {url: Broken() for url in urls}

    watch = await watching(config_of({"flights": {"scrape": [target.url]}}),
                           open_sources=open_sources)
    await watch.tick(10)
    [(kind, data)] = watch.events
    assert (kind, data["reason"]) == ("target.lost", "failed")
    assert "a fault of the adapter" in data["text"]


async def test_a_jump_of_the_wall_clock_moves_stamps_and_nothing_else(
        target, config_of, watching, clock, history_file):
    history = History(history_file, keep_s=86400, clock=clock.time, on_event=no_event)
    target.carries("flights", champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}), history=history)
    for second in range(30):
        if second == 10:
            clock.wall -= 7200
        if second == 20:
            clock.wall += 7200
        target.serve("flights", "champion", 0.02, times=5)
        await watch.tick()
    assert watch.row.rps == 5.0
    assert watch.row.age_s == 1.0
    assert None not in watch.row.trend_p99_ms[-7:-1]
    now = await history.read("flights", 30, 30)
    assert [rate for rate in now.values["*/rps"] if rate is not None] == [5.0] * 19
    await history.close()


async def test_every_tick_has_a_second_of_its_own_however_late_it_was(
        target, config_of, watching, clock, history_file):
    history = History(history_file, keep_s=86400, clock=clock.time, on_event=no_event)
    target.carries("flights", champion="7")
    watch = await watching(config_of({"flights": {"scrape": [target.url]}}), history=history)
    clock.pass_(0.9)
    begun = clock.monotonic()
    await watch.collector.tick(begun)
    for second in range(1, 21):
        late_s = 0.3 * (second % 2)  # by the wall clock, every other tick is in the next second
        clock.pass_(begun + second + late_s - clock.monotonic())
        target.serve("flights", "champion", 0.02, times=5)
        await watch.collector.tick(begun + second)
    clock.pass_(1)
    kept = await history.read("flights", 20, 20)
    assert None not in kept.values["*/rps"][:-1]
    await history.close()


@given(st.integers(0, 10**6), st.floats(0, 1e6), st.floats(0.05, 60))
def test_beats_go_forward_on_the_grid_and_missed_ones_are_left_out(beat, late_s, interval_s):
    passed_s = beat * interval_s + late_s
    after = following(beat, passed_s, interval_s)
    assert after > beat
    assert after == beat + 1 or after * interval_s >= passed_s - 1e-3
    assert after == beat + 1 or (after - 1) * interval_s < passed_s + 1e-3


@asynccontextmanager
async def running(config, history=None, **more):
    """A collector that runs by itself; `until` waits for a condition, looked at after each tick."""
    ticked = asyncio.Event()
    events: list = []
    collector = Collector(config, history, on_event=lambda *event: events.append(event),
                          on_tick=ticked.set, **more)

    async def until(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():
                ticked.clear()
                await ticked.wait()

    task = asyncio.create_task(collector.run())
    try:
        yield collector, events, until
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_it_runs_by_itself_through_trouble_until_cancelled(target, config_of):
    target.carries("flights", champion="7")
    config = config_of({"flights": {"scrape": [target.url]}}, scrape_interval=0.05, stale_after=0.2)
    async with running(config) as (collector, events, until):
        await until(lambda: collector.services()[0].rps == 0.0)
        target.serve("flights", "champion", 0.02, times=10)
        await until(lambda: collector.services()[0].rps)
        await target.stop()
        await until(lambda: events)
        await target.start()
        await until(lambda: not collector.services()[0].variants[0].stale)
    assert [kind for kind, _ in events] == ["target.lost", "target.back"]
    asked = target.asked
    await target.stop()
    assert target.asked == asked


async def test_ticks_keep_to_the_beat(target, config_of):
    target.carries("flights", champion="7")
    due: list[float] = []
    config = config_of({"flights": {"scrape": [target.url]}}, scrape_interval=0.05)
    async with running(config) as (collector, _, until):
        tick = collector.tick

        async def noted(at: float) -> None:
            due.append(at)
            await tick(at)

        collector.tick = noted
        await until(lambda: len(due) >= 12)
    beats = [(at - due[0]) / 0.05 for at in due]
    assert beats == pytest.approx([round(beat) for beat in beats], abs=1e-6)
    assert len(set(map(round, beats))) == len(due)


async def test_after_a_restart_the_trend_is_there_again(target, config_of, history_file):
    target.carries("flights", champion="7")
    config = config_of({"flights": {"scrape": [target.url]}}, scrape_interval=0.05)
    quiet = {"keep_s": 86400, "on_event": no_event}
    history = History(history_file, clock=time.time, **quiet)
    async with running(config, history) as (collector, _, until):
        await until(lambda: collector.services()[0].rps == 0.0)
        target.serve("flights", "champion", 0.3, times=10)
        await until(lambda: any(collector.services()[0].trend_p99_ms))
    await history.close()

    # nothing is served any more: what the trend shows is what was kept, a minute later
    history = History(history_file, clock=lambda: time.time() + 60, **quiet)
    async with running(config, history, clock=lambda: time.time() + 60) as (collector, _, until):
        await until(lambda: any(collector.services()[0].trend_p99_ms))
        trend = collector.services()[0].trend_p99_ms
    await history.close()
    assert [value for value in trend if value is not None] == [pytest.approx(300, rel=0.1)]
    assert trend[-1] is None
    assert any(trend[-15:-11])


async def test_another_config_keeps_what_is_known_of_the_services_that_stay(targets, config_of, watching):
    """Numbers, alerts and sources stay; a moved limit does not fire anew, one that is gone is cleared."""
    first, second = await targets(), await targets()
    first.carries("flights", champion="7")
    second.carries("trains", champion="1")
    closed: list[str] = []

    async def opening(urls, deadline_s):
        opened = await open_targets(urls, deadline_s)
        for url, source in opened.items():
            close = source.close

            async def closing(url=url, close=close):
                closed.append(url)
                await close()

            source.close = closing
        return opened

    def limits(**named):
        return {"scrape": [first.url], "limits": {n: {"above": v, "for": "2s"} for n, v in named.items()}}

    watch = await watching(config_of({"flights": limits(p99_ms=150, in_flight=-1)}), open_sources=opening)
    for _ in range(6):
        first.serve("flights", "champion", 0.3, times=20)
        await watch.tick()
    assert sorted(a.signal for a in watch.row.alerts) == ["in_flight", "p99_ms"]
    watch.events.clear()
    watch.collector.use_config(config_of({"trains": {"scrape": [second.url]}, "flights": limits(p99_ms=140)}))
    assert [(kind, data["signal"]) for kind, data in watch.events] == [("alert.cleared", "in_flight")]
    trains, flights = watch.collector.services()
    assert (trains.name, trains.variants[0].stale) == ("trains", True)
    assert flights.rps == pytest.approx(20) and flights.limits == {"p99_ms": 140.0}
    assert [a.signal for a in flights.alerts] == ["p99_ms"]
    for _ in range(4):
        first.serve("flights", "champion", 0.3, times=20)
        second.serve("trains", "champion", 0.01, times=5)
        await watch.tick()
    trains, flights = watch.collector.services()
    assert trains.rps == pytest.approx(5, rel=0.5) and [a.signal for a in flights.alerts] == ["p99_ms"]
    assert watch.kinds == ["alert.cleared"] and closed == []
    asked = first.asked
    watch.collector.use_config(config_of({"trains": {"scrape": [second.url]}}))
    await watch.tick()
    assert closed == [first.url] and first.asked == asked
    assert [s.name for s in watch.collector.services()] == ["trains"] and watch.collector.alerts() == []
