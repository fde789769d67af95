"""The data are what the demo says of them: real flights, real weather, real drift."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from engine.demo import flights
from engine.demo.layout import Layout
from engine.errors import UsageError


def test_every_flight_that_arrived_is_a_row_and_no_other(prepared: Layout) -> None:
    about = flights.load_about(prepared)
    assert (about.scheduled, about.rows) == (336_776, 327_346)
    assert len(flights.load(prepared)) == about.rows


def test_rows_stand_in_order_of_the_real_departure(prepared: Layout) -> None:
    assert (np.diff(flights.load(prepared)["depart"]) >= 0).all()


def test_a_flight_lands_after_its_time_in_the_air_and_some_taxiing(prepared: Layout) -> None:
    with zipfile.ZipFile(flights.source_files()[0]) as archive:
        text = io.StringIO(archive.read("flights.csv").decode("ascii"))
    air = np.array([int(row["air_time"]) for row in csv.DictReader(text) if row["air_time"] != "NA"])
    rows = flights.load(prepared)
    aloft = (rows["land"] - rows["depart"]) // 60
    # Not row by row, because both are in another order; sums and extremes would show a wrong zone.
    assert (aloft.sum() - air.sum()) / len(rows) == pytest.approx(31.3, abs=0.1)
    assert aloft.min() >= 20 + 5 and aloft.max() <= 695 + 235


def test_the_label_is_an_arrival_more_than_thirty_minutes_late(prepared: Layout) -> None:
    rows = flights.load(prepared)
    assert np.array_equal(rows["late"] == 1, rows["delay"] > 30)


def test_the_first_flight_of_the_year_has_its_own_data(prepared: Layout) -> None:
    about, rows = flights.load_about(prepared), flights.load(prepared)
    first = rows[rows["tail"] == b"N14228"][0]
    assert (about.carrier[first["carrier"]], int(first["number"])) == ("UA", 1545)
    assert about.origin[first["origin"]] == "EWR"
    assert first["depart"] == np.datetime64("2013-01-01T10:17:00", "s").astype(int)
    assert first["land"] == np.datetime64("2013-01-01T14:30:00", "s").astype(int)
    assert (first["hour"], first["weekday"], first["distance"]) == (5, 1, 1400)
    assert first["temp"] == np.float32(39.02)


def test_weather_that_was_not_recorded_is_missing_and_not_zero(prepared: Layout) -> None:
    rows = flights.load(prepared)
    assert np.isnan(rows["pressure"]).mean() == pytest.approx(0.110, abs=0.001)
    assert np.isnan(rows["temp"]).mean() == pytest.approx(0.0047, abs=0.0002)
    assert np.nanmin(rows["pressure"]) > 980


def test_temperature_and_dew_point_drift_away_from_the_winter(prepared: Layout) -> None:
    rows = flights.load(prepared)
    winter = rows[rows["month"] <= 3]
    for column, months in (("temp", range(4, 11)), ("dewp", range(5, 11))):
        known = winter[column][~np.isnan(winter[column])]
        for month in months:
            values = rows[column][rows["month"] == month]
            statistic = ks_2samp(known, values[~np.isnan(values)]).statistic
            assert 0.6 <= statistic <= 1.0, (column, month, statistic)


def test_the_late_rate_moves_from_fourteen_to_twenty_three_percent(prepared: Layout) -> None:
    months = flights.load_about(prepared).late_by_month
    assert months[0] == pytest.approx(0.14, abs=0.005)
    assert months[1] == pytest.approx(0.14, abs=0.005)
    assert months[5] == pytest.approx(0.23, abs=0.005)
    assert months[6] == pytest.approx(0.23, abs=0.005)


def test_reading_again_gives_the_same_bytes_or_does_nothing(prepared: Layout, tmp_path: Path) -> None:
    before = flights.load_about(prepared)
    assert flights.prepare(prepared) == (before, False)
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"damaged")
    damaged.replace(prepared.flights)  # not written over: others may have it mapped
    assert flights.prepare(prepared) == (before, True)


def test_without_the_prepared_flights_one_is_told_which_step_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"engine\.demo\.prepare"):
        flights.load(Layout(tmp_path))
    with pytest.raises(UsageError, match=r"engine\.demo\.prepare"):
        flights.load_about(Layout(tmp_path))
