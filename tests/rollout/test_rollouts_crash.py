"""The engine dies at every boundary of a rollout, and another takes it up: nothing is raised that was not
allowed, nothing after an abort, nobody is asked or paged twice, and the evidence is the same to the bit."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine.procedures.executor import Live
from engine.rollout.replay import replay
from tests.rollout.mortal import Dead, Mortal
from tests.rollout.rig import GATED, QUIET, SHORT, STANDS, WORSE, Flow, Outside

SAFE = {"champion": 100, "challenger": 0}


async def good(r: Mortal, live: Live) -> None:
    """A good version, whose second weight Bob approves once it is shown to be good."""
    while not live.progress.finished:
        await r.beat(live, Flow(6000))
        step = live.progress.steps["weight-50"]
        analysis = r.rollouts.analysis(live.progress.id)
        if step.state == "waiting" and analysis is not None and analysis.told == "good":
            await r.answered(live, "weight-50")
        await _pass(r, live)


async def bad(r: Mortal, live: Live) -> None:
    """A version that begins to fail at its first weight."""
    while not live.progress.finished:
        analysis = r.rollouts.analysis(live.progress.id)
        await r.beat(live, WORSE if analysis is not None and analysis.ticks >= 3 else QUIET)
        await _pass(r, live)
    await asyncio.wait([*r._paging, asyncio.create_task(asyncio.sleep(0))])


async def _pass(r: Mortal, live: Live) -> None:
    r.outside.skip(0.5)
    live.wake.set()
    await asyncio.sleep(0.004)


def allowed(shares: list[float], state: str) -> None:
    """What the router was told: up as the plan says, and down once, for good."""
    up = list(itertools.takewhile(lambda share: share > 0, shares))
    assert set(shares[len(up):]) <= {0.0}, f"raised after it went back: {shares}"
    assert up == sorted(up) and set(up) <= {10.0, 50.0, 99.0, 100.0}, shares
    if state == "done":
        assert shares[-1] == 100 and list(dict.fromkeys(shares)) == [10, 50, 99, 100]


async def killed(home: Path, outside: Outside, boundary: str, body: str, how: Any) -> bool:
    """Whether an engine died at the boundary; a run that is over before has none there."""
    first = Mortal(home, outside, boundary)
    starting = asyncio.create_task(first.roll(body))
    death = asyncio.create_task(first.dead.wait())
    await asyncio.wait({starting, death}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if first.gone:
            return True
        await first.drive(await starting, how)
    except Dead:
        return True
    finally:
        death.cancel()
        first._let_go.set()
        await asyncio.gather(starting, death, return_exceptions=True)
        await first.die()
    return False


async def taken_over(home: Path, outside: Outside, how: Any) -> None:
    """Another engine brings it to its end; what must hold whenever the first one died."""
    second = Mortal(home, outside)
    try:
        for live in await second.take_over():
            await second.drive(live, how)
        rows = second.journal.runs()
        if not rows:
            assert outside.router.shares == []  # it was never recorded, and so nothing was done
            return
        [row] = rows
        events = second.journal.read(row.id)
        allowed(outside.router.shares, row.state)
        told = await second.told()
        assert max(told.values(), default=0) <= 1, told
        answers = Counter((event.step, event.attempt) for event in events if event.kind == "gate.approved")
        assert max(answers.values(), default=0) <= 1
        approved = next((event.n for event in events if event.kind == "gate.approved"), None)
        raised = next((event.n for event in events if event.kind == "step.intent"
                       and event.step == "weight-50"), None)
        assert how is bad or raised is None or (approved is not None and approved < raised)
        if how is bad:
            assert row.state == "rolled_back" and outside.router.weights == SAFE and sum(told.values()) == 1
        found = replay(events)
        assert found.bit_equal and found.decisions
        assert second.journal.verify().breaks == []
        if how is good:
            assert row.state == "done", events[-1].data
    finally:
        await second.die()


KINDS = [(good, GATED, 18, 4), (bad, SHORT, 11, 2)]  # with how many writes and shifts there are at least
CASES = [pytest.param(how, body, f"{kind}:{n}:{side}", id=f"{how.__name__}-{kind}-{n}-{side}")
         for how, body, appends, shifts in KINDS for kind, most in (("append", appends), ("shift", shifts))
         for n in range(1, most + 1) for side in ("before", "after")]


@pytest.mark.parametrize("how, body, boundary", CASES)
async def test_an_engine_that_dies_changes_nothing(tmp_path: Path, how: Any, body: str, boundary: str
                                                   ) -> None:
    outside = Outside()
    await killed(tmp_path, outside, boundary, body, how)
    outside.router.monotonic += 2
    await taken_over(tmp_path, outside, how)


@pytest.mark.parametrize("how, body, appends, shifts", KINDS, ids=["good", "bad"])
async def test_an_undisturbed_rollout_comes_to_all_of_these_boundaries(
        tmp_path: Path, how: Any, body: str, appends: int, shifts: int) -> None:
    outside = Outside()
    first = Mortal(tmp_path, outside)
    await first.drive(await first.roll(body), how)
    assert first._appends >= appends and first._shifts == shifts
    await first.die()
    await taken_over(tmp_path, outside, how)


@pytest.mark.parametrize("boundary", [f"append:{n}:after" for n in range(3, 17)] + [
    f"shift:{n}:{side}" for n in (1, 2) for side in ("before", "after")])
async def test_an_engine_that_is_away_longer_than_the_lease_raises_nothing_when_it_is_back(
        tmp_path: Path, boundary: str) -> None:
    """The router has gone back by itself, and the version was not there to be seen meanwhile."""
    outside = Outside()
    await killed(tmp_path, outside, boundary, GATED, good)
    outside.router.monotonic += 600
    leased = outside.router.lease is not None
    before = list(outside.router.shares)
    second = Mortal(tmp_path, outside)
    [row] = second.journal.runs()
    in_force = any(event.kind == "step.outcome" and event.step == "weight-10" for event in
                   second.journal.read(row.id))  # else it had given no weight yet that it knew of
    try:
        for live in await second.take_over():
            await second.drive(live, good)
        [row] = second.journal.runs()
        if leased and in_force:
            assert row.state == "rolled_back" and outside.router.weights == SAFE
            assert set(outside.router.shares[len(before):]) <= {0.0}
            [page] = (await second.told()).items()
            assert page[1] == 1 and ("its lease was not renewed" in page[0]
                                     or "as this rollout left it" in page[0])
        else:
            assert row.state == "done"
    finally:
        await second.die()


async def ticked(home: Path, flows: list[Flow], restarts: set[int]) -> list[dict[str, float]]:
    """ln E after each beat, with a clean restart of the engine before some of them."""
    outside = Outside()
    r = Mortal(home, outside)
    live = await r.roll(STANDS)
    await r.feed(live, [], r.watching(live, "watch-10"))
    found: list[dict[str, float]] = []
    for at, flow in enumerate(flows):
        if at in restarts:
            await r.die()
            r = Mortal(home, outside)
            [live] = await r.take_over()
            await r.watch(live)
        await r.beat(live, r.seen(flow))
        analysis = r.rollouts.analysis(live.progress.id)
        assert analysis is not None and analysis.verdict is not None
        read = await r.analysis(live)
        assert (read.verdict, read.totals, read.exposed) == (
            analysis.verdict, analysis.totals, analysis.exposed)
        found.append({**analysis.verdict.ln_e, **analysis.verdict.ln_good, "all": analysis.verdict.ln_e_all})
    await r.die()
    return found


async def test_the_evidence_is_the_same_to_the_bit_with_and_without_restarts(tmp_path: Path) -> None:
    flows = [Flow(997, canary=0.02 * (at % 3), baseline=0.01) for at in range(12)]
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = await ticked(tmp_path / "whole", flows, set())
    assert whole[-1] == (await ticked(tmp_path / "parts", flows, {1, 2, 5, 9, 11}))[-1]
    assert whole[-1]["all"] != 0.0 and len({each["all"] for each in whole}) == len(whole)
