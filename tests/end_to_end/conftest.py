from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.people import unix_users  # noqa: F401  (a fixture)
from tests.end_to_end.command import Opsdeck
from tests.end_to_end.live import Demo, set_up


@pytest.fixture
def opsdeck(tmp_path: Path) -> Iterator[Opsdeck]:
    """The command in a fresh home; its engine, if one was started, is stopped at the end."""
    command = Opsdeck(tmp_path / "home")
    yield command
    command("engine", "stop")


@pytest.fixture(scope="session")
def demo_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    found = set_up(tmp_path_factory.mktemp("demo") / "home")
    yield found
    assert found("demo", "--clean", "--everything", "--yes").returncode == 0


@pytest.fixture
def demo(demo_home: Demo) -> Demo:
    """The demo, well at the beginning of each test."""
    demo_home.mend()
    return demo_home
