"""An engine that is closed and opened again in the middle of a rollout goes on where it was."""

from __future__ import annotations

from pathlib import Path

from engine.procedures.executor import Live
from engine.procedures.views import run_view
from engine.rollout.analysis import Analysis
from engine.rollout.view import fleet_row, rollout_view
from tests.procedures.kit import BOB, EVE
from tests.rollout.mortal import Mortal
from tests.rollout.parts import CHALLENGER, CHAMPION, increment
from tests.rollout.rig import GATED, GOOD, QUIET, STANDS, SUPERVISED, WORSE, Flow, Outside, Rig, rig

SAFE = {"champion": 100, "challenger": 0}


async def reopened(r: Mortal, live: Live) -> tuple[Mortal, Live]:
    """Another engine on the same home, watching; the evidence is the same."""
    before = r.rollouts.analysis(live.progress.id)
    assert before is not None
    await r.die()
    again = Mortal(r.home, r.outside)
    [live] = await again.take_over()
    watch = await again.watch(live)
    assert (watch.analysis.verdict, watch.analysis.totals) == (before.verdict, before.totals)
    assert (watch.analysis.stage_requests, watch.analysis.exposed) == (before.stage_requests, before.exposed)
    return again, live


async def test_while_a_gate_waits_the_approvals_that_were_given_stay(tmp_path: Path) -> None:
    r = Mortal(tmp_path, Outside())
    live = await r.roll(GATED.replace("min: 1", "min: 2"))
    await r.feed(live, GOOD, lambda: r.at(live, "weight-50", "waiting")()
                 and r.rollouts.analysis(live.progress.id).told == "good")
    await r.approve(live, "weight-50", BOB)
    r, live = await reopened(r, live)
    assert [answer.user for answer in live.progress.steps["weight-50"].approvals] == ["bob"]
    await r.approve(live, "weight-50", EVE)
    await r.feed(live, GOOD)
    assert live.progress.state == "done" and r.outside.router.shares == [10, 50, 99, 100]
    await r.die()


async def test_while_it_is_paused_it_stays_so_and_is_watched(tmp_path: Path) -> None:
    r = Mortal(tmp_path, Outside())
    live = await r.roll(STANDS)
    await r.feed(live, QUIET, r.watching(live, "watch-10"))
    await r.beat(live, QUIET)
    await r.act(live, "pause")
    r, live = await reopened(r, live)
    assert live.progress.paused
    await r.beat(live, WORSE)
    await r.over(live)
    assert live.progress.state == "rolled_back" and r.outside.router.weights == SAFE
    await r.die()


async def test_what_was_promoted_stays_promoted(tmp_path: Path) -> None:
    r = Mortal(tmp_path, Outside())
    live = await r.roll(STANDS)
    await r.feed(live, QUIET, r.watching(live, "watch-10"))
    await r.beat(live, QUIET)
    await r.promote(live, BOB, full=True)
    r, live = await reopened(r, live)
    await r.feed(live, QUIET)
    assert live.progress.state == "done"
    await r.die()


async def test_while_it_stands_for_stale_data_it_stands_on(tmp_path: Path) -> None:
    r = Mortal(tmp_path, Outside())
    live = await r.roll()
    await r.feed(live, QUIET, r.watching(live, "watch-10"))
    r.outside.sight.age = 60.0
    for _ in range(3):
        await r.beat(live)
    r, live = await reopened(r, live)
    for _ in range(5):
        await r.beat(live)
    halted = [event.data["kind"] for event in await r.events(live, "rollout.halted")]
    assert halted == ["stale"] and r.outside.router.weights["challenger"] == 10
    r.outside.sight.age = 0.2
    await r.feed(live, GOOD)
    assert live.progress.state == "done"
    await r.die()


async def test_while_the_router_is_down_on_the_way_back_it_goes_on_going_back(tmp_path: Path) -> None:
    r = Mortal(tmp_path, Outside())
    live = await r.roll(STANDS)
    await r.feed(live, QUIET, r.watching(live, "watch-10"))
    r.outside.router.down = True
    await r.beat(live, WORSE)
    await r.feed(live, [], lambda: live.progress.rolling_back)
    r, live = await reopened(r, live)
    assert live.progress.going_back
    r.outside.router.down = False
    await r.over(live)
    assert live.progress.state == "rolled_back" and r.outside.router.weights == SAFE
    assert max((await r.told()).values()) == 1
    await r.die()


# what is shown


async def shown(r: Rig, live: Live) -> object:
    view = await run_view(r.executor, live.progress, live)
    run = live.progress.id
    return rollout_view(live.progress, r.rollouts.analysis(run) or Analysis(), view,
                        now=r.rollouts.standing(run), weight=10.0, lease_s=r.rollouts.lease_s(run),
                        latencies=r.rollouts.latencies(run), watching=not r.rollouts.stale(run))


async def test_the_view_tells_where_it_stands_and_what_comes(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        for _ in range(3):
            await r.beat(live, Flow(500, canary=0.04, baseline=0.01))
        found = await shown(r, live)
        assert (found.champion, found.challenger, found.champion_version) == (
            "champion", "challenger", "champion 7")
        assert [(step.id, step.weight) for step in found.steps if step.weight] == [
            ("weight-10", 10), ("weight-50", 50), ("weight-100", 99), ("promote", 100)]
        assert (found.step, found.gate_step, found.after) == (
            "weight-50", "weight-50", "watch it at 50 %")
        assert found.gate is not None and found.undo == "abort: back to champion 100 %, challenger 0 %"
        errors = next(metric for metric in found.metrics if metric.name == "errors")
        analysis = r.rollouts.analysis(live.progress.id)
        assert errors.canary == analysis.totals["errors"].canary and errors.critical
        assert errors.history[-1] == round(analysis.verdict.ln_e["errors"], 3) == round(errors.ln_e, 3)
        assert 20.0 <= found.lease_s <= 30.0 and found.watching and found.concurrent
        assert (found.exposed, found.exposed_limit) == (analysis.exposed, 20_000)
        row = fleet_row(live.progress, analysis, "waiting", 10.0, waits=True)
        assert (row["step"], row["steps"], row["verdict"]) == (4, 8, "undecided")
        await r.beat(live, WORSE)
        await r.over(live)
        ended = await shown(r, live)
        assert ended.sentence == live.progress.reason and ended.after is None and ended.undo is None


# the old version is kept warm


async def test_an_old_version_that_dies_is_started_meanwhile_and_paged_once(tmp_path: Path) -> None:
    async with rig(tmp_path, Outside(SUPERVISED)) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.supervisor.dead.add("flights/champion")
        r.outside.supervisor.broken.add("flights/champion")
        for _ in range(40):
            await r.beat(live, [increment(CHALLENGER, 1), increment(CHAMPION, 9)])
        assert [("which the traffic would go back to" in page) for page in r.outside.pages] == [True]
        r.outside.supervisor.broken.clear()
        for _ in range(10):
            await r.beat(live, [increment(CHALLENGER, 1), increment(CHAMPION, 9)])
        assert r.outside.supervisor.started == ["flights/champion"] and len(r.outside.pages) == 1
