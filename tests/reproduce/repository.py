"""Real Git repositories for the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Repository:
    """A repository in `folder`, with nobody's settings but its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@example.org")

    def git(self, *arguments: str) -> str:
        settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(["git", "-c", "protocol.file.allow=always", *arguments], cwd=self.folder,
                              env={**os.environ, **settings}, check=True, text=True, capture_output=True)
        return done.stdout

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def commit(self, **files: str) -> str:
        """Write the files, a double underscore for a dot, and commit everything; the commit's id."""
        for name, text in files.items():
            self.write(name.replace("__", "."), text)
        self.git("add", "-A")
        self.git("commit", "-qm", "as it was")
        return self.git("rev-parse", "HEAD").strip()
