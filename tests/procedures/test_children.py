"""A step starts another run once: it is found again, and an abort of the one is that of the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine.errors import ActionFailed
from engine.journal.events import SYSTEM, NewEvent
from engine.procedures.children import STARTED, Children
from engine.procedures.executor import Live
from engine.procedures.library import Library
from engine.procedures.run import RunProgress
from engine.procedures.starting import Starter
from tests.procedures.kit import ANN, Kit, document_text, kit

OUTER = "- {id: go, title: Go, manual: 'wait?'}"
CHILD = "- {id: ask, title: Ask, manual: 'well?'}"


@dataclass
class Family:
    kit: Kit
    children: Children

    async def started(self, outer: Live, about: str = "v2") -> str:
        return await self.children.start(outer.progress.id, "go", "test", {}, about)

    async def found(self, outer: Live, about: str = "v2") -> str | None:
        return await self.children.find(outer.progress.id, "go", about)

    async def told(self, outer: Live) -> None:
        await self.kit.recorder.append([NewEvent(outer.progress.id, "step.outcome", 1.0, SYSTEM, step="go",
                                                 attempt=1, data={"state": "failed"})])

    async def say(self, outer: Live, kind: str, **data: object) -> None:
        await self.kit.executor.commit(outer, [NewEvent(
            outer.progress.id, kind, 1.0, SYSTEM, step="go", attempt=1, data=dict(data))])


@asynccontextmanager
async def family(home: Path) -> AsyncIterator[Family]:
    folder = home / "runbooks"
    folder.mkdir(exist_ok=True)
    (folder / "test.yaml").write_text(document_text(CHILD))

    async def startable(run: RunProgress) -> None:
        """Anything may start here."""

    async with kit(home) as opened:
        library = Library([folder], opened.executor.registry, system=False)
        starter = Starter(opened.executor, library, mode="single-user", startable=startable)
        children = Children(opened.executor, starter, opened.stopper.stop)
        opened.executor.on_recorded = children.recorded
        opened.executor.on_ended = lambda live: opened.executor.live.pop(live.progress.id, None) and None
        try:
            yield Family(opened, children)
        finally:
            await children.close()


async def test_a_child_that_runs_is_found_by_the_step_that_started_it(tmp_path: Path) -> None:
    async with family(tmp_path) as f:
        outer = await f.kit.start(OUTER)
        await f.kit.waiting(outer, "go")
        assert await f.found(outer) is None
        id = await f.started(outer)
        assert await f.found(outer) == id
        assert await f.found(outer, "v3") is None and await f.children.find(id, "go", "v2") is None
        created = f.kit.journal.read(id)[0]
        assert created.data["cause"] == {"run": outer.progress.id, "step": "go", "about": "v2",
                                         "approved": []}
        assert (created.actor.user, created.actor.uid) == (ANN.user, ANN.uid)


async def test_whoever_wrote_what_the_run_makes_is_an_author_of_its_child_too(tmp_path: Path) -> None:
    """So that nobody lets the rollout go on that their own release has started; also after a restart."""
    told = {"people": [{"name": "Bob", "email": "bob@example.org", "commits": 1, "last": "c"}]}
    async with family(tmp_path) as f:
        outer = await f.kit.start(OUTER)
        await f.kit.waiting(outer, "go")
        outer.progress.inherited.append(told)
        id = await f.started(outer)
        assert f.kit.executor.live[id].progress.written_by == [told]
    async with family(tmp_path) as f:
        found = {live.progress.id: live.progress for live in await f.kit.recover()}
        authors = f.kit.executor.planner.authors(found[id])
        assert authors is not None and authors.of("bob") is not None


async def test_one_that_was_announced_and_never_began_is_not_found(tmp_path: Path) -> None:
    """The engine was killed in between."""
    async with family(tmp_path) as f:
        outer = await f.kit.start(OUTER)
        await f.kit.waiting(outer, "go")
        await f.say(outer, STARTED, id=f.kit.journal.new_run_id(), procedure="test", about="v2")
        assert await f.found(outer) is None
        id = await f.started(outer)
        assert await f.found(outer) == id


async def test_one_that_ended_badly_counts_until_the_step_has_told_and_a_good_one_for_ever(
        tmp_path: Path) -> None:
    async with family(tmp_path) as f:
        outer = await f.kit.start(OUTER)
        await f.kit.waiting(outer, "go")
        id = await f.started(outer)
        await f.children.abort(id, "bad")
        ended = await f.children.ended(id)
        assert (ended.state, ended.reason) == ("rolled_back", "bad") and await f.found(outer) == id
        await f.told(outer)
        assert await f.found(outer) is None
        good = await f.started(outer)
        await f.kit.act(f.kit.executor.live[good], "answer", step="ask", text="yes")
        assert (await f.children.ended(good)).state == "done"
        await f.told(outer)
        assert await f.found(outer) == good


async def test_an_abort_of_the_run_is_its_childs_and_nothing_is_started_by_one_that_goes_back(
        tmp_path: Path) -> None:
    async with family(tmp_path) as f:
        outer = await f.kit.start(OUTER)
        await f.kit.waiting(outer, "go")
        id = await f.started(outer)
        await f.kit.act(outer, "abort", reason="enough")
        ended = await f.children.ended(id)
        assert ended.reason == f"run {outer.progress.id}, which started it, was aborted"
        with pytest.raises(ActionFailed, match="goes back, so it starts no other"):
            await f.started(outer)


async def test_an_abort_that_an_engine_had_no_time_to_pass_on_is_passed_on_by_the_next(
        tmp_path: Path) -> None:
    async with family(tmp_path) as f:
        outer = await f.kit.start(OUTER)
        await f.kit.waiting(outer, "go")
        id = await f.started(outer)
        f.kit.executor.on_recorded = lambda live, events: None  # as if it was killed right then
        await f.kit.act(outer, "abort", reason="enough")
        await f.kit.until(outer, lambda view: view.ended is not None)
    async with family(tmp_path) as f:
        assert [live.progress.id for live in await f.kit.recover()] == [id]
        await f.children.resume()
        assert (await f.children.ended(id)).state == "rolled_back"
