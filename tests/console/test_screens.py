"""Pictures of every screen as text, with a digest of how it looks.

A difference is a failure. `OPSDECK_UPDATE_SNAPSHOTS=1 pytest tests/console/test_screens.py` writes
them anew; read the difference before you commit it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from console.paint import Painter
from console.screens.run import LEFT
from tests.console.scenes import SCENES, Scene, opened
from tests.console.terminal import sgr_colors

FOLDER = Path(__file__).parent / "snapshots"
UPDATE = bool(os.environ.get("OPSDECK_UPDATE_SNAPSHOTS"))
SIZES = ((80, 24), (160, 48))
MONOCHROME = ("fleet", "run-typed", "service", "run-unknown-dialog", "fleet-rollouts", "rollouts",
              "rollout-healthy", "rollout-failing", "rollout-unwatched")


def looks(painter: Painter) -> str:
    """A digest of every cell's look, and the looks that occur."""
    digest = hashlib.sha256("\n".join(",".join(row) for row in painter.looks).encode())
    used = sorted({look or "plain" for row in painter.looks for look in row})
    return f"{digest.hexdigest()[:16]}  {'  '.join(used)}"


def compare(name: str, painter: Painter) -> None:
    text = "\n".join(painter.text()) + "\n---\n" + looks(painter) + "\n"
    path = FOLDER / f"{name}.txt"
    if UPDATE:
        path.write_text(text, "utf-8")
    assert path.read_text("utf-8") == text


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x48"])
@pytest.mark.parametrize("scene", SCENES, ids=[s.name for s in SCENES])
async def test_a_screen_looks_as_it_did(scene: Scene, size: tuple[int, int]) -> None:
    async with opened(scene, size) as (app, _pilot):
        compare(f"{scene.name}-{size[0]}x{size[1]}", app.painter)


@pytest.mark.parametrize("name", MONOCHROME)
async def test_in_monochrome_a_screen_says_the_same_without_any_colour(name: str) -> None:
    scene = next(s for s in SCENES if s.name == name)
    async with opened(scene, (80, 24), theme="mono") as (app, _pilot):
        app.painter.forget()
        assert not sgr_colors(app.painter.flush().encode())
        colored = (FOLDER / f"{name}-80x24.txt").read_text("utf-8").partition("\n---\n")[0]
        assert "\n".join(app.painter.text()) == colored
        compare(f"{name}-mono", app.painter)


@pytest.mark.parametrize("name", ["fleet", "run-typed", "service", "approvals", "rollouts", "rollout-healthy",
                                  "rollout-failing", "rollout-evidence"])
async def test_in_ascii_mode_a_screen_is_ascii(name: str) -> None:
    scene = next(s for s in SCENES if s.name == name)
    async with opened(scene, (80, 24), ascii=True) as (app, _pilot):
        assert "\n".join(app.painter.text()).isascii()
        compare(f"{name}-ascii", app.painter)


async def test_a_calm_screen_has_at_most_three_colours() -> None:
    scene = next(s for s in SCENES if s.name == "fleet-calm")
    async with opened(scene, (80, 24)) as (app, _pilot):
        colors = {look.split(";", 1)[-1] if look[:2] == "1;" else look
                  for row in app.painter.looks for look in row if look not in ("", "1", "7")}
        assert 1 <= len(colors) <= 3, colors


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x48"])
@pytest.mark.parametrize("scene", [s for s in SCENES if s.name.startswith("rollout-") and s.name not in (
    "rollout-approve", "rollout-promote-full", "rollout-abort", "rollout-run")], ids=lambda s: s.name)
async def test_what_a_rollout_wants_of_a_person_is_on_screen_whole(
        scene: Scene, size: tuple[int, int]) -> None:
    from console import rollout_text
    async with opened(scene, size) as (app, _pilot):
        view = app.view
        text, _ = rollout_text.next_action(view.rollout, app.state)  # type: ignore[union-attr]
        assert text in " ".join(" ".join(app.painter.text()).split())


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x48"])
@pytest.mark.parametrize("id", ["184", "182", "181", "180", "179", "178"])
async def test_the_next_human_action_is_on_screen_whole(id: str, size: tuple[int, int]) -> None:
    from console import run_text
    async with opened(Scene("run", run=id, write=True), size) as (app, _pilot):
        view = app.view
        assert view is not None
        text, _ = run_text.next_action(view.run, view.gated(), app.state)  # type: ignore[attr-defined]
        shown = " ".join(" ".join(app.painter.text()).split())
        half = " ".join(" ".join(row[:size[0] * LEFT // 100] for row in app.painter.text()).split())
        assert text in shown or text in half
