"""Fixtures of the journal's tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.journal.sqlite import SqliteJournal
from tests.journal.kit import open_at, tmpfs

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """In memory where that is possible: kills and tampering need no disk, and thousands of fsyncs do."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture
def tmp_path(scratch: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=scratch) as directory:
        yield Path(directory)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = open_at(path)
    yield journal
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with tmpfs(tmp_path / "disk") as disk:
        yield disk
