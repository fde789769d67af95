"""One project that cannot be read, for whatever reason, is told of and stops no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.pipeline.project import reading
from engine.pipeline.triggers.projects import Projects
from tests.pipeline.project.written import project


async def test_an_error_that_nobody_foresaw_in_one_project_leaves_the_others_watched(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = project(tmp_path / "good"), project(tmp_path / "bad")
    real = reading.read

    def read(folder: Path) -> object:
        if folder == bad:
            raise ValueError("what nobody foresaw")
        return real(folder)

    monkeypatch.setattr(reading, "read", read)
    found = await Projects(tmp_path / "home").read({"bad": bad, "delays": good}, 0.0)
    assert found["delays"].project is not None and found["delays"].problem is None
    assert found["bad"].project is None
    assert "an error of the engine's own, ValueError" in (found["bad"].problem or "")
