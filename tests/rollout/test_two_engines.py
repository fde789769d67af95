"""A second engine takes the journal, and with it the rollouts: the first one touches nothing any more."""

from __future__ import annotations

from pathlib import Path

from tests.rollout.rig import GOOD, STANDS, WORSE, Rig, rig


async def test_of_two_engines_only_the_one_that_has_the_journal_acts(tmp_path: Path) -> None:
    async with rig(tmp_path) as first:
        live = await first.roll(STANDS)
        await first.feed(live, GOOD, first.watching(live, "watch-10"))
        before = list(first.outside.router.shares)
        second = Rig(tmp_path, first.outside)
        try:
            [taken] = await second.recover()
            for _ in range(3):
                await first.beat(live, GOOD)
            assert first.executor.problem is not None
            assert first.outside.router.shares == before and first.outside.pages == []
            await second.feed(taken, WORSE, lambda: taken.progress.finished)
            assert taken.progress.state == "rolled_back" and not live.progress.finished
            assert first.outside.router.weights == {"champion": 100, "challenger": 0}
            await first.beat(live, GOOD)
            assert first.outside.router.weights == {"champion": 100, "challenger": 0}
            assert len(first.outside.pages) == 1 and second.journal.verify().breaks == []
        finally:
            await second.close()
