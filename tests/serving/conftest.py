"""Fixtures of the serving tests: model directories, model servers, gateways, scripted variants."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving.harness import Gateway, Running, ScriptedVariant, free_port
from tests.serving.onnx_models import write_model


class ModelServer(Running):
    """A real model server on a free port; `faults` is the file it looks at, if it was given."""

    def __init__(self, model: Path, home: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.faults = home / "faults.json"
        super().__init__("model_server", "--model", str(model), "--port", str(self.port),
                         *arguments, log=home / "model_server.log")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "late", version="3")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a short path: a Unix socket's has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="gw") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def module_home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gw") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def model_server(model_dir: Path, module_home: Path) -> Iterator[ModelServer]:
    """One real model server for a module, with an empty fault file."""
    server = ModelServer(model_dir, module_home, "--faults", str(module_home / "faults.json"))
    try:
        server.wait_ready(server.port)
        yield server
    finally:
        server.kill()


@pytest.fixture
def gateways() -> Iterator[Callable[..., Gateway]]:
    """Makes gateways that end with the test."""
    made: list[Gateway] = []

    def make(home: Path, variants: dict[str, Any], **config: Any) -> Gateway:
        gateway = Gateway(home, variants, start=False, **config)
        made.append(gateway)
        gateway.start()
        return gateway

    yield make
    for gateway in made:
        gateway.kill()


@pytest.fixture
def variants() -> Iterator[Callable[..., ScriptedVariant]]:
    """Makes scripted variants that end with the test."""
    made: list[ScriptedVariant] = []

    def make(script: Callable[[bytes], bytes | None]) -> ScriptedVariant:
        made.append(ScriptedVariant(script))
        return made[-1]

    yield make
    for variant in made:
        variant.close()
