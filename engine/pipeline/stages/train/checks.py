"""What training must have left, looked at before anything is made of it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import ActionFailed, OpsdeckError
from engine.pipeline.stages.train.job import ARTIFACTS, CURVE, KEY, METRICS
from engine.reproduce import payload
from engine.reproduce.parts import Artifact

LARGEST = 1 << 20  # bytes of metrics.json


@dataclass(frozen=True)
class Model:
    """`path`: model.onnx or the folder `model`; `payload`: its canonical digest, of `engine.reproduce`."""

    path: Path
    sha256: str
    payload: str
    bytes: int


def metrics(output: Path, broken: Mapping[str, float]) -> dict[str, float]:
    """The figures of metrics.json by name. `broken`: the curve's names that were no finite number, with the
    first step. Raises ActionFailed when it is missing, no object of numbers, or has one not finite."""
    path = output / METRICS
    where = f"{KEY}: {METRICS}"
    try:
        if path.is_symlink() or path.stat().st_size > LARGEST:
            raise ActionFailed(f"{METRICS} is no plain file of figures.", where=where)
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ActionFailed(f"The training wrote no {METRICS}.", where=where,
                           hint='It must write one into OPSDECK_OUTPUT, such as {"loss": 0.31}.') from error
    except (OSError, ValueError, RecursionError) as error:
        raise ActionFailed(f"{METRICS} cannot be read: {error}", where=where,
                           hint='It is JSON, an object of numbers, such as {"loss": 0.31}.') from error
    if not isinstance(found, dict) or not found:
        raise ActionFailed(f"{METRICS} holds no figures.", where=where,
                           hint='It is an object of numbers, such as {"loss": 0.31}.')
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ActionFailed(f"{name} in {METRICS} is no number but {json.dumps(value)[:80]}.", where=where,
                               hint="Write numbers only; what else is worth keeping is a file of its own.")
        if not math.isfinite(value):
            since = f" In {CURVE} it was so first at step {broken[name]:g}." if name in broken else ""
            raise ActionFailed(f"{name} is {'NaN' if math.isnan(value) else value} after training.{since}",
                               where=where, hint="Look for missing or very large values in the features and "
                                                 "the label, and for a learning rate that is too high.")
    return {str(name): float(value) for name, value in found.items()}


def model(output: Path) -> Model:
    """The model, which is opened if it is ONNX. Raises ActionFailed for none, and one that does not open."""
    file, folder = output / "model.onnx", output / "model"
    if file.exists() and folder.exists():
        raise ActionFailed("The training wrote both model.onnx and a folder model.", where=KEY,
                           hint="Write one of them; the other files go beside it under other names.")
    path = file if file.exists() else folder
    if not path.exists():
        raise ActionFailed("The training wrote no model.", where=KEY,
                           hint="It must write model.onnx, or a folder model, into OPSDECK_OUTPUT.")
    if path.is_symlink() or path.is_file() != (path == file):
        raise ActionFailed(f"{path.name} is not a plain {'file' if path == file else 'folder'}.", where=KEY,
                           hint="Write the model itself, not a link to it.")
    if path == file:
        _opened(path)
    elif not any(folder.iterdir()):
        raise ActionFailed("The folder model is empty.", where=KEY, hint="Write the model's files into it.")
    try:
        whole = payload.artifact(path, "model")
    except OpsdeckError as error:
        error.where = f"{KEY}: {error.where}"
        raise
    return Model(path, whole.sha256, str(whole.payload), whole.bytes)


def artifacts(output: Path, made: Model) -> dict[str, Artifact]:
    """Every file training left by its path in the output, the model as one; written to artifacts.json."""
    found = {made.path.name: Artifact(made.sha256, made.bytes, made.payload, "model")}
    for path in _files(output, made.path):
        found[path.relative_to(output).as_posix()] = payload.artifact(path)
    written = json.dumps(msgspec.to_builtins(found), sort_keys=True, indent=1)
    (output / ARTIFACTS).write_text(written + "\n", encoding="utf-8")
    return found


def _files(output: Path, without: Path) -> Iterator[Path]:
    for at, folders, files in os.walk(output):
        folders[:] = sorted(one for one in folders if Path(at) / one != without)
        for name in sorted(files):
            path = Path(at) / name
            if path != without and path != output / ARTIFACTS and path.is_file() and not path.is_symlink():
                yield path


def _opened(path: Path) -> None:
    """By ONNX Runtime, from its bytes alone, as a server opens it."""
    import onnxruntime

    if path.stat().st_size == 0:
        raise ActionFailed("model.onnx is empty.", where=KEY, hint="Did the training finish writing it?")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    # To open it is enough; to make it fast takes longer.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has an exception class of its own for every status
        said = " ".join(str(error).split())[:300]
        if "external" in said.lower():
            raise ActionFailed("model.onnx keeps its weights in another file.", where=KEY,
                               hint="Save it with the weights inside (save_as_external_data=False)."
                               ) from error
        raise ActionFailed(f"model.onnx does not open: {said}", where=KEY,
                           hint="Open it with onnxruntime in the training, before it is written.") from error
