"""Gates that somebody opened alone: the handover names them while their review is due."""

from __future__ import annotations

import time
from pathlib import Path
from unittest import mock

from engine import reviews
from engine.api import wire
from engine.api.backend import Handover
from engine.cli import handover
from engine.journal.events import ENGINE, SYSTEM, Actor, NewEvent
from engine.journal.journal import RunRow
from engine.reviews import DUE_S, Reviews
from tests.procedures.kit import Kit, kit

ANN = Actor("ann", 1000, "socket pid 1")


def ran(made: Kit, *, ended: float | None, broken: bool = True) -> str:
    """A run whose gate ann opened, alone where the glass was `broken`."""
    run, at = made.journal.new_run_id(), time.time() - 60
    row = RunRow(run, "start-rollout", "running" if ended is None else "done", "ann", at, ended, "flights")
    data = {"digest": "cafe"} | ({"break_glass": "nobody answers", "review": "due"} if broken else {})
    made.journal.append([NewEvent(run, "run.created", at, ANN, data={}),
                         NewEvent(run, "gate.approved", at, ANN, step="weight-25", attempt=1, data=data)],
                        row=row)
    if broken:
        made.journal.append([NewEvent(ENGINE, "glass.broken", at, SYSTEM, data={"run": run, "text": "…"})])
    return run


async def test_one_is_told_while_its_run_runs_and_for_a_week_after(tmp_path: Path) -> None:
    async with kit(tmp_path) as made:
        now = time.time()
        runs, ended = ran(made, ended=None), ran(made, ended=now)
        ran(made, ended=None, broken=False)
        known = Reviews(made.recorder)
        found = {one.run: one for one in await known.due(now)}
        assert set(found) == {runs, ended}
        one = found[ended]
        assert (one.step, one.by, one.service) == ("weight-25", "ann", "flights")
        assert one.reason == "nobody answers"
        assert (found[runs].ended, one.ended) == (None, now)
        assert [one.run for one in await known.due(now + DUE_S + 1)] == [runs]


async def test_one_that_comes_later_is_found_and_what_was_looked_at_is_not_read_again(tmp_path: Path) -> None:
    async with kit(tmp_path) as made:
        now = time.time()
        first = ran(made, ended=now)
        known = Reviews(made.recorder)
        await known.due(now)
        second = ran(made, ended=None)
        with mock.patch.object(made.journal, "read", wraps=made.journal.read) as read:
            assert {one.run for one in await known.due(now)} == {first, second}
        assert [call.args[0] for call in read.call_args_list] == [second]


async def test_it_is_found_behind_pages_of_other_events(tmp_path: Path) -> None:
    async with kit(tmp_path) as made:
        run = ran(made, ended=None)
        made.journal.append([NewEvent(ENGINE, "engine.note", time.time(), SYSTEM) for _ in range(25)])
        with mock.patch.object(reviews, "PAGE", 10):
            assert [one.run for one in await Reviews(made.recorder).due(time.time())] == [run]


def test_the_handover_says_who_opened_what_and_why_a_rollout_ended() -> None:
    review = wire.Review("41", "start-rollout", "flights", "weight-25", "ann", 3600.0, "nobody answers")
    ended = wire.RunSummary("41", "start-rollout", "Roll out", "rolled_back", "ann", 3000.0, 4000.0,
                            "flights", 3, 9, reason="the new version is worse: errors")
    text = "\n".join(handover.lines(Handover(7200.0, [], [], [], [ended], [], [review]), colour=False))
    assert ("! run 41 start-rollout of flights, step weight-25: opened by ann at 01:00:00Z: nobody answers; "
            "see `opsdeck timeline 41`") in text
    assert "start-rollout  flights  rolled back" in text and "the new version is worse: errors" in text
    without = handover.lines(Handover(7200.0, [], [], [], [], []), colour=False)
    assert not any("Wants a review" in line for line in without)
