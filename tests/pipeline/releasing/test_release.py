"""A release rolls the registered model out by a run of its own, once, and says how that ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from engine.api import wire
from engine.errors import NotPermitted
from engine.pipeline.releasing.registry import CANDIDATE, CHAMPION, OUTCOME, PREVIOUS
from tests.pipeline.releasing.built import MODEL
from tests.pipeline.releasing.world import ADMIN, World, approve, child_of, until, world


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("world")) as made:
        yield made


def tags(world: World) -> str:
    return git(world, "tag", "-l")


def git(world: World, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(world.built.folder), *arguments], check=True, capture_output=True,
                          text=True).stdout.strip()


async def refusal(world: World, **change: str) -> str:
    """Why a release is refused; nothing may have changed by it."""
    before = (world.weights, world.served("challenger"), tags(world))
    async with world.engine() as backend:
        id = await world.let_go(backend, **change)
        view = await until(backend, id, lambda v: v.steps[0].state == "failed")
        assert not [event for event in await backend.timeline(id) if event.kind == "child.started"]
        await backend.act(ADMIN, id, "abort", wire.Act())
    assert (world.weights, world.served("challenger"), tags(world)) == before
    return str(view.steps[0].error)


async def test_another_lock_in_production_refuses_it(outside: World) -> None:
    (outside.built.folder / "production.lock").write_text("numpy==1.26.0\n")
    outside.project(lock="production.lock")
    try:
        said = await refusal(outside)
    finally:
        outside.project()
        (outside.built.folder / "production.lock").unlink()
    assert "Production would not run what staging tested: its lock is" in said


async def test_another_image_than_the_champions_refuses_it(outside: World) -> None:
    path = outside.home.path / "models" / "champion" / "run.json"
    kept = path.read_text()
    image = '"image":{"digest":"sha256:' + "a" * 64 + '","reference":"r"}'
    path.write_text(kept.replace('"image":null', image))
    try:
        said = await refusal(outside)
    finally:
        path.write_text(kept)
    assert "its image is aaaaaaaaaaaa, and staging's none" in said


async def test_a_model_that_is_not_the_approved_one_any_more_is_refused(outside: World) -> None:
    assert "the manifest of the run is another" in await refusal(outside, manifest="0" * 64)
    assert "not the one that was recorded" in await refusal(outside, model="0" * 64)
    assert "stage register is of version 2" in await refusal(outside, version="7")


async def test_a_tag_at_another_commit_refuses_it(outside: World) -> None:
    git(outside, "tag", f"release/{MODEL}-2", "HEAD")
    try:
        said = await refusal(outside)
    finally:
        git(outside, "tag", "-d", f"release/{MODEL}-2")
    assert f"The tag release/{MODEL}-2 is at commit" in said


async def test_a_good_model_is_released_through_a_restart_by_one_rollout_with_its_own_approval(
        outside: World) -> None:
    async with outside.engine() as backend:
        id = await outside.let_go(backend)
        child = await child_of(backend, id)
        view = await until(backend, child, lambda v: any(s.id == "weight-50" and s.gate for s in v.steps))
        gate = next(step.gate for step in view.steps if step.id == "weight-50")
        assert gate is not None
        answer = wire.Act(step="weight-50", digest=gate.digest)
        with pytest.raises(NotPermitted, match="started this run"):
            await backend.act(replace(ADMIN, roles=frozenset({"approver"})), child, "approve", answer)
        said = (await backend.output(id, "release", 1, 0, 65536)).text
        assert "production's lock and image are staging's, by the champion's manifest" in said
    async with outside.engine() as backend:
        await approve(backend, child)
        done = await until(backend, id, lambda v: v.ended is not None, 30)
        assert done.state == "done", done.reason
        result: dict[str, Any] = done.steps[0].result
        assert (result["run"], result["champion"], result["previous"]) == (child, "2", "1")
        assert result["parity"] == f"compared before run {child}"
        children = [event for event in await backend.timeline(id) if event.kind == "child.started"]
        told = await backend.timeline(child)
        created, began = told[0], next(event for event in told if event.kind == "rollout.began")
    assert [event.data["id"] for event in children] == [child]
    assert began.data["versions"] == {"champion": "1", "challenger": "2"}
    assert created.by == "root" and created.data["cause"]["run"] == id
    assert outside.registry.aliases(MODEL) == {CHAMPION: "2", PREVIOUS: "1"}
    assert outside.weights == {"champion": 0.0, "challenger": 100.0} and outside.served("challenger") == "2"
    tagged = git(outside, "rev-parse", f"release/{MODEL}-2^{{commit}}")
    assert tagged == outside.registry.version(MODEL, "2").tags["opsdeck.commit"]
    assert outside.refused == []


async def test_what_has_the_traffic_is_not_replaced(outside: World) -> None:
    outside.project(other=None)
    try:
        said = await refusal(outside)
    finally:
        outside.project()
    assert "challenger has 100 % of the traffic of flights" in said


async def test_a_bad_model_goes_back_and_is_no_candidate_any_more(outside: World) -> None:
    """It goes to the other place, as the first has the traffic."""
    outside.registry.point(MODEL, CANDIDATE, "2")
    outside.faults("champion", 0.9)
    async with outside.engine() as backend:
        id = await outside.let_go(backend)
        view = await until(backend, id, lambda v: v.ended is not None, 30)
        said = str(view.steps[0].error)
    assert view.state == "failed", "nobody is asked: what the rollout has shown is not asked for again"
    outside.faults("champion", 0.0)
    assert "is not released: the rollout, run" in said and "ended rolled back" in said, said
    assert "worse: errors" in said
    assert outside.weights == {"champion": 0.0, "challenger": 100.0}
    assert CANDIDATE not in outside.registry.aliases(MODEL)
    assert outside.registry.version(MODEL, "2").tags[OUTCOME].startswith("rolled back: ")
    assert f"release/{MODEL}-2" in tags(outside)


async def test_an_abort_of_the_run_is_the_rollouts_and_a_running_rollout_refuses_another(
        outside: World) -> None:
    async with outside.engine() as backend:
        id = await outside.let_go(backend)
        child = await child_of(backend, id)
        await until(backend, child, lambda v: any(s.id == "weight-50" and s.gate for s in v.steps))
        second = await outside.let_go(backend)
        failed = await until(backend, second, lambda v: v.steps[0].state == "failed")
        assert f"A rollout of flights runs, run {child}" in str(failed.steps[0].error)
        await backend.act(ADMIN, second, "abort", wire.Act())
        await backend.act(ADMIN, id, "abort", wire.Act(reason="a person"))
        ended = await until(backend, child, lambda v: v.ended is not None)
        assert ended.state in ("rolled_back", "aborted")
    assert outside.weights == {"champion": 0.0, "challenger": 100.0}


def test_nothing_else_may_start_runs(tmp_path: Path) -> None:
    from engine.app import _may_start
    from engine.procedures.document import Step
    from engine.procedures.run import StepRun

    def step(use: str) -> StepRun:
        spec = Step.model_validate({"id": "a", "title": "A", "use": use, "irreversible": "test"})
        return StepRun("a", spec, op={"use": use, "with": {}})

    assert _may_start(step("pipeline.release"))
    assert not _may_start(step("somebody.elses")) and not _may_start(step("pipeline.register"))
