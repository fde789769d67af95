"""Training on a real Ray cluster, a local one for as long as it takes; its end leaves nothing running."""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.errors import ActionFailed, UsageError
from engine.pipeline.stages import train
from engine.pipeline.stages.train import parcel
from engine.pipeline.stages.train.worker import Worker
from tests.pipeline.child import small_project
from tests.pipeline.child.stage_work import Heard, work

LEARN = '''\
import json, os


def fit(inputs, output, params):
    print("begun", sorted(path.name for path in inputs.iterdir()), os.environ["KEY"], sorted(os.environ))
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
    settings = {"entry": {"function": "learn:fit"}, "runs_on": "ray", "params": params,
                "credentials": {"KEY": "env:STORE"}}
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
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "hunter2-long")
    before, heard = of_ray(), Heard()
    one = given(tmp_path / "good", heard)
    done = train.run(one)
    assert done.passed and done.result["loss"] == 0.125 and done.result["runs_on"] == "ray"
    assert json.loads((one.output / "model" / "model.json").read_text()) == {"seed": "7"}
    assert any(line.startswith("begun") for line in heard.lines)
    said = (one.output / "log.txt").read_text()
    assert "test.parquet" not in said and "hunter2" not in said and "STORE" not in said and "RAY" not in said
    assert heard.points[0] == ("loss", 0.0, 0.5) and heard.points[-1] == ("loss", 2.0, 0.125)
    with pytest.raises(ActionFailed, match="there is nothing to learn"):
        train.run(given(tmp_path / "bad", Heard(), fails=True))
    assert of_ray() == before


def test_a_training_whose_worker_is_gone_ends_and_leaves_nothing(tmp_path: Path) -> None:
    """A worker that is killed closes the standard input of what it started."""
    files = {f"opsdeck/{one.name}": one.read_bytes() for one in parcel.TOOLS}
    code = "import os, time\nprint('at', os.getpid(), flush=True)\ntime.sleep(600)\n"
    made = Worker({**files, "code/learn.py": code.encode()}, {
        "function": None, "command": ["python", "learn.py"], "params": {}, "variables": {}, "limits": {},
        "scrub": True, "watched": True})
    assert made.start(sys.executable) is None and made.child is not None and made.child.stdin is not None
    end = time.monotonic() + 20
    while not made.lines and time.monotonic() < end:
        time.sleep(0.02)
    pid = int(made.lines[0].split()[1])
    made.child.stdin.close()
    made.child.wait(20)
    assert not psutil.pid_exists(pid) and not made.root.exists()


def test_ray_that_is_not_installed_is_said_with_what_to_do(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "hunter2-long")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else real(name))
    with pytest.raises(UsageError, match="Ray is not installed") as caught:
        train.run(given(tmp_path, Heard()))
    assert "opsdeck[ray]" in str(caught.value.hint)
