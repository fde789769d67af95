"""Real processes in a home of their own; whatever a test starts is ended after it."""

import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.config import Process
from engine.supervision.supervisor import ProcessSupervisor

SERVER = Path(__file__).with_name("server.py")


def free_port() -> int:
    """A free port below Linux's ephemeral ones, which nobody's outgoing connection can take."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def serving(port: int, mode: str = "ok", *, within: float = 10.0,
            env: dict[str, str] | None = None) -> Process:
    return Process(command=[sys.executable, "-I", "-S", str(SERVER), str(port), mode],
                   ready=f"http://127.0.0.1:{port}/ping", ready_within=within, env=env or {})


def python(code: str) -> Process:
    """A process without a ready check."""
    return Process(command=[sys.executable, "-I", "-S", "-c", code])


def eventually(condition: Callable[[], bool], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def living(port: int) -> list[int]:
    """The pids of the servers started for this port, by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(SERVER).encode() in words and str(port).encode() in words:
            found.append(int(entry.name))
    return found


@pytest.fixture
async def known(tmp_path: Path) -> AsyncIterator[dict[str, Process]]:
    """The processes of the config; the test fills it in. Everything is ended afterwards."""
    config: dict[str, Process] = {}
    yield config
    await ProcessSupervisor(tmp_path, config).stop_all(grace_s=0.2)


@pytest.fixture
def supervisor(tmp_path: Path, known: dict[str, Process]) -> ProcessSupervisor:
    return ProcessSupervisor(tmp_path, known)


@pytest.fixture
def host() -> SimpleNamespace:
    """What the tests know of this machine, and the processes they can put on it."""
    return SimpleNamespace(free_port=free_port, serving=serving, python=python, living=living,
                           eventually=eventually)
