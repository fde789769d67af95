"""What an operator or an approver alone is offered, and what they are told instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
                                    "operator, viewer. Where the policy lets you: opsdeck approve 182 "
                                    "--break-glass REASON."),
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


async def test_an_abort_is_open_to_an_approver_too() -> None:
    scene = Scene("r", typed(":rollout 169\r"), prepare=as_("approver"))
    async with opened(scene, (80, 24)) as (app, pilot):
        await do(app, pilot, ["x", "y"])
        assert [v for _, v, _ in app.source.acts] == ["abort"]  # type: ignore[attr-defined]
