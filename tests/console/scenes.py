"""Every screen of the console as a scene: how it is opened and which keys lead to it.

Snapshot tests and `python -m tests.screenshots` walk the same scenes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from textual import events
from textual.pilot import Pilot

from console.app import OpsdeckApp
from console.fake import FakeSource
from console.fake_world import World
from console.source import Link, Source
from engine.api import wire

FIXED = 1000.0
DEADLINE_S = 20.0
STILL = 8  # looks, 5 ms apart


@dataclass(frozen=True)
class Scene:
    """`keys` are pressed one after the other; `prepare` may change the source before anything is
    shown, `later` once the first picture stands, `last` after the keys. `picture`: whether screenshots/
    shows it."""

    name: str
    keys: tuple[str, ...] = ()
    run: str | None = None
    write: bool = False
    prepare: Callable[[FakeSource], None] | None = None
    later: Callable[[FakeSource], None] | None = None
    last: Callable[[FakeSource], None] | None = None
    picture: bool = True
    options: dict[str, Any] = field(default_factory=dict)


NAMES = {" ": "space", ":": "colon", "/": "slash", "-": "minus", "!": "exclamation_mark",
         "?": "question_mark", "#": "number_sign", "\r": "enter", "\t": "tab", "\x1b": "escape"}
CHARACTERS = {name: character for character, name in NAMES.items()}


def typed(text: str) -> tuple[str, ...]:
    return tuple(NAMES.get(c, c) for c in text)


async def press(app: OpsdeckApp, *keys: str) -> None:
    """Send keys as the driver does, all at once: their order is the console's to keep."""
    for key in keys:
        character = CHARACTERS.get(key, key if len(key) == 1 else None)
        app.post_message(events.Key(key, character))


def _stale(source: FakeSource) -> None:
    source.heard = FIXED - 12.0


def _away(source: FakeSource) -> None:
    source.heard = FIXED - 74.0
    source.link = Link("lost", "No engine answers at /run/opsdeck/engine.sock.", FIXED + 3)


def _calm(source: FakeSource) -> None:
    world = source.world
    world.runs = {}
    world.rows = [row for row in world.rows if row.name not in ("flights", "fraud", "pricing")][:6]
    world.advance(0.0)


def _rolling(source: FakeSource) -> None:
    source.world.roll_out()


def rollout(run: str, change: Callable[[wire.Rollout], None] | None = None) -> Callable[[FakeSource], None]:
    """A world with rollouts, of which one is changed before anything is shown."""
    def prepare(source: FakeSource) -> None:
        source.world.roll_out()
        if change is not None:
            change(source.world.rollouts[run])
    return prepare


def _crossing(one: wire.Rollout) -> None:
    """The moment between the verdict and the rollback."""
    one.verdict, one.sentence = "bad", "worse: errors: timeout, 0.76 % of 1,840 against 0.19 %; evidence 7.5"
    metric = one.metrics[3]
    metric.ln_e, metric.history = 7.5, [*metric.history[1:], 7.5]


def _unwatched(one: wire.Rollout) -> None:
    one.watching, one.lease_s = False, 12.0


def _training(source: FakeSource) -> None:
    source.world.train()


def _releasing(source: FakeSource) -> None:
    source.world.release()


SCENES = (
    Scene("fleet"),
    Scene("fleet-calm", prepare=_calm, picture=False),
    Scene("fleet-stale", prepare=_stale),
    Scene("fleet-filtered", typed("/page"), picture=False),
    Scene("goto", typed(":ru")),
    Scene("service", ("enter",)),
    Scene("service-one-variant", ("G", "enter", "h"), picture=False),
    Scene("runbooks", ("r",)),
    Scene("start", ("r", "j", "enter", "tab", *typed("7x")), write=True, picture=False),
    Scene("start-confirm", ("r", "enter", "enter", "enter"), write=True),
    Scene("runs", (*typed(":runs"), "enter")),
    Scene("run-typed", run="184", write=True),
    Scene("run-typed-dialog", ("enter", *typed("flig")), run="184", write=True),
    Scene("run-output", run="183"),
    Scene("run-approval-dialog", ("A",), run="182", write=True),
    Scene("run-answer", run="181", write=True, picture=False),
    Scene("run-unknown-dialog", ("enter",), run="180", write=True),
    Scene("run-failed", run="179", write=True, picture=False),
    Scene("run-away", run="184", write=True, later=_away),
    Scene("run-abort", ("x",), run="184", picture=False),
    Scene("run-timeline", ("t",), run="184", picture=False),
    Scene("run-done", run="176", picture=False),
    Scene("run-training", typed(":run 190\r"), prepare=_training),
    Scene("run-release", typed(":run 191\r"), write=True, prepare=_releasing),
    Scene("run-release-dialog", typed(":run 191\rA"), write=True, prepare=_releasing),
    Scene("page", typed(":page 191\r"), write=True, prepare=_releasing),
    Scene("page-figures", typed(":page 191\rnn"), write=True, prepare=_releasing, picture=False),
    Scene("fleet-rollouts", prepare=_rolling),
    Scene("rollouts", (*typed(":rollouts"), "enter"), prepare=_rolling),
    Scene("rollout-healthy", typed(":rollout search-rank\r"), write=True, prepare=_rolling),
    Scene("rollout-failing", typed(":rollout flights\r"), prepare=_rolling),
    Scene("rollout-running", typed(":rollout recommend\r"), write=True, prepare=_rolling, picture=False),
    Scene("rollout-crossing", typed(":rollout 169\r"), write=True, prepare=rollout("169", _crossing),
          picture=False),
    Scene("rollout-unwatched", typed(":rollout 171\r"), write=True, prepare=rollout("171", _unwatched),
          picture=False),
    Scene("rollout-paused", typed(":rollout spam\r"), write=True, prepare=_rolling, picture=False),
    Scene("rollout-done", typed(":rollout pricing\r"), prepare=_rolling, picture=False),
    Scene("rollout-evidence", typed(":rollout flights\re"), prepare=_rolling),
    Scene("rollout-diff", typed(":rollout search-rank\rd"), prepare=_rolling, picture=False),
    Scene("rollout-approve", typed(":rollout search-rank\rA"), write=True, prepare=_rolling),
    Scene("rollout-promote-full", typed(":rollout recommend\rF"), write=True, prepare=_rolling),
    Scene("rollout-abort", typed(":rollout recommend\rx"), prepare=_rolling, picture=False),
    Scene("rollout-away", typed(":rollout search-rank\r"), write=True, prepare=_rolling, last=_away,
          picture=False),
    Scene("rollout-run", typed(":run 171\r"), write=True, prepare=_rolling, picture=False),
    Scene("approvals", ("a",)),
    Scene("audit", (*typed(":audit"), "enter", "j", "j", "enter")),
    Scene("help", ("question_mark",)),
)
BY_NAME = {scene.name: scene for scene in SCENES}


async def until(pilot: Pilot[int], condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S:.0f} s: {what}"
        await asyncio.sleep(0.005)


async def steady(pilot: Pilot[int], app: OpsdeckApp) -> None:
    """Wait until nothing is being fetched or laid out and the picture stands still."""
    seen: list[list[str]] = []

    def still() -> bool:
        fetching = any("_listen" not in repr(t) and "_follow" not in repr(t) for t in app._tasks)
        screen = app.screen
        drawing = bool(screen._layout_required or screen._repaint_required or screen._dirty_widgets
                       or getattr(app.view, "_due", False) or not screen.is_mounted
                       or app._message_queue.qsize())
        if fetching or drawing:
            seen.clear()
        seen.append(app.painter.text())
        return len(seen) > STILL and all(s == seen[-1] for s in seen[-STILL:])

    await until(pilot, still, "a picture that stands still")


@asynccontextmanager
async def opened(scene: Scene, size: tuple[int, int], *, source: Source | None = None,
                 **options: Any) -> AsyncIterator[tuple[OpsdeckApp, Pilot[int]]]:
    """The app at a scene, its picture standing still."""
    if source is None:
        source = FakeSource(World(), clock=lambda: FIXED)
        if scene.prepare is not None:
            scene.prepare(source)
    with patch.dict(os.environ, {"TERM": "xterm-256color"}):
        app = OpsdeckApp(source, write=scene.write, open_run=scene.run, **{**scene.options,
                         **options})
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.state.tick.link.state != "connecting", "a first tick")
        if scene.keys or scene.later:
            await steady(pilot, app)
        if scene.later is not None and isinstance(source, FakeSource):
            scene.later(source)
            source.push()
        await press(app, *scene.keys)
        await steady(pilot, app)
        if scene.last is not None and isinstance(source, FakeSource):
            scene.last(source)
            source.push()
            await until(pilot, lambda: app.state.link == source.link, "the last tick")
            await steady(pilot, app)
        yield app, pilot


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)
