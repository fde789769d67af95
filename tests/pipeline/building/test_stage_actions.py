"""The stages of a pipeline as steps of a run: in processes of their own, taken from the cache, resumed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine import actions
from engine import home as homes
from engine.actions.pipeline import actions as stage_actions
from engine.api import wire
from engine.config import Config
from engine.pipeline.building import cache, places
from engine.procedures.actions import Registry
from engine.procedures.dry_run import dry_run
from engine.procedures.processes import Attempt
from tests.pipeline.building.making import everything
from tests.pipeline.building.trivial import FIVE, PROCESS
from tests.pipeline.project.written import project
from tests.procedures.kit import Kit, World, kit, step

STEP = ("- {id: NAME, title: NAME, use: pipeline.NAME, irreversible: t, on_failure: FAILURE, "
        "with: {project: delays, fresh: FRESH}}")


class Stages(World):
    def registry(self) -> Registry:
        found = super().registry()
        for action in stage_actions(FIVE, PROCESS):
            found.add(action)
        return found


class Pipe:
    """A project, an engine's home, and runs of the five stages."""

    def __init__(self, at: Path) -> None:
        self.folder = project(at / "delays")
        self.home = at / "home-of-engine"
        self.home.mkdir()
        self.config = Config.model_validate({"pipelines": {"projects": {"delays": str(self.folder)}}})

    @property
    def places(self) -> places.Places:
        return places.of(self.home, "delays")

    @contextlib.asynccontextmanager
    async def engine(self) -> AsyncIterator[Kit]:
        async with kit(self.home, world=Stages(), config=self.config) as k:
            make = k._context

            def context(*given: Any) -> Any:
                found = make(*given)
                found.extra = {"config": self.config, "home": homes.at(self.home)}
                return found

            k.performer._make_context = context
            yield k

    def steps(self, *, fresh: bool = False, on_failure: str = "abort") -> str:
        step = STEP.replace("FAILURE", on_failure).replace("FRESH", str(fresh).lower())
        return "\n".join(step.replace("NAME", name) for name in FIVE)

    async def run(self, **how: Any) -> wire.RunView:
        async with self.engine() as k:
            return await k.ended(await k.start(self.steps(**how)), within=60.0)

    def does(self, stage: str, what: str) -> None:
        (self.folder / f"how-{stage}").write_text(what)

    def change(self, old: str, new: str) -> None:
        file = self.folder / "opsdeck.pipeline.yaml"
        file.write_text(file.read_text().replace(old, new, 1))


@pytest.fixture
def pipe(tmp_path: Path) -> Pipe:
    return Pipe(tmp_path)


def cached(view: wire.RunView) -> list[bool]:
    return [one.result["cached"] for one in view.steps]


async def test_a_pipeline_runs_once_and_is_then_taken_from_the_cache(pipe: Pipe) -> None:
    first = await pipe.run()
    assert first.state == "done", [one.error for one in first.steps]
    assert cached(first) == [False] * 5
    assert first.steps[3].result == {"says": "four is fine", "n": 3, "cached": False,
                                     "pid": first.steps[3].result["pid"]}
    assert len({one.result["pid"] for one in first.steps}) == 5
    second = await pipe.run()
    assert cached(second) == [True] * 5
    assert second.steps[3].result == {**first.steps[3].result, "cached": True}
    assert "taken from the cache" in second.steps[0].stdout
    noted = pipe.places.result(second.id, "five")
    assert noted is not None and noted["cached"] and Path(noted["output"], "out.txt").exists()
    assert everything(pipe.places.steps.work) == []


async def test_only_what_depends_on_a_change_runs_again(pipe: Pipe) -> None:
    await pipe.run()
    pipe.change('{function: "train:main"}', '{function: "train:main"}\n  params: {lr: 0.1}')
    assert cached(await pipe.run()) == [True, False, True, True, True]  # two gave the same again
    assert cached(await pipe.run(fresh=True)) == [False] * 5
    assert cached(await pipe.run()) == [True] * 5


async def test_a_dry_run_says_hit_miss_and_the_first_field_that_differs(pipe: Pipe) -> None:
    async with pipe.engine() as k:
        live = await k.start("- {id: ask, title: A, manual: x}\n" + pipe.steps())
        before = await dry_run(k.executor, live.progress, probe=False)
    assert [one.reason for one in before.steps[1:3]] == [
        "would run: miss: never run", "would run: miss: never run"]
    run = await pipe.run()
    pipe.change('{function: "train:main"}', '{function: "train:main"}\n  params: {lr: 0.1}')
    async with pipe.engine() as k:
        live = await k.start("- {id: ask, title: A, manual: x}\n" + pipe.steps())
        after = await dry_run(k.executor, live.progress, probe=False)
    assert [one.reason for one in after.steps[1:4]] == [
        f"would run: hit: made by run {run.id}", "would run: miss: settings.train.params.lr: nothing → 0.1",
        "would run: not known yet: waits for what two gives"]


@pytest.mark.parametrize(("does", "told"), [
    ("fail", "two is not good enough"),
    ("refuse", "stage two: data.csv: the column price is empty\n  fill it in"),
    ("break", "two broke inside (KeyError: 'of a stage's own')\n  its output has the traceback"),
    ("memory", "two ran out of memory\n  give it more"),
    ("die", "it was ended by SIGKILL; the machine may have been out of memory"),
    ("nan", "the result of two cannot be recorded as JSON"),
    ("link", "the stage left more, which is neither a file nor a folder"),
])
async def test_a_stage_that_does_not_pass_is_told_and_leaves_nothing_in_place(
        pipe: Pipe, does: str, told: str) -> None:
    pipe.does("two", does)
    view = await pipe.run()
    found = step(view, "two")
    assert view.state == "failed" and found.state == "failed"
    assert told in (found.error or "").replace('"', "'")
    assert not pipe.places.steps.stage("two").exists()
    if does != "die":
        noted = pipe.places.result(view.id, "two")
        assert noted is not None and not noted["passed"]
        assert Path(noted["output"], "out.txt").exists() and "failed" in noted["output"]
    (pipe.folder / "how-two").unlink()
    again = await pipe.run()
    assert again.state == "done" and cached(again) == [True, False, False, False, False]
    assert everything(pipe.places.steps.work) == []


async def test_a_failed_run_resumes_at_the_failed_stage(pipe: Pipe) -> None:
    pipe.does("three", "die")
    async with pipe.engine() as k:
        live = await k.start(pipe.steps(on_failure="ask"))
        await k.waiting(live, "three")
        (pipe.folder / "how-three").unlink()
        await k.act(live, "retry", step="three")
        view = await k.ended(live)
    assert view.state == "done"
    assert [one.attempt for one in view.steps] == [1, 1, 2, 1, 1]


async def test_a_file_that_changes_while_a_stage_reads_it_is_an_error_and_not_a_mixture(pipe: Pipe) -> None:
    pipe.does("one", "change")
    view = await pipe.run()
    assert "train.py has changed while one ran" in (step(view, "one").error or "")
    assert not pipe.places.steps.stage("one").exists()


async def test_a_stage_reads_the_project_as_it_was_when_its_key_was_made(pipe: Pipe, tmp_path: Path) -> None:
    pipe.does("two", "project")
    view = await pipe.run()
    assert step(view, "two").result["model"] == "delays" and step(view, "two").result["seen"] == ["one"]


async def test_the_curve_and_the_lines_of_a_stage_are_seen(pipe: Pipe) -> None:
    async with pipe.engine() as k:
        live = await k.start(pipe.steps())
        view = await k.ended(live)
        assert k.performer.curve(view.id, "two", 1) == [{"name": "loss", "step": 1.0, "value": 0.5}]
    assert "two works" in step(view, "two").stdout


async def test_two_runs_at_once_both_pass_and_keep_one(pipe: Pipe) -> None:
    async with pipe.engine() as k:
        lives = [await k.start(pipe.steps()) for _ in range(3)]
        views = [await k.ended(live, within=60.0) for live in lives]
    assert [view.state for view in views] == ["done"] * 3
    assert all(len(list(pipe.places.steps.stage(name).iterdir())) == 1 for name in FIVE)
    assert everything(pipe.places.steps.work) == []


@pytest.mark.parametrize(("given", "told"), [
    ("nowhere", "there is no project nowhere"), ("./nowhere", "opsdeck.pipeline.yaml")])
async def test_a_project_that_is_not_there_is_told(pipe: Pipe, given: str, told: str) -> None:
    async with pipe.engine() as k:
        live = await k.start(f"- {{id: one, title: A, use: pipeline.one, irreversible: t, "
                             f"with: {{project: {given}}}}}")
        view = await k.ended(live)
    assert told in (step(view, "one").error or "")


def one_life(pipe: Pipe, until: Callable[[], bool]) -> None:
    async def living() -> None:
        async with pipe.engine() as k:
            await k.start(pipe.steps())
            await asyncio.sleep(60)

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            asyncio.run(living())
        os._exit(70)
    end = time.monotonic() + 20.0
    while not until():
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("also", [False, True])
def test_an_engine_killed_while_a_stage_runs_loses_nothing(pipe: Pipe, also: bool) -> None:
    """Its process is waited for; one that was killed too begins again, and its half output is gone."""
    go = pipe.home / "go"
    pipe.does("two", f"until {go}")
    one_life(pipe, lambda: bool(list(pipe.places.steps.work.glob("*.two.1/output/out.txt")))
             if pipe.places.root.exists() else False)
    if also:
        Attempt(next((pipe.home / "runs").glob("*/two.1"))).signal(signal.SIGKILL)
        assert not pipe.places.steps.stage("two").exists()

    async def resumed() -> wire.RunView:
        async with pipe.engine() as k:
            live = (await k.recover())[0]
            go.touch()
            return await k.ended(live)

    view = asyncio.run(resumed())
    assert view.state == "done", [(one.id, one.error) for one in view.steps]
    assert [one.attempt for one in view.steps] == [1, 2 if also else 1, 1, 1, 1]
    assert cached(view) == [False] * 5 and everything(pipe.places.steps.work) == []
    for name in FIVE:
        kept = next(pipe.places.steps.stage(name).iterdir())
        assert cache.kept_at(kept, kept.name) is not None


def test_the_record_of_what_passed_says_all_that_it_is_made_of(pipe: Pipe) -> None:
    view = asyncio.run(pipe.run())
    noted = pipe.places.result(view.id, "two")
    assert noted is not None
    record = json.loads((Path(noted["output"]).parent / "record.json").read_text())
    assert record["stage"] == "two" and record["key"] == noted["key"] == cache.key(record["fields"])
    assert record["outputs"]["out.txt"]["bytes"] == len("two after one\n")
    assert record["evidence"] == ["out.txt"] and record["run"] == view.id and record["made"].endswith("Z")


def test_every_stage_is_an_action_of_the_engine() -> None:
    found = Registry()
    actions.register(found)
    assert {"pipeline.tests", "pipeline.data", "pipeline.train", "pipeline.page"} <= set(found.names())


def one_life_of(pipe: Pipe, seconds: float, *, also: bool) -> bool:
    """An engine that takes up what there is and is killed after some time; whether its run had ended."""
    pid = os.fork()
    if pid == 0:
        async def living() -> None:
            async with pipe.engine() as k:
                lives = await k.recover()
                await k.ended(lives[0] if lives else await k.start(pipe.steps()), within=60.0)

        code = 1
        with contextlib.suppress(BaseException):
            asyncio.run(living())
            code = 0
        os._exit(code)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if also:
        for folder in (pipe.home / "runs").glob("*/*.[0-9]"):
            Attempt(folder).signal(signal.SIGKILL)
    return False


@pytest.mark.parametrize("seed", range(3))
def test_engines_and_stages_killed_at_any_moment_lose_nothing_and_leave_nothing_half(
        pipe: Pipe, seed: int) -> None:
    rng = random.Random(seed)
    lives = 0
    while not one_life_of(pipe, rng.uniform(0.02, 0.15 + 0.05 * lives), also=rng.random() < 0.5):
        lives += 1
        if not pipe.places.root.exists():
            continue
        for name in FIVE:
            folder = pipe.places.steps.stage(name)
            for kept in folder.iterdir() if folder.exists() else ():
                assert cache.kept_at(kept, kept.name) is not None
    view = asyncio.run(pipe.run())
    assert lives > 0 and view.state == "done" and cached(view) == [True] * 5
    assert everything(pipe.places.steps.work) == []


async def test_what_is_wrong_in_the_project_file_is_told_with_its_line(pipe: Pipe) -> None:
    pipe.change("label: late", "lable: late")
    run = await pipe.run()
    said = str(run.steps[0].error)
    assert run.state == "failed" and "opsdeck.pipeline.yaml:" in said and "lable" in said
    assert "opsdeck check" in said
