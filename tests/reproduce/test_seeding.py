"""One seed for everything that draws; libraries are seeded and never imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.reproduce import environment, seeds

ROOT = Path(__file__).parents[2]
# Libraries that are not installed here, as modules that write down what they are told.
TORCH = """
calls = []
class _Backend: pass
class backends: cudnn = _Backend()
def manual_seed(seed): calls.append(["manual_seed", seed])
def use_deterministic_algorithms(on, warn_only): calls.append(["deterministic", on, warn_only])
"""
TENSORFLOW = """
calls = []
class random: set_seed = staticmethod(lambda seed: calls.append(["set_seed", seed]))
class config:
    class experimental: enable_op_determinism = staticmethod(lambda: calls.append(["deterministic"]))
"""
JAX = """
calls = []
class config:
    jax_threefry_partitionable = False
    update = staticmethod(lambda name, value: calls.append([name, value]))
"""


def told(code: str, path: Path | None = None, **variables: str) -> Any:
    """What a fresh process prints as JSON."""
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=False,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}:{path or ''}", **variables})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@given(st.integers(0, seeds.LARGEST))
def test_any_seed_up_to_32_bits_sets_the_child_up(seed: int) -> None:
    made = seeds.environment(seed)
    assert made["PYTHONHASHSEED"] == made["OPSDECK_SEED"] == str(seed)
    assert made["OMP_NUM_THREADS"] == made["MKL_NUM_THREADS"] == made["OPENBLAS_NUM_THREADS"] == "1"
    assert made["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8" and made["TF_DETERMINISTIC_OPS"] == "1"


@pytest.mark.parametrize("seed", [-1, 2**32, True, 1.5, "7"])
def test_what_no_library_takes_as_a_seed_is_refused(seed: Any) -> None:
    for act in (seeds.environment, seeds.apply):
        with pytest.raises(UsageError, match="is not a seed"):
            act(seed)


def test_threads_are_given_or_left_alone() -> None:
    assert seeds.environment(1, threads=4)["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in seeds.environment(1, threads=None)
    with pytest.raises(UsageError, match="too few"):
        seeds.environment(1, threads=0)


def test_flags_that_xla_already_has_stay() -> None:
    assert seeds.environment(1, xla_flags="--a=1")["XLA_FLAGS"] == f"--a=1 {seeds.XLA}"
    assert seeds.environment(1, xla_flags=f"{seeds.XLA} --a=1")["XLA_FLAGS"] == f"{seeds.XLA} --a=1"


DRAW = """
import json, sys
{before}
from engine.reproduce import seeds
seeds.apply({seed})
import random
{after}
print(json.dumps([random.random(), numpy.random.rand(), hash("text")]))
"""


def test_numbers_are_the_same_in_two_processes_whether_numpy_comes_before_or_after() -> None:
    drawn = [told(DRAW.format(before=before, after=after, seed=seed), **seeds.environment(seed))
             for before, after, seed in [("import numpy", "", 7), ("", "import numpy", 7),
                                         ("import numpy", "", 8)]]
    assert drawn[0] == drawn[1]
    assert all(one != other for one, other in zip(drawn[0], drawn[2], strict=True))


def test_nothing_is_imported_to_be_seeded() -> None:
    found = told("import json, sys; from engine.reproduce import seeds; made = seeds.apply(7)\n"
                 "print(json.dumps([made.seeded, made.awaited, made.hash_seed, 'numpy' in sys.modules]))",
                 PYTHONHASHSEED="7")
    assert found == [["random"], ["numpy", "torch", "tensorflow", "jax"], True, False]


def test_a_process_that_started_with_another_hash_seed_says_so() -> None:
    code = "import json; from engine.reproduce import seeds; print(json.dumps(seeds.apply(7).hash_seed))"
    assert told(code, PYTHONHASHSEED="8") is False


@pytest.mark.parametrize("order", [
    "import torch, tensorflow, jax; seeds.apply(7)", "seeds.apply(7); import torch, tensorflow, jax"])
def test_libraries_get_the_seed_and_their_deterministic_switches(tmp_path: Path, order: str) -> None:
    for name, text in (("torch", TORCH), ("tensorflow", TENSORFLOW), ("jax", JAX)):
        (tmp_path / f"{name}.py").write_text(text)
    calls = told(f"import json; from engine.reproduce import seeds; {order}\n"
                 "print(json.dumps([torch.calls, tensorflow.calls, jax.calls, torch.backends.cudnn.benchmark,"
                 " torch.backends.cudnn.deterministic]))", tmp_path)
    assert calls == [[["manual_seed", 7], ["deterministic", True, True]],
                     [["set_seed", 7], ["deterministic"]], [["jax_threefry_partitionable", True]],
                     False, True]


def test_an_older_library_without_a_switch_is_imported_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "jax.py").write_text("class config: pass\n")
    (tmp_path / "tensorflow.py").write_text(TENSORFLOW.replace("enable_op_determinism", "another_name"))
    found = told("import json; from engine.reproduce import seeds; seeds.apply(7); import jax, tensorflow\n"
                 "print(json.dumps(tensorflow.calls))", tmp_path)
    assert found == [["set_seed", 7]]


def test_a_library_that_came_late_has_its_own_loader_and_is_seeded_once(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(TORCH)
    (tmp_path / "torch" / "part.py").write_text("")
    found = told("import json; from engine.reproduce import seeds; seeds.apply(7); seeds.apply(8)\n"
                 "import torch, torch.part, pkgutil, inspect\n"
                 "print(json.dumps([torch.calls, type(torch.__loader__).__name__,"
                 " type(torch.__spec__.loader).__name__, 'calls' in inspect.getsource(torch),"
                 " pkgutil.get_data('torch', 'part.py') == b'']))", tmp_path)
    assert found == [[["manual_seed", 8], ["deterministic", True, True]], "SourceFileLoader",
                     "SourceFileLoader", True, True]


def test_a_library_whose_import_fails_fails_as_it_would(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no libcuda')")
    found = told("import json; from engine.reproduce import seeds; seeds.apply(7)\n"
                 "try: import torch\nexcept ImportError as error: print(json.dumps(str(error)))", tmp_path)
    assert found == "no libcuda"


@pytest.mark.parametrize("threads", [1, 2])
def test_linear_algebra_of_the_child_has_the_threads_it_was_given(threads: int) -> None:
    found = environment.collect(variables={**os.environ, **seeds.environment(7, threads)})
    assert found.blas["blas"].threads == threads and found.variables["PYTHONHASHSEED"] == "7"
