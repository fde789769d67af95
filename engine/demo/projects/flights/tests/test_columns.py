"""What the model sees of a flight is what was recorded, in the order it learned it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

import data
from columns import FEATURES, GROUP, KEY, LABEL, WEATHER, feed, known, matrix

ROW = {"carrier": "AA", "origin": "JFK", "hour": 8, "weekday": 0, "distance": 500, "temp": 40.0, "dewp": 30.0,
       "humid": 70.0, "wind_speed": 5.0, "precip": 0.0, "pressure": 1010.0, "visib": 10.0}


def table(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{**ROW, **row} for row in rows])


def test_a_category_is_its_place_among_the_known_ones_and_an_unknown_one_is_missing() -> None:
    categories = known(table({"carrier": "UA"}, {"carrier": "AA"}, {"carrier": None}))
    assert categories == {"carrier": ["AA", "UA"], "origin": ["JFK"]}
    seen = matrix(table({"carrier": "UA"}, {"carrier": "ZZ"}, {"carrier": None}), categories)[:, 0]
    assert seen[0] == 1 and np.isnan(seen[1:]).all()


def test_columns_stand_in_the_models_order_whatever_the_tables_is() -> None:
    rows = table({})
    categories = known(rows)
    turned = rows.select(list(reversed(rows.column_names)))
    assert matrix(turned, categories).tolist() == matrix(rows, categories).tolist()
    assert matrix(rows, categories)[0, FEATURES.index("distance")] == 500


def test_a_missing_number_stays_missing() -> None:
    rows = table({"pressure": None}, {})
    assert np.isnan(matrix(rows, known(rows))[:, FEATURES.index("pressure")]).tolist() == [True, False]
    assert np.isnan(feed(rows)["pressure"][0])


def test_a_table_without_rows_has_no_rows_of_features() -> None:
    assert matrix(table({}).slice(0, 0), {"carrier": [], "origin": []}).shape == (0, len(FEATURES))


def test_a_column_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(KeyError, match="visib"):
        matrix(table({}).drop_columns(["visib"]), {"carrier": ["AA"], "origin": ["JFK"]})


def test_january_has_its_real_flights_each_once_and_in_order() -> None:
    january = data.flights(1)
    assert january.num_rows == 26_398
    assert set(january.column_names) == {*FEATURES, *KEY, GROUP, LABEL}
    assert january.group_by(list(KEY)).aggregate([]).num_rows == january.num_rows
    times = january["scheduled"].to_numpy()
    assert (times[1:] >= times[:-1]).all()
    assert str(times[0])[:16] == "2013-01-01T10:15"  # 5:15 in New York
    assert january["weekday"][0].as_py() == 1  # a Tuesday
    assert 0.1 < np.mean(january[LABEL]) < 0.2
    assert all(january[name].null_count < 0.2 * january.num_rows for name in WEATHER)


@pytest.mark.parametrize("months", [0, 13])
def test_other_months_than_the_years_are_refused(months: int) -> None:
    with pytest.raises(ValueError, match="months 1 to 12"):
        data.flights(months)
