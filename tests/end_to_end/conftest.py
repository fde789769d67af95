from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.command import Opsdeck


@pytest.fixture
def opsdeck(tmp_path: Path) -> Iterator[Opsdeck]:
    """The command in a fresh home; its engine, if one was started, is stopped at the end."""
    command = Opsdeck(tmp_path / "home")
    yield command
    command("engine", "stop")
