"""The action `rollout.abort`: it ends what runs, says where nothing does, and knows its services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.actions.rollout import ACTIONS, Abort
from engine.errors import ActionFailed
from engine.procedures.actions import Context
from tests.rollout.parts import SERVICE
from tests.rollout.rig import QUIET, STANDS, SUPERVISED, Rig, rig

ABORT = next(action for action in ACTIONS if action.name == "rollout.abort")


def context(r: Rig, said: list[str]) -> Context:
    nothing: Any = None
    return Context("9", "abort", 1, r.outside.router, r.outside.supervisor, nothing, nothing, said.append,
                   r.outside.clock, nothing, {"config": SUPERVISED, "rollouts": r.rollouts})


async def test_a_service_that_nobody_knows_fails_with_the_nearest_name(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        with pytest.raises(ActionFailed, match="there is no service flihgts") as refused:
            await ABORT.run(context(r, []), Abort(service="flihgts"))
        assert refused.value.hint == "Did you mean flights?"


async def test_a_service_without_a_rollout_says_so_and_is_done(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        said: list[str] = []
        assert await ABORT.run(context(r, said), Abort(service=SERVICE)) == {"ended": []}
        assert "no rollout of flights runs: there is nothing to end" in "".join(said)


async def test_one_that_runs_is_ended_with_the_reason(tmp_path: Path) -> None:
    async with rig(tmp_path) as r:
        live = await r.roll(STANDS)
        await r.feed(live, QUIET, until=r.watching(live, "watch-10"))
        found = await ABORT.run(context(r, []), Abort(service=SERVICE, reason="an incident"))
        assert found == {"ended": [live.progress.id]}
        assert (live.progress.state, live.progress.reason) == ("rolled_back", "an incident")
