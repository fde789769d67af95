"""Manifests for the tests: a real one of this process, and changes of it by path."""

from __future__ import annotations

import copy
from typing import Any

from engine.reproduce import canonical, manifest
from engine.reproduce.manifest import Manifest
from engine.reproduce.parts import (
    Artifact,
    Blas,
    Code,
    Cpu,
    Dataset,
    Environment,
    Gpu,
    Image,
    Lock,
    Python,
    Run,
    System,
)

ENVIRONMENT = Environment(
    python=Python("3.11.7", "CPython", "GCC 12.2.0"),
    system=System("Debian GNU/Linux 12 (bookworm)", "Linux 6.1.0", "x86_64", "glibc 2.36"),
    cpu=Cpu("Xeon", 8, "f" * 64), gpus=[Gpu("H100", "550.54", 81559, "9.0")],
    blas={"blas": Blas("openblas", "0.3.31", 8, "pthreads", "SkylakeX")},
    threads={"OMP_NUM_THREADS": "8"}, variables={"PYTHONHASHSEED": "7"},
    packages={"numpy": "2.4.6", "scikit-learn": "1.9.1"})


def made(**changes: Any) -> Manifest:
    """A whole manifest; arguments of `manifest.assemble` take the place of its parts."""
    parts: dict[str, Any] = {
        "run": Run("train-1", "flights", "2026-11-24T12:00:00Z", ["python", "-m", "train"]),
        "code": Code(commit="a" * 40, remote="ssh://git.example/flights", folder="models/flights"),
        "environment": ENVIRONMENT, "lock": Lock("uv.lock", "b" * 64),
        "image": Image("example/train:3", "sha256:" + "c" * 64),
        "data": {"flights": Dataset("data/flights.parquet", "file", "d" * 64, bytes=10, files=1)},
        "config": {"trees": 100, "rate": 0.1}, "seeds": {"training": 7},
        "artifacts": {"model": Artifact("e" * 64, 100, "f" * 64, "model")},
        "loss": 0.25, "metrics": {"auc": 0.75, "log_loss": 0.5}}
    return manifest.assemble(**(parts | changes))


def changed(one: Manifest, path: str, value: Any) -> Manifest:
    """The manifest with another value at a dotted path."""
    content = copy.deepcopy(one.content)
    at = content
    *way, last = path.split(".")
    for key in way:
        at = at.setdefault(key, {})
    at[last] = value
    return manifest.read(canonical.encode(content))
