"""Training runs the project's code apart, shows its curve, and keeps an honest run in MLflow."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed
from engine.pipeline.releasing.registry import Registry
from engine.pipeline.stages import train
from engine.pipeline.stages.contract import Done
from engine.pipeline.stages.train import checks, tracking
from engine.pipeline.stages.train.curve import Curve
from tests.pipeline.child import small_project
from tests.pipeline.child.stage_work import Heard, work

# Trains on the rows that it is given, and then waits for ever where it is told to.
PATIENT = '''
import json, os, time

def fit(inputs, output, params):
    with (output / "metrics.jsonl").open("w") as lines:
        lines.write(json.dumps({"step": 0, "loss": 0.5}) + "\\n")
    (output / "pid").write_text(f"{os.getpid()}\\n")
    while not (output.parent / "go").exists():
        time.sleep(0.02)
    (output / "model").mkdir()
    (output / "model" / "model.json").write_text("{}")
    (output / "metrics.json").write_text(json.dumps({"loss": 0.25}))
'''


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite for all, since to make its tables takes longer than a training."""
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "data").mkdir()
    rows = pa.table({"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]})
    for name in ("train.parquet", "test.parquet"):
        pq.write_table(rows, tmp_path / "data" / name)
    told = {"uri": "rows.csv", "kind": "file", "sha256": "abc123"}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(told))
    return tmp_path


def given(root: Path, uri: str, code: str | None = None, heard: Heard | None = None, attempt: int = 1,
          name: str = "small", **entry: Any) -> Any:
    settings = {"entry": {"function": "learn:fit"}, **entry}
    project = small_project.project(root / "project", {"learn.py": code} if code else None, train=settings,
                                    project=name, code=["*.py", "*.onnx"])
    return work(project, root, "train", heard, attempt=attempt, tracking=uri,
                artifacts=str(root / "artifacts"), key="k1")


def runs(uri: str, name: str) -> list[Any]:
    client = Registry(uri).client
    found = client.get_experiment_by_name(name)
    if found is None:
        return []
    return list(client.search_runs([found.experiment_id], order_by=["start_time ASC"]))


def until(condition: Any, within: float = 20.0) -> Any:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def test_a_training_is_whole_in_the_output_and_in_mlflow(root: Path, uri: str) -> None:
    heard = Heard()
    one = given(root, uri, heard=heard, name="whole", params={"steps": 6, "deep": {"a": 1}})
    done = train.run(one)
    assert done.passed and done.says.startswith("Trained in ") and "loss 0.015625" in done.says
    assert done.result["loss"] == 1 / 64 and done.result["metrics"] == {"loss": 1 / 64, "rows": 3.0}
    assert done.result["tracked"] and done.result["peak_mb"] > 1 and len(done.result["payload"]) == 64
    assert heard.points[0] == ("loss", 0.0, 0.5) and heard.points[-1] == ("loss", 5.0, 1 / 64)
    assert done.evidence == ("metrics.json", "metrics.jsonl", "log.txt", "environment.json", "artifacts.json")
    listed = json.loads((one.output / "artifacts.json").read_text())
    assert listed["model"]["payload"] == done.result["payload"] and listed["model"]["kind"] == "model"
    assert "environment.json" in listed and not list(one.output.parent.glob(".scratch*"))
    told = json.loads((one.output / "environment.json").read_text())
    assert told["variables"]["PYTHONHASHSEED"] == "7" and told["threads"]["OMP_NUM_THREADS"] == "1"
    [logged] = runs(uri, "whole")
    assert logged.info.run_id == done.result["mlflow_run"] and logged.info.status == "FINISHED"
    assert logged.data.params == {"steps": "6", "deep": '{"a": 1}', "seed": "7", "runs_on": "local"}
    assert logged.data.metrics == {"loss": 1 / 64, "train.loss": 1 / 64, "train.rows": 3.0}
    tags = {name: value for name, value in logged.data.tags.items() if name.startswith("opsdeck.")}
    assert tags == {"opsdeck.run": "run-1", "opsdeck.step": "train", "opsdeck.attempt": "1",
                    "opsdeck.key": "k1", "opsdeck.data": "abc123",
                    "opsdeck.lock": "none: the engine's own packages",
                    "opsdeck.payload": done.result["payload"]}
    client = Registry(uri).client
    history = client.get_metric_history(logged.info.run_id, "loss")
    assert [point.step for point in history] == [0, 1, 2, 3, 4, 5]
    kept = {one.path for one in client.list_artifacts(logged.info.run_id, "training")}
    assert {"training/model", "training/log.txt", "training/metrics.jsonl"} <= kept


def test_the_held_out_rows_are_not_where_training_looks(root: Path, uri: str) -> None:
    code = small_project.LEARN.replace("import csv,", "import os,").replace(
        "loss = 1.0", "loss = 1.0; print(sorted(os.listdir(inputs)), sorted(os.environ))")
    train.run(one := given(root, uri, code))
    said = (one.output / "log.txt").read_text()
    assert "['dataset.json', 'train.parquet']" in said and "MLFLOW" not in said


def test_the_same_training_twice_gives_the_same_payload(root: Path, uri: str) -> None:
    code = small_project.LEARN.replace('{"slope": 2.0}', '{"slope": __import__("random").random()}')
    first, second = (train.run(given(root, uri, code, attempt=at)).result["payload"] for at in (1, 2))
    assert first == second


def test_a_failure_of_the_projects_code_fails_the_run(root: Path, uri: str) -> None:
    code = small_project.LEARN.replace("loss /= 2", "loss /= 0")
    with pytest.raises(ActionFailed, match="The training failed: ZeroDivisionError: float division by zero"):
        train.run(given(root, uri, code, name="failing"))
    [logged] = runs(uri, "failing")
    assert logged.info.status == "FAILED"
    assert [one.path for one in Registry(uri).client.list_artifacts(logged.info.run_id, "training")]


@pytest.mark.parametrize(("content", "message"), [
    ('{"loss": NaN}', "loss is NaN after training."),
    ('{"loss": 1, "rmse": Infinity}', "rmse is inf after training."),
    ('{"loss": "low"}', 'loss in metrics.json is no number but "low".'),
    ('{"loss": true}', "loss in metrics.json is no number but true."),
    ("{}", "metrics.json holds no figures."), ("[1]", "metrics.json holds no figures."),
    ("{", "metrics.json cannot be read:"), (None, "The training wrote no metrics.json."),
])
def test_figures_that_are_none_are_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(ActionFailed) as caught:
        checks.metrics(tmp_path, {})
    assert message in caught.value.message and caught.value.hint


@pytest.mark.parametrize(("files", "message"), [
    ([], "The training wrote no model."),
    (["model.onnx", "model/a"], "The training wrote both model.onnx and a folder model."),
    (["model/"], "The folder model is empty."), (["model"], "model is not a plain folder."),
    (["model.onnx"], "model.onnx is empty."),
])
def test_a_model_that_is_none_is_named(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    with pytest.raises(ActionFailed) as caught:
        checks.model(tmp_path)
    assert message in caught.value.message and caught.value.hint


def test_a_link_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / "out" / "model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ActionFailed, match=r"model\.onnx is not a plain file"):
        checks.model(tmp_path / "out")


def test_a_curve_is_followed_as_it_is_written_and_survives_nonsense(tmp_path: Path) -> None:
    heard, now, path = Heard(), [100.0], tmp_path / "metrics.jsonl"
    curve = Curve(path, heard.point, heard.say, clock=lambda: now[0])
    curve.poll()
    with path.open("w") as lines:
        lines.write('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
        lines.flush()
        curve.poll()
        assert heard.points == [("loss", 1.0, 0.5)]
        lines.write('ss": 0.4}\nnonsense\n[1]\n{"loss": true, "auc": 0.7}\n{"step": 9, "loss": NaN}')
        lines.flush()
        curve.poll(last=True)
    assert heard.points == [("loss", 1.0, 0.5), ("auc", 4.0, 0.7), ("loss", 2.0, 0.4)]
    assert len([line for line in heard.lines if "no line of JSON" in line]) == 1
    assert curve.broken == {"loss": 9.0}
    assert [(one.name, one.step, one.value) for one in curve.take()] == [
        ("loss", 1.0, 0.5), ("loss", 2.0, 0.4), ("auc", 4.0, 0.7)]
    assert curve.take() == []


def test_a_fast_curve_is_shown_in_part_and_sent_whole(tmp_path: Path) -> None:
    heard, path = Heard(), tmp_path / "metrics.jsonl"
    curve = Curve(path, heard.point, heard.say, clock=lambda: 5.0)
    path.write_text("".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in range(5000)))
    curve.poll()
    curve.poll(last=True)
    assert [step for _, step, _ in heard.points] == [0.0, 4999.0] and len(curve.take()) == 5000


def test_a_loss_that_is_nan_is_named_with_its_first_step(root: Path, uri: str) -> None:
    heard = Heard()
    code = small_project.LEARN.replace("loss /= 2", "loss = loss / 2 if step < 3 else float('nan')")
    said = r"loss is NaN after training\. In metrics\.jsonl it was so first at step 3"
    with pytest.raises(ActionFailed, match=said):
        train.run(given(root, uri, code, heard))
    assert "loss is nan at step 3" in heard.lines and [step for _, step, _ in heard.points][-1] == 2


def test_a_model_of_onnx_must_open(root: Path, uri: str) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "small", value[:1], value[1:])
    right = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (root / "project").mkdir()
    onnx.save(right, str(root / "project" / "right.onnx"))
    code = """
        import json, shutil
        def fit(inputs, output, params):
            if params["right"]:
                shutil.copy("right.onnx", output / "model.onnx")
            else:
                (output / "model.onnx").write_bytes(b"not onnx")
            (output / "metrics.json").write_text(json.dumps({"loss": 0.5}))
    """
    done = train.run(given(root, uri, code, params={"right": True}))
    assert done.result["model"] == "model.onnx" and done.evidence[0] == "metrics.json"
    with pytest.raises(ActionFailed, match=r"model\.onnx does not open"):
        train.run(given(root, uri, code, attempt=2, params={"right": False}))


def test_memory_is_told_as_what_ended_it_and_the_run_failed(root: Path, uri: str) -> None:
    code = "def fit(inputs, output, params):\n    held = bytearray(2_000_000_000)\n"
    said = "The training was ended for memory at its limit of 512 MB"
    with pytest.raises(ActionFailed, match=said) as caught:
        train.run(given(root, uri, code, name="memory", limits={"memory_mb": 512}))
    assert caught.value.hint == "Raise train.limits.memory_mb or use fewer rows."
    assert [one.info.status for one in runs(uri, "memory")] == ["FAILED"]


def test_a_credential_is_in_the_child_and_in_no_log(
        root: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "hunter2-long")
    heard = Heard()
    code = small_project.LEARN.replace("import csv,", "import os,").replace(
        "loss = 1.0", "loss = 1.0; print(os.environ['PASSWORD'])")
    done = train.run(one := given(root, uri, code, heard, credentials={"PASSWORD": "env:STORE"}))
    assert done.passed
    for path in one.output.rglob("*"):
        assert not path.is_file() or "hunter2" not in path.read_text(), path
    assert not any("hunter2" in line for line in heard.lines)


# The stage in a process of its own, as the engine runs it.
STAGE = """
import sys
from pathlib import Path
from engine.pipeline.project.model import Project
from engine.pipeline.stages import train
from engine.pipeline.stages.contract import Work
root, uri, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
project = Project.model_validate_json(sys.stdin.read())
settings = {"tracking": uri, "artifacts": str(root / "artifacts"), "key": "k1"}
train.run(Work(project, root / "project", root / "home", "run-1", "train", 1, {"data": root / "data"}, output,
               {}, print, lambda *_: None, settings))
"""


def staged(root: Path, uri: str, name: str) -> tuple[subprocess.Popen[str], int, Path]:
    """The process of a stage whose training is under way and in MLflow; the training's pid; its output."""
    one = given(root, uri, PATIENT, name=name)
    process = subprocess.Popen([sys.executable, "-c", STAGE, str(root), uri, str(one.output)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True)
    assert process.stdin is not None
    with process.stdin:
        process.stdin.write(one.project.model_dump_json(by_alias=True, exclude_none=True))
    pid = int(until(lambda: (one.output / "pid").exists() and (one.output / "pid").read_text().strip()))
    until(lambda: [found for found in runs(uri, name) if found.info.status == "RUNNING"])
    return process, pid, one.output


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_after_a_kill_there_is_one_finished_run_and_the_other_is_killed(root: Path, uri: str) -> None:
    process, pid, output = staged(root, uri, "killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: ended(pid))
    (output.parents[1] / "run-1.train.2").mkdir()
    (output.parents[1] / "run-1.train.2" / "go").touch()
    done = train.run(given(root, uri, PATIENT, name="killed", attempt=2))
    first, second = runs(uri, "killed")
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert first.data.tags["opsdeck.attempt"] == "1" and first.info.end_time
    assert second.info.run_id == done.result["mlflow_run"]
    # A stage that died after its run was finished, before its output was kept, leaves no second finished one.
    third = train.run(given(root, uri, name="killed", attempt=3))
    assert [one.info.status for one in runs(uri, "killed")] == ["KILLED", "KILLED", "FINISHED"]
    assert runs(uri, "killed")[-1].info.run_id == third.result["mlflow_run"]


def test_a_stage_that_is_asked_to_end_says_killed_itself(root: Path, uri: str) -> None:
    process, pid, _ = staged(root, uri, "stopped")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert ended(pid) and [one.info.status for one in runs(uri, "stopped")] == ["KILLED"]


@pytest.mark.parametrize("where", ["http://127.0.0.1:9", "sqlite:////proc/none/mlflow.db"])
def test_tracking_that_is_down_is_said_before_training_is_paid_for(root: Path, where: str) -> None:
    with pytest.raises(ActionFailed, match="so training was not begun") as caught:
        train.run(one := given(root, where, PATIENT))
    assert caught.value.where == where and not (one.output / "pid").exists()


class Door(http.server.BaseHTTPRequestHandler):
    """Answers to the first question, and to no other: a server that goes down, or lets nobody in."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 403)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def door() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_lets_nobody_in_ends_the_training_that_had_begun(root: Path, door: str) -> None:
    with pytest.raises(ActionFailed, match="The training's run cannot be begun in MLflow"):
        train.run(given(root, door, PATIENT))


def test_tracking_that_goes_down_in_the_middle_does_not_lose_the_training(
        root: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard()
    one = given(root, uri, PATIENT, heard, name="lost")
    monkeypatch.setattr(tracking, "SEND", 0.05)
    whole: list[Done] = []
    thread = threading.Thread(target=lambda: whole.append(train.run(one)))
    thread.start()
    until(lambda: [found for found in runs(uri, "lost") if "loss" in found.data.metrics])
    base = Path(uri.removeprefix("sqlite:///"))
    away = base.with_name("away.db")
    base.rename(away)
    base.mkdir()
    try:
        with (one.output / "metrics.jsonl").open("a") as lines:
            lines.write('{"step": 1, "loss": 0.4}\n')
        (one.output.parent / "go").touch()
        thread.join(60)
    finally:
        base.rmdir()
        away.rename(base)
    [done] = whole
    assert done.passed and done.result["loss"] == 0.25
    assert done.result["tracked"] is False and done.result["mlflow_run"] is None
    assert done.result["tracked_why"] and "not in MLflow yet" in done.says
    assert (one.output / "model" / "model.json").exists()
