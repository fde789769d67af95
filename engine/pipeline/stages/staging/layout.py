"""The folder that a model server loads: the model, the manifest of its run, and the manifest of its files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from engine.errors import UsageError
from engine.pipeline.releasing.served import Signature, signature
from engine.serving import manifest

RUN = "run.json"  # the manifest of the run that made it: lock, image, commit


def lay_out(model: Path, target: Path, *, name: str, version: str, features: Sequence[str],
            run_manifest: Path | None) -> tuple[str, Signature]:
    """Make the folder `target`; the SHA-256 of its manifest and what it takes.

    Raises UsageError for a model that is not ONNX, ManifestError for files that must not be served.
    """
    if model.is_dir():
        raise UsageError("This model is a folder; staging and the release serve ONNX models.",
                         where=str(model), hint="Write model.onnx too, or serve the registered folder by "
                                                "MLflow's own server, outside the pipeline.")
    target.mkdir(parents=True)
    content = model.read_bytes()
    told = signature(content, features, str(model))
    (target / manifest.MODEL).write_bytes(content)
    for beside in _beside(content):
        if not (model.parent / beside).is_file() or Path(beside).name != beside:
            raise UsageError(f"The model's weights in {beside} are not there.", where=str(model),
                             hint="Training must write them beside model.onnx.")
        shutil.copyfile(model.parent / beside, target / beside)
    if run_manifest is not None:
        shutil.copyfile(run_manifest, target / RUN)
    return manifest.write(target, name=name, version=version, inputs=told.inputs, output=told.outputs), told


def _beside(content: bytes) -> list[str]:
    """The files that hold weights which the model keeps beside it."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    found = {entry.value for tensor in onnx.load_model_from_string(content).graph.initializer
             if uses_external_data(tensor) for entry in tensor.external_data if entry.key == "location"}
    return sorted(found)
