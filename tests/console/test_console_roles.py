"""What an operator or an approver alone is offered, and what they are told instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from textual.pilot import Pilot

from console.app import OpsdeckApp
from console.fake import FakeSource
from console.screens.dialog import Dialog
from engine.api import wire
from tests.console.scenes import Scene, opened, press, steady, typed


def as_(*roles: str) -> Callable[[FakeSource], None]:
    """A fleet with rollouts, seen by somebody with these roles alone."""
    def prepare(source: FakeSource) -> None:
        world = source.world
        world.roll_out()
        info, waiting = world.info, world.waiting

        def told() -> wire.EngineInfo:
            found = info()
            found.roles = ["viewer", *roles]
            return found

        def waits() -> list[wire.Waiting]:
            found = waiting()
            for one in found:
                one.may = one.may and ("approver" if one.kind == "approval" else "operator") in roles
            return found

        world.info, world.waiting = told, waits  # type: ignore[method-assign]
    return prepare


def picture(app: OpsdeckApp) -> str:
    return " ".join(" ".join(app.painter.text()).split())


async def do(app: OpsdeckApp, pilot: Pilot[int], keys: Sequence[str]) -> None:
    await press(app, *keys)
    await steady(pilot, app)


@pytest.mark.parametrize(("role", "place", "offered", "missing"), [
    ("operator", ":rollout 169\r", ["p pause", "x abort"], ["P skip", "F skip"]),
    ("approver", ":rollout 169\r", ["P skip", "F skip", "x abort"], ["p pause"]),
    ("operator", ":rollout 171\r", ["x abort"], ["A approve"]),
    ("approver", ":rollout 171\r", ["A approve", "x abort"], ["p pause"]),
    ("approver", ":rollout 170\r", ["e evidence"], ["R try"]),
    ("approver", ":rollout 167\r", ["e evidence"], ["u way back"]),
    ("approver", ":runbooks\r", ["/ filter"], ["enter start"]),
    ("operator", ":runbooks\r", ["enter start"], []),
    ("operator", ":run 182\r", ["p pause", "x abort"], ["A approve"]),
    ("approver", ":run 182\r", ["A approve", "x abort"], ["p pause"]),
    ("approver", ":run 184\r", ["x abort"], ["enter answer", "p pause"]),
    ("operator", ":approvals\r/182\r", ["x abort"], ["A approve"])])
async def test_only_what_their_role_may_do_is_offered(
        role: str, place: str, offered: list[str], missing: list[str]) -> None:
    async with opened(Scene("r", typed(place), write=True, prepare=as_(role)), (160, 48)) as (app, _pilot):
        hints = app.painter.text()[-1]
        assert all(word in hints for word in offered), hints
        assert not any(word in hints for word in missing), hints
        if place.startswith(":rollout 1") and role == "approver":
            assert "R tries" not in picture(app) and "u starts" not in picture(app)


@pytest.mark.parametrize(("role", "place", "keys", "says"), [
    ("operator", ":rollout 169\r", "P", "You may not promote here: that wants the role approver"),
    ("operator", ":rollout 169\r", "F", "You may not promote-full here: that wants the role approver"),
    ("approver", ":rollout 169\r", "p", "You may not pause here: that wants the role operator"),
    ("operator", ":run 182\r", "A", "You may not approve here: that wants the role approver, and you have "
                                    "operator, viewer. The role approver may open it alone, with a reason "
                                    "(break glass)."),
    ("approver", ":run 184\r", "\r", "You may not confirm here: that wants the role operator")])
async def test_what_their_role_may_not_do_is_said_before_any_question(
        role: str, place: str, keys: str, says: str) -> None:
    async with opened(Scene("r", typed(place), write=True, prepare=as_(role)), (160, 48)) as (app, pilot):
        await do(app, pilot, typed(keys))
        assert not isinstance(app.screen, Dialog) and says in picture(app)


async def test_an_approver_whose_own_approval_does_not_count_is_not_offered_it() -> None:
    def started_it(source: FakeSource) -> None:
        source.world.roll_out()
        source.world.runs["171"].by = source.world.rollouts["171"].by = "oncall1"

    scene = Scene("r", typed(":rollout 171\r"), write=True, prepare=started_it)
    async with opened(scene, (160, 48)) as (app, pilot):
        await do(app, pilot, ["A"])
        assert isinstance(app.screen, Dialog)
        assert [c.key for c in app.screen.put.choices] == ["r", "b"]


WROTE = ("you wrote what this step puts into production (3 commits, the newest 4be1c0ffee09, by Mia Lopes "
         "<mia@example.org>), and may not approve it too")


def author(*roles: str) -> Callable[[FakeSource], None]:
    """Somebody with these roles, among whose commits is what run 191 releases."""
    def prepare(source: FakeSource) -> None:
        source.world.release()
        as_(*roles)(source)
        told = source.world.waiting

        def waits() -> list[wire.Waiting]:
            return [msgspec.structs.replace(w, may=False, why=WROTE) if w.run == "191" else w for w in told()]

        source.world.waiting = waits  # type: ignore[method-assign]
    return prepare


async def test_an_author_is_told_why_theirs_does_not_count_who_may_and_how_it_is_opened_alone() -> None:
    scene = Scene("r", typed(":run 191\r"), write=True, prepare=author("approver"))
    async with opened(scene, (80, 24)) as (app, pilot):
        assert (f"Yours does not count: {WROTE}. It wants approver, not mlops3 (started it), not mlops2 "
                "(wrote it). A, then b opens it alone, with a reason.") in picture(app)
        await do(app, pilot, ["A"])
        assert isinstance(app.screen, Dialog)
        assert [c.key for c in app.screen.put.choices] == ["r", "b"]
        assert ("You", f"Yours does not count: {WROTE}.") in app.screen.put.facts
        assert "Written by Mia Lopes <mia@example.org> (mlops2)" in dict(app.screen.put.facts)["Authors"]


async def test_an_author_who_may_neither_reject_nor_break_the_glass_is_told_who_may() -> None:
    scene = Scene("r", typed(":run 191\r"), write=True, prepare=author("operator"))
    async with opened(scene, (160, 48)) as (app, pilot):
        await do(app, pilot, ["A"])
        assert not isinstance(app.screen, Dialog)
        assert "The role approver may open it alone, with a reason (break glass)." in picture(app)


async def test_the_list_of_approvals_says_why_one_does_not_count() -> None:
    scene = Scene("r", typed(":approvals\r/191\r"), write=True, prepare=author("approver"))
    async with opened(scene, (80, 24)) as (app, _pilot):
        assert f"Yours does not count: {WROTE}. enter opens the run." in picture(app)


async def test_an_abort_is_open_to_an_approver_too() -> None:
    scene = Scene("r", typed(":rollout 169\r"), prepare=as_("approver"))
    async with opened(scene, (80, 24)) as (app, pilot):
        await do(app, pilot, ["x", "y"])
        assert [v for _, v, _ in app.source.acts] == ["abort"]  # type: ignore[attr-defined]
