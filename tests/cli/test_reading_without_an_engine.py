"""After `opsdeck run --embedded` no engine runs; what came of it is read from the journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.cli.main import main

DOCUMENT = """opsdeck: 1
id: small
title: Say hello
kind: runbook
owner: tests
reviewed: 2026-11-20
steps:
  - {id: hello, title: Say hello, shell: "echo hello there", irreversible: test, effect: none}
  - {id: ask, title: Ask, manual: "Is it well?"}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an embedded run that waits for a person."""
    root = tmp_path_factory.mktemp("embedded")
    (root / "small.yaml").write_text(DOCUMENT)
    assert main([f"--home={root / 'home'}", "run", str(root / "small.yaml"), "--embedded", "--json"]) == 3
    return root / "home"


def test_the_runs_one_run_and_its_output_are_shown(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--home={home}", "runs"]) == 0
    said = capsys.readouterr()
    assert "small" in said.out and "waiting" in said.out
    assert said.err == "no engine runs here; this is read from its journal\n"
    assert main([f"--home={home}", "show", "1", "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert [(step["id"], step["state"]) for step in view["steps"]] == [("hello", "done"), ("ask", "waiting")]
    assert view["steps"][1]["gate"]["prompt"] == "Is it well?"
    assert main([f"--home={home}", "show", "1"]) == 0
    assert "opsdeck answer 1 ask" in capsys.readouterr().out
    assert main([f"--home={home}", "show", "1", "--output", "hello"]) == 0
    assert capsys.readouterr().out == "hello there\n"
    assert main([f"--home={home}", "timeline", "1"]) == 0
    assert "started small" in capsys.readouterr().out


def test_what_is_not_there_is_said_as_ever(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"--home={home}", "show", "7"]) == 2
    assert "there is no run 7" in capsys.readouterr().err
    assert main([f"--home={home}", "show", "1", "--output", "nope"]) == 2
    assert "its steps: hello, ask" in capsys.readouterr().err


def test_reading_changes_nothing(home: Path) -> None:
    before = (home / "journal.db").read_bytes()
    assert main([f"--home={home}", "runs", "--state", "done"]) == 0
    assert (home / "journal.db").read_bytes() == before
