"""One seed for everything that draws: the variables of the process to come, and the libraries in it.

Two halves, since some switches are read only when a process starts:

    subprocess.Popen(command, env={**os.environ, **seeds.environment(7)})    outside
    seeds.apply(7)                                                           inside, first of all

`apply` imports no library. What is imported already is seeded at once; what is imported later is seeded
at the end of its import. (A library that draws from another while it is imported moves that one on, in each
run alike.) `numpy.random.default_rng()` and JAX draw from no global state and cannot be seeded from outside:
give them the seed, which OPSDECK_SEED holds.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from engine.errors import UsageError

VARIABLE = "OPSDECK_SEED"
LARGEST = 2**32 - 1  # of what NumPy's legacy generator and PYTHONHASHSEED take
POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS",
         "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
SWITCHES = {
    "OMP_DYNAMIC": "FALSE",
    # cuBLAS picks its algorithm by the workspace it has; without one of two fixed sizes torch refuses
    # deterministic algorithms (NVIDIA, cuBLAS library, "Results reproducibility").
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "TF_DETERMINISTIC_OPS": "1",
    "TF_CUDNN_DETERMINISTIC": "1",
}
XLA = "--xla_gpu_deterministic_ops=true"


@dataclass(frozen=True)
class Applied:
    """`seeded`: libraries seeded at once; `awaited`: those that will be when they are imported;
    `hash_seed`: whether this process started with PYTHONHASHSEED set to the seed."""

    seed: int
    seeded: tuple[str, ...]
    awaited: tuple[str, ...]
    hash_seed: bool


def environment(seed: int, threads: int | None = 1, xla_flags: str = "") -> dict[str, str]:
    """The variables a child must be started with. Pure.

    `threads`: how many each pool of OpenMP and BLAS gets; the order of a parallel sum depends on it. None
    leaves them alone. `xla_flags`: what XLA_FLAGS already holds, and goes on to. Raises UsageError for a
    seed outside 0 to 2**32 - 1 or fewer than one thread.
    """
    _check(seed)
    if threads is not None and threads < 1:
        raise UsageError(f"{threads} threads are too few.", hint="Give 1 or more.")
    variables = {VARIABLE: str(seed), "PYTHONHASHSEED": str(seed), **SWITCHES,
                 "XLA_FLAGS": xla_flags if XLA in xla_flags.split() else f"{xla_flags} {XLA}".strip()}
    return variables | ({} if threads is None else {pool: str(threads) for pool in POOLS})


def apply(seed: int) -> Applied:
    """Seed this process: `random` now, every other library now or when it is imported.

    A second call seeds everything anew. Raises UsageError for a seed outside 0 to 2**32 - 1.
    """
    _check(seed)
    import random

    random.seed(seed)
    seeded, awaited = ["random"], {}
    for name, setter in SETTERS.items():
        module = sys.modules.get(name)
        if module is not None:
            setter(module, seed)
            seeded.append(name)
        else:
            awaited[name] = setter
    sys.meta_path[:] = [one for one in sys.meta_path if not isinstance(one, _Awaiting)]
    sys.meta_path.insert(0, _Awaiting(seed, awaited))
    return Applied(seed, tuple(seeded), tuple(awaited), os.environ.get("PYTHONHASHSEED") == str(seed))


def _check(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST:
        raise UsageError(f"{seed!r} is not a seed.", hint=f"Give a whole number from 0 to {LARGEST}.")


def _numpy(numpy: Any, seed: int) -> None:
    numpy.random.seed(seed)


def _torch(torch: Any, seed: int) -> None:
    """Seeds CPU and all devices. An operation without a deterministic algorithm warns, and runs."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def _tensorflow(tensorflow: Any, seed: int) -> None:
    tensorflow.random.set_seed(seed)
    if hasattr(tensorflow.config.experimental, "enable_op_determinism"):  # from 2.9 on
        tensorflow.config.experimental.enable_op_determinism()


def _jax(jax: Any, seed: int) -> None:
    """JAX has no global generator; bits are kept the same however arrays are spread over devices."""
    if hasattr(jax.config, "jax_threefry_partitionable"):  # a version without it has no other way
        jax.config.update("jax_threefry_partitionable", True)


SETTERS: dict[str, Callable[[Any, int], None]] = {
    "numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow, "jax": _jax}


class _Awaiting(importlib.abc.MetaPathFinder):
    """Finds the libraries that are awaited as they are found anyway, and seeds each when it has loaded."""

    def __init__(self, seed: int, awaited: dict[str, Callable[[Any, int], None]]) -> None:
        self.seed = seed
        self.awaited = awaited

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
                  ) -> importlib.machinery.ModuleSpec | None:
        setter = self.awaited.pop(name, None)
        if setter is None:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Seeding(spec.loader, setter, self.seed)
                return spec
        return None


class _Seeding(importlib.abc.Loader):
    """A library's own loader; its last act is to seed the library."""

    def __init__(self, loader: Any, setter: Callable[[Any, int], None], seed: int) -> None:
        self.loader = loader
        self.setter = setter
        self.seed = seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self.loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        # The library finds its own loader in its place: some look for data files through it.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.setter(module, self.seed)
