"""The stage that registers: the model with its run's manifest, as a version that waits for approval.

Written so that it may be killed anywhere: files and figures go into the MLflow run first, the version comes
with all its tags in one call, and the alias last. What an attempt before this one has left is taken up where
it is whole, and removed where it is not. The same build is registered once.
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from engine.pipeline.releasing import recording, served, side_by_side
from engine.pipeline.releasing.recording import Recorded
from engine.pipeline.releasing.registry import (
    CANDIDATE,
    CHAMPION,
    IDENTITY,
    OUTCOME,
    Registry,
    alone,
    answering,
)
from engine.pipeline.stages import robustness
from engine.pipeline.stages.contract import Done, Work
from engine.procedures.authors import WRITTEN_BY
from engine.reproduce import authorship

PLAIN = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")  # for a project that has no lock
STOPPED = ("refused", "rolled back", "aborted")


def run(work: Work) -> Done:
    """Register what training left. Result: name, version, alias, mlflow_run, already, payload,
    champion (the version in production), written_by (`engine.reproduce.written.Written`: since the champion),
    service ("" without a release), manifest_sha256 and identity; the manifest is in the output.

    Raises ActionFailed while the registry or Git does not answer, UsageError for a model that cannot be read.
    """
    recorded = recording.record(work, dt.datetime.now(dt.UTC))
    (work.output / "manifest.json").write_bytes(recorded.manifest.encode())
    if recorded.patch:
        (work.output / "patch.diff").write_bytes(recorded.patch)
    work.say(f"manifest {recorded.manifest.sha256[:12]}; loading MLflow")
    registry = Registry(str(work.settings["tracking"]))
    project = work.project
    with alone(work.home):
        registry.ensure_model(project.model, project.title or f"Made by the pipeline {project.project}",
                              {"opsdeck.project": project.project, "opsdeck.task": project.task})
        found = registry.version_of(project.model, recorded.identity)
        already = found is not None
        if found is None:
            found = _register(work, registry, recorded)
        else:
            work.say(f"this very build is {project.model} version {found.version} already")
            _log_manifest(registry, found.run_id, recorded, work.run)
        champion, since = _champion(work, registry)
        alias = _alias(registry, project.model, str(found.version))
    written = authorship.written(work.folder, recorded.manifest.known.code, since)
    _keep_cases(work)
    model = recorded.manifest.known.artifacts[recorded.model.name]
    version = str(found.version)
    says = (f"This build is {project.model} version {version} already, registered by run "
            f"{found.tags.get('opsdeck.run', '?')}; nothing was registered twice." if already else
            f"Registered as {project.model} version {version}, alias {alias}.")
    return Done(True, says, {
        "name": project.model, "version": version, "alias": alias, "mlflow_run": found.run_id,
        "already": already, "champion": champion, WRITTEN_BY: msgspec.to_builtins(written),
        "service": project.release.service if project.release is not None else "",
        "payload": model.payload, "identity": recorded.identity,
        "manifest_sha256": recorded.manifest.sha256,
        "version_manifest_sha256": found.tags.get("opsdeck.manifest_sha256")}, ("manifest.json",))


def _register(work: Work, registry: Registry, recorded: Recorded) -> Any:
    """Log, then make the version; the version, whole."""
    project = work.project
    experiment = registry.experiment(project.project, _text(work.settings.get("artifacts")))
    run_id = _run_of(work, registry, recorded, experiment)
    with answering(registry.tracking):
        _log_figures(work, registry.client, run_id)
    _log_manifest(registry, run_id, recorded, work.run)
    source, model_id = _log_model(work, registry, recorded, experiment, run_id)
    tags = _tags(work, recorded)
    with answering(registry.tracking):
        made = registry.client.create_model_version(project.model, source, run_id=run_id, tags=tags,
                                                    model_id=model_id)
        registry.client.set_tag(run_id, "opsdeck.registered", str(made.version))
    work.say(f"registered as {project.model} version {made.version}")
    return made


def _run_of(work: Work, registry: Registry, recorded: Recorded, experiment: str) -> str:
    """The training's MLflow run, or one of this stage's own: an earlier attempt's where it left one."""
    trained = work.before.get("train", {}).get("mlflow_run")
    with answering(registry.tracking):
        if trained and registry.client.search_runs(
                [experiment], f"attributes.run_id = '{trained}'", max_results=1):
            return str(trained)
        left = registry.client.search_runs([experiment], f"tags.`{IDENTITY}` = '{recorded.identity}'")
        if left:
            return str(left[0].info.run_id)
        made = registry.client.create_run(experiment, run_name=f"{work.project.project} {work.run}",
                                          tags={IDENTITY: recorded.identity, "opsdeck.run": work.run})
        registry.client.log_param(made.info.run_id, "seed", work.project.seed)
        for name, value in sorted(work.project.train.params.items()):
            registry.client.log_param(made.info.run_id, name, str(value)[:500])
        return str(made.info.run_id)


def _log_figures(work: Work, client: Any, run_id: str) -> None:
    """The evaluation and the comparison, under names of their own: training has logged its figures."""
    for name, value in sorted(recording.metrics(work.before).items()):
        client.log_metric(run_id, f"eval.{_named(name)}", value)
    for name, one in sorted(dict(work.before.get("evaluate", {}).get("metrics") or {}).items()):
        for end in ("low", "high"):
            if isinstance(one, dict) and isinstance(one.get(end), int | float):
                client.log_metric(run_id, f"eval.{_named(name)}.{end}", float(one[end]))
    for name in ("p50_ms", "p95_ms", "p99_ms", "rows_per_s", "peak_mb", "model_bytes"):
        measured = work.before.get("evaluate", {}).get(name)
        if isinstance(measured, int | float):
            client.log_metric(run_id, f"eval.{name}", float(measured))
    compared = work.before.get("compare", {})
    if compared:
        client.log_metric(run_id, "compare.passed", float(bool(compared.get("passed"))))
        client.set_tag(run_id, "opsdeck.comparison", str(compared.get("says", ""))[:4000])
        if (told := side_by_side.on_the_same_rows(compared)) is not None:
            client.set_tag(run_id, side_by_side.TAG, told)
        for gate in compared.get("gates") or []:
            name = f"gate.{_named(str(gate.get('name')))}"
            client.log_metric(run_id, name, float(bool(gate.get("passed"))))


def _log_manifest(registry: Registry, run_id: str, recorded: Recorded, run: str) -> None:
    with answering(registry.tracking), tempfile.TemporaryDirectory(prefix="opsdeck-register-") as room:
        files = {f"manifest-{run}.json": recorded.manifest.encode()}
        if recorded.patch:
            files[f"patch-{recorded.manifest.known.code.patch}.diff"] = recorded.patch
        for name, content in files.items():
            (Path(room) / name).write_bytes(content)
        registry.client.log_artifacts(run_id, room, "opsdeck")


def _log_model(work: Work, registry: Registry, recorded: Recorded, experiment: str, run_id: str
               ) -> tuple[str, str | None]:
    """The model's place, and MLflow's id of it where it has one."""
    client = registry.client
    if recorded.model.is_dir():
        with answering(registry.tracking):
            client.log_artifacts(run_id, str(recorded.model), "model")
            return f"{client.get_run(run_id).info.artifact_uri}/model", None
    with answering(registry.tracking):
        whole = None
        for one in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
            if one.tags.get(IDENTITY) != recorded.identity:
                continue
            if str(one.status) == "READY" and whole is None:
                whole = one
            else:
                client.delete_logged_model(one.model_id)
        if whole is not None:
            work.say("the model was logged by an attempt before this one")
            return f"models:/{whole.model_id}", whole.model_id
        info = _onnx(work, registry, recorded, run_id)
        return info.model_uri, info.model_id


def _onnx(work: Work, registry: Registry, recorded: Recorded, run_id: str) -> Any:
    import onnx
    import pyarrow.parquet as pq
    from mlflow.types import ColSpec, Schema

    content = recorded.model.read_bytes()
    columns = pq.read_schema(work.inputs["data"] / "train.parquet").names
    told = served.signature(content, served.features(work.project, columns), str(recorded.model))
    signature = registry.mlflow.models.ModelSignature(
        inputs=Schema([ColSpec(one["type"], one["name"]) for one in told.inputs]),
        outputs=Schema([ColSpec(one["type"], one["name"]) for one in told.outputs]))
    with registry.mlflow.start_run(run_id=run_id):
        return registry.mlflow.onnx.log_model(
            onnx.load(str(recorded.model)), name="model", signature=signature,
            pip_requirements=recording.requirements(work.folder, work.project) or _plain(),
            save_as_external_data=False, onnx_execution_providers=["CPUExecutionProvider"],
            tags={IDENTITY: recorded.identity})


def _plain() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in PLAIN]


def _tags(work: Work, recorded: Recorded) -> dict[str, str]:
    known = recorded.manifest.known
    data = known.data["data"]
    payload = known.artifacts[recorded.model.name].payload
    tags = {"run": work.run, "project": work.project.project, "payload": payload,
            "data": data.sha256 or data.version, "commit": known.code.commit, "dirty": known.code.dirty,
            "sources": known.code.sources, "lock": known.lock.sha256 if known.lock else None,
            "image": known.image.digest if known.image else None,
            "manifest_sha256": recorded.manifest.sha256, "model": recorded.model.name}
    return {IDENTITY: recorded.identity,
            **{f"opsdeck.{name}": value for name, value in tags.items() if value is not None}}


def _alias(registry: Registry, model: str, version: str) -> str:
    """Give the version the alias `candidate`, unless it is the champion; what it is called then."""
    if registry.aliases(model).get(CHAMPION) == version:
        return CHAMPION
    registry.point(model, CANDIDATE, version)
    held = registry.version(model, version)
    if held is not None and held.tags.get(OUTCOME, "").startswith(STOPPED):
        registry.tag(model, version, OUTCOME, f"candidate again; before: {held.tags[OUTCOME]}"[:4000])
    return CANDIDATE


def _champion(work: Work, registry: Registry) -> tuple[str | None, str | None]:
    """The version in production, and the commit it was made from, if known; what it was made of goes into the
    output as champion.json."""
    version = registry.aliases(work.project.model).get(CHAMPION)
    held = registry.version(work.project.model, version) if version is not None else None
    run = held.tags.get("opsdeck.run") if held is not None else None
    commit = held.tags.get("opsdeck.commit") if held is not None else None
    if held is not None and run is not None and held.run_id:
        name = f"opsdeck/manifest-{run}.json"
        with answering(registry.tracking), tempfile.TemporaryDirectory(prefix="opsdeck-register-") as room:
            if any(one.path == name for one in registry.client.list_artifacts(held.run_id, "opsdeck")):
                got = registry.client.download_artifacts(held.run_id, name, room)
                (work.output / "champion.json").write_bytes(Path(got).read_bytes())
    return version, commit


def _keep_cases(work: Work) -> None:
    """Note which hard cases this kept model has passed: from now on it must never fail them."""
    for sentence in robustness.record_cases(work, dt.datetime.now(dt.UTC)):
        work.say(sentence)


def _named(name: str) -> str:
    """A name that MLflow takes for a metric."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)[:200] or "_"


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
