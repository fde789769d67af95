"""A training on SageMaker is sent, followed, found again, stopped with its stage, and fetched."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed, UsageError
from engine.pipeline.stages import train
from engine.pipeline.stages.contract import Work
from engine.pipeline.stages.train import parcel, sagemaker
from tests.pipeline.child import local_sagemaker, small_project
from tests.pipeline.child.local_sagemaker import BUCKET, LocalSageMaker
from tests.pipeline.child.stage_work import Heard, work

# Ends when a file is there.
PATIENT = """
import json, time
from pathlib import Path

def fit(inputs, output, params):
    print("at work", flush=True)
    while not Path(params["go"]).exists():
        time.sleep(0.02)
    (output / "model").mkdir()
    (output / "model" / "model.json").write_text("{}")
    (output / "metrics.json").write_text(json.dumps({"loss": 0.25}))
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSageMaker]:
    with local_sagemaker.running(tmp_path_factory.mktemp("opt")) as found:
        yield found


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('tracking')}/mlflow.db"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sagemaker, "POLL", 0.1)


def given(root: Path, uri: str, name: str, code: str = small_project.LEARN, heard: Heard | None = None,
          attempt: int = 1, experiments: bool = False, **entry: Any) -> Work:
    (root / "data").mkdir(exist_ok=True)
    for one in ("train.parquet", "test.parquet"):
        (root / "data" / one).write_bytes(b"rows")
    place = {"role": "arn:aws:iam::123456789012:role/training", "image": "image@sha256:0",
             "region": "eu-west-1", "s3": f"s3://{BUCKET}/models", "experiments": experiments}
    settings = {"entry": {"function": "learn:fit"}, "runs_on": "sagemaker", "sagemaker": place, **entry}
    project = small_project.project(root / "project", {"learn.py": code, "notes.txt": "not code"},
                                    train=settings, project=name)
    return work(project, root, "train", heard, attempt=attempt, tracking=uri, artifacts=str(root / "a"),
                key="k")


def until(condition: Callable[[], Any], within: float = 20.0) -> Any:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def test_a_job_is_trained_there_and_its_curve_and_model_come_here(tmp_path: Path, uri: str,
                                                                  local: LocalSageMaker) -> None:
    heard = Heard()
    code = small_project.LEARN.replace("loss = 1.0", "loss = 1.0; print('begun', sorted(x.name for x in "
                                                     "inputs.iterdir()))")
    one = given(tmp_path, uri, "whole", code, heard, experiments=True, params={"steps": 4, "kind": "line"})
    done = train.run(one)
    name = done.result["job"]
    assert done.passed and done.result["loss"] == 1 / 16 and done.result["runs_on"] == "sagemaker"
    assert done.result["tracked"] and done.result["peak_mb"] > 1 and local.status(name) == "Completed"
    assert "begun ['train.parquet']" in heard.lines
    assert (one.output / "log.txt").read_text().startswith("begun")
    assert heard.points[0] == ("loss", 0.0, 0.5) and heard.points[-1] == ("loss", 3.0, 1 / 16)
    assert json.loads((one.output / "environment.json").read_text())["variables"]["PYTHONHASHSEED"] == "7"
    keys = [found["Key"] for found in local.moto.client("s3").list_objects_v2(Bucket=BUCKET)["Contents"]]
    sent = {key.partition(f"{name}/")[2] for key in keys if "/input/" in key}
    assert {"code/learn.py", "rows/train.parquet", "opsdeck/job.json"} <= sent
    assert not any("notes" in key or "test.parquet" in key for key in sent)
    component = local.moto.client("sagemaker").describe_trial_component(TrialComponentName=name)
    assert component["Parameters"]["kind"] == {"StringValue": "line"}
    assert component["Parameters"]["steps"] == {"NumberValue": 4.0}
    assert {found["MetricName"] for found in component["Metrics"]} == {"loss", "train.loss", "train.rows"}


def test_a_job_that_fails_says_why_in_its_own_words(tmp_path: Path, uri: str, local: LocalSageMaker) -> None:
    code = "def fit(inputs, output, params):\n    raise ValueError('no rows of today')\n"
    with pytest.raises(ActionFailed, match=r"learn\.py:2: ValueError: no rows of today") as caught:
        train.run(given(tmp_path, uri, "failing", code))
    assert caught.value.message.startswith("The training failed on SageMaker (failing-")
    code = "def fit(inputs, output, params):\n    held = bytearray(2_000_000_000)\n"
    with pytest.raises(ActionFailed, match="The training was ended for memory on SageMaker"):
        train.run(given(tmp_path, uri, "failing", code, attempt=2, limits={"memory_mb": 512}))
    assert len([name for name in local.created if name.startswith("failing-")]) == 2


def test_a_job_that_somebody_stops_there_is_told_as_stopped(tmp_path: Path, uri: str,
                                                            local: LocalSageMaker) -> None:
    heard = Heard()
    one = given(tmp_path, uri, "stopped", PATIENT, heard, params={"go": str(tmp_path / "go")})

    def stop() -> None:
        until(lambda: "at work" in heard.lines)
        local.moto.client("sagemaker").stop_training_job(TrainingJobName=local.created[-1])

    other = threading.Thread(target=stop)
    other.start()
    with pytest.raises(ActionFailed, match="was stopped on SageMaker"):
        train.run(one)
    other.join()


STAGE = """
import sys
from pathlib import Path
from engine.pipeline.project.model import Project
from engine.pipeline.stages import train
from engine.pipeline.stages.contract import Work
root, uri, output = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
project = Project.model_validate_json(sys.stdin.read())
train.run(Work(project, root / "project", root / "home", "run-1", "train", 1, {"data": root / "data"}, output,
               {}, lambda line: print(line, flush=True), lambda *_: None, {"tracking": uri, "key": "k"}))
"""


def staged(one: Work, root: Path, uri: str) -> subprocess.Popen[str]:
    """The stage in a process of its own, whose job is at work."""
    process = subprocess.Popen([sys.executable, "-c", STAGE, str(root), uri, str(one.output)], text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None and process.stdout is not None
    with process.stdin:
        process.stdin.write(one.project.model_dump_json(by_alias=True, exclude_none=True))
    while "at work" not in (line := process.stdout.readline()):
        assert line, "the stage ended"
    return process


@pytest.mark.slow
def test_a_job_outlives_a_stage_that_is_killed_and_is_taken_by_the_next(tmp_path: Path, uri: str,
                                                                        local: LocalSageMaker) -> None:
    params = {"go": str(tmp_path / "go")}
    with staged(given(tmp_path, uri, "resumed", PATIENT, params=params), tmp_path, uri) as process:
        process.send_signal(signal.SIGKILL)
    heard = Heard()
    (tmp_path / "go").touch()
    done = train.run(given(tmp_path, uri, "resumed", PATIENT, heard, 2, params=params))
    assert done.passed and any("of an earlier attempt" in line for line in heard.lines)
    assert [name for name in local.created if name.startswith("resumed-")] == [done.result["job"]]


@pytest.mark.slow
def test_a_stage_that_is_asked_to_end_stops_its_job(tmp_path: Path, uri: str, local: LocalSageMaker) -> None:
    one = given(tmp_path, uri, "ended", PATIENT, params={"go": str(tmp_path / "go")})
    with staged(one, tmp_path, uri) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143
    until(lambda: local.status(local.created[-1]) == "Stopped")


def test_credentials_are_not_put_where_a_job_shows_them(tmp_path: Path, uri: str, local: LocalSageMaker,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE", "hunter2-long")
    before = len(local.created)
    with pytest.raises(UsageError, match="Credentials are not sent to SageMaker"):
        train.run(given(tmp_path, uri, "secret", credentials={"KEY": "env:STORE"}))
    assert len(local.created) == before


def test_aws_that_cannot_be_asked_is_one_sentence(tmp_path: Path, uri: str,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(ActionFailed, match="SageMaker cannot be asked"):
        train.run(given(tmp_path, uri, "down"))


@pytest.mark.parametrize("kind", ["outside", "link", "device"])
def test_an_archive_that_reaches_out_is_not_unpacked(tmp_path: Path, kind: str) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as made:
        member = tarfile.TarInfo("../outside" if kind == "outside" else "inside")
        member.type = {"outside": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}[kind]
        member.linkname = "/etc/passwd"
        made.addfile(member, io.BytesIO())
    (tmp_path / "out").mkdir()
    with pytest.raises(ActionFailed, match="The archive of the training"):
        parcel.unpacked(content.getvalue(), tmp_path / "out", "s3://bucket/model.tar.gz")
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "outside").exists()
