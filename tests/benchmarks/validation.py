"""What it costs to learn what a table looks like and to check a new one: 1,000,000 rows of 25 columns in
Parquet: twelve numbers (two with gaps), four whole numbers, five categories, a flag, a time, a key, a text.

The data stage as a whole fetches, splits, writes and checks the same table, and looks for leaks and copies.

Each is measured in a process of its own that is held to one core, imports included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.figure import Figure

ROWS = 1_000_000
ROOT = Path(__file__).parents[2]
CHILD = """
import json, os, resource, sys, time
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
begun = time.perf_counter()
from pathlib import Path
from engine.pipeline.expectations import check, dumps, learn, loads
folder, what = Path(sys.argv[1]), sys.argv[2]
if what == "stage":
    import datetime as dt
    from engine.pipeline.project.model import Project
    from engine.pipeline.stages.contract import Work
    from engine.pipeline.stages.data.looking import look
    project = Project.model_validate({
        "opsdeck": 1, "project": "p", "model": "p", "task": "binary", "owner": "o",
        "environment": {"inherit": True}, "train": {"entry": {"function": "train:main"}},
        "gates": [{"kind": "memory", "at_most_mb": 100}],
        "data": {"source": {"path": "old.parquet"}, "label": "flag", "time": "at", "key": ["id"],
                 "expectations": "stage.yaml", "holdout": {"last": "18d"}, "window": {"half_life": "30d"}}})
    output = folder / "output"
    output.mkdir(exist_ok=True)
    done = look(Work(project, folder, folder, "1", "data", 1, {}, output, {}, lambda line: None,
                     lambda name, at, value: None), dt.datetime.now(dt.UTC))
    assert done.passed, done.says
    (output / "expectations.yaml").rename(folder / "stage.yaml") if done.result["learned"] else None
    found = []
elif what == "learn":
    (folder / "expectations.yaml").write_text(dumps(learn(folder / "old.parquet")))
    found = []
else:
    found = check(loads(folder / "expectations.yaml"), folder / "new.parquet")
seconds = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"seconds": seconds, "cpu": time.process_time(), "gigabytes": peak,
                  "found": [[f.column, f.kind] for f in found]}))
"""


def table(rows: int, seed: int) -> Any:
    """Columns of 25 kinds; with seed 1 one number is shifted by a third of its deviation."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    common = rng.normal(size=rows)
    columns: dict[str, Any] = {f"number_{i}": common * i / 10 + rng.normal(size=rows) for i in range(8)}
    columns["number_3"] += (seed == 1) / 3
    columns["amount"], columns["wait"] = (
        rng.lognormal(3, 1, rows),
        rng.exponential(20, rows).astype("float32"),
    )
    for name in ("gap_1", "gap_2"):
        columns[name] = pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.05)
    columns |= {f"count_{i}": rng.poisson(i + 1, rows) for i in range(4)}
    for i, kinds in enumerate((3, 8, 16, 40, 2_000)):
        words = np.array([f"kind {i}-{k}" for k in range(kinds)])
        columns[f"category_{i}"] = pa.array(words[(rng.beta(1, 3, rows) * kinds).astype(int)])
    columns["flag"] = rng.random(rows) < 0.2
    start = np.datetime64("2026-01-01") + np.timedelta64(90 * seed, "D")
    columns["at"] = pa.array(
        start + np.sort(rng.integers(0, 90 * 86_400, rows)).astype("m8[s]"), pa.timestamp("us", "UTC")
    )
    columns["id"] = np.arange(rows) + seed * rows
    columns["text"] = pa.array([f"order {seed}-{i:x}" for i in range(rows)])
    return pa.table(columns)


def figures() -> list[Figure]:
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        folder = Path(directory)
        for seed, name in enumerate(("old", "new")):
            made = table(ROWS, seed)
            assert made.num_columns == 25
            pq.write_table(made, folder / f"{name}.parquet", row_group_size=ROWS // 8)
            del made
        learned, checked = _run(folder, "learn"), _run(folder, "check")
        _run(folder, "stage")  # learns what to expect, once in a project's life
        stage = _run(folder, "stage")
    found = sorted({tuple(one) for one in checked["found"]})
    assert ("number_3", "distribution") in found, found
    note = (f"1 M rows × 25 columns, one core, {checked['cpu']:.2f} s of it used; found "
            f"{', '.join(' '.join(one) for one in found)}")
    return [Figure("check a new table", checked["seconds"], "s", 3, "lower", note),
            Figure("check a new table, peak memory", checked["gigabytes"], "GB", 1, "lower"),
            Figure("learn from a table", learned["seconds"], "s", 6, "lower",
                   f"two passes, {learned['cpu']:.2f} s of one core used"),
            Figure("learn from a table, peak memory", learned["gigabytes"], "GB", 1, "lower"),
            Figure("the data stage as a whole", stage["seconds"], "s", 10, "lower",
                   f"read, split, written, checked, {stage['cpu']:.2f} s of one core used"),
            Figure("the data stage as a whole, peak memory", stage["gigabytes"], "GB", 1, "lower")]


def _run(folder: Path, what: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", CHILD, str(folder), what], cwd=ROOT, check=True,
                          capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found
