"""What is kept of the signals, how finely, for how long, and what becomes of it in trouble."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.monitoring.histograms import Histogram, quantile
from engine.monitoring.history import History, HistoryUnavailable
from engine.monitoring.history_store import wal_is_safe
from engine.monitoring.points import Point, after, beside, packed, point, series, unpacked
from engine.monitoring.windows import Increment

BOUNDS = tuple(0.0005 * 1.1**i for i in range(125))
WEEK = 7 * 86400.0


def seen(samples, span_s: float = 1.0, bounds=BOUNDS, **more) -> Point:
    """A point of requests that took these seconds."""
    own = np.bincount(np.searchsorted(bounds, samples), minlength=len(bounds) + 1)
    return Point(span_s, len(samples), bounds=bounds if len(samples) else (),
                 buckets={n: float(count) for n, count in enumerate(own.tolist()) if count}, **more)


class Kept:
    """A history on the fake clock, with its events."""

    def __init__(self, path, clock, keep_s: float = WEEK, **more) -> None:
        self.events: list[tuple[str, dict]] = []
        self.clock = clock
        self.history = History(path, keep_s=keep_s, clock=clock.time,
                               on_event=lambda *event: self.events.append(event), **more)

    async def live(self, seconds: int, **variants: Point) -> None:
        """Record one second after another, written down every ten."""
        for second in range(seconds):
            self.history.record("flights", self.clock.time(), variants)
            self.clock.pass_(1)
            if second % 10 == 9:
                await self.history.flush()

    async def read(self, seconds: float, points: int):
        return await self.history.read("flights", seconds, points)


@pytest.fixture
async def keeping(history_file, clock):
    opened: list[Kept] = []

    def start(**more) -> Kept:
        opened.append(Kept(history_file, clock, **more))
        return opened[-1]

    yield start
    for kept in opened:
        await kept.history.close()


def rows(path, step: int) -> list[int]:
    with sqlite3.connect(path) as db:
        return [at for (at,) in db.execute("SELECT at FROM points WHERE step=? ORDER BY at", (step,))]


async def test_what_is_recorded_is_read_back_by_variant_and_for_the_whole(keeping):
    kept = keeping()
    champion = seen([0.02] * 90, in_flight=3.0)
    challenger = seen([0.3] * 10, in_flight=1.0, errors={"timeout": 2.0})
    await kept.live(60, champion=champion, challenger=challenger)
    found = await kept.read(60, 12)
    assert (found.service, found.step_s, found.at) == ("flights", 5.0, kept.clock.time())
    assert set(found.values) == {
        f"{scope}/{signal}" for scope in ("*", "champion", "challenger")
        for signal in ("rps", "p50_ms", "p95_ms", "p99_ms", "in_flight", "errors.timeout")}
    middle = {name: column[5] for name, column in found.values.items()}
    assert middle["champion/rps"] == 90.0
    assert middle["champion/p99_ms"] == pytest.approx(20, rel=0.1)
    assert middle["challenger/errors.timeout"] == 2.0
    assert middle["champion/errors.timeout"] == 0.0
    assert middle["*/rps"] == 100.0
    assert middle["*/p99_ms"] == pytest.approx(300, rel=0.1)
    assert middle["*/in_flight"] == 4.0


async def test_an_hour_is_read_from_the_merged_buckets_of_its_requests(keeping):
    kept = keeping()
    kept.clock.wall -= kept.clock.wall % 3600  # so that the hour is one column
    rng = np.random.default_rng(3)
    everything = []
    for minute in range(60):
        samples = rng.lognormal(np.log(0.02 + 0.0005 * minute), 0.6, 60)
        everything.append(samples)
        for some in samples.reshape(6, 10):
            kept.history.record("flights", kept.clock.time(), {"champion": seen(some, 10.0)})
            kept.clock.pass_(10)
        await kept.history.flush()
    found = await kept.read(3600, 1)
    exact = 1000 * float(np.percentile(np.concatenate(everything), 99))
    [p99, growing] = found.values["*/p99_ms"]
    assert growing is None
    assert p99 == pytest.approx(exact, rel=0.1)
    average = np.mean([1000 * np.percentile(some, 99) for some in everything])
    assert abs(average / exact - 1) > 0.1


async def test_rows_are_fine_for_15_minutes_middling_for_6_hours_and_coarse_for_7_days(
        keeping, history_file):
    kept = keeping()
    step = 60
    begun = kept.clock.time()
    for _ in range(8 * 24 * 3600 // step):
        kept.history.record("flights", kept.clock.time(), {"champion": seen([0.02], float(step))})
        kept.clock.pass_(step)
        if int(kept.clock.time()) % 3600 < step:
            await kept.history.flush()
    await kept.history.flush()
    now = kept.clock.time()
    for resolution, reach in ((1, 900), (10, 6 * 3600), (60, WEEK)):
        oldest = rows(history_file, resolution)[0]
        assert reach - 3600 - step <= now - oldest <= reach + resolution
    found = await kept.read(8 * 86400, 8)
    assert found.start >= begun - 86400
    assert [rate is not None for rate in found.values["*/rps"]].count(True) >= 7


async def test_a_shorter_history_in_the_config_is_kept_to(keeping, history_file):
    kept = keeping(keep_s=120.0)
    await kept.live(300, champion=seen([0.02]))
    for resolution in (1, 10, 60):
        assert rows(history_file, resolution)[0] >= kept.clock.time() - 120 - resolution


async def test_it_survives_a_restart_in_the_middle_of_a_minute(keeping):
    first = keeping()
    await first.live(95, champion=seen([0.02] * 4))
    await first.history.close()
    second = keeping()
    await second.live(25, champion=seen([0.02] * 4))
    found = await second.read(3600, 60)
    assert found.step_s == 60.0
    assert sum(rate * 60 for rate in found.values["*/rps"] if rate) >= 120 * 4
    fine = await second.read(120, 120)
    assert fine.values["*/rps"] == [4.0] * 120 + [None]
    await first.history.close()


async def test_a_crash_loses_no_more_than_what_was_not_yet_flushed(keeping, history_file, clock):
    kept = keeping()
    await kept.live(37, champion=seen([0.02]))
    after_crash = Kept(history_file, clock)
    found = await after_crash.read(60, 60)
    assert [rate for rate in found.values["*/rps"] if rate] == [1.0] * 30
    await after_crash.history.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from engine.monitoring.history import History
from engine.monitoring.points import Point

async def main():
    at = [float(sys.argv[2])]
    history = History(Path(sys.argv[1]), keep_s=86400, clock=lambda: at[0], on_event=print)
    while True:
        history.record("flights", at[0], {"champion": Point(1.0, 5.0)})
        at[0] += 1
        await history.flush()
        print(int(at[0]), flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("commits", [1, 20, 61])
async def test_a_writer_that_is_killed_leaves_every_flushed_second_and_no_damage(
        history_file, clock, commits):
    with subprocess.Popen([sys.executable, "-c", WRITER, str(history_file), str(clock.wall)],
                          stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(commits):
            told = writer.stdout.readline()
        writer.kill()
        told = (writer.stdout.read().split() or [told])[-1]  # it went on until it was killed
    clock.wall = float(told)
    kept = Kept(history_file, clock)
    seconds = int(clock.wall - 1_795_000_000)
    found = await kept.read(seconds, seconds)
    assert found.values["*/rps"][:seconds] == [5.0] * seconds
    assert kept.events == []
    await kept.history.close()


async def test_unknown_is_none_and_no_requests_is_a_rate_of_zero(keeping):
    kept = keeping()
    await kept.live(5, champion=seen([0.02]))
    kept.clock.pass_(5)
    await kept.live(5, champion=Point(1.0))
    await kept.live(1)
    found = await kept.read(16, 16)
    assert found.values["champion/rps"] == [1.0] * 5 + [None] * 5 + [0.0] * 5 + [None] * 2
    assert found.values["champion/p99_ms"][4] is not None
    assert found.values["champion/p99_ms"][5:] == [None] * 12


async def test_a_service_without_a_past_has_no_columns(keeping):
    found = await keeping().history.read("pricing", 300, 60)
    assert found.values == {}
    assert (found.step_s, found.service) == (5.0, "pricing")


async def test_the_distance_of_two_points_is_never_less_than_that_of_two_scrapes(keeping):
    kept = keeping(interval_s=5.0)
    for _ in range(12):
        kept.history.record("flights", kept.clock.time(), {"champion": seen([0.02] * 10, 5.0)})
        kept.clock.pass_(5)
    found = await kept.read(60, 600)
    assert found.step_s == 5.0
    assert [rate for rate in found.values["*/rps"] if rate is not None] == [2.0] * 12


@pytest.mark.parametrize("damage", ["rubbish", "page", "row", "version"])
async def test_a_damaged_file_is_set_aside_with_an_event_and_a_new_one_begun(
        keeping, history_file, damage):
    before = keeping()
    await before.live(200, champion=seen([0.02]))
    await before.history.close()
    if damage == "rubbish":
        history_file.write_bytes(b"this is no database" * 99)
    elif damage == "page":
        content = bytearray(history_file.read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)
        history_file.write_bytes(content)
    else:
        with sqlite3.connect(history_file) as db:
            db.execute("UPDATE points SET body = x'c1'" if damage == "row"
                       else "PRAGMA user_version = 99")
    damaged = history_file.read_bytes()

    after_it = keeping()
    await after_it.live(20, champion=seen([0.02] * 3))
    await after_it.read(300, 30)  # a bad row is found only when it is read
    await after_it.live(20, champion=seen([0.02] * 3))
    found = await after_it.read(20, 20)
    assert found.values["*/rps"] == [3.0] * 20 + [None]
    [(kind, data)] = after_it.events
    assert kind == "history.set_aside"
    assert "a new one has begun" in data["text"]
    [aside] = history_file.parent.glob("history.db.broken-*")
    assert str(aside) == data["aside"]
    assert damage == "row" or aside.read_bytes() == damaged
    await before.history.close()


async def test_only_the_newest_damaged_file_is_kept(keeping, history_file, clock):
    for _ in range(3):
        history_file.write_bytes(b"this is no database" * 99)
        kept = Kept(history_file, clock)
        await kept.live(10, champion=seen([0.02]))
        await kept.history.close()
        assert [kind for kind, _ in kept.events] == ["history.set_aside"]
    assert len(list(history_file.parent.glob("history.db.broken-*"))) == 1


async def test_while_the_file_is_locked_points_wait_in_memory_and_it_is_told_once(
        keeping, history_file, monkeypatch):
    monkeypatch.setattr("engine.monitoring.history_store.BUSY_S", 0.01)
    kept = keeping()
    await kept.live(10, champion=seen([0.02]))
    other = sqlite3.connect(history_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    await kept.live(30, champion=seen([0.02]))
    with pytest.raises(HistoryUnavailable, match="locked") as refused:
        await kept.read(60, 60)
    assert refused.value.where == str(history_file)
    assert [kind for kind, _ in kept.events] == ["history.failing"]
    other.execute("ROLLBACK")
    other.close()
    found = await kept.read(60, 60)
    assert [rate for rate in found.values["*/rps"] if rate] == [1.0] * 40
    assert [kind for kind, _ in kept.events] == ["history.failing", "history.well"]


async def test_a_file_that_cannot_be_made_is_told_once_and_memory_stays_bounded(
        tmp_path, clock):
    kept = Kept(tmp_path / "missing" / "history.db", clock)
    await kept.live(1200, champion=seen([0.02]))
    assert [kind for kind, _ in kept.events] == ["history.failing"]
    assert len(kept.history._waiting) <= 911
    (tmp_path / "missing").mkdir()
    await kept.history.close()
    assert [kind for kind, _ in kept.events] == ["history.failing", "history.well"]


async def test_rows_of_a_clock_that_ran_ahead_do_not_stay_for_ever(keeping, history_file):
    kept = keeping()
    kept.clock.wall += 10 * 365 * 86400
    await kept.live(20, champion=seen([0.02]))
    kept.clock.wall -= 10 * 365 * 86400
    await kept.live(20, champion=seen([0.02]))
    for resolution in (1, 10, 60):
        assert max(rows(history_file, resolution)) <= kept.clock.time()


async def test_the_file_is_for_its_owner_alone(keeping, history_file):
    await keeping().live(20, champion=seen([0.02]))
    assert stat.S_IMODE(history_file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("version", "safe"), [
    ((3, 40, 1), False), ((3, 44, 5), False), ((3, 44, 6), True), ((3, 45, 0), False),
    ((3, 50, 6), False), ((3, 50, 7), True), ((3, 51, 2), False), ((3, 51, 3), True),
    ((3, 52, 0), True)])
def test_write_ahead_logging_is_used_only_where_sqlite_is_free_of_its_race(version, safe):
    assert wal_is_safe(version) is safe


points = st.builds(
    lambda span, own, errors, flight: Point(
        span, float(sum(own)), {"timeout": errors} if errors else {}, flight,
        BOUNDS if any(own) else (), {n: float(c) for n, c in enumerate(own) if c}),
    st.floats(0.5, 60), st.lists(st.integers(0, 500), min_size=5, max_size=5),
    st.integers(0, 5).map(float), st.none() | st.floats(0, 100))


@given(st.lists(points, max_size=6), st.integers(0, 6))
@settings(max_examples=50)
def test_joining_in_steps_is_joining_at_once(many, cut):
    by_steps = after([after(many[:cut]), after(many[cut:])])
    at_once = after(many)
    assert by_steps.span_s == pytest.approx(at_once.span_s)
    assert (by_steps.requests, by_steps.errors, by_steps.in_flight, by_steps.buckets) == (
        at_once.requests, at_once.errors, at_once.in_flight, at_once.buckets)


@given(points)
def test_a_point_comes_back_from_storage_as_it_went(one):
    back = unpacked(packed(one, 1), {1: BOUNDS})
    assert back.span_s == pytest.approx(one.span_s, abs=1e-3)
    assert (back.requests, back.errors, back.in_flight, back.bounds, back.buckets) == (
        one.requests, one.errors, one.in_flight, one.bounds, one.buckets)


def test_points_beside_each_other_share_their_time_and_points_after_each_other_add_it():
    one, other = seen([0.02] * 6, 2.0, in_flight=3.0), seen([0.2] * 4, 2.0, in_flight=5.0)
    assert (beside([one, other]).span_s, after([one, other]).span_s) == (2.0, 4.0)
    assert (beside([one, other]).in_flight, after([one, other]).in_flight) == (8.0, 5.0)
    assert beside([one, other]).requests == after([one, other]).requests == 10


def test_where_bounds_changed_a_joined_point_keeps_the_newer_buckets():
    joined = after([seen([0.02] * 6), seen([0.15] * 4, bounds=(0.1, 0.2))])
    assert joined.requests == 10
    assert joined.latency() == Histogram.of((0.1, 0.2), (0, 4, 4))


def test_a_point_of_increments_holds_the_same_histogram():
    own = list(accumulate([0, 3, 0, 5] + [0] * 122))
    latency = Histogram.of(BOUNDS, own)
    one = point([Increment("flights", "champion", 1.0, 8.0, latency, {"timeout": 1.0})] * 2, 2.0)
    assert one.latency() == Histogram.of(BOUNDS, [2 * count for count in own])
    assert (one.requests, one.errors, one.in_flight, one.span_s) == (16, {"timeout": 2}, 2.0, 1.0)


def test_a_series_has_a_column_of_equal_length_for_every_signal():
    found = series("flights", [(12.0, {"a": seen([0.02])}), (19.0, {"b": seen([0.2])})],
                   start=10.0, step_s=5.0, count=3, at=24.0)
    assert {len(column) for column in found.values.values()} == {3}
    assert found.values["a/rps"] == [1.0, None, None]
    assert found.values["*/rps"] == [1.0, 1.0, None]
    assert found.values["*/p99_ms"][0] == pytest.approx(
        1000 * quantile(seen([0.02]).latency(), 0.99), rel=1e-3)
