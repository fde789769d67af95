"""Small made-up flights for the tests."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def synthetic(rows: int, seed: int = 0) -> pa.Table:
    """Flights that are late when it rains, and now and then otherwise. The rest says nothing."""
    rng = np.random.default_rng(seed)
    rain = np.where(rng.random(rows) < 0.3, rng.random(rows), 0.0)
    late = rng.random(rows) < np.where(rain > 0.2, 0.8, 0.1)
    pressure = pa.array(rng.normal(1015, 8, rows), mask=rng.random(rows) < 0.1)
    return pa.table({
        "carrier": rng.choice(["AA", "B6", "UA"], rows), "origin": rng.choice(["EWR", "JFK"], rows),
        "hour": rng.integers(5, 24, rows), "weekday": rng.integers(0, 7, rows),
        "distance": rng.integers(90, 2500, rows), "temp": rng.normal(40, 10, rows),
        "dewp": rng.normal(30, 8, rows), "humid": rng.uniform(30, 100, rows),
        "wind_speed": rng.uniform(0, 25, rows), "precip": rain, "pressure": pressure,
        "visib": rng.uniform(1, 10, rows), "late": late.astype(int),
        "airport_hour": [f"JFK {row // 10}" for row in range(rows)],
        "sample_weight": np.linspace(0.5, 1.0, rows)})
