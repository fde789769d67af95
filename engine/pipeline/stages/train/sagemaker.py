"""Training as a SageMaker job: sent to S3, waited for, found again, fetched.

The job's name is made of the run, the step, the stage's key and the attempt. An attempt that finds a job of
an earlier one at work, or done, takes it: what was paid for is not paid for twice. A stage that is asked to
end stops its job; one that was killed leaves it to the next attempt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from engine.errors import ActionFailed, UsageError
from engine.pipeline.child.lines import Lines
from engine.pipeline.project.model import SageMaker
from engine.pipeline.stages.train import experiments, parcel
from engine.pipeline.stages.train.job import KEY, LOG, Job, Trained
from engine.reproduce.s3 import split

POLL = 5.0  # seconds between two looks at the job
TICK = 0.25
PATIENCE = 600.0  # seconds that AWS may not answer while a job runs
LONGEST = 28 * 86400  # seconds a job may take, SageMaker's limit
VOLUME_GB = 50
GROUP = "/aws/sagemaker/TrainingJobs"
ROOT = "/opt/ml"
UNDER_WAY = ("InProgress", "Stopping")


class Aws:
    """Clients of one region; what they raise is ActionFailed, by `answering`."""

    def __init__(self, settings: SageMaker) -> None:
        import boto3
        from botocore.config import Config

        config = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "max_attempts": 3})
        with answering():
            session = boto3.Session(region_name=settings.region)
            self.jobs, self.s3, self.logs, self.metrics = (session.client(name, config=config) for name in (
                "sagemaker", "s3", "logs", "sagemaker-metrics"))


@contextlib.contextmanager
def answering(what: str = "AWS") -> Iterator[None]:
    from boto3.exceptions import S3UploadFailedError  # what upload_file makes of a ClientError
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        told = error.response.get("Error", {})
        raise ActionFailed(f"{what} refused: {told.get('Message') or told.get('Code')}",
                           where=f"{KEY}.sagemaker", hint="Look at the role, the names, and what the "
                                                          "engine's user may do.") from error
    except (BotoCoreError, S3UploadFailedError) as error:
        raise ActionFailed(f"{what} cannot be asked: {error}", where=f"{KEY}.sagemaker",
                           hint="Look at the region, the credentials and the network; then retry this step."
                           ) from error


def train(job: Job) -> Trained:
    """Blocking, for as long as it takes. Raises ActionFailed with SageMaker's own reason when the job fails
    or is stopped, UsageError for credentials, which a job's description would show to everyone."""
    settings = job.train.sagemaker
    assert settings is not None  # the project's model says so
    if job.credentials:
        raise UsageError("Credentials are not sent to SageMaker, where a job's description shows them.",
                         where=f"{KEY}.credentials",
                         hint=f"Allow the role {settings.role} what the training needs.")
    aws = Aws(settings)
    names = [name_of(job, attempt) for attempt in range(job.work.attempt, 0, -1)]
    name, found = _earlier(aws, names)
    if found is None:
        name = names[0]
        prefix = _sent(job, aws, settings, name)
        with answering("SageMaker"):
            aws.jobs.create_training_job(**request(job, settings, name, prefix))
        job.work.say(f"SageMaker trains as {name}")
    else:
        job.work.say(f"SageMaker has {name} of an earlier attempt, {found['TrainingJobStatus']}; it is taken")
    try:
        done = _waited(job, aws, name)
    except BaseException:
        _stop(job, aws, name)
        raise
    _fetched(job, aws, done, name)
    told = parcel.trained(job.work.output, job=name)
    if settings.experiments:
        with answering("SageMaker Experiments"):
            experiments.track(job, aws.jobs, aws.metrics, name)
    return told


def name_of(job: Job, attempt: int) -> str:
    """At most 63 letters, digits and dashes; the same for what is the same. Pure."""
    work = job.work
    whole = json.dumps([work.project.project, work.run, work.step, str(work.settings.get("key"))])
    return f"{work.project.project[:40]}-{hashlib.sha256(whole.encode()).hexdigest()[:12]}-{attempt}"


def request(job: Job, settings: SageMaker, name: str, prefix: str) -> dict[str, Any]:
    """The arguments of create_training_job. `prefix`: the S3 address that input/data was sent to. Pure."""
    def channel(of: str) -> dict[str, Any]:
        return {"ChannelName": of, "InputMode": "File", "DataSource": {"S3DataSource": {
            "S3DataType": "S3Prefix", "S3Uri": f"{prefix}/{of}/",
            "S3DataDistributionType": "FullyReplicated"}}}

    work = job.work
    tags = {"opsdeck.project": work.project.project, "opsdeck.run": work.run, "opsdeck.step": work.step,
            "opsdeck.attempt": str(work.attempt), "opsdeck.key": str(work.settings.get("key") or "")}
    return {
        "TrainingJobName": name, "RoleArn": settings.role,
        "AlgorithmSpecification": {
            "TrainingImage": settings.image, "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", f"{ROOT}/input/data/opsdeck/container.py", ROOT]},
        "InputDataConfig": [channel(of) for of in ("opsdeck", "code", "rows")],
        "OutputDataConfig": {"S3OutputPath": f"{settings.s3.rstrip('/')}/{work.project.project}/output"},
        "ResourceConfig": {"InstanceType": settings.instance, "InstanceCount": 1,
                           "VolumeSizeInGB": VOLUME_GB},
        "StoppingCondition": {"MaxRuntimeInSeconds": int(min(job.train.limits.timeout, LONGEST))},
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _described(aws: Aws, name: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    with answering("SageMaker"):
        try:
            found: dict[str, Any] = aws.jobs.describe_training_job(TrainingJobName=name)
            return found
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("ValidationException", "ResourceNotFound"):
                return None  # that is how it says that there is none
            raise


def _earlier(aws: Aws, names: list[str]) -> tuple[str, Mapping[str, Any] | None]:
    """The newest job of these that is at work or done."""
    for name in names:
        found = _described(aws, name)
        if found is not None and found["TrainingJobStatus"] in ("InProgress", "Completed"):
            return name, found
    return names[0], None


def _stop(job: Job, aws: Aws, name: str) -> None:
    """End the job if it still runs: nobody waits for it any more, and it costs."""
    try:
        found = _described(aws, name)
        if found is not None and found["TrainingJobStatus"] == "InProgress":
            with answering("SageMaker"):
                aws.jobs.stop_training_job(TrainingJobName=name)
    except ActionFailed as error:
        job.work.say(f"{name} may still run: {error.message}")


def _sent(job: Job, aws: Aws, settings: SageMaker, name: str) -> str:
    bucket, key, _ = split(settings.s3)
    prefix = "/".join(one for one in (key.strip("/"), job.work.project.project, "input", name) if one)
    order = json.dumps(parcel.order(job, scrub=False, watched=False), sort_keys=True).encode()
    with answering("S3"):
        for path, local in parcel.files(job).items():
            aws.s3.upload_file(str(local), bucket, f"{prefix}/{path}")
        aws.s3.put_object(Bucket=bucket, Key=f"{prefix}/opsdeck/job.json", Body=order)
    return f"s3://{bucket}/{prefix}"


def _waited(job: Job, aws: Aws, name: str) -> dict[str, Any]:
    """The job's description when it is done. Shows its log and its curve meanwhile."""
    sorting, since, said = parcel.Log(job.work.output), time.monotonic(), ""
    token: dict[str, str] = {}
    with (job.work.output / LOG).open("w", encoding="utf-8") as kept:
        lines = Lines(kept, job.work.say)
        while True:
            try:
                found = _described(aws, name)
                since = time.monotonic()
            except ActionFailed as error:
                if time.monotonic() - since > PATIENCE:
                    raise
                job.work.say(f"{error.message}; asking again, the job goes on")
                found = {"TrainingJobStatus": "InProgress"}
            if found is None:
                raise ActionFailed(f"The training job {name} is gone.", where=f"{KEY}.sagemaker",
                                   hint="Was it deleted? Retry this step to begin another.")
            status = str(found["TrainingJobStatus"])
            lines.feed(sorting.sort(_printed(aws, name, token)))
            job.tick()
            shown = str(found.get("SecondaryStatus") or status)
            if shown != said:
                said = shown
                job.work.say(f"SageMaker: {shown}")
            if status not in UNDER_WAY:
                break
            until = time.monotonic() + POLL
            while time.monotonic() < until:
                time.sleep(min(TICK, POLL))
                job.tick()
        lines.feed(sorting.sort(_printed(aws, name, token)), last=True)
    if status == "Completed":
        return found
    reason = " ".join(str(found.get("FailureReason") or "it does not say why").split())
    if status == "Stopped":
        if found.get("SecondaryStatus") == "MaxRuntimeExceeded":
            raise ActionFailed(f"The training was ended at its limit of time on SageMaker ({name}).",
                               where=KEY, hint="Raise train.limits.timeout, or take a faster instance.")
        raise ActionFailed(f"The training job {name} was stopped on SageMaker.", where=f"{KEY}.sagemaker",
                           hint="Somebody stopped it there; retry this step to begin another.")
    raise parcel.failed(reason, f"on SageMaker ({name})", job.view)


def _printed(aws: Aws, name: str, token: dict[str, str]) -> list[str]:
    """The lines that are new in CloudWatch. `token`: where each stream was left; it is changed. A log that
    cannot be read is no reason to end a training."""
    from botocore.exceptions import BotoCoreError, ClientError

    found: list[str] = []
    with contextlib.suppress(BotoCoreError, ClientError):
        streams = aws.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")
        for stream in [one["logStreamName"] for one in streams["logStreams"]]:
            while True:
                left = {"nextToken": token[stream]} if stream in token else {}
                page = aws.logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True,
                                               **left)
                found += [str(event["message"]) for event in page["events"]]
                same = page["nextForwardToken"] == token.get(stream)
                token[stream] = page["nextForwardToken"]
                if same or not page["events"]:
                    break
    return found


def _fetched(job: Job, aws: Aws, done: Mapping[str, Any], name: str) -> None:
    uri = str(done["ModelArtifacts"]["S3ModelArtifacts"])
    bucket, key, _ = split(uri)
    archive = job.scratch / "model.tar.gz"
    with answering("S3"):
        aws.s3.download_file(bucket, key, str(archive))
    parcel.unpacked(archive, job.work.output, uri)
    archive.unlink()
