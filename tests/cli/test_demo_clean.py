"""`opsdeck demo --clean` says what goes, asks, and leaves a home in which more than the demo is."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cli.main import main
from engine.demo import configs

DOCUMENT = """opsdeck: 1
id: mine
title: Say hello
kind: runbook
owner: tests
reviewed: 2026-11-20
steps:
  - {id: hello, title: Say hello, shell: "echo hello there", irreversible: test, effect: none}
"""


def test_nothing_is_removed_before_somebody_said_so(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = configs.prepare(tmp_path / "home", running=False).home
    assert main([f"--home={home}", "demo", "--clean"]) == 2
    said = capsys.readouterr()
    assert f"removes {home}" in said.out and "its copy of the project flights" in said.out
    assert "opsdeck demo --clean --yes" in said.err and home.is_dir()
    assert main([f"--home={home}", "demo", "--clean", "--yes"]) == 0
    assert not home.exists()


def test_runs_of_ones_own_and_what_was_configured_keep_the_home(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = configs.prepare(tmp_path / "home", running=False).home
    (tmp_path / "mine.yaml").write_text(DOCUMENT)
    (home / "pipelines" / "churn").mkdir(parents=True)
    assert main([f"--home={home}", "run", str(tmp_path / "mine.yaml"), "--embedded", "--json"]) == 0
    assert main([f"--home={home}", "demo", "--clean", "--yes"]) == 1
    said = capsys.readouterr().err
    assert "run 1 of mine" in said and "the project churn" in said and "--everything" in said
    assert (home / "journal.db").exists()
    assert main([f"--home={home}", "demo", "--clean", "--yes", "--everything"]) == 0
    assert not home.exists()
