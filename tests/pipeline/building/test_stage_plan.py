"""What each stage would come to, and that a run is of one piece."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import Conflict, UsageError
from engine.pipeline.building import places, plan
from engine.pipeline.building.memo import Memo
from engine.pipeline.building.places import Places
from engine.pipeline.project.model import Project
from engine.pipeline.project.reading import read
from engine.pipeline.stages.table import STAGES
from tests.pipeline.building.making import kept
from tests.pipeline.project.written import project

LEFT = {"tests": {"junit.xml": "<x/>"}, "data": {"train.parquet": "rows"}, "train": {"model.onnx": "weights"},
        "evaluate": {"evaluation.json": "{}"}, "robustness": {"robustness.json": "{}"}}


class World:
    def __init__(self, at: Path) -> None:
        self.folder = project(at / "delays")
        home = at / "home-of-engine"
        home.mkdir()
        self.places: Places = places.make(home, "delays")

    @property
    def project(self) -> Project:
        return read(self.folder)

    def change(self, old: str, new: str) -> None:
        file = self.folder / "opsdeck.pipeline.yaml"
        file.write_text(file.read_text().replace(old, new, 1))

    def plan(self, run: str | None = None) -> dict[str, tuple[str, str]]:
        return {one.stage: (one.state, one.why) for one in plan.plan(
            self.project, self.folder, self.places, run)}

    def prepare(self, stage: str, run: str = "1", *, fresh: bool = False) -> plan.Prepared:
        return plan.prepare(STAGES[stage], self.project, self.folder, self.places, run, 1, fresh=fresh)

    def do(self, stage: str, run: str = "1") -> None:
        kept(self.places, stage, self.prepare(stage, run).fields, LEFT[stage], run=run)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_of_a_project_that_never_ran_every_stage_misses(world: World) -> None:
    found = world.plan()
    assert {found[name] for name in LEFT} == {("miss", "never run")}
    assert found["compare"] == found["page"] == ("miss", "runs every time")


def test_a_stage_that_waits_for_another_is_a_miss_as_soon_as_that_is_sure(world: World) -> None:
    for stage in LEFT:
        world.do(stage)
    (world.folder / "data" / "rows.csv").write_text("id\n1\n")
    assert world.plan()["train"] == ("unknown", "waits for what data gives")
    world.change('{function: "train:main"}', '{function: "train:main"}\n  params: {lr: 0.1}')
    assert world.plan()["train"] == ("miss", "settings.train.params.lr: nothing → 0.1")
    assert world.plan()["evaluate"] == ("unknown", "waits for what data and train give")


def test_all_that_is_unchanged_hits_and_what_changed_is_named(world: World) -> None:
    for stage in LEFT:
        world.do(stage)
    assert {name: world.plan()[name] for name in LEFT} == dict.fromkeys(LEFT, ("hit", "made by run 1"))
    world.change('{function: "train:main"}', '{function: "train:main"}\n  params: {lr: 0.1}')
    found = world.plan()
    assert found["tests"][0] == found["data"][0] == "hit"
    assert found["train"] == ("miss", "settings.train.params.lr: nothing → 0.1")
    assert found["evaluate"] == ("unknown", "waits for what train gives")
    (world.folder / "train.py").write_text("def main(inputs, output, params): ...\n")
    assert world.plan()["tests"][1].startswith("code.train.py: ")


def test_the_same_output_of_other_settings_leaves_the_stages_after_it_unchanged(world: World) -> None:
    for stage in LEFT:
        world.do(stage)
    world.change("paths: [tests]", "paths: [tests]\n  args: [-x]")
    assert world.plan()["tests"][0] == "miss" and world.plan()["train"][0] == "hit"


def test_what_is_damaged_is_no_hit_and_it_says_so(world: World) -> None:
    world.do("tests")
    key = world.prepare("tests").key
    (world.places.steps.stage("tests") / key / "output" / "junit.xml").write_text("<y/>")
    assert world.plan()["tests"] == ("miss", "what is kept of it is not whole any more")


def test_a_stage_whose_needs_have_not_passed_in_this_run_is_refused(world: World) -> None:
    world.do("data", run="1")
    with pytest.raises(UsageError, match="data has not passed"):
        world.prepare("train", run="2")


def test_within_a_run_the_data_that_it_began_with_is_taken_though_new_data_came(world: World) -> None:
    world.do("data")
    before = world.prepare("train").key
    (world.folder / "data" / "rows.csv").write_text("id\n1\n")
    assert world.prepare("train").key == before
    assert world.plan("1")["data"] == ("hit", "done in this run") and world.plan()["data"][0] == "miss"


def test_data_that_was_altered_between_two_stages_is_a_clear_error(world: World) -> None:
    world.do("data")
    (world.prepare("train").inputs["data"] / "train.parquet").write_text("ROWS")
    with pytest.raises(Conflict, match=r"what data gave in this run was changed since: train\.parquet"):
        world.prepare("train")


def test_code_that_changed_since_the_tests_of_this_run_is_a_clear_error(world: World) -> None:
    for stage in ("tests", "data"):
        world.do(stage)
    (world.folder / "train.py").write_text("def main(inputs, output, params): ...\n")
    with pytest.raises(Conflict, match=r"code\.train\.py changed since tests ran") as told:
        world.prepare("train")
    assert "new run" in (told.value.hint or "")


def test_expectations_that_a_person_accepted_meanwhile_belong_to_the_run(world: World) -> None:
    world.do("data")
    (world.folder / "expectations.yaml").write_text("{}\n")
    assert world.prepare("train").inputs["data"].is_dir()


def test_a_fresh_one_runs_whatever_is_kept_and_is_for_this_run_alone(world: World) -> None:
    world.do("tests")
    assert world.prepare("tests").found is not None
    fresh = world.prepare("tests", fresh=True)
    assert fresh.found is None and fresh.key != world.prepare("tests").key
    assert world.prepare("tests", run="2", fresh=True).key != fresh.key


def test_a_stage_that_is_not_cached_never_hits_and_sees_all_that_is_done(world: World) -> None:
    for stage in LEFT:
        world.do(stage)
    found = world.prepare("compare")
    assert found.found is None and set(found.inputs) == set(LEFT)
    assert found.fields["only"] == {"run": "1", "attempt": 1}


def test_a_digest_is_remembered_between_plans(world: World) -> None:
    memo = Memo(world.places.memo, lambda: 10**19)
    memo.digest(world.folder / "uv.lock")
    memo.save()
    assert str(world.folder / "uv.lock") in world.places.memo.read_text()
