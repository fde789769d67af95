"""A run of a pipeline that cannot go anywhere is refused with what is wrong, and nothing is recorded."""

from __future__ import annotations

import argparse
import sqlite3
from pathlib import Path

import pytest

from engine.cli import run as verb
from engine.cli.main import main
from tests.pipeline.project.written import project

PROCEDURE = str(Path(__file__).parents[2] / "runbooks" / "pipelines" / "train-and-release.yaml")


def run(home: Path, named: str, *more: str) -> int:
    return main(["--home", str(home), "run", PROCEDURE, "-p", f"project={named}", "--embedded", *more])


def runs(home: Path) -> int:
    with sqlite3.connect(home / "journal.db") as rows:
        return int(rows.execute("SELECT count(*) FROM events WHERE kind = 'run.created'").fetchone()[0])


def test_an_invalid_project_is_refused_with_its_problems_at_their_lines(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = project(tmp_path / "bad", ("task: binary", "task: binry"), ("at: \"30 2", "at: \"99 2"))
    home = tmp_path / "home"
    assert run(home, str(folder)) == 2
    said = capsys.readouterr().err
    assert f"{folder}/opsdeck.pipeline.yaml:4:" in said and "binry" in said
    assert runs(home) == 0


def test_a_folder_is_told_by_its_whole_path_since_the_engine_stands_elsewhere(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path / "p")
    monkeypatch.chdir(tmp_path)

    def told(*words: str) -> dict[str, str]:
        parser = argparse.ArgumentParser()
        verb.configure(parser)
        return dict(verb._request(parser.parse_args(["train-and-release", *words])).params)

    assert told("-p", "project=./p") == {"project": str(tmp_path / "p")}
    for other in ("p", "org/name"):
        assert told("-p", f"project={other}") == {"project": other}


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_project_that_is_not_there_is_refused_with_those_that_are(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "opsdeck.yaml").write_text(f"pipelines: {{projects: {{delays: {project(tmp_path / 'p')}}}}}\n")
    assert run(home, "delay", *more) == 2
    said = capsys.readouterr().err
    assert "there is no project delay" in said and "delays" in said
    assert runs(home) == 0
