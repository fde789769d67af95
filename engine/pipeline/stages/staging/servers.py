"""Real model servers on free loopback ports, children of the stage, which end with it."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from engine.errors import ActionFailed

READY_S = 60.0
STOP_S = 15.0
# One core is enough for each, and two of glibc's arenas keep the memory small.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}
KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH")
_SERVES = re.compile(r"on http://127\.0\.0\.1:(\d+)")


class Server:
    """One replica. Its output goes to `log`; in the process group of whoever starts it."""

    def __init__(self, folder: Path, log: Path, variables: Mapping[str, str] | None = None) -> None:
        """Starts it; `ready` waits. Raises ActionFailed where it cannot be started."""
        given = os.environ if variables is None else variables
        self._log = log.open("wb")
        self.log = log
        command = [sys.executable, "-m", "engine.serving.model_server", "--model", str(folder), "--port", "0"]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._log, cwd=folder,
                env={**{name: given[name] for name in KEPT if name in given}, **ENVIRONMENT})
        except OSError as error:
            raise ActionFailed(f"The model server cannot be started: {error.strerror}.",
                               where=command[0]) from error
        self.port = 0

    def ready(self) -> int:
        """The port, once it serves. Raises ActionFailed with the end of its log when it does not."""
        out = self.process.stdout
        assert out is not None
        seen, end = b"", time.monotonic() + READY_S
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                if not selector.select(left):
                    continue
                piece = os.read(out.fileno(), 4096)
                seen += piece
                if found := _SERVES.search(seen.decode(errors="replace")):
                    self.port = int(found[1])
                    return self.port
                if not piece:
                    break
        raise ActionFailed("The model server does not come up with this model: " + self._last(),
                           where=str(self.log), hint="What it said stands in its log.")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int | None:
        """Its exit code, None where it does not end in time."""
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """End it, whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()

    def _last(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        code = self.process.poll()
        return " ".join(lines[-2:])[:400] if lines else f"exit code {code}" if code is not None else \
            f"it was not ready within {READY_S:.0f} s"
