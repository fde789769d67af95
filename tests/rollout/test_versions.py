"""What was watched, or had the traffic before, is one version: its name may stand for another by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ActionFailed
from engine.procedures.executor import Live
from tests.rollout.parts import CHALLENGER, CHAMPION
from tests.rollout.rig import GOOD, QUIET, SHORT, Rig, rig

BACK = """
steps: [{warm-up: true}, {promote: true}]
window: 1d
judge: {good: false}
"""


def now_another(r: Rig, variant: str, version: str | None) -> None:
    """From now on the collector sees another version, or none, under that name."""
    read = r.outside.sight.read
    r.outside.sight.read = lambda service, name=None: {  # type: ignore[method-assign]
        **read(service, name), **({"version": version} if name == variant else {})}


async def ended(r: Rig, live: Live) -> None:
    """Beats until the run has ended, past the waits between tries."""
    for _ in range(60):
        if not live.progress.finished:
            await r.beat(live, GOOD)
            r.outside.skip(2)
            live.wake.set()
    await r.over(live)


async def test_a_version_that_was_replaced_while_it_was_watched_gets_no_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        now_another(r, CHALLENGER, "challenger 8")
        await ended(r, live)
        assert live.progress.state == "rolled_back"
        assert "challenger is version challenger 8 now" in str(live.progress.reason)
        assert r.outside.router.shares == [10, 0]


async def test_it_is_not_promoted_either(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(SHORT.replace("bake: 0", "bake: 60s"))
        await r.feed(live, GOOD, r.watching(live, "bake"))
        now_another(r, CHALLENGER, "challenger 8")
        for _ in range(70):
            await r.beat(live, GOOD)
        await ended(r, live)
        assert live.progress.state == "rolled_back" and 100 not in r.outside.router.shares


async def test_a_version_that_nobody_tells_any_more_ends_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll()
        await r.feed(live, QUIET, r.watching(live, "watch-10"))
        now_another(r, CHALLENGER, None)
        await r.feed(live, GOOD)
        assert live.progress.state == "done"


@pytest.mark.parametrize("version, may", [("champion 7", True), (None, True), ("champion 9", False)])
async def test_only_the_version_that_had_the_traffic_is_gone_back_to_without_analysis(
        tmp_path: Path, version: str | None, may: bool) -> None:
    async with rig(tmp_path) as r:
        first = await r.roll()
        await r.feed(first, GOOD)
        assert first.progress.state == "done"
        now_another(r, CHAMPION, version)
        back = await r.roll(BACK, to=CHAMPION)
        if may:
            await r.rollouts.succession.startable(back.progress)
        else:
            with pytest.raises(ActionFailed, match="had the traffic as version champion 7"):
                await r.rollouts.succession.startable(back.progress)
        await ended(r, back)
