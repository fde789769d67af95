"""What the interpreter that runs this file is and what it has: Python, system, processor, packages, BLAS.

Standard library only, and nothing of the engine: `environment.collect` runs it by path under the
interpreter of a project's own environment, `python -I probe.py`, and reads one JSON object from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
           "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "OMP_DYNAMIC", "OMP_SCHEDULE", "OMP_THREAD_LIMIT")
# Each can change what a training gives.
VARIABLES = ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "CUDA_VISIBLE_DEVICES", "MKL_CBWR",
             "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES",
             "NVIDIA_TF32_OVERRIDE", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC",
             "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION",
             "LC_ALL", "LANG", "TZ")


def probe() -> dict[str, Any]:
    """The object, in the shape of `parts.Environment` without its GPUs.

    NumPy is imported where it is installed, since only a loaded BLAS can be asked.
    """
    return {
        "python": {"version": platform.python_version(), "compiler": platform.python_compiler(),
                   "implementation": platform.python_implementation()},
        "system": {"name": _system(), "kernel": f"{platform.system()} {platform.release()}",
                   "machine": platform.machine(), "libc": " ".join(platform.libc_ver()).strip()},
        "cpu": _cpu(),
        "blas": _blas(),
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        "packages": _packages(),
    }


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(aliased=True, terse=True)


def _cpu() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    facts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            facts.setdefault(key.strip(), value.strip())
    model = facts.get("model name") or facts.get("CPU part") or platform.processor() or platform.machine()
    features = " ".join(sorted((facts.get("flags") or facts.get("Features") or "").split()))
    return {"model": model, "usable": usable,
            "features": hashlib.sha256(features.encode()).hexdigest() if features else ""}


def _blas() -> dict[str, dict[str, Any]]:
    if importlib.util.find_spec("numpy") is None:
        return {}
    numpy: Any = importlib.import_module("numpy")
    if importlib.util.find_spec("threadpoolctl") is None:
        built = numpy.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
        return {"blas": {"name": str(built.get("name", "unknown")), "version": str(built.get("version", ""))}}
    pools: Any = importlib.import_module("threadpoolctl")
    found: dict[str, dict[str, Any]] = {}
    for pool in sorted(pools.threadpool_info(), key=lambda one: (one["user_api"], one["filepath"])):
        name, at = str(pool["user_api"]), 2
        while name in found:
            name, at = f"{pool['user_api']} {at}", at + 1
        found[name] = {"name": str(pool["internal_api"]), "version": str(pool.get("version") or ""),
                       "threads": pool.get("num_threads"), "layer": str(pool.get("threading_layer") or ""),
                       "architecture": str(pool.get("architecture") or "")}
    return found


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for one in importlib.metadata.distributions():
        name = one.metadata["Name"]
        if name:  # what an interrupted installation left has none
            # Of two, the first on the path is the one that is imported.
            found.setdefault(name.lower().replace("_", "-").replace(".", "-"), one.version)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    json.dump(probe(), sys.stdout)
