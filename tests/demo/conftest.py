"""The demo's own set-up, done once for all tests: real data, real training."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from engine.demo import flights
from engine.demo.layout import VARIANTS, Layout

# Several threads of OpenMP wait for each other by spinning, which a busy machine pays dearly.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Step = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def step() -> Step:
    """Runs one of the demo's steps as the set-up does, in a process of its own."""
    def run(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", f"engine.demo.{module}", *arguments],
                              text=True, capture_output=True, timeout=100, check=False,
                              env={**os.environ, **environment})
    return run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A home with the flights read. Its path has a space, as anybody's may."""
    layout = Layout(tmp_path_factory.mktemp("demo home"))
    flights.prepare(layout)
    return layout


@pytest.fixture(scope="session")
def trained(prepared: Layout) -> Iterator[Layout]:
    """The same home with both models trained, side by side, each in its process."""
    home = str(prepared.home)
    running = [subprocess.Popen([sys.executable, "-m", "engine.demo.train", "--home", home,
                                 "--variant", variant], stderr=subprocess.PIPE, text=True,
                                stdout=subprocess.DEVNULL) for variant in VARIANTS]
    for process in running:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        assert errors == ""
    yield prepared
