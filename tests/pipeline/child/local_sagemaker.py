"""SageMaker on this machine: moto keeps the jobs, and their containers' entry points are really executed.

Moto alone completes every job at once, and cannot stop one. Here a job is in progress while its entry point
runs, by this interpreter and below a folder instead of /opt/ml; it then is Completed with its model.tar.gz on
S3, Failed with what it left in output/failure, or Stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.core.responses import ActionResult, EmptyResult
from moto.sagemaker.models import SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse

from tests.rollout.traffic.moto_server import REGION, Moto, serving

BUCKET = "training"
GROUP = "/aws/sagemaker/TrainingJobs"


class LocalSageMaker:
    def __init__(self, moto: Moto, root: Path) -> None:
        self.moto, self.root = moto, root
        self.created: list[str] = []
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._threads: list[threading.Thread] = []
        self._asking = threading.Lock()
        self._job: dict[str, Any] = {}
        moto.client("s3").create_bucket(Bucket=BUCKET,
                                        CreateBucketConfiguration={"LocationConstraint": REGION})
        moto.client("logs").create_log_group(logGroupName=GROUP)

    def begin(self, job: Any) -> None:
        job.training_job_status, job.secondary_status = "InProgress", "Training"
        self.created.append(job.training_job_name)
        self._job[job.training_job_name] = job
        thread = threading.Thread(target=self._execute, args=(job,))
        self._threads.append(thread)
        thread.start()

    def stop(self, name: str) -> None:
        self._job[name].training_job_status = "Stopping"
        self._running[name].send_signal(signal.SIGTERM)

    def status(self, name: str) -> str:
        return str(self._job[name].training_job_status)

    def close(self) -> None:
        for name, process in self._running.items():
            if process.poll() is None:
                self.stop(name)
        for thread in self._threads:
            thread.join(20)

    def _execute(self, job: Any) -> None:
        name = job.training_job_name
        root = self.root / name
        for channel in job.input_data_config:
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            self._download(uri, root / "input/data" / channel["ChannelName"])
        first, *rest = job.algorithm_specification["ContainerEntrypoint"]
        assert first == "python3"
        command = [sys.executable, *(one.replace("/opt/ml", str(root)) for one in rest)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   stdin=subprocess.DEVNULL, start_new_session=True, env=dict(os.environ))
        self._running[name] = process
        self._log(name, process)
        code = process.wait()
        if job.training_job_status == "Stopping":
            job.training_job_status = job.secondary_status = "Stopped"
        elif code == 0:
            self._upload(job, root / "model")
            job.training_job_status = job.secondary_status = "Completed"
        else:
            told = root / "output/failure"
            why = told.read_text() if told.exists() else ""
            job.failure_reason = f"AlgorithmError: {why}, exit code: {code}"
            job.training_job_status = job.secondary_status = "Failed"

    def _log(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with self._asking:
            self.moto.client("logs").create_log_stream(logGroupName=GROUP, logStreamName=f"{name}/algo-1")
        with process.stdout:
            for line in process.stdout:
                event = {"timestamp": int(time.time() * 1000), "message": line.rstrip("\n") or " "}
                with self._asking:
                    self.moto.client("logs").put_log_events(
                        logGroupName=GROUP, logStreamName=f"{name}/algo-1", logEvents=[event])

    def _download(self, uri: str, into: Path) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        with self._asking:
            s3 = self.moto.client("s3")
            for one in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ()):
                path = into / one["Key"].removeprefix(prefix)
                path.parent.mkdir(parents=True, exist_ok=True)
                s3.download_file(bucket, one["Key"], str(path))

    def _upload(self, job: Any, model: Path) -> None:
        archive = model.with_name("model.tar.gz")
        with tarfile.open(archive, "w:gz") as made:
            for path in sorted(model.iterdir()):
                made.add(path, path.name)
        bucket, _, key = job.model_artifacts["S3ModelArtifacts"].removeprefix("s3://").partition("/")
        with self._asking:
            self.moto.client("s3").upload_file(str(archive), bucket, key)


@contextlib.contextmanager
def running(root: Path) -> Iterator[LocalSageMaker]:
    """With made-up credentials and the endpoint in the environment."""
    with serving() as moto, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", moto.url)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        local = LocalSageMaker(moto, root)
        create = SageMakerModelBackend.create_training_job

        def created(self: Any, *args: Any, **kwargs: Any) -> Any:
            job = create(self, *args, **kwargs)
            local.begin(job)
            return job

        def stopped(self: SageMakerResponse) -> ActionResult:
            local.stop(str(self._get_param("TrainingJobName")))
            return EmptyResult()

        patch.setattr(SageMakerModelBackend, "create_training_job", created)
        patch.setattr(SageMakerResponse, "stop_training_job", stopped, raising=False)
        try:
            yield local
        finally:
            local.close()
