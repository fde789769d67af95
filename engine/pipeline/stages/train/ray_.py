"""Training on a Ray cluster: one that runs, or a local one for as long as the stage takes."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed, UsageError
from engine.pipeline.child import environments
from engine.pipeline.child.lines import Lines
from engine.pipeline.project.model import Ray
from engine.pipeline.stages import hidden
from engine.pipeline.stages.train import parcel, worker
from engine.pipeline.stages.train.job import KEY, LOG, WHAT, Job, Trained
from engine.procedures.secrets import mask
from engine.words import span

POLL = 0.25  # seconds
PLACE = 120.0  # seconds until a machine of the cluster is free
STORE = 128 << 20  # bytes of a local cluster's object store
# Nothing is told to anyone, and a worker is what it is here.
VARIABLES = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_DEDUP_LOGS": "0",
             "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def train(job: Job) -> Trained:
    """Blocking, for as long as it takes. Raises UsageError when Ray is not installed, ActionFailed when the
    cluster does not answer, has no room, or the training does not end well."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("Ray is not installed, which runs_on: ray needs.", where=f"{KEY}.runs_on",
                         hint="Install it beside the engine: pip install 'opsdeck[ray]'.")
    python = environments.of(job.work)
    with cluster(job.train.ray) as ray:
        ray.cloudpickle.register_pickle_by_value(worker)
        return _trained(job, ray, python)


@contextlib.contextmanager
def cluster(settings: Ray) -> Iterator[Any]:
    """Ray, connected. A local cluster ends with this, and its files with it."""
    os.environ.update(VARIABLES)
    import ray

    # Its sockets' paths must be short.
    place = None if settings.address else tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    given: dict[str, Any] = {"address": settings.address} if settings.address else {
        "address": "local", "num_cpus": math.ceil(settings.cpus), "num_gpus": 0, "object_store_memory": STORE,
        "include_dashboard": False, "_temp_dir": place}
    try:
        with hidden.withheld():  # its processes take the environment along, and run the project's code
            ray.init(**given, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    except Exception as error:  # Ray raises its own, and ConnectionError, ValueError, RuntimeError
        if place:
            shutil.rmtree(place, ignore_errors=True)
        said = " ".join(str(error).split())[:300]
        raise ActionFailed(f"The Ray cluster does not answer: {said}", where=f"{KEY}.ray",
                           hint="Look at its address and whether it runs; leave the address out for a local "
                                "one.") from error
    try:
        yield ray
    finally:
        ray.shutdown()
        if place:
            shutil.rmtree(place, ignore_errors=True)


def _trained(job: Job, ray: Any, python: Path) -> Trained:
    from ray.exceptions import RayError

    files = ray.put({name: path.read_bytes() for name, path in parcel.files(job).items()})
    order = {**parcel.order(job, scrub=True, watched=True), "credentials": dict(job.credentials)}
    kind = ray.remote(worker.Worker).options(num_cpus=job.train.ray.cpus, max_restarts=0)
    actor = kind.remote(files, order)
    try:
        why = ray.get(actor.start.remote(str(python)), timeout=PLACE)
        if why is not None:
            raise ActionFailed(f"{WHAT} cannot begin on the cluster: {why}.", where=f"{KEY}.ray",
                               hint="The project's environment is made where the engine is; share its home "
                                    "with the cluster at the same path.")
        code = _followed(job, ray, actor)
        if code != 0:
            reason = mask(ray.get(actor.failure.remote()), job.credentials.values())
            raise parcel.failed(reason, "on Ray", job.view)
        parcel.unpacked(ray.get(actor.result.remote()), job.work.output, "ray")
        return parcel.trained(job.work.output)
    except RayError as error:
        said = " ".join(str(error).split())[:300]
        raise ActionFailed(f"{WHAT} was lost with its worker: {said}", where=f"{KEY}.ray",
                           hint="Look at the cluster: has it the room, and does its machine run? Then retry "
                                "this step.") from error
    finally:
        with contextlib.suppress(RayError):
            ray.get(actor.close.remote(), timeout=10)
        ray.kill(actor)


def _followed(job: Job, ray: Any, actor: Any) -> int:
    """Until it ends: its exit status."""
    sorting, end = parcel.Log(job.work.output), time.monotonic() + job.train.limits.timeout
    with (job.work.output / LOG).open("w", encoding="utf-8") as kept:
        lines = Lines(kept, job.work.say, tuple(job.credentials.values()))
        while True:
            printed, code = ray.get(actor.poll.remote())
            lines.feed(sorting.sort(printed), last=code is not None)
            job.tick()
            if code is not None:
                return int(code)
            if time.monotonic() > end:
                raise ActionFailed(f"{WHAT} was ended at its limit of {span(job.train.limits.timeout)}.",
                                   where=KEY, hint=f"Raise {KEY}.limits.timeout, or give it less to do.")
            time.sleep(POLL)
