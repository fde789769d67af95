"""A schedule fires once for each of its times: in any zone, through clock changes, and after an outage."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.pipeline.project.model import Cron
from engine.pipeline.triggers import cron


def at(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


def test_a_schedule_begins_to_count_when_it_is_first_seen() -> None:
    tick = cron.look(Cron(at="0 3 * * *"), None, at("2026-03-01T12:00:00"))
    assert tick == cron.Tick(at("2026-03-01T12:00:00"), "anew")


def test_a_tick_fires_once_although_the_clock_goes_back() -> None:
    daily, mark = Cron(at="0 3 * * *"), at("2026-03-01T12:00:00")
    assert cron.look(daily, mark, at("2026-03-02T02:59:59")) is None
    tick = cron.look(daily, mark, at("2026-03-02T03:00:01"))
    assert tick == cron.Tick(at("2026-03-02T03:00:00"), "run")
    for later in ("2026-03-02T02:30:00", "2026-03-02T03:00:00", "2026-03-02T03:00:30"):
        assert cron.look(daily, tick.mark, at(later)) is None


def test_a_mark_of_a_clock_that_was_days_ahead_is_given_up() -> None:
    tick = cron.look(Cron(at="0 3 * * *"), at("2031-01-01T03:00:00"), at("2026-03-01T12:00:00"))
    assert tick is not None
    assert tick.verdict == "anew"


def test_missed_ticks_are_caught_up_with_once_or_skipped_as_said() -> None:
    mark, now = at("2026-03-01T12:00:00"), at("2026-03-09T12:00:00")
    newest = at("2026-03-09T03:00:00")
    assert cron.look(Cron(at="0 3 * * *", missed="catch up"), mark, now) == cron.Tick(newest, "run")
    assert cron.look(Cron(at="0 3 * * *", missed="skip"), mark, now) == cron.Tick(newest, "missed")
    assert cron.look(Cron(at="0 3 1 * *", missed="catch up"), mark, at("2026-04-20T00:00:00")) == cron.Tick(
        at("2026-04-01T03:00:00"), "run")


def test_a_short_restart_does_not_make_a_tick_missed() -> None:
    tick = cron.look(Cron(at="0 3 * * *"), at("2026-03-01T12:00:00"), at("2026-03-02T03:01:00"))
    assert tick is not None
    assert tick.verdict == "run"


@pytest.mark.parametrize(("day", "tick"), [
    ("2026-03-29", "2026-03-29T01:00:00"),  # 02:30 does not exist: at the end of the gap
    ("2026-10-25", "2026-10-25T00:30:00"),  # 02:30 comes twice: the first
    ("2026-07-01", "2026-07-01T00:30:00"), ("2026-12-01", "2026-12-01T01:30:00")])
def test_an_hour_that_is_left_out_or_comes_twice_fires_once(day: str, tick: str) -> None:
    nightly = Cron(at="30 2 * * *", zone="Europe/Berlin")
    fired, mark = [], at(f"{day}T00:00:00") - 7200
    for minute in range(24 * 60):
        found = cron.look(nightly, mark, at(f"{day}T00:00:00") + 60 * minute)
        if found is not None:
            fired.append(found.mark)
            mark = found.mark
    assert fired == [at(tick)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-7200, 90_000), min_size=1, max_size=30),
       st.sampled_from(["0 3 * * *", "*/15 * * * *", "30 2 * * *", "5 4 * * 0", "0 0 1 * *"]),
       st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]))
def test_whatever_the_clock_does_a_tick_never_fires_twice(jumps: list[float], expression: str, zone: str
                                                          ) -> None:
    schedule = Cron(at=expression, zone=zone, missed="catch up")
    now = mark = at("2026-03-27T00:00:00")
    fired: list[float] = []
    for jump in jumps:
        now += jump
        tick = cron.look(schedule, mark, now)
        if tick is not None and tick.verdict == "run":
            assert mark < tick.mark <= now
            assert cron.newest(schedule, tick.mark, now) is None
            fired.append(tick.mark)
        mark = mark if tick is None else tick.mark
    if all(jump > -86000 for jump in jumps):
        assert len(set(fired)) == len(fired)


@pytest.mark.parametrize(("expression", "zone", "told"), [
    ("every night", "UTC", "is not a schedule"), ("0 3 * *", "UTC", "is not a schedule"),
    ("0 3 30 2 *", "UTC", "is not a schedule"), ("0 3 * * *", "Europe/Atlantis", "there is no time zone"),
    ("0 3 * * *", "../../etc/passwd", "there is no time zone")])
def test_a_schedule_that_cannot_be_read_is_said_to_be_so(expression: str, zone: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        cron.check(Cron(at=expression, zone=zone))
