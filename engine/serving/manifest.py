"""The manifest of a model directory: which files belong to it, byte for byte.

`manifest.json` beside an ONNX model, as `mlflow.onnx` logs it:

    {"format": 1, "name": "late", "version": "3", "files": {"model.onnx": "<sha256>", …},
     "inputs": [{"name": "hour", "type": "double"}, …], "output": …}

Whoever trains calls `write` last; whoever serves calls `verify` first. Pickles are refused by name
and by content: loading one runs whatever code it carries. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import OpsdeckError

FORMAT = 1
FILE = "manifest.json"
MODEL = "model.onnx"
# MLflow's names of the scalar types a column can have.
TYPES = ("boolean", "integer", "long", "float", "double", "string")
PICKLES = (".pkl", ".pickle", ".p", ".joblib", ".skops", ".cloudpickle", ".dill", ".pt", ".pth",
           ".ckpt", ".npy", ".npz", ".mar")
# MLflow adds this file to what it downloads from a registry; nothing here reads it.
_ADDED_BY_MLFLOW = "registered_model_meta"
_MANIFEST_LIMIT = 4 << 20
_VERSION = re.compile(r"[A-Za-z0-9._+:/@-]{1,64}")


class ManifestError(OpsdeckError):
    """A model directory that must not be served."""

    exit_code = 2
    code = "manifest"


@dataclass(frozen=True)
class Manifest:
    """A manifest read and checked. `inputs`: (name, type) in the order of the model's signature."""

    name: str
    version: str
    files: dict[str, str]
    inputs: tuple[tuple[str, str], ...]
    output: Any
    sha256: str


def write(directory: Path, *, name: str, version: str, inputs: Sequence[Mapping[str, str]],
          output: Any = None) -> str:
    """Write `manifest.json` over all files now in the directory; returns its own SHA-256.

    `inputs`: [{"name", "type"}…] with types of `TYPES`; `output`: anything JSON. Raises
    ManifestError when the directory holds what `verify` would refuse.
    """
    directory = Path(directory)
    files = {}
    for relative in _files(directory):
        _refuse_pickle(directory, relative)
        files[relative] = _sha256(directory / relative)
    content = {"format": FORMAT, "name": name, "version": str(version), "files": files,
               "inputs": [{"name": i["name"], "type": i["type"]} for i in inputs],
               "output": output}
    text = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    _parse(text, directory / FILE)
    temporary = directory / f".{FILE}.new"
    temporary.write_bytes(text)
    temporary.replace(directory / FILE)
    return hashlib.sha256(text).hexdigest()


def verify(directory: Path, manifest_sha256: str | None = None) -> Manifest:
    """The manifest of a directory whose files are exactly those it lists.

    `manifest_sha256` binds the manifest itself, for a caller who recorded it. Raises ManifestError
    that names the first file that is missing, changed, not listed, a link or a pickle.
    """
    directory = Path(directory)
    path = directory / FILE
    text = _read(path, "manifest", _MANIFEST_LIMIT)
    if manifest_sha256 is not None and hashlib.sha256(text).hexdigest() != manifest_sha256:
        raise ManifestError("The manifest is not the one that was recorded.", where=str(path),
                            hint="Fetch the model again from where it was registered.")
    manifest = _parse(text, path)
    present = set(_files(directory))
    for relative in sorted(present):
        if relative not in manifest.files:
            raise ManifestError(f"The file {relative} is not listed in the manifest.",
                                where=str(directory),
                                hint="A model is served with exactly the files it was made of.")
        _refuse_pickle(directory, relative)
    for relative, digest in manifest.files.items():
        if relative not in present:
            raise ManifestError(f"The file {relative} is missing.", where=str(directory),
                                hint="Fetch the model again from where it was registered.")
        if _sha256(directory / relative) != digest:
            raise _changed(directory, relative)
    return manifest


def read_verified(directory: Path, manifest: Manifest, relative: str) -> bytes:
    """The bytes of a listed file, checked once more as they were read.

    Raises ManifestError when it is not listed or has changed since.
    """
    if relative not in manifest.files:
        raise ManifestError(f"The file {relative} is not listed in the manifest.",
                            where=str(directory))
    content = _read(directory / relative, "model", None)
    if hashlib.sha256(content).hexdigest() != manifest.files[relative]:
        raise _changed(directory, relative)
    return content


def _changed(directory: Path, relative: str) -> ManifestError:
    return ManifestError(f"The file {relative} does not have the SHA-256 that the manifest records.",
                         where=str(directory),
                         hint="Fetch the model again from where it was registered.")


def _read(path: Path, what: str, limit: int | None) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ManifestError(f"There is no {what} here.", where=str(path),
                            hint="A model directory has a manifest.json that lists its files."
                            ) from None
    except OSError as error:
        raise ManifestError(f"The {what} cannot be read: {error.strerror}.",
                            where=str(path)) from None
    with os.fdopen(fd, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or (limit is not None and state.st_size > limit):
            raise ManifestError(f"The {what} is not a regular file of a sensible size.",
                                where=str(path))
        return file.read()


def _parse(text: bytes, path: Path) -> Manifest:
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ManifestError(f"The manifest has format {content['format']}; this version reads "
                                f"format {FORMAT}.", where=str(path))
        name, version, files = content["name"], content["version"], content["files"]
        inputs = tuple((one["name"], one["type"]) for one in content["inputs"])
        if not all(isinstance(text, str) for text in (
                name, version, *files, *files.values(), *(part for one in inputs for part in one))):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ManifestError("The manifest is not valid.", where=str(path),
                            hint="It is written by engine.serving.manifest.write.") from None
    if not _VERSION.fullmatch(version):
        raise ManifestError("The version must be 1 to 64 letters, digits or ._+:/@-.",
                            where=str(path))
    if not inputs or len({one[0] for one in inputs}) != len(inputs):
        raise ManifestError("The manifest names no inputs, or one twice.", where=str(path))
    for column, kind in inputs:
        if kind not in TYPES:
            raise ManifestError(f"The input {column} has type {kind}, which is not known.",
                                where=str(path), hint=f"The types are: {', '.join(TYPES)}.")
    return Manifest(name, version, files, inputs, content.get("output"),
                    hashlib.sha256(text).hexdigest())


def _files(directory: Path) -> Iterator[str]:
    """Every file below the directory, as a POSIX path relative to it, sorted."""
    try:
        entries = sorted(directory.rglob("*"))
        if not directory.is_dir():
            raise NotADirectoryError(20, "it is not a directory")
    except OSError as error:
        raise ManifestError(f"The model directory cannot be read: {error.strerror}.",
                            where=str(directory)) from None
    for entry in entries:
        relative = entry.relative_to(directory).as_posix()
        mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode) or relative in (FILE, f".{FILE}.new", _ADDED_BY_MLFLOW):
            continue
        if not stat.S_ISREG(mode):
            raise ManifestError(f"{relative} is a link or not a regular file.",
                                where=str(directory))
        yield relative


def _refuse_pickle(directory: Path, relative: str) -> None:
    with (directory / relative).open("rb") as file:
        head = file.read(2)
    # Protocols 2 to 5 open with PROTO and their number.
    by_content = len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5
    if by_content or relative.lower().endswith(PICKLES):
        raise ManifestError(f"The file {relative} is, or may hold, a pickle.", where=str(directory),
                            hint="Log the model as ONNX; a pickle can run any code when loaded.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
