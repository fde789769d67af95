"""What the console does when keys are pressed, data goes stale, or the world moves underneath."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from textual.pilot import Pilot

from console.app import OpsdeckApp
from console.fake import FakeSource
from console.fake_world import World
from console.screens.dialog import Dialog
from console.source import Link
from engine.api import wire
from engine.errors import EngineUnreachable, NotPermitted
from tests.console.scenes import FIXED, Scene, opened, press, steady, typed, until


def source_of(app: OpsdeckApp) -> FakeSource:
    assert isinstance(app.source, FakeSource)
    return app.source


def picture(app: OpsdeckApp) -> str:
    return " ".join(" ".join(app.painter.text()).split())


async def do(app: OpsdeckApp, pilot: Pilot[int], *keys: str) -> None:
    await press(app, *keys)
    await steady(pilot, app)


TYPED = Scene("run", run="184", write=True)


async def test_typing_the_name_runs_the_step_with_exactly_what_was_shown() -> None:
    async with opened(TYPED, (80, 24)) as (app, pilot):
        await do(app, pilot, "enter", *typed("flights"), "enter")
        assert [(r, v, a.step, a.text, a.digest, a.seen_state)
                for r, v, a in source_of(app).acts] == [
            ("184", "confirm", "drain", "flights", "a41f09c2d3e4b5f6",
             {"champion": 95, "challenger": 5})]
        assert "Confirmed: run 184, step drain." in picture(app)


async def test_another_name_runs_nothing_and_says_so() -> None:
    async with opened(TYPED, (80, 24)) as (app, pilot):
        await do(app, pilot, "enter", *typed("flight"), "enter")
        assert source_of(app).acts == []
        assert "That is not flights. Nothing was done." in picture(app)


@pytest.mark.parametrize("keys", [("enter",), ("y",), ("space",), ("n",), ("escape",)])
async def test_no_stray_key_answers_a_plain_confirmation(keys: tuple[str, ...]) -> None:
    async with opened(Scene("run", run="178", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, "enter")
        assert isinstance(app.screen, Dialog)
        await do(app, pilot, *(k for k in keys if k != "y"))
        assert source_of(app).acts == []


async def test_y_in_the_dialog_and_only_there_confirms() -> None:
    async with opened(Scene("run", run="178", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, "y")
        assert source_of(app).acts == []
        await do(app, pilot, "enter", "y")
        assert [v for _, v, _ in source_of(app).acts] == ["confirm"]


@pytest.mark.parametrize(("run", "keys", "verb", "expected"), [
    ("182", ("A", "y"), "approve", {"step": "shift", "break_glass": False}),
    ("182", ("A", "r", *typed("not now"), "enter"), "reject", {"reason": "not now"}),
    ("182", ("A", "b", *typed("alone"), "enter"), "approve", {"break_glass": True,
                                                               "reason": "alone"}),
    ("181", ("enter", "y", *typed("yes 31 ms"), "enter"), "answer", {"text": "yes 31 ms"}),
    ("181", ("enter", "r", *typed("it leaks"), "enter"), "reject", {"reason": "it leaks"}),
    ("180", ("enter", "d"), "settle", {"text": "done"}),
    ("180", ("enter", "u"), "settle", {"text": "not-done"}),
    ("179", ("enter", "r"), "retry", {"step": "evaluate"}),
    ("179", ("enter", "s", *typed("known"), "enter"), "skip", {"reason": "known"}),
    ("177", ("p", "y"), "resume", {}), ("183", ("p", "y"), "pause", {}),
    ("183", ("x", "y"), "abort", {"rollback": False})])
async def test_each_answer_reaches_the_engine_as_its_verb(
        run: str, keys: tuple[str, ...], verb: str, expected: dict[str, object]) -> None:
    async with opened(Scene("run", run=run, write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, *keys)
        (seen, did, act), = source_of(app).acts
        assert (seen, did) == (run, verb)
        assert {name: getattr(act, name) for name in expected} == expected


async def test_a_reason_must_be_given_to_reject() -> None:
    async with opened(Scene("run", run="182", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, "A", "r", "enter")
        assert source_of(app).acts == [] and "Please write something" in picture(app)


async def test_the_console_opens_read_only_and_says_how_to_leave_that() -> None:
    async with opened(Scene("run", run="178"), (80, 24)) as (app, pilot):
        assert "read-only" in app.painter.text()[0]
        await do(app, pilot, "enter")
        assert not isinstance(app.screen, Dialog) and "Press w for write mode" in picture(app)
        await do(app, pilot, "escape", "w", "enter")
        assert "WRITE" in app.painter.text()[0] and isinstance(app.screen, Dialog)


async def test_abort_takes_two_keys_also_in_read_only_mode() -> None:
    async with opened(Scene("run", run="184"), (80, 24)) as (app, pilot):
        await do(app, pilot, "x", "y")
        assert [v for _, v, _ in source_of(app).acts] == ["abort"]


async def test_read_only_for_good_cannot_be_left_and_refuses_abort_too() -> None:
    scene = Scene("run", run="184", options={"read_only": True})
    async with opened(scene, (80, 24)) as (app, pilot):
        await do(app, pilot, "w", "escape", "x", "y", "enter")
        assert source_of(app).acts == [] and "--read-only" in picture(app)


async def test_stale_data_disables_confirming_and_never_abort() -> None:
    def late(source: FakeSource) -> None:
        source.heard = FIXED - 12.0

    async with opened(Scene("run", run="184", write=True, prepare=late), (80, 24)) as (app, pilot):
        await do(app, pilot, "enter")
        assert not isinstance(app.screen, Dialog)
        assert "The data is 12 s old" in picture(app) and "stale" in app.painter.text()[0]
        await do(app, pilot, "escape", "x", "y")
        assert [v for _, v, _ in source_of(app).acts] == ["abort"]


def _digest(run: wire.RunView) -> None:
    gate = run.steps[2].gate
    assert gate is not None
    run.steps[2].gate = msgspec.structs.replace(gate, digest="ffffffffffffffff")


def _weights(run: wire.RunView) -> None:
    preview = run.steps[2].preview
    assert preview is not None
    run.steps[2].preview = msgspec.structs.replace(
        preview, now="champion 80 %, challenger 20 %", state={"champion": 80})


@pytest.mark.parametrize(("change", "says"), [(_digest, "not what was shown"),
                                              (_weights, "The world changed")])
async def test_what_changed_under_the_dialog_refuses_the_act_and_shows_the_new_state(
        change: Callable[[wire.RunView], None], says: str) -> None:
    async with opened(TYPED, (80, 24)) as (app, pilot):
        source = source_of(app)
        await do(app, pilot, "enter", *typed("flights"))
        source.before_run = change
        await do(app, pilot, "enter")
        assert source.acts == []
        assert says in picture(app) and "Not done" in picture(app)
        if change is _weights:
            assert "champion 80 %, challenger 20 %" in picture(app)


@pytest.mark.parametrize(("run", "key"), [
    ("184", "p"), ("177", "p"), ("182", "A"), ("180", "enter"), ("179", "enter"), ("178", "enter")])
async def test_x_leads_from_any_question_about_a_run_to_its_abort(run: str, key: str) -> None:
    async with opened(Scene("run", run=run, write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, key)
        assert "x abort esc" in picture(app)
        await do(app, pilot, "x")
        assert f"Abort run {run}?" in picture(app)
        await do(app, pilot, "x")
        assert "y aborts" in picture(app) and source_of(app).acts == []
        await do(app, pilot, "y")
        assert [(r, v) for r, v, _ in source_of(app).acts] == [(run, "abort")]


@pytest.mark.parametrize("keys", [("184", "enter"), ("181", "enter", "y"), ("182", "A", "b"),
                                  ("182", "A", "r")])
async def test_where_x_is_a_letter_to_type_ctrl_x_leads_to_the_abort(keys: tuple[str, ...]) -> None:
    async with opened(Scene("run", run=keys[0], write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, *keys[1:], "x")
        assert "^X aborts" in picture(app) and "> x" in picture(app)
        await do(app, pilot, "ctrl+x")
        assert f"Abort run {keys[0]}?" in picture(app)


async def test_before_there_is_a_run_x_says_that_nothing_can_be_aborted() -> None:
    async with opened(Scene("fleet", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, *typed(":runbooks error-spike\r\r\r"), "x")
        assert "There is no run yet, so there is nothing to abort." in picture(app)
        assert "x abort " not in app.painter.text()[-2]


async def test_a_run_that_is_not_there_is_said_so_and_offers_only_what_works() -> None:
    async with opened(Scene("fleet", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, *typed(":run 999\r"))
        shown = app.painter.text()
        assert "There is no run 999." in picture(app)
        assert shown[23].split() == ["esc", "back", "a", "approvals", ":", "go", "to", "?", "keys"]


@pytest.mark.parametrize("place", ["runs", "approvals"])
async def test_an_empty_list_offers_only_what_works_and_x_says_why_not(place: str) -> None:
    def nothing(source: FakeSource) -> None:
        source.world.runs = {}

    async with opened(Scene("fleet", prepare=nothing), (80, 24)) as (app, pilot):
        await do(app, pilot, *typed(f":{place}\r"))
        assert app.painter.text()[23].split() == ["a", "approvals", ":", "go", "to", "?", "keys"]
        await do(app, pilot, "x")
        assert "There is no run here to abort." in picture(app)


async def test_old_data_says_how_old_it_is_and_offers_nothing_but_the_abort() -> None:
    async with opened(Scene("run", run="183", write=True), (80, 24)) as (app, pilot):
        source = source_of(app)
        assert "Nothing to do now" in picture(app) and "p pause" in picture(app)
        source.heard, source.link = FIXED - 31.0, Link("lost", "No engine answers.", FIXED)
        source.push()
        await until(pilot, lambda: "reconnecting, data 31 s old" in picture(app), "the age")
        await steady(pilot, app)
        shown = picture(app)
        assert ("What is shown is 31 s old; the console is reconnecting. x, then y sends the abort as soon "
                "as an engine answers.") in shown
        assert "ran when last heard" in shown and "x abort" in shown
        assert "Nothing to do now" not in shown and "p pause" not in shown and "runs for" not in shown


@pytest.mark.parametrize("keys", [typed(":runs\r"), ("t",), ("enter",)])
async def test_that_no_engine_answers_goes_with_the_first_fresh_tick(keys: tuple[str, ...]) -> None:
    class Away(FakeSource):
        away = False

        async def run(self, run: str) -> wire.RunView:
            return await super().run(run) if not self.away else self._none()

        async def runs(self, limit: int) -> list[wire.RunSummary]:
            return await super().runs(limit) if not self.away else self._none()

        async def timeline(self, run: str) -> list[wire.Event]:
            return await super().timeline(run) if not self.away else self._none()

        def _none(self) -> Any:
            raise EngineUnreachable("no engine answers at /run/opsdeck/engine.sock")

    source = Away(World(), clock=lambda: FIXED)
    async with opened(Scene("run", run="184", write=True), (80, 24), source=source) as (app, pilot):
        source.away = True
        await do(app, pilot, *keys)
        assert "No engine answers" in picture(app)
        source.push()
        await until(pilot, lambda: "No engine answers" not in picture(app), "it is put away")


async def test_abort_is_sent_without_reading_the_run_again() -> None:
    async with opened(TYPED, (80, 24)) as (app, pilot):
        source = source_of(app)

        def never(_run: wire.RunView) -> None:
            raise AssertionError("abort read the run")

        source.before_run = never
        await do(app, pilot, "x", "y")
        assert [v for _, v, _ in source.acts] == ["abort"]


async def test_a_refusal_of_the_engine_is_a_sentence_that_stays_until_it_is_put_away() -> None:
    class Refusing(FakeSource):
        async def act(self, run: str, verb: object, act: wire.Act) -> wire.RunView:
            raise NotPermitted("oncall1 may not approve run 182", hint="wanted: approver")

    source = Refusing(World(), clock=lambda: FIXED)
    async with opened(Scene("run", run="182", write=True), (80, 24), source=source) as (app, pilot):
        await do(app, pilot, "A", "y")
        assert "You may not approve run 182. Wanted: approver." in picture(app)
        await do(app, pilot, "j", "k", "f")
        assert "may not approve" in picture(app)
        await do(app, pilot, "escape")
        assert "may not approve" not in picture(app) and app.trail.here == ("run", "182")


async def test_starting_a_runbook_for_what_fires_takes_its_service_along() -> None:
    async with opened(Scene("fleet", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, "r", "enter", "enter", *typed("slow canary"), "enter")
        assert "Start high-latency? Find and fix high latency" in picture(app)
        await do(app, pilot, "y")
        request, = source_of(app).started
        assert (request.procedure, request.params, request.dry_run) == (
            "high-latency", {"service": "flights", "reason": "slow canary"}, False)
        assert app.trail.here == ("run", "185")


async def test_a_document_that_changed_since_it_was_shown_is_not_started() -> None:
    async with opened(Scene("fleet", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, "r", "enter", "enter", "enter")
        world = source_of(app).world
        world.procedures = [msgspec.structs.replace(p, sha256="0" * 64) for p in world.procedures]
        await do(app, pilot, "y")
        assert source_of(app).started == [] and "was changed in the library" in picture(app)


async def test_the_selection_stays_on_its_service_when_rows_move() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        await do(app, pilot, "j", "j", "j", "j")
        table = app.view.table() if app.view else None
        assert table is not None and table.selected == "ads-ctr"
        source = source_of(app)
        for service in source.world._services:
            service.alerts = []
        app._touched = FIXED - 60
        source.push()
        await steady(pilot, app)
        assert table.selected == "ads-ctr" and table.rows[0].key == "fraud"


async def test_back_returns_to_the_same_row_and_dash_to_the_view_before() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        await do(app, pilot, "j", "j", "enter")
        assert app.trail.here == ("service", "pricing")
        await do(app, pilot, "escape")
        table = app.view.table() if app.view else None
        assert app.trail.here == ("fleet", "") and table is not None
        assert table.selected == "pricing"
        await do(app, pilot, "minus")
        assert app.trail.here == ("service", "pricing")


async def test_the_prompt_can_filter_the_library_it_opens() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        await do(app, pilot, *typed(":runbooks gateway\r"))
        table = app.view.table() if app.view else None
        assert table is not None and [row.key for row in table.rows] == ["gateway-down"]


async def test_a_runbook_can_be_started_by_keys_typed_far_ahead() -> None:
    async with opened(Scene("fleet", write=True), (80, 24)) as (app, pilot):
        await do(app, pilot, *typed(":runbooks error-spike\r\r\r"))
        assert "Start error-spike?" in picture(app)
        assert "error-spike on pricing" in picture(app)


async def test_leaving_a_run_stops_following_it() -> None:
    async with opened(Scene("run", run="184"), (80, 24)) as (app, pilot):
        assert any("_follow" in repr(task) for task in app._tasks)
        await do(app, pilot, *typed(":runs\r"))
        assert not any("_follow" in repr(task) for task in app._tasks)


async def test_views_that_were_left_leave_nothing_behind() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        counts = []
        for _ in range(4):
            await do(app, pilot, *typed(":run 184\r"), *typed(":runs\r"), *typed(":fleet\r"))
            gc.collect()
            counts.append(sum(type(o).__name__ == "Strip" for o in gc.get_objects()))
        assert counts[-1] - counts[0] < 60, counts


async def test_typing_ahead_of_the_screen_loses_and_misplaces_no_key() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        await do(app, pilot, *typed(":run 184\r"), *typed(":audit\r"), *typed("/notify\r"))
        assert app.trail.here == ("audit", "") and app.view is not None
        assert app.view.filter == "notify"
        rows = [row for row in app.painter.text()[2:18] if row.strip()]
        assert rows and all("notify" in row for row in rows)


async def test_output_follows_until_it_is_scrolled_and_again_after_f() -> None:
    async with opened(Scene("run", run="183"), (80, 24)) as (app, pilot):
        assert "180 of 8000" in picture(app)
        await do(app, pilot, "pageup")
        assert "180 of 8000" not in picture(app) and "f follows" in picture(app)
        await do(app, pilot, "f")
        assert "180 of 8000" in picture(app)


async def test_an_engine_that_goes_away_leaves_the_screen_up_and_comes_back_by_itself() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        source = source_of(app)
        source.heard, source.link = FIXED - 31.0, Link("lost", "No engine answers.", FIXED)
        source.push()
        await until(pilot, lambda: "reconnecting, data 31 s old" in picture(app), "the age")
        assert "flights" in picture(app)
        source.link = Link("live")
        source.push()
        await until(pilot, lambda: "live 03:14:07Z" in picture(app), "live again")


async def test_below_80_by_24_a_sentence_stands_instead_of_a_broken_screen() -> None:
    async with opened(TYPED, (60, 20)) as (app, pilot):
        assert "80×24 is the least that shows everything. This is 60×20." in picture(app)
        await do(app, pilot, "enter")
        assert not isinstance(app.screen, Dialog)
        await pilot.resize_terminal(80, 24)
        await steady(pilot, app)
        assert "traffic.shift flights" in picture(app)


async def test_a_tiny_terminal_says_what_is_left_to_do_in_whole_words() -> None:
    async with opened(Scene("fleet"), (40, 10)) as (app, _pilot):
        assert app.painter.text()[:4] == [
            "80×24 is the least that shows", "everything. This is 40×10. q leaves;",
            "`opsdeck status` works at any size.", ""]


async def test_outside_text_cannot_break_a_line_or_reach_the_terminal() -> None:
    def hostile(source: FakeSource) -> None:
        run = source.world.runs["184"]
        run.steps[0].stdout = "日本語の行も幅を守る" * 9 + "\x1b]0;owned\x07\n"
        run.steps[2].title = "Send\x1b[2J all 日本"

    async with opened(Scene("run", run="184", prepare=hostile), (80, 24)) as (app, pilot):
        await do(app, pilot, "k", "k")
        app.painter.forget()
        written = app.painter.flush()
        assert "owned" in written and "\x1b]0" not in written
        assert written.count("\x1b[2J") == 1 and "\x07" not in written
        assert all(len(row) == 80 for row in app.painter.chars)


async def test_a_fault_of_the_console_leaves_a_report_and_no_traceback(tmp_path: Path) -> None:
    log = tmp_path / "crash.log"
    app = OpsdeckApp(FakeSource(World(), clock=lambda: FIXED), crash_log=log)

    async def broken() -> None:
        raise ZeroDivisionError("made to fail")

    with pytest.raises(ZeroDivisionError):
        async with app.run_test(size=(80, 24)) as pilot:
            await steady(pilot, app)
            app.begin(broken())
            await until(pilot, log.exists, "the report")
            told = str(app._exit_renderables[-1])
            assert str(log) in told and "Traceback" not in told
    assert "made to fail" in log.read_text()


async def test_a_busy_world_keeps_every_number_in_its_column() -> None:
    source = FakeSource(World(), clock=lambda: FIXED)
    async with opened(Scene("fleet"), (80, 24), source=source) as (app, pilot):
        before = copy.deepcopy(app.painter.text())
        for _ in range(5):
            source.world.advance()
            source.push()
            await steady(pilot, app)
        after = app.painter.text()
        assert after != before and all(len(row) <= 80 for row in after)
        assert [row[:12] for row in after[1:22]] == [row[:12] for row in before[1:22]]


async def test_saving_a_view_writes_a_picture_and_a_text_and_says_where(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened(Scene("run", run="179"), (80, 24)) as (app, pilot):
        await do(app, pilot, "ctrl+s")
        svg, = tmp_path.glob("opsdeck-run-*.svg")
        root = ElementTree.fromstring(svg.read_text("utf-8"))
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "nightly-train" in words
        text, = tmp_path.glob("opsdeck-run-*.txt")
        assert "AUC 0.702" in text.read_text("utf-8") and "Saved" in picture(app)


async def test_a_place_that_cannot_be_written_is_told_and_breaks_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("console.picture.save", full)
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        await do(app, pilot, "ctrl+s")
        assert "Not saved: No space left on device." in picture(app)


async def test_with_the_mouse_a_click_selects_and_the_wheel_moves() -> None:
    async with opened(Scene("fleet"), (80, 24)) as (app, pilot):
        table = app.view.table() if app.view else None
        assert table is not None
        await pilot.click(table, offset=(5, 4))
        assert table.selected == "ads-bid"
        table.on_mouse_scroll_down()
        assert table.selected == "churn"


async def test_abort_is_offered_even_when_nothing_of_the_run_is_known() -> None:
    def gone(source: FakeSource) -> None:
        source.link = Link("lost", "No engine answers.", FIXED)

    async with opened(Scene("run", run="184", prepare=gone), (80, 24)) as (app, pilot):
        await do(app, pilot, "x")
        assert "Abort run 184?" in picture(app) and "could not say what was done" in picture(app)
        await press(app, "y")
        await until(pilot, lambda: "Not aborted yet: no engine answers;" in picture(app), "not done")
