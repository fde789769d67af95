"""What a project's code may try from within its training; it runs in the project's environment."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any


def look(home: str, engine: str, registry: str, password: str, forbidden: list[str]) -> dict[str, Any]:
    """By what was tried: what came of it, "PermissionError" and the like where it was refused."""
    def tried(act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:
            return type(error).__name__

    def connect(path: str) -> str:
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(path)
        return "connected"

    return {
        "uid": os.getuid(), "groups": os.getgroups(), "variables": sorted(os.environ),
        "listed": {one: tried(lambda one=one: [*Path(one).iterdir()]) for one in (home, f"{home}/pipelines")},
        "read": {one: tried(lambda one=one: len(Path(one).read_bytes())) for one in forbidden},
        "written": tried(lambda: Path(home, "pipelines", "flights", "engine", "x").write_text("x")),
        "socket": tried(lambda: connect(engine)),
        "registry": tried(lambda: urllib.request.urlopen(
            f"{registry}/api/2.0/mlflow/experiments/search?max_results=1").status),
        "password": [found for pid in Path("/proc").iterdir() if pid.name.isdigit()
                     for found in seen(pid, password.encode())]}


def seen(process: Path, secret: bytes) -> list[str]:
    """Where a process shows it: its environment, its arguments, what it has open, its memory."""
    found = []
    for name in ("environ", "cmdline"):
        try:
            if secret in (process / name).read_bytes():
                found.append(f"{process.name} {name}")
        except OSError:
            pass
    try:
        for one in (process / "fd").iterdir():
            if "memfd" in str(one.readlink()) and secret in one.read_bytes():
                found.append(f"{process.name} {one.name}")
    except OSError:
        pass
    if process.name != str(os.getpid()):
        found += [f"{process.name} memory"] if secret in memory(process) else []
    return found


def memory(process: Path) -> bytes:
    """What can be written of it, as far as the kernel shows it."""
    kept = b""
    try:
        with (process / "maps").open() as maps, (process / "mem").open("rb", 0) as file:
            for line in maps:
                if " rw-p " in line:
                    start, end = (int(one, 16) for one in line.split()[0].split("-"))
                    if end - start < 64 << 20:
                        file.seek(start)
                        kept += file.read(end - start)
    except OSError:
        pass
    return kept
