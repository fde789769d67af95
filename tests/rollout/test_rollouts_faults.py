"""Rollouts when what they stand on fails: the router, the old version, the measurements, the journal."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from engine.api import wire
from engine.procedures.executor import Live
from engine.rollout.replay import replay
from tests.procedures.kit import ANN, BOB
from tests.rollout.parts import CHALLENGER, CHAMPION, increment, second
from tests.rollout.rig import (
    GATED,
    GOOD,
    QUIET,
    SHORT,
    STANDS,
    SUPERVISED,
    WORSE,
    Flow,
    Outside,
    Rig,
    rig,
    until,
)

SAFE = {"champion": 100, "challenger": 0}
ONE = SHORT.replace("[10, 50, 100]", "[1, 100]")  # the first step, 1 %, is the hardest to tell from none


async def halts(r: Rig, live: object) -> list[tuple[str | None, str]]:
    return [(event.data["kind"], event.data["text"])
            for event in await r.events(live, "rollout.halted")]  # type: ignore[arg-type]


async def waits_for(r: Rig, live: Live, text: str) -> None:
    """Beats until the first weight says that it waits for this: it is not raised blind."""
    told = r.executor.performer.attempt(live.progress.id, "weight-10", 1).stdout
    for _ in range(200):
        await r.beat(live, QUIET)
        await asyncio.sleep(0.005)  # for the step to begin, and to ask
        if told.exists() and text in told.read_text():
            return
    raise AssertionError("it does not say what it waits for")


# the router


async def test_a_router_that_is_down_at_a_raise_is_asked_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.router.down = True
        await r.feed(live, Flow(500), lambda: live.progress.steps["weight-50"].tries == 1
                     and live.progress.steps["weight-50"].state == "failed")
        r.outside.router.down = False
        r.outside.skip(2)
        await r.feed(live, GOOD)
        assert live.progress.state == "done" and live.progress.steps["weight-50"].tries == 2


async def test_a_router_that_stays_down_at_a_raise_ends_the_rollout_and_pages(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.router.down = True
        for _ in range(60):
            await r.beat(live, Flow(500))
            r.outside.skip(10)
            live.wake.set()
            await asyncio.sleep(0.003)
        assert live.progress.going_back
        r.outside.router.down = False
        await r.over(live)
        assert live.progress.state == "rolled_back" and "weight-50 failed" in live.progress.reason
        assert r.outside.router.weights == SAFE
        assert sum(page.startswith("weight-50 failed: ") for page in r.outside.pages) == 1
        assert sum("not back at its safe weights yet" in page for page in r.outside.pages) == 1


@pytest.mark.parametrize("body", [SHORT, ONE], ids=["10 %", "1 %"])
async def test_a_router_that_says_yes_and_does_no_is_found_out(tmp_path: Path, body: str) -> None:
    async with rig(tmp_path) as r:
        r.outside.router.lies = True
        live = await r.roll(body)
        for _ in range(40):
            r.outside.skip(5)
            live.wake.set()
            await asyncio.sleep(0.005)
        await r.over(live)
        assert live.progress.state == "rolled_back"
        assert "was set to" in live.progress.reason and "but has champion 100 %" in live.progress.reason


async def test_a_router_that_lies_at_the_way_back_is_not_believed(tmp_path: Path) -> None:
    """At 1 % too: the version must have nothing at all."""
    async with rig(tmp_path) as r:
        live = await r.roll(ONE)
        await r.feed(live, QUIET, r.watching(live, "watch-1"))
        r.outside.router.lies = True
        await r.act(live, "abort")
        await until(lambda: any("not back at its safe weights" in page for page in r.outside.pages))
        assert not live.progress.finished
        r.outside.router.lies = False
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.outside.router.weights == SAFE
        assert len(r.outside.pages) == 1


async def test_a_router_that_is_down_on_the_way_back_is_asked_on_and_paged_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.router.down = True
        await r.act(live, "abort")
        calls = len(r.outside.router.calls)
        await until(lambda: len(r.outside.router.calls) > calls + 5)
        assert not live.progress.finished and live.progress.going_back
        r.outside.router.down = False
        await r.over(live)
        assert r.outside.router.weights == SAFE
        assert [("not back" in page) for page in r.outside.pages] == [True]


async def test_somebody_else_who_moves_the_weights_ends_the_rollout(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.router.set_by_another(champion=70.0, challenger=30.0)
        await r.feed(live, QUIET, lambda: live.progress.going_back)
        await r.over(live)
        assert live.progress.reason == ("the weights are champion 70 %, challenger 30 %, "
                                        "which this rollout did not set")
        assert r.outside.router.weights == SAFE and len(r.outside.pages) == 1


async def test_weights_that_were_moved_before_the_first_raise_are_left_alone(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(SHORT.replace("[10,", "[{weight: 10, approvals: {min: 1}},"))
        await r.feed(live, [], r.at(live, "weight-10", "waiting"))
        r.outside.router.set_by_another(champion=80.0, challenger=20.0)
        await r.approve(live, "weight-10", BOB)
        await until(r.at(live, "weight-10", "failed"))
        assert "and not champion 100 %, challenger 0 % as this rollout left it" in (
            live.progress.steps["weight-10"].error)
        assert 10 not in r.outside.router.shares
        await r.act(live, "abort")
        await r.over(live)


@pytest.mark.parametrize("body", [STANDS, ONE.replace("requests: 50", "requests: 9999")], ids=["10 %", "1 %"])
async def test_a_lease_that_ran_out_under_the_engine_ends_the_rollout(tmp_path: Path, body: str) -> None:
    """As when the engine stood still for a minute: the router has gone back by itself."""
    async with rig(tmp_path) as r:
        live = await r.roll(body)
        step = "watch-10" if body is STANDS else "watch-1"
        await r.feed(live, QUIET, r.watching(live, step))
        r.outside.router.monotonic += 60
        await r.feed(live, [], lambda: live.progress.going_back)
        await r.over(live)
        assert "its lease was not renewed in time" in live.progress.reason
        assert r.outside.router.weights == SAFE and len(r.outside.pages) == 1


async def test_a_router_that_hangs_is_asked_again_and_paged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                            ) -> None:
    monkeypatch.setattr("engine.rollout.keeping.LEAST_PATIENCE_S", 0.02)
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS.replace("lease: 30s", "lease: 2s"))
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        monkeypatch.setattr("engine.rollout.keeping.RENEWALS", 1000)
        r.outside.router.hangs = asyncio.Event()
        await r.feed(live, QUIET, lambda: bool(r.outside.pages))
        assert "cannot be renewed: it has not answered" in r.outside.pages[0]
        r.outside.router.hangs = None
        await r.feed(live, QUIET, lambda: live.progress.going_back)  # its lease was over by then
        await r.over(live)
        assert r.outside.router.weights == SAFE


# the old version


async def test_the_old_version_is_started_before_the_traffic_comes_back(tmp_path: Path) -> None:
    async with rig(tmp_path, Outside(SUPERVISED)) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.supervisor.dead.add("flights/champion")
        started: list[list[str]] = []

        async def edge(name: str) -> None:
            started.append(list(r.outside.supervisor.started))

        r.outside.router.edge = edge
        await r.act(live, "abort")
        await r.over(live)
        assert started[0] == ["flights/champion"] and r.outside.pages == []
        assert live.progress.steps["undo:begin"].result["warm"] is True


async def test_an_old_version_that_cannot_be_started_is_paged_and_gets_the_traffic_all_the_same(
        tmp_path: Path) -> None:
    async with rig(tmp_path, Outside(SUPERVISED)) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.supervisor.dead.add("flights/champion")
        r.outside.supervisor.broken.add("flights/champion")
        await r.act(live, "abort")
        await r.over(live)
        assert r.outside.router.weights == SAFE
        assert len(r.outside.pages) == 1 and "is not ready: flights/champion ended" in r.outside.pages[0]


async def test_a_new_version_whose_server_does_not_start_gets_no_traffic(tmp_path: Path) -> None:
    async with rig(tmp_path, Outside(SUPERVISED)) as r:
        r.outside.supervisor.dead.add("flights/challenger")
        r.outside.supervisor.broken.add("flights/challenger")
        live = await r.roll()
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.outside.router.shares in ([], [0])


async def test_an_outage_of_the_old_version_neither_promotes_nor_rolls_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        for share in (0.0, 1.0, 0.5):
            for _ in range(15):
                await r.beat(live, Flow(500, canary=share, baseline=0.9))
        assert not live.progress.going_back and r.outside.router.weights["challenger"] == 10
        assert (await halts(r, live))[-1][0] == "incident"
        assert "the old version itself is failing" in (await halts(r, live))[-1][1]
        watch = await r.watch(live)
        assert watch.analysis.bad == 0 and watch.analysis.verdict.ln_e["errors"] <= 0.0
        await r.feed(live, GOOD)
        assert live.progress.state == "done" and r.outside.pages == []


async def test_both_failing_is_no_catastrophe_of_the_new_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        for _ in range(20):
            await r.beat(live, Flow(500, canary=1.0, baseline=1.0))
        assert not live.progress.going_back


async def test_a_new_version_that_answers_nothing_is_gone_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.beat(live, Flow(100, canary=1.0))
        await r.over(live)
        assert live.progress.reason == ("all of its last 10 requests failed, and those of the old version "
                                        "did not")


async def test_a_budget_of_exposed_requests_ends_a_rollout_that_proves_nothing(tmp_path: Path) -> None:
    body = STANDS + "\nbudget: {exposed: 300}\njudge: {errors: {floor: 0.0001}}\n"
    async with rig(tmp_path) as r:
        live = await r.roll(body)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.feed(live, Flow(500), lambda: live.progress.going_back)
        await r.over(live)
        assert "its budget of 300 exposed requests is used up" in live.progress.reason
        assert 300 <= (await r.analysis(live)).exposed < 300 + 50


# what is measured


async def test_stale_data_halts_and_goes_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.sight.age = 42.0
        for _ in range(20):
            await r.beat(live)
        assert r.outside.router.weights["challenger"] == 10 and not live.progress.going_back
        assert (await halts(r, live))[-1] == (
            "stale", "nothing was measured for 42 s; it goes on when data comes")
        r.outside.sight.age = 0.1
        await r.feed(live, GOOD)
        assert live.progress.state == "done" and (await halts(r, live))[-1][1] == "it goes on"


async def test_a_service_that_was_never_heard_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.outside.sight.age = None
        live = await r.roll()
        await waits_for(r, live, "nothing was measured yet")
        assert live.progress.steps["weight-10"].state == "intent" and r.outside.router.shares == []


async def test_numbers_that_are_none_halt_and_go_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        for wrong in (float("nan"), float("inf"), -5.0):
            await r.beat(live, second((wrong, 0), (100, 0)))
        assert r.outside.router.weights["challenger"] == 10 and not live.progress.going_back
        kind, text = (await halts(r, live))[-1]
        assert kind == "stale" and text.startswith("what is measured makes no sense: ")
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_without_traffic_it_halts_and_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, [], r.watching(live, "watch-10"))
        for _ in range(30):
            await r.beat(live, second((0, 0), (1, 0)))
        assert (await halts(r, live))[-1] == (
            "traffic", "it gets no traffic: 0 of 50 requests at this weight")
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_without_a_baseline_it_halts_and_passes_nothing(tmp_path: Path) -> None:
    """The old version's servers are gone from the metrics, while the new one answers well."""
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        for _ in range(10):
            await r.beat(live, [increment(CHALLENGER, 60)])
        assert r.outside.router.shares == [10] and not live.progress.going_back
        kind, text = (await halts(r, live))[-1]
        assert kind == "baseline" and text.startswith("nothing is measured of the old version")
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_a_service_not_measured_yet_is_watched_once_it_is(tmp_path: Path) -> None:
    """As after a start of the engine, when the first scrape fails."""
    async with rig(tmp_path) as r:
        r.outside.sight.unseen.add(CHAMPION)
        live = await r.roll()
        await waits_for(r, live, "the old version is not measured yet")
        assert live.progress.steps["weight-10"].state == "intent" and r.outside.router.shares == []
        r.outside.sight.unseen.clear()
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_bins_that_were_not_there_before_do_not_end_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.outside.sight.bins = ["late", "on time"]
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        both = {"late": 10.0, "on time": 40.0}
        await r.beat(live, [increment(CHALLENGER, 10, predictions={"late": 2.0, "cancelled": 8.0}),
                            increment(CHAMPION, 90, predictions=both)])
        watch = await r.watch(live)
        assert watch.analysis.totals["predictions"].canary == (2, 0) and not live.progress.going_back


async def test_without_a_holdback_the_limits_of_the_service_are_its_measure(tmp_path: Path) -> None:
    """Nothing concurrent is left to compare with at 100 %, and the verdict says so."""
    async with rig(tmp_path) as r:
        live = await r.roll("canary: [10, 100]\nrequests: 50\nbake: 1h\nholdback: 0\nlease: 30s")
        await r.feed(live, GOOD, r.watching(live, "bake"))
        await r.beat(live, GOOD)
        watch = await r.watch(live)
        assert not watch.analysis.concurrent and not live.progress.going_back
        r.outside.sight.beyond = "errors of challenger 3 % (over 2 %)"
        await r.beat(live, GOOD)
        await r.over(live)
        assert live.progress.state == "rolled_back" and "not concurrent" in live.progress.reason


async def test_late_labels_are_judged(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.outside.sight.labels = [{"challenger": (400, 200), "champion": (400, 100)}] * 40
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, lambda: live.progress.going_back)
        await r.over(live)
        assert "quality" in live.progress.reason


# the journal


def locked(home: Path) -> sqlite3.Connection:
    """The journal held by somebody else, as a full disk holds it."""
    other = sqlite3.connect(home / "journal.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return other


async def test_a_bad_version_is_gone_at_once_while_the_journal_cannot_be_written(tmp_path: Path) -> None:
    """The record follows when it can, in order, and with the evidence that it was decided on."""
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        other = locked(tmp_path)
        r.outside.stuck = True
        watch = await r.watch(live)
        await r.beat(live, Flow(500))
        await r.beat(live, WORSE)
        await until(lambda: r.outside.router.weights == SAFE, within=15)
        assert not live.progress.finished and [e.kind for e in r.emergency.pending()] == ["run.abort"]
        other.execute("ROLLBACK")
        other.close()
        r.outside.stuck = False
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.emergency.pending() == []
        kinds = [event.kind for event in await r.events(live)]
        assert kinds.count("run.abort") == kinds.count("rollout.verdict") == 1
        assert kinds.index("rollout.verdict") > len(kinds) - 1 - kinds[::-1].index("rollout.tick")
        assert (await r.analysis(live)).verdict == watch.analysis.verdict
        assert r.journal.verify().breaks == [] and len(r.outside.pages) == 1


async def test_going_on_wants_the_evidence_on_the_disk(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        other = locked(tmp_path)
        r.outside.stuck = True
        await r.beat(live, Flow(600))
        passed, now = r.rollouts.passed(live.progress.id, "watch-10")
        assert not passed and now.text == "its evidence is being recorded"
        other.execute("ROLLBACK")
        other.close()
        r.outside.stuck = False
        await r.feed(live, GOOD)
        assert live.progress.state == "done"
        watched = await r.analysis(live)
        assert watched.verdict is not None and watched.verdict.verdict == "good"


async def test_a_clock_that_steps_back_changes_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.skip(-7200)
        await r.feed(live, QUIET, r.watching(live, "watch-50"))
        r.outside.skip(-86400)
        await r.beat(live, WORSE)
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.outside.router.weights == SAFE


async def test_a_watch_that_breaks_sends_the_traffic_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                          ) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        watch = await r.watch(live)

        async def broken() -> None:
            raise ZeroDivisionError("a mistake of ours")

        monkeypatch.setattr(watch, "beat", broken)
        r.rollouts.beat()
        await r.over(live)
        assert live.progress.state == "rolled_back" and "its watch broke" in live.progress.reason
        assert r.outside.router.weights == SAFE and len(r.outside.pages) == 1


async def test_three_rollouts_of_a_service_at_once_leave_the_newest(tmp_path: Path) -> None:
    """Each ends those older than itself; none ends a newer one."""
    async with rig(tmp_path) as r:
        lives = [await r.roll(STANDS) for _ in range(3)]
        await until(lambda: lives[0].progress.finished and lives[1].progress.finished, within=15)
        newest = lives[2]
        await r.feed(newest, QUIET, r.watching(newest, "watch-10"))
        assert [live.progress.state for live in lives] == ["rolled_back", "rolled_back", "running"]
        assert "superseded by run" in lives[0].progress.reason
        assert r.outside.router.weights["challenger"] == 10 and r.outside.pages == []


async def test_a_newer_rollout_waits_until_the_older_has_gone_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        older = await r.roll(STANDS)
        await r.feed(older, QUIET, r.watching(older, "watch-10"))
        r.outside.router.down = True
        newer = await r.roll(STANDS)
        await until(lambda: older.progress.going_back or newer.progress.finished)
        r.outside.router.down = False
        if not newer.progress.finished:  # it could not even read the weights
            await r.feed(newer, QUIET, r.watching(newer, "watch-10"))
            assert older.progress.ended <= newer.progress.steps["begin"].ended


async def test_an_older_rollout_that_waits_never_ends_a_newer_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        newer = await r.roll(GATED)
        await r.feed(newer, QUIET, r.watching(newer, "watch-10"))
        end_all = r.rollouts.succession.end_all
        assert await end_all("flights", "superseded", before=int(newer.progress.id)) == []
        assert not newer.progress.going_back


async def test_evidence_is_recorded_in_its_order_whoever_holds_the_run_meanwhile(tmp_path: Path) -> None:
    """A slow answer holds the run while two beats come: the one that decides must not overtake the other."""
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.stuck = True
        async with live.lock:
            await r.beat(live, Flow(300, canary=0.03))
            await until(lambda: r.rollouts.analysis(live.progress.id).recent[-1].requests[0] >= 29)
            await r.beat(live, WORSE)
            await until(lambda: any(event.kind == "run.abort" for event in live.pending))
        r.outside.stuck = False
        await r.over(live)
        found = replay(await r.events(live))
        assert found.bit_equal and found.decisions[-1].recomputed[0] == "bad"
        kinds = [event.kind for event in await r.events(live, "rollout.tick", "rollout.verdict", "run.abort")]
        assert kinds[-4:] == ["rollout.tick", "rollout.tick", "rollout.verdict", "run.abort"]


async def test_the_lease_is_renewed_while_the_journal_cannot_be_written(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        other = locked(tmp_path)
        r.outside.stuck = True
        watch = await r.watch(live)
        for _ in range(8):
            r.outside.router.monotonic += 5
            ticks = watch.analysis.ticks
            await r.beat(live, QUIET)
            await until(lambda ticks=ticks: watch.analysis.ticks > ticks)
        assert r.outside.router.in_force()["challenger"] == 10 and not live.progress.going_back
        other.execute("ROLLBACK")
        other.close()
        r.outside.stuck = False
        await r.feed(live, QUIET, lambda: watch.recorded)
        assert (await r.analysis(live)).totals == watch.analysis.totals


async def test_an_abort_while_the_journal_cannot_be_written_is_nobody_elses_doing(tmp_path: Path) -> None:
    """The weights that are back then are not found to have been moved by somebody."""
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        other = locked(tmp_path)
        await r.verbs.act(ANN, live, "abort", wire.Act(reason="not today"))
        await until(lambda: r.outside.router.weights == SAFE)
        r.outside.stuck = True
        for _ in range(12):
            await r.beat(live, QUIET)
        other.rollback()
        other.close()
        await r.over(live)
        assert await r.events(live, "rollout.verdict") == [] and r.outside.pages == []
        assert live.progress.state == "rolled_back"
