"""A small real project, and its repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

IDENTITY = {"GIT_AUTHOR_NAME": "Ann", "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "a@example.com", "GIT_CONFIG_GLOBAL": "/dev/null"}
FILE = """\
opsdeck: 1
project: {name}
model: {model}
task: binary
owner: tests
environment: {{inherit: true}}
data: {{source: {{{source}}}, label: y, holdout: {{share: 0.2}}}}
train: {{entry: {{function: "train:main"}}}}
gates: [{{kind: latency, quantile: 0.99, at_most_ms: 50}}]
triggers: {triggers}
"""


def project(folder: Path, triggers: str = "{}", name: str = "flights", model: str = "late",
            source: str = "path: data/rows.csv") -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "tests").mkdir()
    (folder / "tests/test_it.py").write_text("def test_it(): assert True\n")
    (folder / "train.py").write_text("def main(inputs, output, params): pass\n")
    (folder / "expectations.yaml").write_text("{}\n")
    (folder / "data/rows.csv").write_text("x,y\n1,0\n")
    (folder / "opsdeck.pipeline.yaml").write_text(
        FILE.format(name=name, model=model, triggers=triggers, source=source))
    return folder


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, env={**os.environ, **IDENTITY}, check=True,
                          capture_output=True, text=True).stdout.strip()


def committed(folder: Path, message: str, **files: str) -> str:
    """Commit everything, with these Python files written first; the commit."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path) -> str:
    folder.mkdir(exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return committed(folder, "first")
