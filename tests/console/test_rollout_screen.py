"""What the Rollout screen does: verbs, refusals when the world has moved, old data, and following."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from console.app import OpsdeckApp
from console.fake import FakeSource
from console.fake_world import World
from console.screens.dialog import Dialog
from console.screens.rollout import RolloutScreen
from console.screens.start import StartView
from console.source import Link
from engine.api import wire
from engine.daemon.routes import WANTS
from engine.errors import EngineUnreachable
from tests.console.scenes import FIXED, Scene, opened, press, rollout, steady, typed, until

SIZES = ((80, 24), (160, 48))


def source_of(app: OpsdeckApp) -> FakeSource:
    assert isinstance(app.source, FakeSource)
    return app.source


def picture(app: OpsdeckApp) -> str:
    return " ".join(" ".join(app.painter.text()).split())


async def do(app: OpsdeckApp, pilot: Pilot[int], *keys: str) -> None:
    await press(app, *keys)
    await steady(pilot, app)


def at(name: str, *, write: bool = True, change: Callable[[wire.Rollout], None] | None = None) -> Scene:
    return Scene("rollout", typed(f":rollout {name}\r"), write=write, prepare=rollout(name, change))


async def test_approving_binds_to_the_digest_that_was_shown() -> None:
    async with opened(at("171"), (80, 24)) as (app, pilot):
        await do(app, pilot, "A")
        assert "Approve it?" in picture(app) and "8,420 of 20,000 requests so far" in picture(app)
        await do(app, pilot, "y")
        assert [(r, v, a.step, a.digest, a.seen_state) for r, v, a in source_of(app).acts] == [
            ("171", "approve", "weight-50", "5e1d09c2d3e4b5f6", {"challenger": 25.0})]
        assert "50 % live" in picture(app), "what the act has changed is shown at once"


async def test_the_approvals_view_asks_the_same_question_of_a_rollout() -> None:
    scene = Scene("approvals", typed(":approvals\r/weight-50\rA"), write=True, prepare=rollout("171"))
    async with opened(scene, (80, 24)) as (app, _pilot):
        assert "version 12 to 13" in picture(app) and "Exposed" in picture(app)


async def test_an_approval_of_a_rollout_opens_on_its_evidence() -> None:
    scene = Scene("approvals", typed(":approvals\r/weight-50\r"), prepare=rollout("171"))
    async with opened(scene, (80, 24)) as (app, pilot):
        assert "enter opens the rollout." in picture(app)
        await do(app, pilot, "enter")
        assert app.trail.here == ("rollout", "171")


@pytest.mark.parametrize(("name", "keys", "verb", "step"), [
    ("169", ("p", "y"), "pause", None), ("168", ("p", "y"), "pause", None),
    ("169", ("P", "y"), "promote", "watch-5"),
    ("169", ("F", *typed("recommend"), "enter"), "promote-full", None),
    ("171", ("A", "r", *typed("not now"), "enter"), "reject", "weight-50")])
async def test_each_verb_reaches_the_engine(
        name: str, keys: tuple[str, ...], verb: str, step: str | None) -> None:
    async with opened(at(name), (80, 24)) as (app, pilot):
        await do(app, pilot, *keys)
        (run, did, act), = source_of(app).acts
        assert (run, did, act.step) == (name, verb, step)
        wants, may = WANTS[did]  # type: ignore[index]
        given = {f for f in act.__struct_fields__ if getattr(act, f) not in (None, False)}
        assert wants <= given <= wants | may, "the engine refuses a field that it has no use for"


async def test_what_a_person_has_paused_p_resumes() -> None:
    def paused(one: wire.Rollout) -> None:
        one.state, one.paused_by = "paused", "a person"

    async with opened(at("169", change=paused), (80, 24)) as (app, pilot):
        assert "Paused by a person. p resumes it" in picture(app)
        await do(app, pilot, "p", "y")
        assert [v for _, v, _ in source_of(app).acts] == ["resume"]


async def test_promoting_without_watching_wants_the_name_of_the_service() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        await do(app, pilot, "F", "y", "enter")
        assert source_of(app).acts == [] and "That is not recommend. Nothing was done." in picture(app)


@pytest.mark.parametrize("key", ["x", "X"])
async def test_abort_takes_two_keys_in_read_only_mode_and_rolls_back(key: str) -> None:
    async with opened(at("169", write=False), (80, 24)) as (app, pilot):
        await do(app, pilot, key, "y")
        assert [(r, v, a.rollback) for r, v, a in source_of(app).acts] == [("169", "abort", True)]
        assert "↶ rolled back back to champion 100 %" in picture(app)


@pytest.mark.parametrize(("keys", "place"), [
    (typed(":run 169\r"), "run"), (typed(":runs\r/169\r"), "runs"), (typed(":rollouts\rj"), "rollouts"),
    (typed("/recommend\r"), "fleet")])
async def test_an_abort_of_a_rollout_rolls_back_wherever_it_is_asked_for(
        keys: tuple[str, ...], place: str) -> None:
    async with opened(Scene("any", keys, prepare=rollout("169")), (80, 24)) as (app, pilot):
        assert app.trail.here[0] == place
        await do(app, pilot, "x", "y")
        assert [(r, v, a.rollback) for r, v, a in source_of(app).acts] == [("169", "abort", True)]


async def test_an_abort_rolls_back_even_when_the_engine_cannot_say_what_the_run_is() -> None:
    class Mute(FakeSource):
        async def run(self, run: str) -> wire.RunView:
            raise EngineUnreachable("the engine does not answer")

    source = Mute(World(), clock=lambda: FIXED)
    source.world.roll_out()
    async with opened(Scene("fleet", typed("/recommend\r")), (80, 24), source=source) as (app, pilot):
        await do(app, pilot, "x", "y")
        assert [(r, v, a.rollback) for r, v, a in source.acts] == [("169", "abort", True)]


def _weight(one: wire.Rollout) -> None:
    one.weight = 10.0


def _verdict(one: wire.Rollout) -> None:
    one.verdict, one.sentence = "bad", "worse: errors"


def _step(one: wire.Rollout) -> None:
    one.step = "weight-25"


def _blind(one: wire.Rollout) -> None:
    one.watching = False


def _router(one: wire.Rollout) -> None:
    one.weight = None


@pytest.mark.parametrize(("name", "keys"), [("169", ("P",)), ("171", ("A",))])
@pytest.mark.parametrize(("change", "says"), [
    (_weight, "gets 10 % now"), (_verdict, "is now bad: worse: errors"),
    (_step, "is now at weight-25"), (_blind, "Nobody watches this rollout"),
    (_router, "gets an unknown share now")])
async def test_what_has_moved_under_the_dialog_refuses_the_act(
        name: str, keys: tuple[str, ...], change: Callable[[wire.Rollout], None], says: str) -> None:
    async with opened(at(name), (80, 24)) as (app, pilot):
        await do(app, pilot, *keys)
        assert isinstance(app.screen, Dialog)
        source_of(app).before_rollout = change
        await do(app, pilot, "y")
        assert source_of(app).acts == []
        assert "Not done:" in picture(app) and says in picture(app)


async def test_what_has_moved_under_the_dialog_never_refuses_an_abort() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        await do(app, pilot, "x")
        source_of(app).before_rollout = _verdict
        await do(app, pilot, "y")
        assert [v for _, v, _ in source_of(app).acts] == ["abort"]


@pytest.mark.parametrize("keys", [("A",), ("p",), ("P",), ("F",)])
async def test_data_of_an_engine_that_is_away_is_acted_on_by_abort_alone(keys: tuple[str, ...]) -> None:
    def away(source: FakeSource) -> None:
        source.heard = FIXED - 12.0

    name = "171" if keys == ("A",) else "169"
    scene = Scene("rollout", typed(f":rollout {name}\r"), write=True, prepare=rollout(name), last=away)
    async with opened(scene, (80, 24)) as (app, pilot):
        source_of(app).link = Link("live")
        app.state.tick = type(app.state.tick)(app.state.snapshot, FIXED - 12.0, app.state.link)
        await do(app, pilot, *keys)
        assert not isinstance(app.screen, Dialog) and "12 s old" in picture(app)
        await do(app, pilot, "escape", "x", "y")
        assert [v for _, v, _ in source_of(app).acts] == ["abort"]


@pytest.mark.parametrize(("name", "keys"), [("171", ("A",)), ("169", ("P",)), ("169", ("F",))])
async def test_a_rollout_that_nobody_watches_is_not_taken_further_but_aborted(
        name: str, keys: tuple[str, ...]) -> None:
    async with opened(at(name, change=_blind), (80, 24)) as (app, pilot):
        assert "watching: OFF" in picture(app)
        await do(app, pilot, *keys)
        assert not isinstance(app.screen, Dialog) and "Nobody watches this rollout" in picture(app)
        await do(app, pilot, "escape", "x", "y")
        assert [v for _, v, _ in source_of(app).acts] == ["abort"]


async def test_a_rollout_whose_own_evidence_grows_old_is_not_promoted_while_the_fleet_lives() -> None:
    now = [FIXED]

    class Silent(FakeSource):
        silent = False

        async def rollout(self, name: str) -> wire.Rollout:
            if self.silent:
                raise EngineUnreachable("the rollout cannot be read")
            return await super().rollout(name)

    source = Silent(World(), clock=lambda: now[0])
    source.world.roll_out()
    async with opened(at("169"), (80, 24), source=source) as (app, pilot):
        source.silent = True
        now[0] += 7.0
        source.push()
        await until(pilot, lambda: "What is shown of this rollout is 7 s old" in picture(app), "its age")
        await do(app, pilot, "P")
        assert not isinstance(app.screen, Dialog) and "watching not known" in picture(app)
        await do(app, pilot, "escape", "x", "y")
        assert [v for _, v, _ in source.acts] == ["abort"]


async def test_the_screen_follows_the_rollout_and_reads_it_at_most_once_a_second() -> None:
    now, reads = [FIXED], [0]

    class Counting(FakeSource):
        async def rollout(self, name: str) -> wire.Rollout:
            reads[0] += 1
            return await super().rollout(name)

    source = Counting(World(), clock=lambda: now[0])
    source.world.roll_out()
    async with opened(at("169"), (80, 24), source=source) as (app, pilot):
        before = reads[0]
        for _ in range(6):
            source.push()
            await steady(pilot, app)
        assert reads[0] == before, "six ticks within the second read nothing"
        now[0] += 1.0
        source.world.advance()
        source.push()
        await until(pilot, lambda: "1,960 canary requests" in picture(app), "the new count")
        assert reads[0] == before + 1


async def test_where_no_cell_has_changed_nothing_is_written() -> None:
    now = [FIXED]
    source = FakeSource(World(), clock=lambda: now[0])
    source.world.roll_out()
    async with opened(at("167"), (80, 24), source=source) as (app, pilot):
        app.painter.flush()
        source.push()
        await steady(pilot, app)
        assert app.painter.flush() == ""


async def test_an_ended_rollout_is_not_read_again() -> None:
    now, reads = [FIXED], [0]

    class Counting(FakeSource):
        async def rollout(self, name: str) -> wire.Rollout:
            reads[0] += 1
            return await super().rollout(name)

    source = Counting(World(), clock=lambda: now[0])
    source.world.roll_out()
    async with opened(at("170"), (80, 24), source=source) as (app, pilot):
        before = reads[0]
        now[0] += 5.0
        source.push()
        await steady(pilot, app)
        assert reads[0] == before


async def test_the_way_back_from_a_promotion_is_filled_in() -> None:
    async with opened(at("167"), (80, 24)) as (app, pilot):
        await do(app, pilot, "u")
        view = app.view
        assert isinstance(view, StartView) and view.name_of == "rollback-after-promotion"
        assert view.form.values() == {"service": "pricing", "to": "champion"}


async def test_only_a_promoted_rollout_has_a_way_back() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        await do(app, pilot, "u")
        assert "Only a promoted rollout has a way back" in picture(app)


async def test_trying_again_takes_the_same_procedure_and_parameters() -> None:
    async with opened(at("170"), (80, 24)) as (app, pilot):
        await do(app, pilot, "R", "enter", "enter", "enter")
        assert "Start rollout-flights?" in picture(app)
        await do(app, pilot, "y")
        request, = source_of(app).started
        assert (request.procedure, request.params) == (
            "rollout-flights", {"service": "flights", "to": "challenger", "reason": "the spring model"})


async def test_enter_leads_to_the_run_and_o_back_to_the_rollout() -> None:
    async with opened(at("171"), (80, 24)) as (app, pilot):
        await do(app, pilot, "enter")
        assert app.trail.here == ("run", "171") and "o evidence" in picture(app)
        await do(app, pilot, "o")
        assert app.trail.here == ("rollout", "171") and len(app.trail.places) == 2


async def test_t_leads_to_the_timeline_of_the_run() -> None:
    async with opened(at("171"), (80, 24)) as (app, pilot):
        await do(app, pilot, "t")
        assert "── timeline" in picture(app) and "#171" in picture(app)


async def test_o_in_the_fleet_opens_the_rollout_that_runs_there() -> None:
    async with opened(Scene("fleet", typed("/spam\r"), prepare=rollout("168")), (80, 24)) as (app, pilot):
        assert "o rollout" in picture(app)
        await do(app, pilot, "o")
        assert app.trail.here == ("rollout", "spam")
        await do(app, pilot, *typed(":fleet\r/"), "ctrl+u", *typed("churn\ro"))
        assert "No rollout runs on churn, and none is known that has ended." in picture(app)


def _well_since(source: FakeSource, ended: float = 14.0) -> None:
    """Flights is well, and its last rollout was rolled back so many seconds ago."""
    source.world.roll_out()
    world, one = source.world, source.world.rollouts["170"]
    one.ended = world.runs["170"].ended = world.at - ended
    world.runs = {id: run for id, run in world.runs.items() if run.service != "flights" or id == "170"}
    for service in world._services:
        if service.name == "flights":
            service.alerts, service.p99_ms, service.error_ratio, service.waiting = [], 38.0, 0.001, 0


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x48"])
async def test_a_rollback_leaves_a_trace_in_the_fleet_that_o_follows(size: tuple[int, int]) -> None:
    async with opened(Scene("fleet", typed("/flights\r"), prepare=_well_since), size) as (app, pilot):
        assert ("flights: version 8 was rolled back 14 s ago: worse: errors: timeout, 2.1 % of 1,840 against "
                "0.19 % of the old version's; evidence 7.6 o shows why") in picture(app)
        assert app.painter.text()[2].count("rolled back") == 1
        assert "o rollout" in app.painter.text()[-1]
        await do(app, pilot, "o")
        assert app.trail.here == ("rollout", "flights") and "✘ 5 stopped here" in picture(app)


async def test_beside_an_alert_the_rollback_is_told_too() -> None:
    async with opened(Scene("fleet", prepare=rollout("170")), (80, 24)) as (app, _pilot):
        assert "r: try high-latency" in picture(app) and "version 8 was rolled back 14 s ago" in picture(app)


async def test_after_an_hour_the_fleet_forgets_a_rollback_and_o_still_finds_it() -> None:
    scene = Scene("fleet", typed("/flights\r"), prepare=lambda source: _well_since(source, 3601.0))
    async with opened(scene, (80, 24)) as (app, pilot):
        assert "flights is well." in picture(app) and "rolled back" not in picture(app)
        await do(app, pilot, "o")
        assert app.trail.here == ("rollout", "flights")


async def test_a_rollback_that_happens_while_the_fleet_is_shown_is_seen_there() -> None:
    scene = Scene("fleet", typed("/recommend\r"), prepare=rollout("169"))
    async with opened(scene, (80, 24)) as (app, pilot):
        source = source_of(app)
        source.world.act("169", "abort", wire.Act(rollback=True))
        one = source.world.rollouts["169"]
        one.verdict, one.sentence = "bad", "worse: errors"
        source.push()
        await until(pilot, lambda: "version 22 was rolled back 0 s ago: worse: errors" in picture(app), "it")


async def test_the_fleet_reads_rollouts_when_a_run_has_ended_and_not_each_second() -> None:
    reads = [0]

    class Counting(FakeSource):
        async def rollouts(self) -> list[wire.Rollout]:
            reads[0] += 1
            return await super().rollouts()

    source = Counting(World(), clock=lambda: FIXED)
    source.world.roll_out()
    async with opened(Scene("fleet"), (80, 24), source=source) as (app, pilot):
        for _ in range(5):
            source.push()
            await steady(pilot, app)
        assert reads[0] == 1
        source.world.act("169", "abort", wire.Act(rollback=True))
        source.push()
        await until(pilot, lambda: reads[0] == 2, "it is read again")


async def test_a_service_that_was_never_rolled_out_is_a_sentence() -> None:
    scene = Scene("r", typed(":rollout churn\r"), prepare=rollout("171"))
    async with opened(scene, (80, 24)) as (app, pilot):
        assert "There is no rollout of churn. See `:rollouts`." in picture(app)
        await do(app, pilot, "A", "P", "e", "u", "R", "y", "t", "enter")
        assert isinstance(app.view, RolloutScreen)


async def test_the_list_opens_the_selected_rollout_and_comes_back_to_it() -> None:
    async with opened(Scene("r", typed(":rollouts\rj\r"), prepare=rollout("171")), (80, 24)) as (app, pilot):
        assert app.trail.here == ("rollout", "169")
        await do(app, pilot, "escape")
        table = app.view.table() if app.view else None
        assert table is not None and table.selected == "169"


async def test_evidence_over_time_turns_pages_and_goes_back_to_the_numbers() -> None:
    async with opened(at("170"), (80, 24)) as (app, pilot):
        await do(app, pilot, "e")
        assert "1/3 PgDn" in picture(app) and "predictions" not in picture(app)
        await do(app, pilot, "pagedown", "pagedown", "pagedown")
        assert "3/3 PgDn" in picture(app) and "predictions" in picture(app)
        await do(app, pilot, "e")
        assert "IS IT WORSE?" in picture(app)


@pytest.mark.parametrize("size", SIZES, ids=["80x24", "160x48"])
async def test_a_long_message_takes_no_room_from_the_next_action(size: tuple[int, int]) -> None:
    async with opened(at("171"), size) as (app, pilot):
        app.say("A long sentence about what could not be done, and why, and what to do. " * 5, "warn")
        await steady(pilot, app)
        assert ("Step weight-50 (50 % of the traffic) needs 1 more approval. Press A, read, then y approves "
                "or r rejects.") in picture(app)


@pytest.mark.parametrize(("service", "says"), [
    ("spam", "spam: its rollout is paused o shows why"),
    ("recommend", "recommend is well; the canary gets 5%, step 5/12 of its rollout o shows it"),
    ("search-rank", "search-rank: run 182 waits")])
async def test_the_fleet_says_what_the_selected_rollout_does(service: str, says: str) -> None:
    def paused(source: FakeSource) -> None:
        source.world.roll_out()
        for one in source.world._services:
            if one.name == "spam" and one.rollout:
                one.rollout["state"] = "paused"

    scene = Scene("fleet", typed(f"/{service}\r"), prepare=paused)
    async with opened(scene, (80, 24)) as (app, _pilot):
        assert says in picture(app)


async def test_d_shows_how_the_versions_differ_and_the_gate_names_it() -> None:
    async with opened(at("171"), (80, 24)) as (app, pilot):
        await do(app, pilot, "d")
        assert "How the manifests of 12 to 13 differ" in picture(app)
        assert "model.params.depth 8 12" in picture(app) and "Press A" in picture(app)
        await do(app, pilot, "d", "A")
        assert "Differs model.params.depth 8 to 12; model.sha256 9f3c9f3c… to b1e0b1e0…;" in picture(app)


async def test_that_it_goes_back_is_said_while_the_run_still_stands() -> None:
    def aborted(source: FakeSource) -> None:
        source.world.roll_out()
        for service in source.world._services:
            if service.name == "recommend" and service.rollout:
                service.rollout["state"] = "rolling_back"

    scene = Scene("rollout", typed(":rollout recommend\r"), write=True, prepare=aborted)
    async with opened(scene, (80, 24)) as (app, pilot):
        assert "↶ rolling back" in picture(app) and "↶ 5 going back" in picture(app)
        assert "It is rolling back to champion 100 %, challenger 0 %." in picture(app)
        assert "p pause" not in picture(app)
        await do(app, pilot, *typed(":rollouts\r"))
        assert "↶recommend 21 ▸ 22 rolling back" in picture(app)
        await do(app, pilot, *typed(":fleet\r"))
        assert "rolling back" in picture(app)


async def test_what_does_not_count_is_not_offered_in_the_keys() -> None:
    def another(source: FakeSource) -> None:
        source.world.roll_out()
        source.world.runs["171"].by = source.world.rollouts["171"].by = "oncall1"

    scene = Scene("rollout", typed(":rollout search-rank\r"), write=True, prepare=another)
    async with opened(scene, (80, 24)) as (app, pilot):
        assert "Yours does not count" in picture(app) and "A approve" not in picture(app)
        await do(app, pilot, *typed(":rollouts\r"))
        assert "Yours does not count" in picture(app) and "A approve" not in picture(app)


async def test_what_was_just_promoted_is_not_said_to_be_held() -> None:
    def held(one: wire.Rollout) -> None:
        one.paused_by = "engine"

    async with opened(at("169", change=held), (80, 24)) as (app, pilot):
        source = source_of(app)
        assert "The engine holds it, for the evidence is missing." in picture(app)
        await do(app, pilot, "P", "y")
        assert [v for _, v, _ in source.acts] == ["promote"]
        source.world.rollouts["169"].paused_by = "engine"  # the engine's next look is still to come
        source.world.rollouts["169"].step = "watch-5"
        app.state.skipped = ("169", "watch-5")
        app.view._read()  # type: ignore[union-attr]
        await steady(pilot, app)
        assert "The engine holds it" not in picture(app) and "Missing" not in picture(app)
        assert "▶ running" in picture(app), "nor is it paused"
        assert "The watching of watch-5 is skipped; it goes on at the engine's next look." in picture(app)
        source.world.rollouts["169"].step = "watch-25"
        app.view._read()  # type: ignore[union-attr]
        await steady(pilot, app)
        assert "The engine holds it" in picture(app), "the next watching may be held again"


async def test_after_promoting_in_full_no_later_step_is_said_to_be_held() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        await do(app, pilot, "F", *typed("recommend"), "enter")
        one = source_of(app).world.rollouts["169"]
        one.step, one.paused_by = "watch-50", "engine"
        app.view._read()  # type: ignore[union-attr]
        await steady(pilot, app)
        assert "The engine holds it" not in picture(app)
        assert "All further watching is skipped; it goes on at the engine's next look." in picture(app)


async def test_promoting_keeps_in_mind_which_watching_was_skipped() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        await do(app, pilot, "P", "y")
        assert app.state.skipped == ("169", "watch-5")


async def test_r_right_after_an_abort_is_told_to_wait_and_never_contradicts_the_screen() -> None:
    def going(source: FakeSource) -> None:
        source.world.roll_out()
        for service in source.world._services:
            if service.name == "recommend" and service.rollout:
                service.rollout["state"] = "rolling_back"

    scene = Scene("rollout", typed(":rollout recommend\r"), write=True, prepare=going)
    async with opened(scene, (80, 24)) as (app, pilot):
        await do(app, pilot, "R")
        assert "It still goes back; R tries again once it has ended." in picture(app)


async def test_r_takes_the_end_of_a_rollout_that_the_screen_has_not_read_yet() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        world = source_of(app).world
        world.act("169", "abort", wire.Act(rollback=True))
        await do(app, pilot, "R")
        assert isinstance(app.view, StartView)


@pytest.mark.parametrize(("name", "says"), [
    ("169", "It still runs; R tries again a rollout that has ended."),
    ("167", "It was promoted; u starts the way back.")])
async def test_r_says_why_there_is_nothing_to_try_again(name: str, says: str) -> None:
    async with opened(at(name), (80, 24)) as (app, pilot):
        await do(app, pilot, "R")
        assert says in picture(app)
