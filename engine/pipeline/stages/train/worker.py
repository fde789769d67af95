"""What a training is on a Ray worker: a process of `container`, asked from afar. Sent by value.

Standard library only: a worker of another's cluster does not have the engine.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENDING = 5.0  # seconds


class Worker:
    """One training. `files`: what lies below input/data/, by path; `order`: job.json."""

    def __init__(self, files: Mapping[str, bytes], order: Mapping[str, Any]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="opsdeck-train-"))
        self.lines: list[str] = []
        self.child: subprocess.Popen[bytes] | None = None
        self.reader: threading.Thread | None = None
        data = self.root / "input/data"
        for folder in ("opsdeck", "code", "rows"):
            (data / folder).mkdir(parents=True)
        for name, content in files.items():
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            (data / name).write_bytes(content)
        os.close(os.open(data / "opsdeck/job.json", os.O_WRONLY | os.O_CREAT, 0o600))
        (data / "opsdeck/job.json").write_text(json.dumps(order), encoding="utf-8")

    def start(self, python: str) -> str | None:
        """Why it cannot begin, in a sentence; None when it has begun."""
        if not os.access(python, os.X_OK):
            return f"{os.uname().nodename} has no {python}"
        script = self.root / "input/data/opsdeck/container.py"
        # Its standard input ends with this process, and the training with that.
        self.child = subprocess.Popen([python, str(script), str(self.root)], start_new_session=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        return None

    def read(self) -> None:
        assert self.child is not None and self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def poll(self) -> tuple[list[str], int | None]:
        """The lines since the last time, and the exit status once it has ended and all is read."""
        assert self.child is not None and self.reader is not None
        code = self.child.poll()
        if code is not None:
            self.reader.join(ENDING)
        found, self.lines = self.lines, []
        return found, code

    def failure(self) -> str:
        path = self.root / "output/failure"
        return path.read_text("utf-8") if path.exists() else "it ended without saying why"

    def result(self) -> bytes:
        """The folder it wrote, as a tar."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as made:
            for path in sorted((self.root / "model").iterdir()):
                made.add(path, path.name)
        return content.getvalue()

    def close(self) -> None:
        """End what still runs, and leave nothing on this machine."""
        if self.child is not None:
            assert self.child.stdin is not None
            self.child.stdin.close()
            try:
                self.child.wait(ENDING)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait()
        shutil.rmtree(self.root, ignore_errors=True)
