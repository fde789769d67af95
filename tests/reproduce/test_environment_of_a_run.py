"""What a machine and an interpreter say of themselves, as the process that trains would find them."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import stat
import subprocess
import sys
import venv
from pathlib import Path

import msgspec
import pytest

from engine.errors import ActionFailed, UsageError
from engine.reproduce import environment
from engine.reproduce.parts import Environment, Gpu

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found() -> Environment:
    return environment.collect(variables={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
                                          "PYTHONHASHSEED": "7", "HOME": "/somewhere", "TOKEN": "secret"})


def script(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return file


def test_python_system_and_processor_are_those_of_this_process(found: Environment) -> None:
    assert found.python.version == platform.python_version()
    assert found.system.machine == platform.machine() and "Linux" in found.system.kernel
    assert found.system.libc.startswith("glibc ")
    assert found.cpu.usable == len(os.sched_getaffinity(0))
    assert found.cpu.model and len(found.cpu.features) == 64


def test_the_loaded_blas_is_named_with_the_threads_it_was_given(found: Environment) -> None:
    blas = found.blas["blas"]
    assert blas.name == "openblas" and blas.version and blas.threads == 1 and blas.architecture


def test_thread_counts_and_seeds_are_kept_and_no_other_variable(found: Environment) -> None:
    assert found.threads == {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    assert found.variables["PYTHONHASHSEED"] == "7"
    assert "secret" not in msgspec.json.encode(found).decode()
    assert "/somewhere" not in msgspec.json.encode(found).decode()


def test_every_installed_package_has_its_version(found: Environment) -> None:
    for name in ("numpy", "scikit-learn", "pyyaml", "typing-extensions"):
        assert found.packages[name] == importlib.metadata.version(name)


def test_two_accounts_of_one_machine_are_the_same(found: Environment) -> None:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    assert environment.collect(variables=variables) == found


def test_another_environment_speaks_for_itself_without_the_engine_or_numpy(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    bare = environment.collect(tmp_path / "bare" / "bin" / "python")
    assert bare.packages == {} and bare.blas == {} and bare.python.version == platform.python_version()


def test_numpy_without_threadpoolctl_names_the_blas_it_was_built_with(tmp_path: Path) -> None:
    venv.create(tmp_path / "some", with_pip=False)
    site = next((tmp_path / "some" / "lib").glob("python*")) / "site-packages"
    packages = Path(importlib.metadata.distribution("numpy").locate_file(""))
    for name in ("numpy", "numpy.libs"):
        (site / name).symlink_to(packages / name)
    assert "openblas" in environment.collect(tmp_path / "some" / "bin" / "python").blas["blas"].name


def test_a_module_in_the_current_folder_does_not_speak_for_python(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('taken in')\n")
    monkeypatch.chdir(tmp_path)
    assert environment.collect(variables={**os.environ, "PYTHONPATH": str(tmp_path)}).blas


def test_an_interpreter_that_is_not_there_or_does_not_answer_is_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be started"):
        environment.collect(tmp_path / "python")
    with pytest.raises(ActionFailed, match="no account of itself: no module named json"):
        environment.collect(script(tmp_path, "python", "echo no module named json >&2; exit 1"))


def test_cards_are_read_from_nvidia_smi_by_their_fields(tmp_path: Path) -> None:
    script(tmp_path, "nvidia-smi", 'case "$1" in --query-gpu=name,driver_version,memory.total,compute_cap) '
           'echo "NVIDIA H100 80GB HBM3, 550.54.15, 81559, 9.0"; echo "Odd, Card, 470.1, [N/A], [N/A]";; '
           "*) exit 2;; esac")
    assert environment.gpus({"PATH": str(tmp_path)}) == [
        Gpu("NVIDIA H100 80GB HBM3", "550.54.15", 81559, "9.0"), Gpu("Odd, Card", "470.1", None, "")]


def test_a_machine_without_cards_or_driver_has_none(tmp_path: Path) -> None:
    assert environment.gpus({"PATH": str(tmp_path)}) == []
    script(tmp_path, "nvidia-smi", 'echo "NVIDIA-SMI has failed, it could not talk, to, the driver"; exit 9')
    assert environment.gpus({"PATH": str(tmp_path)}) == []


def test_a_card_that_hangs_is_not_left_out_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "nvidia-smi", "exec sleep 30")
    monkeypatch.setattr(environment, "GPU_TIMEOUT_S", 0.2)
    with pytest.raises(ActionFailed, match="nvidia-smi did not answer"):
        environment.gpus({"PATH": f"{tmp_path}:/usr/bin:/bin"})


def test_the_account_imports_nothing_of_the_engine() -> None:
    done = subprocess.run([sys.executable, "-I", str(environment.PROBE)], capture_output=True, text=True,
                          cwd="/", check=True, env={"PATH": os.environ["PATH"]})
    assert msgspec.json.decode(done.stdout, type=Environment).gpus == []
    assert "engine" not in environment.PROBE.read_text().split('"""')[2]
