"""The page of evidence in the console: found by key and by name, read in parts, and its approval at hand."""

from __future__ import annotations

from console import fake_runs, run_text
from console.screens.page import PageScreen
from console.screens.run import RunScreen
from tests.console.scenes import Scene, opened, press, steady, typed, until


def releasing(source: object) -> None:
    source.world.release()  # type: ignore[attr-defined]


WAITS = Scene("page-waits", typed(":run 191\r"), write=True, prepare=releasing)
PAGE = Scene("page-read", typed(":page 191\r"), write=True, prepare=releasing)


async def test_e_on_a_run_that_wrote_one_shows_it_and_enter_goes_back_to_the_run() -> None:
    async with opened(WAITS, (80, 24)) as (app, pilot):
        await press(app, "e")
        await until(pilot, lambda: isinstance(app.screen, PageScreen), "the page")
        await steady(pilot, app)
        assert "may be released" in "\n".join(app.painter.text())
        await press(app, "enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen), "the run")


async def test_n_goes_from_part_to_part_and_back_and_past_the_last_nothing_happens() -> None:
    async with opened(PAGE, (80, 24)) as (app, pilot):
        for _ in range(12):
            await press(app, "n")
        await steady(pilot, app)
        assert "the new version is worse." in "\n".join(app.painter.text())
        for _ in range(12):
            await press(app, "N")
        await steady(pilot, app)
        assert "Evidence for Late arrivals" in app.painter.text()[1]


async def test_the_approval_is_asked_for_from_the_page_itself() -> None:
    async with opened(PAGE, (80, 24)) as (app, pilot):
        await press(app, "A")
        await until(pilot, lambda: not isinstance(app.screen, PageScreen), "the dialog")
        await steady(pilot, app)
        shown = "\n".join(app.painter.text())
        assert "Approve it?" in shown and "Releases" in shown


async def test_a_gate_that_opens_while_one_reads_is_offered() -> None:
    def later(source: object) -> None:
        releasing(source)
        run = source.world.runs["191"]  # type: ignore[attr-defined]
        step = run.steps[-1]
        source.world.held, step.gate, step.state = step.gate, None, "planned"  # type: ignore[attr-defined]

    async with opened(Scene("page-early", typed(":page 191\r"), prepare=later), (80, 24)) as (app, pilot):
        assert "A approve" not in app.painter.text()[-1]
        run = app.source.world.runs["191"]  # type: ignore[attr-defined]
        run.steps[-1].gate, run.steps[-1].state = app.source.world.held, "waiting"  # type: ignore[attr-defined]
        run.revision += 1
        app.source.push()  # type: ignore[attr-defined]
        await until(pilot, lambda: "A approve" in app.painter.text()[-1], "the offer")


async def test_a_run_without_a_page_says_so() -> None:
    async with opened(Scene("page-none", typed(":page 184\r")), (80, 24)) as (app, pilot):
        await steady(pilot, app)
        assert "Run 184 has no page of evidence" in "\n".join(app.painter.text())


def test_a_step_that_says_what_it_came_to_is_quoted_rather_than_its_last_line() -> None:
    step = fake_runs.done("data", "The data", 9.0, 1.0, stdout="checking\n",
                          result={"says": "all as expected"})
    assert run_text.note(step, 9.0) == "all as expected"
