"""The canonical digest of a model's payload: what it is, without when and under which id it was saved.

    folder          its files by relative path, each by the rules below; links and order as in `digests`
    zip, tar        their members' names and contents; no times, modes, order or compression (.npz, .keras,
                    .skops, .pt, .whl, .tar.gz … by their first bytes, whatever their names); also inside
                    each other, three deep
    gzip            the content
    MLmodel         without the keys below; so are the other files of `VOLATILE`
    skops           numbered anew in the order of appearance, where it names objects by memory address
    anything else   its bytes: ONNX, Parquet, HDF5, pickles (which are never loaded)

What is left out of which file is `VOLATILE` and nothing else, so a reader can tell what is not compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import ActionFailed, UsageError
from engine.reproduce import archives, canonical, digests, skops
from engine.reproduce.parts import Artifact


@dataclass(frozen=True)
class Volatile:
    """Keys at the top of a YAML or JSON file that say when, where or under which id it was saved.

    `file`: pattern of its path in the payload. No `keys`: the whole file is left out. `only_with`: keys that
    must be there too, so that another program's file of the same name keeps its content.
    """

    file: str
    keys: tuple[str, ...] = ()
    only_with: tuple[str, ...] = ()
    why: str = ""


VOLATILE = (
    Volatile("MLmodel", ("artifact_path", "model_id", "model_uuid", "run_id", "utc_time_created",
                         "model_size_bytes"), ("flavors",),
             "MLflow's ids, place and time; the size follows from the members"),
    Volatile("registered_model_meta", why="name and version in a registry, added by a download"),
    Volatile("manifest.json", ("version", "files"), ("format", "files", "inputs"),
             "the registry's version, and digests of files that are members themselves"),
    Volatile("metadata.json", ("date_saved",), ("keras_version",), "Keras: when it was saved"),
    Volatile(".data/serialization_id", why="PyTorch: derived from the order of writing"),
    Volatile("__pycache__/*", why="bytecode, which holds the source's time"),
    Volatile("*.pyc", why="bytecode, which holds the source's time"),
)
DEEPEST = 3  # archives inside each other; one deeper is compared by its bytes
LIMIT = 8 << 20  # of a file that is parsed; a larger one is compared by its bytes


@dataclass(frozen=True)
class Payload:
    """`members`: each member's canonical SHA-256 by its path, "" for a payload that is one plain file. An
    archive's members stand behind its own name: `weights.npz!/w.npy`."""

    sha256: str
    members: dict[str, str]


def digest(path: Path) -> Payload:
    """The canonical digest of a model's file or folder. Blocking; what is large goes through a file aside.

    Raises UsageError for a path that is not there and for links that lead out, ActionFailed for an archive
    that is damaged, encrypted, or expands beyond `archives.Budget`.
    """
    budget = archives.Budget()
    found: dict[str, str] = {}
    if path.is_dir():
        for relative, target in digests.names(path):
            name = relative.decode(errors="backslashreplace")
            if target is not None:
                found[name] = hashlib.sha256(b"link " + target).hexdigest()
            else:
                found.update(_file(path / os.fsdecode(relative), name, budget))
    else:
        found.update(_file(path, "", budget))
    return Payload(canonical.digest(found), dict(sorted(found.items())))


def artifact(path: Path, kind: str = "file") -> Artifact:
    """A manifest's entry for what a run made. A `model` gets its canonical digest too. Blocking; raises as
    `digest` and `digests.folder` do."""
    whole = digests.folder(path) if path.is_dir() else digests.file(path)
    return Artifact(whole.sha256, whole.bytes, digest(path).sha256 if kind == "model" else None, kind)


def differing(a: Payload, b: Payload) -> list[str]:
    """The members that differ or that only one has, sorted. Pure."""
    every = a.members.keys() | b.members.keys()
    return sorted(name for name in every if a.members.get(name) != b.members.get(name))


def _file(path: Path, name: str, budget: archives.Budget) -> Iterator[tuple[str, str]]:
    try:
        with path.open("rb") as content:
            if not stat.S_ISREG(os.fstat(content.fileno()).st_mode):
                raise UsageError("This is not a regular file, so it has no digest.", where=str(path))
            yield from _members(content, name, str(path), budget, 0)
    except FileNotFoundError as error:
        raise UsageError("There is no such file.", where=str(path)) from error
    except OSError as error:
        raise ActionFailed(f"The file cannot be read: {error.strerror or error}.", where=str(path)) from error


def _members(content: BinaryIO, name: str, where: str, budget: archives.Budget, depth: int
             ) -> Iterator[tuple[str, str]]:
    rule = _rule(name)
    if rule is not None and not rule.keys:
        return
    inner = archives.members(content, where, budget) if depth < DEEPEST else None
    if inner is not None:
        renamed: dict[str, str] = {}
        for member, data in inner:
            if member == skops.SCHEMA and (schema := skops.read(data)) is not None:
                renamed, normal = schema
                yield f"{name}!/{member}", canonical.digest(normal)
            else:
                yield from _members(data, f"{name}!/{renamed.get(member, member)}", f"{where}!/{member}",
                                    budget, depth + 1)
        return
    if rule is not None:
        kept = _without(content, rule)
        if kept is not None:
            yield name, canonical.digest(kept)
            return
    content.seek(0)
    total = hashlib.sha256()
    while block := content.read(1 << 20):
        total.update(block)
    yield name, total.hexdigest()


def _rule(name: str) -> Volatile | None:
    parts = name.rpartition("!/")[2].split("/")
    ends = ["/".join(parts[at:]) for at in range(len(parts))]
    return next((one for one in VOLATILE if any(fnmatch(end, one.file) for end in ends)), None)


def _without(content: BinaryIO, rule: Volatile) -> dict[str, Any] | None:
    """The file's content less the volatile keys, or None if it is not the kind of file the rule is for."""
    import yaml

    content.seek(0)
    data = content.read(LIMIT + 1)
    if len(data) > LIMIT:
        return None
    try:
        # JSON is YAML, but for a few texts that are in neither's way here.
        found = json.loads(data) if data.lstrip()[:1] == b"{" else yaml.load(data, Loader=yaml.CSafeLoader)
    except (ValueError, RecursionError, yaml.YAMLError):
        return None
    if not isinstance(found, dict) or not all(key in found for key in rule.only_with):
        return None
    kept: dict[str, Any] = _plain({key: value for key, value in found.items() if key not in rule.keys})
    return kept


def _plain(value: Any) -> Any:
    """The value for `canonical`: what YAML has and JSON lacks, such as dates and NaN, by its text."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | str) or (isinstance(value, int) and abs(value) < 2**63) \
            or (isinstance(value, float) and math.isfinite(value)):
        return value
    return f"{type(value).__name__} {value}"
