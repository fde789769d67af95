"""What MLflow knows of runs and versions, read in a process of its own: importing MLflow takes two seconds.

`python -m engine.pipeline.releasing.tracked TRACKING MODEL A B` prints one line of JSON: two entries, or
the error. A reference is `NAME/7`, `NAME@champion`, a run's id (or its beginning), and with a MODEL also `7`,
`champion`, or the number of a run of the pipeline.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.errors import NotFound, OpsdeckError
from engine.pipeline.releasing import side_by_side
from engine.pipeline.releasing.registry import Registry, answering, shown

RUN_ID = re.compile(r"[0-9a-f]{6,32}")
VERSION = re.compile(r"(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/@]+))")
SOURCES = {"data": "opsdeck.data", "code": "opsdeck.commit", "changes": "opsdeck.dirty",
           "lock": "opsdeck.lock", "image": "opsdeck.image", "payload": "opsdeck.payload",
           "manifest": "opsdeck.manifest_sha256"}


def read(registry: Registry, model: str | None, reference: str) -> dict[str, Any]:
    """One run or version. Raises NotFound where there is none."""
    with answering(registry.tracking):
        version = _version(registry, model, reference)
        run = _run(registry, model, reference) if version is None else \
            registry.client.get_run(version.run_id) if version.run_id else None
        if version is None and run is None:
            known = f" {model} has the versions {_versions(registry, model)}." if model else ""
            raise NotFound(f"there is no run or version {reference}", where=shown(registry.tracking),
                           hint=f"write NAME/7, NAME@champion, or a run's id.{known}")
        if version is None and run is not None:
            version = _of_run(registry, run.info.run_id)
    tags = {**(dict(run.data.tags) if run is not None else {}),
            **(dict(version.tags) if version is not None else {})}
    parameters = dict(run.data.params) if run is not None else {}
    metrics = dict(run.data.metrics) if run is not None else {}
    aliases = [] if version is None else sorted(
        name for name, number in registry.aliases(version.name).items() if number == str(version.version))
    return {
        "reference": reference, "name": version.name if version is not None else None,
        "version": str(version.version) if version is not None else None, "aliases": aliases,
        "mlflow_run": run.info.run_id if run is not None else None,
        "run": tags.get("opsdeck.run"), "by": tags.get("opsdeck.by") or tags.get("mlflow.user"),
        "began": run.info.start_time / 1000 if run is not None and run.info.start_time else None,
        "ended": run.info.end_time / 1000 if run is not None and run.info.end_time else None,
        "status": str(run.info.status) if run is not None else None, "outcome": tags.get("opsdeck.outcome"),
        "parameters": dict(sorted(parameters.items())), "metrics": dict(sorted(metrics.items())),
        "compared": side_by_side.told(tags.get(side_by_side.TAG)),
        "sources": {name: tags[tag] for name, tag in SOURCES.items() if tag in tags}}


def _version(registry: Registry, model: str | None, reference: str) -> Any | None:
    match = VERSION.fullmatch(reference)
    name = match["name"] if match else model
    if name is None:
        return None
    number = match["version"] if match else reference if reference.isdigit() else None
    if number is None:
        number = registry.aliases(name).get(match["alias"] if match else reference)
    found = None if number is None else registry.version(name, number)
    if found is not None or match or not reference.isdigit():
        return found
    made = registry.client.search_model_versions(f"name = '{name}' and tags.`opsdeck.run` = '{reference}'")
    return registry.version(name, str(made[0].version)) if made else None


def _run(registry: Registry, model: str | None, reference: str) -> Any | None:
    client = registry.client
    experiments = [one.experiment_id for one in client.search_experiments()]
    if reference.isdigit():
        found = client.search_runs(experiments, f"tags.`opsdeck.run` = '{reference}'", max_results=1)
        if found:
            return found[0]
    if not RUN_ID.fullmatch(reference):
        return None
    found = client.search_runs(experiments, f"attributes.run_id LIKE '{reference}%'", max_results=2)
    if len(found) > 1:
        raise NotFound(f"several runs begin with {reference}", where=shown(registry.tracking),
                       hint="write more of its id")
    return found[0] if found else None


def _of_run(registry: Registry, run_id: str) -> Any | None:
    """The version that was registered from a run, the newest of several."""
    found = registry.client.search_model_versions(f"run_id = '{run_id}'")
    newest = max(found, key=lambda one: int(one.version), default=None)
    return None if newest is None else registry.version(newest.name, str(newest.version))


def _versions(registry: Registry, model: str) -> str:
    found = sorted(int(one.version) for one in registry.client.search_model_versions(f"name = '{model}'"))
    return f"{found[0]} to {found[-1]}" if found else "none"


def main(arguments: Sequence[str]) -> int:
    tracking, model, *references = arguments
    try:
        if tracking.startswith("sqlite:///") and not Path(tracking.removeprefix("sqlite:///")).exists():
            raise NotFound("nothing has been tracked there yet", where=tracking,
                           hint="run the pipeline, or name another place: --tracking URI")
        registry = Registry(tracking)
        answer: dict[str, Any] = {"entries": [read(registry, model or None, one) for one in references]}
    except OpsdeckError as error:
        answer = {"error": {"message": error.message, "where": error.where, "hint": error.hint,
                            "found": not isinstance(error, NotFound)}}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
