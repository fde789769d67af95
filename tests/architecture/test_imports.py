"""The dependency rules: contracts between packages, and what a short command may load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("mlflow", "scipy", "pandas", "boto3", "sklearn", "onnx", "onnxruntime", "numpy")
SLOW = (*HEAVY, "httpx", "pydantic", "aiohttp", "uvicorn", "starlette", "cel", "textual")


def loaded(code: str) -> set[str]:
    """The top-level modules in a fresh interpreter after `code`."""
    script = f"import sys\n{code}\nprint('\\n'.join({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT,
                          check=True)
    return set(done.stdout.split("\n"))


def test_the_import_contracts_hold() -> None:
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], capture_output=True,
                          text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", [
    "engine.cli.main", "engine.cli.status", "engine.cli.runs", "engine.cli.show", "engine.cli.verbs",
    "engine.cli.timeline", "engine.cli.handover", "engine.cli.library", "engine.cli.run",
    "engine.cli.audit", "engine.cli.check", "engine.cli.demo", "engine.api.light"])
def test_a_short_command_loads_nothing_slow(module: str) -> None:
    assert not loaded(f"import {module}") & set(SLOW)


@pytest.mark.parametrize("module", ["console.app", "engine.app", "engine.daemon.run",
                                    "engine.demo.configs", "engine.embedded"])
def test_console_and_engine_load_nothing_heavy(module: str) -> None:
    assert not loaded(f"import {module}") & set(HEAVY)


def test_the_engine_itself_never_loads_textual() -> None:
    assert "textual" not in loaded("import engine.app, engine.daemon.run, engine.cli.main")


def test_the_model_server_never_loads_mlflow_or_a_pickle_reader() -> None:
    found = loaded("import engine.serving.model_server")
    assert not found & {"mlflow", "joblib", "cloudpickle", "skops", "sklearn", "pandas"}
