"""Training on this machine, in the project's environment, under its limits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from engine.pipeline.child import entries, environments
from engine.pipeline.stages.train.job import ENVIRONMENT, Job, Trained
from engine.reproduce import environment
from engine.reproduce.parts import Environment


def train(job: Job) -> Trained:
    """Blocking, for as long as it takes. Raises as `entries.run` and `environments.ensure` do."""
    call = job.call(environments.of(job.work))
    variables = call.variables()
    for name in call.credentials:
        variables.pop(name)
    # The account takes half a second, which is spent beside the training; each process is told the same.
    with ThreadPoolExecutor(1) as aside:
        account = aside.submit(environment.collect, call.python, variables)
        ended = entries.run(call, job.work.say, job.tick)
        write_environment(job.work.output, account.result())
    return Trained(ended.seconds, ended.peak_mb)


def write_environment(output: Path, found: Environment) -> None:
    content = msgspec.json.format(msgspec.json.encode(found, order="deterministic"), indent=1)
    (output / ENVIRONMENT).write_bytes(content + b"\n")
