"""Rollouts from their first step to their last: what goes forward, what goes back, and who decides."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.api import wire
from engine.errors import Conflict, NotPermitted
from engine.procedures.views import run_view
from tests.procedures.kit import ANN, BOB, EVE, VIC, states
from tests.rollout.parts import CHAMPION, MemoryRouter, MirroringMemoryRouter, increment, second
from tests.rollout.rig import GATED, GOOD, QUIET, SHORT, STANDS, WORSE, Flow, Outside, Rig, rig


def gate_of(r: Rig, live: object) -> str:
    return live.progress.steps["weight-50"].state  # type: ignore[attr-defined]


async def test_a_good_version_gets_all_the_traffic_a_step_at_a_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, GOOD)
        assert (live.progress.state, live.progress.reason) == ("done", None)
        assert r.outside.router.shares == [10, 50, 99, 100]
        assert r.outside.router.lease is None
        verdicts = [event.data["verdict"] for event in await r.events(live, "rollout.verdict")]
        assert verdicts == ["good"] and r.outside.pages == []
        assert r.journal.verify().breaks == []


async def test_a_bad_version_is_gone_with_the_beat_that_shows_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, GOOD, r.watching(live, "watch-10"))
        before = (await r.analysis(live)).ticks
        await r.beat(live, WORSE)
        await r.over(live)
        assert live.progress.state == "rolled_back"
        assert "worse: errors (mostly unavailable), " in live.progress.reason
        assert r.outside.router.weights == {"champion": 100, "challenger": 0}
        assert (await r.analysis(live)).ticks == before + 1
        assert [live.progress.reason in page for page in r.outside.pages] == [True]


async def test_what_the_journal_holds_is_what_was_believed(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        watch = await r.watch(live)
        for _ in range(3):
            await r.beat(live, Flow(500, 0.02, 0.01))
        believed, read = watch.analysis, await r.analysis(live)
        assert believed.verdict is not None and believed.verdict == read.verdict
        assert believed.ticks == read.ticks and believed.totals == read.totals


async def test_nothing_passes_on_less_than_the_least_evidence(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, [], r.watching(live, "watch-10"))
        await r.beat(live, second((49, 0), (500, 0)))
        passed, now = r.rollouts.passed(live.progress.id, "watch-10")
        assert not passed and now.text == "49 of 50 requests at this weight"
        await r.feed(live, second((1, 0), (10, 0)), r.at(live, "weight-50", "done"))


async def test_nearly_all_traffic_is_given_only_with_evidence_that_it_is_no_worse(tmp_path: Path) -> None:
    """Beside so much the old version has too little left to compare with: it is shown before."""
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-50"))
        for _ in range(8):
            await r.beat(live, QUIET)
        passed, now = r.rollouts.passed(live.progress.id, "watch-50")
        assert not passed and "evidence of" in now.text and "that it is no worse" in now.text
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_a_pause_stops_the_weights_and_not_the_watching(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.act(live, "pause")
        await r.feed(live, Flow(500), r.at(live, "watch-10", "done"))
        for _ in range(10):
            await r.beat(live, QUIET)
        assert live.progress.steps["weight-50"].state == "planned"
        await r.beat(live, WORSE)
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.outside.router.shares == [10, 0]


async def test_a_paused_rollout_goes_on_when_it_is_told_to(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.act(live, "pause")
        await r.feed(live, GOOD, r.at(live, "watch-10", "done"))
        await r.act(live, "resume")
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_the_analysis_goes_on_while_a_gate_waits_and_rolls_back_there(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        before = (await r.analysis(live)).ticks
        for _ in range(4):
            await r.beat(live, QUIET)
        assert (await r.analysis(live)).ticks == before + 4
        await r.beat(live, WORSE)
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.outside.router.shares == [10, 0]


async def test_the_lease_is_renewed_however_long_a_gate_waits(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        for _ in range(100):
            await r.beat(live, QUIET)
        assert r.outside.router.weights["challenger"] == 10 and not live.progress.going_back


async def test_an_approval_opens_the_gate_and_the_rollout_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, GOOD, r.at(live, "weight-50", "waiting"))
        await r.feed(live, GOOD, lambda: r.rollouts.analysis(live.progress.id).told == "good")
        await r.approve(live, "weight-50", BOB)
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_an_approval_is_void_once_the_verdict_is_another(tmp_path: Path) -> None:
    two = GATED.replace("min: 1", "min: 2")
    async with rig(tmp_path) as r:
        live = await r.roll(two)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        asked = live.progress.steps["weight-50"].digest
        await r.approve(live, "weight-50", BOB)
        await r.feed(live, GOOD, lambda: live.progress.steps["weight-50"].digest != asked)
        step = live.progress.steps["weight-50"]
        assert step.state == "waiting" and step.approvals == []
        retried = (await r.events(live, "step.retry"))[0]
        assert retried.data["reason"].startswith("the verdict is: no worse than the old version")
        with pytest.raises(Conflict, match="not what would run now"):
            await r.approve(live, "weight-50", EVE, digest=asked)
        await r.approve(live, "weight-50", EVE)
        assert gate_of(r, live) == "waiting"
        await r.approve(live, "weight-50", BOB)
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


async def test_a_gate_that_opens_while_the_verdict_is_recorded_is_not_asked_again(tmp_path: Path) -> None:
    """The step has begun with the approval: it must not be made ready a second time under way."""
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        watch = await r.watch(live)
        async with live.lock:  # somebody's answer is being looked at meanwhile
            watch.hear(second((1000, 0), (9000, 0)))
            await watch.beat()
            assert watch.analysis.verdict.verdict == "good"
            step = live.progress.steps["weight-50"]
            await r.executor.advance(live, [r.executor.planner.event(
                live.progress.id, "gate.approved", _actor(), step=step.id, attempt=step.attempt,
                digest=step.digest)])
            assert live.progress.steps["weight-50"].state == "intent"
        await r.feed(live, GOOD)
        assert live.progress.state == "done" and await r.events(live, "step.retry") == []
        begun = [event for event in await r.events(live, "step.intent") if event.step == "weight-50"]
        assert len(begun) == 1


def _actor() -> object:
    from engine.journal.events import Actor

    return Actor(BOB.user, BOB.uid, BOB.origin)


async def test_promote_skips_the_watching_of_one_step(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.beat(live, QUIET)
        await r.promote(live, BOB)
        await r.feed(live, QUIET, r.watching(live, "watch-50"))
        for _ in range(5):
            await r.beat(live, QUIET)
        assert live.progress.steps["watch-50"].state == "intent"
        assert live.progress.steps["watch-10"].result["promoted"] is True
        promoted = (await r.events(live, "rollout.promoted"))[0]
        assert (promoted.actor.user, promoted.data["step"]) == ("bob", "watch-10")


async def test_promote_full_skips_all_watching_and_no_approval(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED.replace("requests: 50", "requests: 5000"))
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.beat(live, QUIET)
        await r.promote(live, BOB, full=True)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        for _ in range(5):
            await r.beat(live, QUIET)
        assert gate_of(r, live) == "waiting" and r.outside.router.shares == [10]
        await r.approve(live, "weight-50", EVE)
        await r.feed(live, QUIET)
        assert live.progress.state == "done"


async def test_what_was_promoted_is_still_watched_and_rolled_back(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.promote(live, BOB, full=True)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        await r.beat(live, WORSE)
        await r.over(live)
        assert live.progress.state == "rolled_back"


@pytest.mark.parametrize("who", [ANN, VIC], ids=["operator", "viewer"])
async def test_only_an_approver_may_promote(tmp_path: Path, who: object) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        with pytest.raises(NotPermitted, match="may not promote"):
            await r.promote(live, who)  # type: ignore[arg-type]
        assert await r.events(live, "rollout.promoted") == []


async def test_nobody_promotes_on_what_is_stale_or_makes_no_sense(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.beat(live, second((float("nan"), 0), (100, 0)))
        with pytest.raises(Conflict, match="stale"):
            await r.promote(live, BOB)
        await r.beat(live, QUIET)
        r.outside.sight.age = 60.0
        with pytest.raises(Conflict, match="stale"):
            await r.promote(live, BOB, full=True)


async def test_what_was_promoted_in_full_stands_all_the_same_while_data_is_stale(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.promote(live, BOB, full=True)
        r.outside.sight.age = 60.0
        for _ in range(10):
            await r.beat(live)
        assert r.outside.router.shares[-1] < 99
        r.outside.sight.age = 0.1
        await r.feed(live, QUIET)
        assert live.progress.state == "done"


async def test_promoting_what_has_gone_on_meanwhile_is_refused(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        with pytest.raises(Conflict, match="has gone on since you looked"):
            await r.promote(live, BOB, shown="watch-50")


async def test_a_rollout_at_a_gate_or_going_back_cannot_be_promoted(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(GATED)
        await r.feed(live, QUIET, r.at(live, "weight-50", "waiting"))
        with pytest.raises(Conflict, match="is not watching now") as refused:
            await r.promote(live, BOB)
        assert refused.value.hint == "step weight-50 waits for a person: approve it"
        r.outside.router.down = True
        await r.act(live, "abort")
        with pytest.raises(Conflict, match="going back"):
            await r.promote(live, BOB, full=True)
        r.outside.router.down = False
        await r.over(live)


async def test_an_abort_before_any_weight_changes_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(SHORT.replace("[10,", "[{weight: 10, approvals: {min: 1}},"))
        await r.feed(live, [], r.at(live, "weight-10", "waiting"))
        await r.act(live, "abort")
        await r.over(live)
        assert live.progress.state == "rolled_back"
        assert r.outside.router.weights == {"champion": 100, "challenger": 0}


async def test_an_abort_before_it_began_has_nothing_to_undo(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        r.outside.router.hangs = asyncio.Event()
        live = await r.roll()
        await r.act(live, "abort")
        await r.over(live)
        assert live.progress.state == "rolled_back" and r.outside.router.shares == []
        view = await run_view(r.executor, live.progress, live)
        assert "undo:begin" not in states(view)


async def test_an_abort_of_a_rollout_always_goes_back(tmp_path: Path) -> None:
    """Whoever asks for an abort without rollback gets the safe weights too."""
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        await r.verbs.act(ANN, live, "abort", wire.Act(rollback=False, reason="enough"))
        await r.over(live)
        assert live.progress.state == "rolled_back" and live.progress.reason == "aborted by ann: enough"
        assert r.outside.router.weights == {"champion": 100, "challenger": 0} and r.outside.pages == []


async def test_an_abort_goes_back_also_while_a_shift_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                               ) -> None:
    monkeypatch.setattr("engine.actions.rollout.ROUTER_S", 0.1)
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.router.hangs, r.outside.stuck = asyncio.Event(), True
        await r.feed(live, Flow(500), r.at(live, "weight-50"))
        await r.act(live, "abort")
        r.outside.router.hangs = None
        await r.over(live)
        assert live.progress.state == "rolled_back"
        assert r.outside.router.weights == {"champion": 100, "challenger": 0}
        assert 50 not in r.outside.router.shares


async def test_with_three_variants_the_others_keep_their_shares(tmp_path: Path) -> None:
    router = MemoryRouter(champion=60.0, other=30.0, challenger=10.0)
    async with rig(tmp_path, Outside(router=router)) as r:
        live = await r.roll(SHORT.replace("[10, 50, 100]", "[25, 100]"))
        await r.feed(live, QUIET, r.watching(live, "watch-25"))
        assert router.weights == pytest.approx({"champion": 52.5, "other": 22.5, "challenger": 25})
        await r.act(live, "abort")
        await r.over(live)
        assert router.weights == {"champion": 70, "other": 30, "challenger": 0}


BLUE_GREEN = "blue-green: {bake: 0, mirror: {percent: 50, for: 3s}}\nrequests: 50\nlease: 30s"


async def test_blue_green_watches_what_is_mirrored_before_anybody_gets_an_answer(tmp_path: Path) -> None:
    router = MirroringMemoryRouter()
    async with rig(tmp_path, Outside(router=router)) as r:
        live = await r.roll(BLUE_GREEN)
        await r.feed(live, [], lambda: router.mirrored == 50)
        mirrored = [increment("challenger+mirror", 1000), increment(CHAMPION, 2000)]
        await r.feed(live, mirrored, r.at(live, "mirror", "done"))
        seen = await r.analysis(live)
        assert seen.exposed == 0 and seen.totals["errors"].canary[0] >= 3000 and router.mirrored is None
        await r.feed(live, GOOD)
        assert live.progress.state == "done" and router.shares == [99, 100]


async def test_a_version_that_fails_on_mirrored_requests_never_gets_any(tmp_path: Path) -> None:
    router = MirroringMemoryRouter()
    async with rig(tmp_path, Outside(router=router)) as r:
        live = await r.roll(BLUE_GREEN)
        await r.feed(live, [], lambda: router.mirrored == 50)
        await r.feed(live, [increment("challenger+mirror", 100, 60), increment(CHAMPION, 200)],
                     lambda: live.progress.going_back)
        await r.over(live)
        assert live.progress.state == "rolled_back" and set(router.shares) <= {0} and router.mirrored is None


async def test_a_router_that_cannot_mirror_is_told_of(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(BLUE_GREEN)
        await r.over(live)
        assert "the router of flights cannot mirror requests" in live.progress.reason


async def test_nobody_promotes_what_is_told_to_go_back_before_the_journal_knows(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        async with live.lock:
            stopping = asyncio.create_task(r.act(live, "abort"))
            while not live.pending:
                await asyncio.sleep(0.001)
            promoting = asyncio.create_task(r.promote(live, BOB, full=True))
            await asyncio.sleep(0.01)
        with pytest.raises(Conflict, match="going back"):
            await promoting
        await stopping
        await r.over(live)
        assert live.progress.state == "rolled_back"


async def test_whoever_aborts_what_goes_back_already_leaves_the_reason_why(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        r.outside.router.down = True
        await r.beat(live, WORSE)
        await r.feed(live, [], lambda: live.progress.going_back)
        await r.act(live, "abort", reason="it looks bad to me too")
        r.outside.router.down = False
        await r.over(live)
        assert live.progress.reason.startswith("the new version is worse")
        assert len(await r.events(live, "run.abort")) == 1
