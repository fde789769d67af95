"""The page of a run is read as any stranger's file: plain, small, and inside the project's own place."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import evidence_pages
from engine import home as homes
from engine.errors import NotFound
from engine.home import Home
from engine.pipeline.building import places


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = homes.at(tmp_path / "home")
    homes.prepare(found)
    return found


def note(home: Home, output: Path, run: str = "7") -> places.Places:
    at = places.make(home.path, "flights")
    output.mkdir(parents=True, exist_ok=True)
    path = at.own.noted(run, "page")
    path.parent.mkdir(parents=True, exist_ok=True)
    places.write_json(path, {"stage": "page", "key": "k", "passed": True, "cached": False,
                             "says": "it may be released", "result": {}, "output": str(output)})
    return at


def kept(home: Home) -> Path:
    return home.path / "pipelines" / "flights" / "stages" / "page" / "k" / "output"


def test_the_page_comes_with_its_verdict_and_without_what_a_terminal_would_obey(home: Home) -> None:
    note(home, kept(home))
    (kept(home) / "evidence.md").write_text("# Evidence\n\x1b[31mred\n")
    (kept(home) / "evidence.html").write_text("<html></html>")
    page = evidence_pages.read(home, "7")
    assert (page.run, page.verdict) == ("7", "it may be released") and page.text.startswith("# Evidence")
    assert "\x1b" not in page.text and page.html == str(kept(home).resolve() / "evidence.html")
    assert page.whole is None and evidence_pages.read(home, "7", html=True).whole == "<html></html>"


def test_a_run_without_one_is_told_what_writes_it(home: Home) -> None:
    note(home, kept(home))
    for run in ("7", "8"):
        with pytest.raises(NotFound, match=f"run {run} has no page of evidence") as refused:
            evidence_pages.read(home, run)
        assert "step page" in str(refused.value.hint)


def test_what_lies_elsewhere_or_behind_a_link_is_not_read(home: Home, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "evidence.md").write_text("secret")
    note(home, secret)
    with pytest.raises(NotFound):
        evidence_pages.read(home, "7")
    note(home, kept(home))
    (kept(home) / "evidence.md").symlink_to(secret / "evidence.md")
    with pytest.raises(NotFound):
        evidence_pages.read(home, "7")
    kept(home).joinpath("evidence.md").unlink()
    kept(home).rename(kept(home).with_name("aside"))
    kept(home).symlink_to(secret)
    with pytest.raises(NotFound):
        evidence_pages.read(home, "7")
