"""The training as a whole, on a little data: what goes in, what comes out, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq

import data
import train


def test_the_model_learns_that_large_ones_happen_more_often(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(data.rows(500, seed=2))), tmp_path / "train.parquet")
    train.fit(tmp_path, tmp_path, {"steps": 100, "rate": 0.5})
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    rows = {"size": [-2.0, 0.0, 2.0], "warmth": [20.0, 20.0, 20.0]}
    [scores] = session.run(None, {name: pa.array(values, pa.float32()).to_numpy()
                                  for name, values in rows.items()})
    assert scores[0] < 0.2 < 0.3 < scores[1] < 0.7 < 0.8 < scores[2]
    assert json.loads((tmp_path / "metrics.json").read_text())["loss"] < 0.6


def test_the_same_data_gives_the_same_model(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(data.rows(200, seed=2))), tmp_path / "train.parquet")
    made = []
    for _ in range(2):
        train.fit(tmp_path, tmp_path, {"steps": 10, "rate": 0.5})
        made.append((tmp_path / "model.onnx").read_bytes())
    assert made[0] == made[1]
