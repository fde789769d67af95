"""SageMaker Experiments: the training as a trial component, with its parameters and its curve."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from typing import Any

from engine.errors import ActionFailed
from engine.pipeline.stages.train.job import CURVE, METRICS, Job

BATCH = 10  # metrics of a call, the API's limit
MOST = 2000  # points of a curve that are sent, evenly
LONGEST = 2500  # characters of a parameter


def track(job: Job, jobs: Any, metrics: Any, name: str) -> None:
    """Experiment = the project, trial = the run, component = the job `name`; done again it changes nothing.

    `jobs`, `metrics`: clients of sagemaker and sagemaker-metrics. Raises botocore's errors, and ActionFailed
    for a figure that is refused.
    """
    experiment = job.work.project.project
    trial = f"{experiment}-{job.work.run}".replace("_", "-").replace(".", "-")[:120]
    _once(jobs, jobs.create_experiment, ExperimentName=experiment)
    _once(jobs, jobs.create_trial, TrialName=trial, ExperimentName=experiment)
    params = {**job.train.params, "seed": job.work.project.seed}
    _once(jobs, jobs.create_trial_component, TrialComponentName=name, DisplayName=name,
          Parameters={key: _parameter(value) for key, value in params.items()})
    jobs.associate_trial_component(TrialComponentName=name, TrialName=trial)
    points = _points(job)
    for at in range(0, len(points), BATCH):
        answer = metrics.batch_put_metrics(TrialComponentName=name, MetricData=points[at:at + BATCH])
        if answer.get("Errors"):
            raise ActionFailed(f"SageMaker Experiments refused a figure: {answer['Errors'][0].get('Code')}.",
                               where=f"train.sagemaker: {name}",
                               hint="Retry this step; the job is taken as it is.")
    jobs.update_trial_component(TrialComponentName=name, Status={"PrimaryStatus": "Completed"})


def _once(jobs: Any, create: Any, **arguments: Any) -> None:
    """Create what may be there already."""
    from botocore.exceptions import ClientError

    try:
        create(**arguments)
    except ClientError as error:
        told = error.response.get("Error", {})
        if "exist" not in str(told.get("Message", "")).lower() and told.get("Code") != "ResourceInUse":
            raise


def _parameter(value: object) -> dict[str, Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"NumberValue": float(value)}
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return {"StringValue": text[:LONGEST]}


def _points(job: Job) -> list[dict[str, Any]]:
    from engine.pipeline.stages.train.curve import Curve

    now = dt.datetime.now(dt.UTC)
    curve = Curve(job.work.output / CURVE, lambda *_: None, lambda _: None)
    curve.poll(last=True)
    found = curve.take()
    kept = list(itertools.islice(found, 0, None, max(1, len(found) // MOST)))
    last = json.loads((job.work.output / METRICS).read_bytes())
    figures = [(one.name, int(one.step), one.value) for one in kept] + [
        (f"train.{name}", 0, float(value)) for name, value in sorted(last.items())
        if isinstance(value, int | float)]
    return [{"MetricName": figure, "Timestamp": now, "Step": step, "Value": value}
            for figure, step, value in figures]
