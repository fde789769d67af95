"""The calendar keeps the flights' order, sends them evenly, and knows no label before its time."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.demo.calendar import HOUR, Calendar, Landings

DEPARTURES = st.lists(st.integers(0, 40 * HOUR), min_size=1, max_size=60).map(sorted)
# A busy machine may take its time over one example.
calm = settings(deadline=None)
MILLISECONDS = st.integers(0, 1000 * HOUR * 1000)
STEPS = st.lists(st.floats(0, 3 * HOUR), max_size=80)


@calm
@given(DEPARTURES, STEPS)
def test_time_and_flights_only_go_forward_also_over_the_years_end(
        depart: list[int], steps: list[float]) -> None:
    calendar = Calendar(depart)
    moments = [calendar.moment(0, elapsed) for elapsed in itertools.accumulate(steps, initial=0.0)]
    for before, after in itertools.pairwise(moments):
        assert after.clock >= before.clock
        assert (after.lap, after.flight) >= (before.lap, before.flight)


@calm
@given(DEPARTURES, MILLISECONDS)
def test_a_flight_is_sent_in_the_hour_of_its_departure(depart: list[int], elapsed: int) -> None:
    calendar = Calendar(depart)
    moment = calendar.moment(0, elapsed / 1000)
    clock = moment.clock - moment.lap * calendar.lap_s
    assert depart[moment.flight] // HOUR == int(clock) // HOUR


@calm
@given(DEPARTURES)
def test_with_as_many_requests_as_flights_in_each_hour_every_flight_is_sent_once(
        depart: list[int]) -> None:
    calendar = Calendar(depart)
    sent = []
    hours = sorted({at // HOUR for at in depart})
    for number, hour in enumerate(hours):
        flights = sum(1 for at in depart if at // HOUR == hour)
        sent += [calendar.moment(0, (number + (slot + 0.5) / flights) * HOUR).flight
                 for slot in range(flights)]
    assert sent == list(range(len(depart)))


@calm
@given(DEPARTURES, st.integers(1, 200))
def test_more_requests_than_flights_repeat_each_about_equally_often(
        depart: list[int], requests: int) -> None:
    calendar = Calendar(depart)
    first_hour = [at for at in depart if at // HOUR == depart[0] // HOUR]
    sent = [calendar.moment(0, slot / requests * HOUR).flight for slot in range(requests)]
    counts = [sent.count(flight) for flight in range(len(first_hour))]
    assert sum(counts) == requests
    # Rounding may give a request on the very edge of two flights to either.
    assert all(abs(count - requests / len(counts)) < 2 for count in counts)


def test_hours_without_departures_are_skipped() -> None:
    calendar = Calendar([10, 5 * HOUR, 5 * HOUR + 1])
    assert calendar.moment(0, 0.9 * HOUR).clock == 0.9 * HOUR
    assert calendar.moment(0, 1.5 * HOUR).clock == 5.5 * HOUR
    after = calendar.moment(0, 2.0 * HOUR)
    assert (after.clock, after.flight, after.lap) == (6 * HOUR, 0, 1)


def test_it_starts_at_the_first_hour_with_departures_from_the_day_on() -> None:
    calendar = Calendar([10, 5 * HOUR, 9 * HOUR])
    assert [calendar.start(at) for at in (0, 1 * HOUR, 5 * HOUR + 1, 9 * HOUR)] == [0, 1, 1, 2]
    assert calendar.start(100 * HOUR) == 0


@calm
@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60))
def test_no_flight_has_landed_before_its_time_and_none_is_lost(
        happenings: list[tuple[float, bool]]) -> None:
    air = Landings(1000)
    clock, lands, seen = 0.0, {}, []
    for request, (amount, takes_off) in enumerate(happenings):
        if takes_off:
            lands[request] = clock + amount
            air.add(lands[request], 7, request)
        else:
            clock += amount
            for flight, landed in air.landed(clock):
                assert flight == 7
                assert lands[landed] <= clock
                seen.append(landed)
    seen += [request for _, request in air.landed(1e9)]
    assert sorted(seen) == sorted(lands)
    assert len(air) == 0


def test_flights_in_the_air_are_bounded_and_the_ones_left_out_are_counted() -> None:
    air = Landings(2)
    for request in range(5):
        air.add(float(request), 0, request)
    assert (len(air), air.dropped) == (2, 3)
