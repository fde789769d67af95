"""The manifest of a pipeline's run, collected from the project's folder and what its stages left."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import ActionFailed, UsageError
from engine.pipeline.building import listing, seen
from engine.pipeline.project.model import Project
from engine.pipeline.stages.contract import Work
from engine.reproduce import canonical, digests, environment, git, payload
from engine.reproduce.manifest import Manifest, assemble
from engine.reproduce.parts import Artifact, Code, Dataset, Environment, Image, Lock, Run

# What decides neither the model nor its figures.
ASIDE = {"opsdeck", "owner", "title", "release", "triggers", "tracking", "staging", "serving"}
REPORTS = {"evaluate": ("predictions.npy", "evaluation.json"), "data": ("findings.json",),
           "train": ("metrics.json", "metrics.jsonl")}


@dataclass(frozen=True)
class Recorded:
    """`identity`: the same for the same thing built twice (see `identity`). `patch`: what makes the
    uncommitted changes anew, empty where there are none."""

    manifest: Manifest
    identity: str
    patch: bytes
    model: Path


def record(work: Work, now: dt.datetime) -> Recorded:
    """Collect the manifest of this run. Blocking. Raises UsageError or ActionFailed for what is missing."""
    project, train = work.project, work.inputs["train"]
    model = trained(train)
    code, patch = _code(work.folder, project)
    result = work.before.get("train", {})
    manifest = assemble(
        run=Run(work.run, project.project, now.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                list(project.train.entry.command)),
        code=code, environment=_environment(train), lock=_lock(work.folder, project), image=_image(project),
        data={"data": _dataset(work.inputs["data"])},
        config=project.model_dump(mode="json", by_alias=True, exclude=ASIDE),
        seeds={"seed": project.seed}, artifacts=_artifacts(work.inputs, model),
        loss=_finite(result.get("loss")), metrics=metrics(work.before))
    return Recorded(manifest, identity(manifest, code_of(work.folder, project)), patch, model)


def identity(manifest: Manifest, code: Mapping[str, str]) -> str:
    """What tells two builds apart: all but the run, the reports and figures that follow from the rest and may
    hold how long something took, and files beside the model's `code` (sha256 by path): a commit of a readme,
    or a hard case that was passed, is no other build. Pure."""
    content = {key: value for key, value in manifest.content.items()
               if key not in ("run", "code", "loss", "metrics", "artifacts")}
    made = {name: one.payload or one.sha256 for name, one in manifest.known.artifacts.items()
            if one.kind != "report"}
    return canonical.digest({**content, "code": dict(code), "artifacts": made})


def code_of(folder: Path, project: Project) -> dict[str, str]:
    """The sha256 of each of the model's own files, by path. Blocking."""
    listed = listing.listed(folder, seen.code(project, folder))
    return {path: digests.file(folder / path).sha256 for path in listed}


def trained(train: Path) -> Path:
    """The model that training left: the file model.onnx, or the folder `model`."""
    for one in (train / "model.onnx", train / "model"):
        if one.exists():
            return one
    raise ActionFailed("Training has left no model.", where=str(train),
                       hint="It must write model.onnx, or a folder `model`, into OPSDECK_OUTPUT.")


def metrics(before: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The figures of the evaluation by name; those of training that it does not have."""
    found = {name: value for name, value in dict(before.get("train", {}).get("metrics") or {}).items()
             if isinstance(value, int | float) and not isinstance(value, bool)}
    for name, one in dict(before.get("evaluate", {}).get("metrics") or {}).items():
        value = one.get("value") if isinstance(one, Mapping) else one
        if isinstance(value, int | float):
            found[name] = value
    return {name: float(value) for name, value in found.items()}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _code(folder: Path, project: Project) -> tuple[Code, bytes]:
    # What became of the hard cases is written beside them at every registration, and trains nothing.
    code = git.code(folder, [f"{project.robustness.cases}/*"])
    if code.dirty is None:
        return code, b""
    patch = git.patch(folder)
    return msgspec.structs.replace(code, patch=hashlib.sha256(patch).hexdigest()), patch


def _lock(folder: Path, project: Project) -> Lock | None:
    path = project.environment.lock
    return None if path is None else Lock(path, digests.file(folder / path).sha256)


def _image(project: Project) -> Image | None:
    if project.environment.image is None:
        return None
    reference, _, digest = project.environment.image.partition("@")
    return Image(reference, digest)


def _environment(train: Path) -> Environment:
    """As the training process found it; this process's own where it left no account."""
    path = train / "environment.json"
    return _read(path, Environment) if path.exists() else environment.collect()


def _dataset(data: Path) -> Dataset:
    found: Dataset = _read(data / "dataset.json", Dataset)
    return found


def _read(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError as error:
        raise ActionFailed(f"A stage has not left its {path.name}.", where=str(path),
                           hint="Run the pipeline again.") from error
    except msgspec.DecodeError as error:
        raise UsageError(f"This file is not what a stage writes: {error}", where=str(path)) from error


def _artifacts(inputs: Mapping[str, Path], model: Path) -> dict[str, Artifact]:
    found = {model.name: payload.artifact(model, "model")}
    for stage, names in REPORTS.items():
        for name in names:
            path = inputs[stage] / name if stage in inputs else None
            if path is not None and path.is_file():
                kind = "predictions" if name == "predictions.npy" else "report"
                found[name] = payload.artifact(path, kind)
    return found


def requirements(folder: Path, project: Project) -> list[str]:
    """`name==version` of everything the project's lock pins; empty where it has none. Raises UsageError for
    a lock that pins nothing."""
    if project.environment.lock is None:
        return []
    path = folder / project.environment.lock
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".lock" and path.name != "requirements.lock" and "[[package]]" in text:
        import tomllib

        pins = [f"{one['name']}=={one['version']}" for one in tomllib.loads(text).get("package", [])
                if "registry" in one.get("source", {}) and "version" in one]
    else:
        from re import MULTILINE, findall

        pins = [f"{name}=={version}" for name, version in findall(
            r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;\\#]+)", text, flags=MULTILINE)]
    if not pins:
        raise UsageError("This lock pins no package.", where=str(path),
                         hint="Write it by `uv pip compile --generate-hashes` or `uv lock`.")
    return sorted(pins)


def read_json(path: Path) -> Any | None:
    """A stage's JSON, None where it is not there or is damaged."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
