"""A data stage's `Work` over a table that a test writes, run in this process."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from engine.pipeline.project.model import Project
from engine.pipeline.stages.contract import Done, Work
from engine.pipeline.stages.data.looking import look

NOW = dt.datetime(2026, 11, 24, 12, tzinfo=dt.UTC)


def project(task: str = "binary", **data: Any) -> Project:
    """A project of one file rows.parquet, a fifth held out; `data` changes its section."""
    return Project.model_validate({
        "opsdeck": 1, "project": "p", "model": "p", "task": task, "owner": "o",
        "environment": {"inherit": True}, "train": {"entry": {"function": "train:main"}},
        "gates": [{"kind": "memory", "at_most_mb": 100}],
        "evaluate": {"classes": data.pop("classes", [])},
        "data": {"source": {"path": "rows.parquet"}, "label": "y", "holdout": {"share": 0.2}, **data}})


def work(tmp: Path, given: Project, number: int = 0) -> Work:
    output = tmp / f"output{number}"
    output.mkdir(parents=True)
    (tmp / "folder").mkdir(exist_ok=True)
    return Work(given, tmp / "folder", tmp / "home", "run-1", "data", 1, {}, output, {}, lambda line: None,
                lambda name, at, value: None)


def table(rows: int = 2000, seed: int = 0, **columns: Any) -> Any:
    """Two features that say something of y, and a text; `columns` replace or add, None leaves out."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    a = rng.normal(size=rows)
    made: dict[str, Any] = {
        "a": a, "b": rng.exponential(size=rows), "word": pa.array(rng.choice(["x", "y", "z"], rows)),
        "y": (a + rng.normal(size=rows) > 0).astype(int)}
    made |= columns
    return pa.table({name: value for name, value in made.items() if value is not None})


def looked(tmp: Path, given: Project, rows: Any, number: int = 0, now: dt.datetime = NOW) -> Done:
    """Run the stage over `rows`: an Arrow table, or the text of a CSV file of the source's name."""
    import pyarrow.parquet as pq

    one = work(tmp, given, number)
    path = one.folder / str(given.data.source.path)
    if isinstance(rows, str):
        path.write_text(rows)
    elif rows is not None:
        pq.write_table(rows, path)
    return look(one, now)


def findings(tmp: Path, number: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((tmp / f"output{number}" / "findings.json").read_text())
    return found
