"""The real command `opsdeck` in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPSDECK = Path(sys.executable).with_name("opsdeck")


@dataclass(frozen=True)
class Opsdeck:
    """`opsdeck` with a home; what it started is ended by `stop`."""

    home: Path

    def __call__(self, *args: str, stdin: str = "", timeout: float = 60.0,
                 env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([OPSDECK, "--home", str(self.home), *args], input=stdin, timeout=timeout,
                              capture_output=True, text=True, env={**os.environ, **(env or {})})

    def json(self, *args: str, code: int = 0) -> Any:
        """The JSON a command prints; its exit code must be `code`."""
        done = self(*args, "--json")
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout)

    def procedure(self, name: str, steps: str, head: str = "") -> Path:
        """A document in the home's own library."""
        place = self.home / "runbooks"
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{name}.yaml"
        path.write_text(f"opsdeck: 1\nid: {name}\ntitle: A test\nkind: runbook\nowner: tests\n"
                        f"reviewed: 2026-11-20\nreview_every: 9999d\n{textwrap.dedent(head).strip()}\n"
                        "steps:\n"
                        + textwrap.indent(textwrap.dedent(steps).strip(), "  ") + "\n")
        return path
