"""Training on a real Ray cluster, a local one for as long as it takes; its end leaves nothing running."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import ActionFailed
from engine.pipeline.stages import train
from tests.pipeline.child import small_project
from tests.pipeline.child.stage_work import Heard, work

LEARN = '''\
import json, os


def fit(inputs, output, params):
    print("begun", sorted(path.name for path in inputs.iterdir()))
    if params.get("fails"):
        raise ValueError("there is nothing to learn")
    with open(output / "metrics.jsonl", "w") as curve:
        for step in range(3):
            curve.write(json.dumps({"step": step, "loss": 0.5 ** (step + 1)}) + "\\n")
    (output / "model").mkdir()
    (output / "model" / "model.json").write_text(json.dumps({"seed": os.environ["OPSDECK_SEED"]}))
    (output / "metrics.json").write_text(json.dumps({"loss": 0.125}))
'''


def given(root: Path, heard: Heard, **params: Any) -> Any:
    (root / "data").mkdir(parents=True)
    for name in ("train.parquet", "test.parquet"):
        (root / "data" / name).write_bytes(b"rows")
    (root / "data" / "dataset.json").write_text(json.dumps({"uri": "r", "kind": "file", "sha256": "a"}))
    settings = {"entry": {"function": "learn:fit"}, "runs_on": "ray", "params": params}
    project = small_project.project(root / "project", {"learn.py": LEARN}, train=settings, project="rays")
    return work(project, root, "train", heard, tracking=f"sqlite:///{root}/mlflow.db", key="k")


def of_ray() -> set[int]:
    found = set()
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if "raylet" in words or "gcs_server" in words:
            found.add(process.pid)
    return found


@pytest.mark.slow
def test_it_trains_on_a_local_cluster_that_ends_with_it_and_tells_a_failure_in_its_own_words(
        tmp_path: Path) -> None:
    before, heard = of_ray(), Heard()
    one = given(tmp_path / "good", heard)
    done = train.run(one)
    assert done.passed and done.result["loss"] == 0.125 and done.result["runs_on"] == "ray"
    assert json.loads((one.output / "model" / "model.json").read_text()) == {"seed": "7"}
    assert any(line.startswith("begun") for line in heard.lines)
    assert heard.points[0] == ("loss", 0.0, 0.5) and heard.points[-1] == ("loss", 2.0, 0.125)
    with pytest.raises(ActionFailed, match="there is nothing to learn"):
        train.run(given(tmp_path / "bad", Heard(), fails=True))
    assert of_ray() == before
