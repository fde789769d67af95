"""MLflow's registry as the pipeline uses it: found or made, quiet, and its failures in sentences.

A version is made by one call, with its files logged before and all its tags in that call, and what makes it
findable is among the tags: a version without its files or tags does not exist. Aliases come last.

    opsdeck.identity           what was built: the manifest without the run that built it
    opsdeck.run, .payload, .data, .commit, .dirty, .lock, .image, .manifest_sha256
    opsdeck.outcome            what became of its release
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.errors import ActionFailed

CHAMPION, CANDIDATE, PREVIOUS = "champion", "candidate", "previous"
IDENTITY = "opsdeck.identity"
OUTCOME = "opsdeck.outcome"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",  # else it takes the requirements of the folder it runs in
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
    # A server that is down is said within seconds, not after MLflow's minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class Registry:
    """One tracking server with its registry. Blocking; every method raises ActionFailed when it does not
    answer, by `answering`."""

    def __init__(self, tracking: str) -> None:
        """Imports MLflow, which takes two seconds."""
        os.environ.update(ENVIRONMENT)
        import mlflow

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.tracking = tracking
        self.mlflow: Any = mlflow
        with answering(tracking):
            _folder_of(tracking)
            mlflow.set_tracking_uri(tracking)
            mlflow.set_registry_uri(tracking)
            self.client: Any = mlflow.MlflowClient(tracking_uri=tracking, registry_uri=tracking)

    def experiment(self, name: str, artifacts: str | None) -> str:
        """The id of an experiment, made where it is not there; `artifacts` is a folder or a URI, for a
        database file by default the folder beside it: MLflow would take the one that the process runs in."""
        with answering(self.tracking):
            found = self.client.get_experiment_by_name(name)
            if found is not None:
                return str(found.experiment_id)
            if artifacts is None and self.tracking.startswith("sqlite:///"):
                artifacts = str(Path(self.tracking.removeprefix("sqlite:///")).parent / "mlflow-artifacts")
            location = artifacts if artifacts is None or "://" in artifacts else Path(artifacts).as_uri()
            return str(self.client.create_experiment(name, artifact_location=location))

    def ensure_model(self, name: str, description: str, tags: Mapping[str, str]) -> None:
        with answering(self.tracking):
            if not self.client.search_registered_models(f"name = '{name}'"):
                self.client.create_registered_model(name, description=description, tags=dict(tags))

    def version_of(self, model: str, identity: str) -> Any | None:
        """The first version that was made of this."""
        with answering(self.tracking):
            found = self.client.search_model_versions(
                f"name = '{model}' and tags.`{IDENTITY}` = '{identity}'")
            return min(found, key=lambda one: int(one.version)) if found else None

    def version(self, model: str, version: str) -> Any | None:
        """A version by its number, None where there is none."""
        with answering(self.tracking):
            found = self.client.search_model_versions(f"name = '{model}'")
            one = next((entry for entry in found if str(entry.version) == version), None)
            return None if one is None else self.client.get_model_version(model, version)

    def aliases(self, model: str) -> dict[str, str]:
        """Version by alias; none where the model is not there."""
        with answering(self.tracking):
            if not self.client.search_registered_models(f"name = '{model}'"):
                return {}
            found = self.client.get_registered_model(model).aliases
            return {alias: str(version) for alias, version in found.items()}

    def point(self, model: str, alias: str, version: str | None) -> None:
        """Set an alias, or with None take it away; nothing happens where that is so already."""
        held = self.aliases(model).get(alias)
        with answering(self.tracking):
            if version is None and held is not None:
                self.client.delete_registered_model_alias(model, alias)
            elif version is not None and held != version:
                self.client.set_registered_model_alias(model, alias, version)

    def tag(self, model: str, version: str, key: str, value: str) -> None:
        with answering(self.tracking):
            self.client.set_model_version_tag(model, version, key, value)


@contextlib.contextmanager
def answering(tracking: str) -> Iterator[None]:
    """What MLflow, its database or the network raise, as one sentence."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        # MLflow repeats the address, and with it what is before an `@`.
        said = re.sub(r"//[^/@\s]*@", "//", " ".join(str(error).split()))[:300] or type(error).__name__
        raise ActionFailed(
            f"The model registry does not do what was asked: {said}", where=shown(tracking),
            hint="Nothing is half-registered. See whether it runs and may be written; then retry the step "
                 "that failed.") from error


def shown(tracking: str) -> str:
    """The address without what is before an `@`."""
    scheme, separator, rest = tracking.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else tracking


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Two processes do not register at once: each would miss what the other has not finished."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / "register.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _folder_of(tracking: str) -> None:
    if tracking.startswith("sqlite:///"):
        Path(tracking.removeprefix("sqlite:///")).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
