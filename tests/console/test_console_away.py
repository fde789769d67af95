"""An engine or a router that is away: what is not claimed, what is not offered, and an abort that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from textual.pilot import Pilot

from console import rollout_text, safety
from console.acting import SLOW_S
from console.app import OpsdeckApp
from console.fake import FakeSource
from console.fake_world import World
from console.glyphs import UNICODE
from console.screens.dialog import Dialog
from console.screens.fleet import row
from console.service_text import screen
from console.source import Link
from engine.api import wire
from engine.api.backend import Verb
from engine.errors import EngineUnreachable, OpsdeckError
from tests.console.scenes import FIXED, Scene, opened, press, rollout, steady, typed, until
from tests.console.test_rollout_text import made, state

NONE = Link("lost", "No engine answers at /run/opsdeck/engine.sock.", FIXED + 3)


def picture(app: OpsdeckApp) -> str:
    return " ".join(" ".join(app.painter.text()).split())


async def do(app: OpsdeckApp, pilot: Pilot[int], *keys: str) -> None:
    await press(app, *keys)
    await steady(pilot, app)


def at(name: str, *, write: bool = True, change: Callable[[wire.Rollout], None] | None = None) -> Scene:
    return Scene("rollout", typed(f":rollout {name}\r"), write=write, prepare=rollout(name, change),
                 last=_broken)


def _broken(source: FakeSource) -> None:
    """The stream has ended this moment: the data is not a second old."""
    source.link = NONE


@pytest.mark.parametrize("keys", [("A",), ("p",), ("P",), ("F",)])
async def test_as_soon_as_the_stream_breaks_nothing_is_claimed_or_offered_but_the_abort(
        keys: tuple[str, ...]) -> None:
    async with opened(at("171" if keys == ("A",) else "169"), (80, 24)) as (app, pilot):
        shown = picture(app)
        assert app.state.age == 0.0 and "reconnecting, data 0 s old" in shown
        assert "away: watching not known" in shown and "watching: on" not in shown and " of 12 " in shown
        assert "canary got" in shown and "% live" not in shown and "when last heard" in shown
        assert "Nothing to do now" not in shown and "Abort still works" not in shown
        assert "x, then y sends the abort as soon as an engine answers" in shown
        hints = app.painter.text()[-1]
        assert "x abort" in hints and not any(key in hints for key in ("A approve", "p pause", "P ", "F "))
        await do(app, pilot, *keys)
        assert not isinstance(app.screen, Dialog) and "The engine is away" in picture(app)


@pytest.mark.parametrize("name", ["rollouts", "approvals"])
async def test_as_soon_as_the_stream_breaks_no_list_offers_an_approval(name: str) -> None:
    scene = Scene(name, typed(f":{name}\r"), write=True, prepare=rollout("171"), last=_broken)
    async with opened(scene, (80, 24)) as (app, _pilot):
        assert "A approve" not in app.painter.text()[-1] and "reconnecting" in picture(app)


async def test_as_soon_as_the_stream_breaks_a_run_says_so() -> None:
    async with opened(Scene("run", run="183", write=True, last=_broken), (80, 24)) as (app, _pilot):
        assert "What is shown is 0 s old; the console is reconnecting." in picture(app)
        assert "p pause" not in picture(app) and "ran when last heard" in picture(app)


async def test_as_soon_as_the_stream_breaks_the_fleet_calls_nothing_well() -> None:
    scene = Scene("fleet", typed("/churn\r"), write=True, last=_broken)
    async with opened(scene, (80, 24)) as (app, _pilot):
        assert "churn is well" not in picture(app)
        assert "What is shown of churn is 0 s old; the console is reconnecting." in picture(app)


async def test_once_the_stream_is_back_everything_is_offered_again() -> None:
    async with opened(at("169"), (80, 24)) as (app, pilot):
        source = app.source
        assert isinstance(source, FakeSource)
        source.link = Link("live")
        source.push()
        await until(pilot, lambda: "watching: on" in picture(app), "it is watched")
        assert "P skip watching" in picture(app) and "reconnecting" not in picture(app)


async def test_a_rollout_that_could_not_be_read_is_not_taken_further_on_what_is_shown() -> None:
    """Also before the fleet's stream tells that the engine is away."""
    async with opened(Scene("rollout", typed(":rollout recommend\r"), write=True, prepare=rollout("169")),
                      (80, 24)) as (app, pilot):
        app.view.problem = "No engine answers."  # type: ignore[union-attr]
        await do(app, pilot, "P")
        assert not isinstance(app.screen, Dialog)
        assert "What is shown of this rollout is 0 s old. No engine answers." in picture(app)


def test_a_lease_counts_down_between_two_readings_and_then_has_ended() -> None:
    now = state()
    one = made("169", watching=False, lease_s=12.0, weight=None)
    one.at = now.now - 5.0
    assert "in 7 s" in rollout_text.next_action(one, now)[0]
    line = "".join(t for t, _ in rollout_text.status(one, UNICODE, now.now, 80))
    assert "lease ends in 7 s" in line
    one.at = now.now - 13.0
    line = "".join(t for t, _ in rollout_text.status(one, UNICODE, now.now, 80))
    assert "lease has ended" in line
    assert "its lease has ended" in rollout_text.next_action(one, now)[0]


def test_a_router_that_does_not_answer_is_not_promised_to_go_back() -> None:
    action, _ = rollout_text.next_action(made("169", watching=False, lease_s=12.0, weight=None), state())
    assert "The router does not answer either; where it runs, it goes back by itself in 12 s" in action


def test_where_nothing_is_measured_the_last_weight_is_not_shown_as_live() -> None:
    now = state()
    shown = " ".join("".join(t for t, _ in row) for row in rollout_text.screen(
        made("169", watching=False, lease_s=12.0), now, UNICODE, 80, 22))
    assert "canary got 5 %" in shown and "5 % when last heard" in shown and "% live" not in shown
    assert now.snapshot is not None and "The router goes back by itself in 12 s" in shown
    for variant in next(s for s in now.services if s.name == "recommend").variants:
        variant.stale = True
    assert "The router does not answer either" in rollout_text.next_action(
        made("169", watching=False, lease_s=12.0), now)[0]


def test_what_was_aborted_from_here_goes_back_before_the_engine_shows_it() -> None:
    now = state()
    now.aborted.add("169")
    assert "It is rolling back" in rollout_text.next_action(made("169"), now)[0]
    assert not rollout_text.going_back(made("169", state="rolled_back", ended=1.0), now)


def test_what_a_service_without_data_serves_is_not_shown_as_fact() -> None:
    service = next(s for s in World().snapshot().services if s.name == "flights")
    for variant in service.variants:
        variant.stale, variant.age_s = True, 19.0
    assert row(service, UNICODE, 0.0, 8, "-").cells["split"][0] == "-"
    text = "\n".join("".join(t for t, _ in one) for one in screen(service, None, 80, 20, UNICODE))
    assert "was 95 % of traffic" in text


def test_how_an_abort_stands_depends_on_whether_an_engine_answers() -> None:
    now = state()
    assert safety.abort_works(now) == "Abort still works (x, then y)."
    now.tick = type(now.tick)(now.snapshot, now.tick.heard, NONE)
    assert safety.abort_works(now) == "x, then y sends the abort as soon as an engine answers."


WAITS = "Not aborted yet: no engine answers; it is sent as soon as one does."
BY_ITSELF = "The router goes back by itself when its lease ends."


class Away(FakeSource):
    """An engine that answers no act while `gone`, or the first `lost` times after it has done it."""

    def __init__(self) -> None:
        self.now = FIXED
        super().__init__(World(), clock=lambda: self.now)
        self.world.roll_out()
        self.gone, self.lost, self.tried = True, 0, 0

    async def act(self, run: str, verb: Verb, act: wire.Act) -> wire.RunView:
        self.tried += 1
        if self.gone:
            raise EngineUnreachable("no engine answers at /run/opsdeck/engine.sock", hint="start one")
        if self.world.runs[run].ended is not None:
            raise OpsdeckError(f"run {run} has ended: {self.world.runs[run].state}")
        view = await super().act(run, verb, act)
        if self.lost:
            self.lost -= 1
            raise EngineUnreachable("the engine stopped answering")
        return view

    def leave(self) -> None:
        self.gone, self.link = True, NONE
        self.push()

    def back(self) -> None:
        self.gone, self.link = False, Link("live")
        self.push()


PLACES = {"rollout": typed(":rollout 169\r"), "fleet": typed("/recommend\r"), "run": typed(":run 169\r")}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("write", [True, False])
async def test_an_abort_without_an_engine_says_that_it_is_not_done_and_is_sent_once_one_answers(
        place: str, write: bool) -> None:
    source = Away()
    async with opened(Scene(place, PLACES[place], write=write), (80, 24), source=source) as (app, pilot):
        source.leave()
        await until(pilot, lambda: app.state.away, "it is away")
        await press(app, "x")
        await until(pilot, lambda: isinstance(app.screen, Dialog), "the question")
        await until(pilot, lambda: "none answers now; the abort is sent as soon as one does" in picture(app),
                    "what y comes to")
        await press(app, "y")
        await until(pilot, lambda: f"{WAITS} {BY_ITSELF}" in picture(app), "that it is not done")
        await press(app, "j", "k")
        asked = asyncio.get_running_loop().time()
        await until(pilot, lambda: asyncio.get_running_loop().time() > asked + SLOW_S, "a slow answer's time")
        assert "has not answered yet" not in picture(app), "that is said of a slow engine alone"
        assert source.acts == [] and WAITS in picture(app), "no key puts it away"
        source.back()
        await until(pilot, lambda: bool(source.acts), "it is sent")
        await until(pilot, lambda: "Aborted: run 169." in picture(app), "that it is done")
        assert [(r, v, a.rollback) for r, v, a in source.acts] == [("169", "abort", True)]
        assert "Not aborted" not in picture(app) and "No engine answers" not in picture(app)
        await do(app, pilot, "j")
        assert "Aborted: run" not in picture(app), "the next key puts it away"


async def test_an_abort_of_a_run_that_is_no_rollout_promises_no_router() -> None:
    source = Away()
    async with opened(Scene("run", run="184"), (80, 24), source=source) as (app, pilot):
        await press(app, "x", "y")
        await until(pilot, lambda: WAITS in picture(app), "that it is not done")
        assert "router" not in picture(app)
        source.back()
        await until(pilot, lambda: "Aborted: run 184." in picture(app), "that it is done")


async def test_an_abort_that_no_engine_took_within_a_minute_is_given_up_aloud() -> None:
    source = Away()
    async with opened(Scene("run", PLACES["rollout"]), (80, 24), source=source) as (app, pilot):
        await press(app, "x", "y")
        await until(pilot, lambda: WAITS in picture(app), "that it is not done")
        source.now += 61.0
        source.push()
        await until(pilot, lambda: "Not aborted: no engine answered for 60 s." in picture(app), "given up")
        assert f"x, then y tries again. {BY_ITSELF}" in picture(app)
        tried = source.tried
        source.back()
        await steady(pilot, app)
        assert source.tried == tried and source.acts == []


async def test_asked_twice_an_abort_is_sent_once() -> None:
    source = Away()
    async with opened(Scene("run", PLACES["rollout"]), (80, 24), source=source) as (app, pilot):
        for _ in range(2):
            await press(app, "x")
            await until(pilot, lambda: isinstance(app.screen, Dialog), "the question")
            await press(app, "y")
            await until(pilot, lambda: not isinstance(app.screen, Dialog) and WAITS in picture(app), "said")
        source.back()
        await until(pilot, lambda: "Aborted: run 169." in picture(app), "that it is done")
        assert len(source.acts) == 1


async def test_an_abort_whose_answer_was_lost_is_told_as_done_and_not_as_refused() -> None:
    source = Away()
    source.gone, source.lost = False, 1
    async with opened(Scene("run", PLACES["rollout"]), (80, 24), source=source) as (app, pilot):
        await press(app, "x", "y")
        await until(pilot, lambda: bool(source.acts), "it is sent")
        source.push()
        await until(pilot, lambda: "Aborted: run 169." in picture(app), "that it is done")
        assert "has ended" not in picture(app).partition("Aborted")[2]


async def test_leaving_with_an_abort_unsent_wants_a_second_q() -> None:
    source = Away()
    async with opened(Scene("run", PLACES["rollout"]), (80, 24), source=source) as (app, pilot):
        await press(app, "x", "y")
        await until(pilot, lambda: WAITS in picture(app), "that it is not done")
        await press(app, "q")
        await until(pilot, lambda: "Leaving now sends no abort; q again leaves." in picture(app), "a warning")
        assert app.return_code is None
        await press(app, "q")
        await until(pilot, lambda: app.return_code == 0, "it has left")
