"""A small project written into a folder: trivial code, run by this interpreter, so without network."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from engine.pipeline.project.model import Project

# A straight line by the standard library; the "model" is a folder with a JSON file.
LEARN = '''
import csv, json

def fit(inputs, output, params):
    (output / "model").mkdir()
    loss = 1.0
    with (output / "metrics.jsonl").open("w") as lines:
        for step in range(params.get("steps", 5)):
            loss /= 2
            lines.write(json.dumps({"step": step, "loss": loss}) + "\\n")
            lines.flush()
    (output / "model" / "model.json").write_text(json.dumps({"slope": 2.0}))
    (output / "metrics.json").write_text(json.dumps({"loss": loss, "rows": 3}))
'''


def project(folder: Path, files: dict[str, str] | None = None, **changes: Any) -> Project:
    """Write learn.py and `files` into `folder`; the project that names them, with `changes` on top."""
    for name, text in {"learn.py": LEARN, **(files or {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    given: dict[str, Any] = {
        "opsdeck": 1, "project": "small", "model": "small", "task": "regression", "owner": "ana",
        "environment": {"inherit": True}, "seed": 7,
        "data": {"source": {"path": "rows.csv"}, "label": "y", "holdout": {"share": 0.2}},
        "train": {"entry": {"function": "learn:fit"}},
        "gates": [{"kind": "improvement", "metric": "rmse"}], **changes}
    return Project.model_validate(given)
