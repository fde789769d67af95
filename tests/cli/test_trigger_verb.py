"""`opsdeck trigger`: begun by a project's name."""

from __future__ import annotations

import pytest

from engine.cli.main import main


def test_a_folder_is_told_what_to_do_before_any_engine_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trigger", "/srv/houses"]) == 2
    said = capsys.readouterr().err
    assert "/srv/houses is a folder, and triggers are of projects with a name" in said
    assert "opsdeck run train-and-release -p project=/srv/houses" in said
