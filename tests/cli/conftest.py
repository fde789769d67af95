"""The engine that the commands of rollouts speak to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.rolling import Engine


@pytest.fixture
def rolling(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "home")
    engine.start()
    yield engine
    engine.stop()
