"""From a manifest to a plan, and to what of it is at hand: real repositories, files and objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.reproduce import digests, git, s3
from engine.reproduce.checks import Checked, Places, check
from engine.reproduce.manifest import Manifest
from engine.reproduce.parts import Dataset, Derivation, Image, Lock, Run
from engine.reproduce.rebuild import plan
from tests.reproduce.manifests import ENVIRONMENT, changed, made
from tests.reproduce.repository import Repository
from tests.rollout.traffic import moto_server


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "project")
    repository.write("data/flights.csv", "x\n1\n")
    repository.commit(train__py="print(1)", uv__lock="numpy 2\n", __gitignore="data\n")
    return repository


def recorded(project: Repository, **more: Any) -> Manifest:
    state = git.state(project.folder)
    assert state is not None
    parts: dict[str, Any] = {
        "code": state, "image": None,
        "lock": Lock("uv.lock", digests.file(project.folder / "uv.lock").sha256),
        "data": {"flights": digests.local(project.folder / "data" / "flights.csv", "data/flights.csv")}}
    return made(**(parts | more))


def states(manifest: Manifest, places: Places) -> dict[str, Checked]:
    return {step.id: check(step, places) for step in plan(manifest, str(places.project.parent / "again"))}


def at(project: Repository, **more: Any) -> Places:
    return Places(project.folder, project.folder, **more)


def test_a_plan_goes_from_the_commit_to_the_comparison(project: Repository) -> None:
    steps = plan(recorded(project), "/again")
    assert [one.kind for one in steps] == ["commit", "worktree", "lock", "environment", "data", "hardware",
                                           "run", "verify"]
    commands = {one.kind: one.command for one in steps}
    assert commands["worktree"][:4] == ("git", "worktree", "add", "--detach")
    assert commands["environment"] == ("uv", "sync", "--frozen", "--project", "/again", "--python", "3.11.7")
    run = next(one for one in steps if one.kind == "run")
    assert run.command == ("python", "-m", "train")
    assert run.variables == {"OMP_NUM_THREADS": "8", "PYTHONHASHSEED": "7"}


def test_offline_nothing_is_asked_of_the_network() -> None:
    steps = {one.kind: one for one in plan(made(image=None), "/again", offline=True)}
    assert steps["environment"].command[-1] == "--offline"
    assert steps["environment"].command[3:5] == ("--project", "/again/models/flights")


def test_a_hash_pinned_requirements_file_is_synchronised_with_its_hashes() -> None:
    steps = {one.kind: one for one in plan(made(image=None, lock=Lock("requirements.lock", "0" * 64)), "/a")}
    assert "--require-hashes" in steps["environment"].command


def test_an_image_stands_for_the_environment_and_is_pulled_by_its_digest() -> None:
    steps = {one.kind: one for one in plan(made(), "/again")}
    assert "environment" not in steps
    assert steps["image"].command[-1] == "example/train:3@sha256:" + "c" * 64


def test_without_recorded_variables_the_seed_sets_them() -> None:
    bare = msgspec.structs.replace(ENVIRONMENT, variables={}, threads={})
    run = next(one for one in plan(made(environment=bare), "/again") if one.kind == "run")
    assert run.variables["PYTHONHASHSEED"] == "7" and run.variables["OMP_NUM_THREADS"] == "1"


def test_everything_of_a_run_just_made_is_ready(project: Repository) -> None:
    found = states(recorded(project), at(project, now=ENVIRONMENT))
    assert {name: one.state for name, one in found.items()} == {
        "commit": "ready", "worktree": "ready", "lock": "ready", "environment": "later",
        "data flights": "ready", "hardware": "ready", "run": "later", "verify": "later"}


def test_a_commit_that_was_never_pushed_is_missing(project: Repository, tmp_path: Path) -> None:
    other = Repository(tmp_path / "other")
    other.commit(x__py="1")
    found = states(recorded(project), Places(other.folder, project.folder))["commit"]
    assert found.state == "missing" and "never pushed" in found.hint


def test_changed_data_is_named_with_the_digest_to_look_for(project: Repository) -> None:
    manifest = recorded(project)
    wanted = manifest.known.data["flights"].sha256
    project.write("data/flights.csv", "x\n2\n")
    found = states(manifest, at(project))["data flights"]
    assert found.state == "differs" and wanted is not None and wanted[:12] in found.hint
    (project.folder / "data" / "flights.csv").unlink()
    assert states(manifest, at(project))["data flights"].state == "missing"


def test_a_lock_is_compared_as_it_was_at_the_commit(project: Repository) -> None:
    manifest = recorded(project)
    project.commit(uv__lock="numpy 3\n")
    assert states(manifest, at(project))["lock"].state == "ready"
    assert states(changed(manifest, "lock.sha256", "0" * 64), at(project))["lock"].state == "differs"
    assert states(changed(manifest, "lock.path", "other.lock"), at(project))["lock"].state == "missing"


def test_uncommitted_changes_need_their_patch(project: Repository, tmp_path: Path) -> None:
    project.write("train.py", "print(2)")
    manifest = recorded(project)
    lost = states(manifest, at(project))["patch"]
    assert lost.state == "missing" and "uncommitted changes" in lost.sentence
    kept = tmp_path / "kept.patch"
    kept.write_bytes(git.patch(project.folder))
    digest = digests.file(kept).sha256
    manifest = changed(manifest, "code.patch", digest)
    assert states(manifest, at(project))["patch"].state == "missing"
    assert states(manifest, at(project, kept={digest: kept}))["patch"].state == "ready"
    kept.write_text("another")
    assert states(manifest, at(project, kept={digest: kept}))["patch"].state == "differs"


def test_a_lock_that_the_patch_changes_is_told_later(project: Repository) -> None:
    project.write("uv.lock", "numpy 9\n")
    assert states(recorded(project), at(project))["lock"].state == "later"


def test_a_folder_that_is_taken_is_not_written_over(project: Repository, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    assert states(recorded(project), at(project))["worktree"].state == "ready"
    (tmp_path / "again" / "mine").write_text("x")
    assert states(recorded(project), at(project))["worktree"].state == "differs"


def test_another_machine_is_named_by_what_changes_results(project: Repository) -> None:
    cpu = msgspec.structs.replace(ENVIRONMENT.cpu, model="EPYC")
    kernel = msgspec.structs.replace(ENVIRONMENT.system, kernel="Linux 7")
    other = msgspec.structs.replace(ENVIRONMENT, cpu=cpu, system=kernel, gpus=[])
    found = states(recorded(project), at(project, now=other))["hardware"]
    assert found.state == "differs" and "cpu.model" in found.sentence and "gpus" in found.sentence
    assert "kernel" not in found.sentence


def test_data_without_a_version_can_never_be_checked(project: Repository) -> None:
    manifest = recorded(project, data={"x": Dataset("s3://b/k", "s3")})
    assert states(manifest, at(project))["data x"].state == "missing"


def test_derived_data_is_made_again(project: Repository) -> None:
    derived = Dataset("data/out", "derived", derived=Derivation("0" * 64, {"a": "1" * 64}, ["make"]))
    assert states(recorded(project, data={"x": derived}), at(project))["data x"].state == "later"


def test_a_run_outside_git_is_found_by_its_sources(tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    (folder / "__pycache__").mkdir(parents=True)
    (folder / "train.py").write_text("1")
    code = git.code(folder)
    assert code.commit is None
    manifest = made(code=code, lock=None, data={}, image=None,
                    run=Run("r", "p", "2026-11-24T12:00:00Z"))
    (folder / "__pycache__" / "x.pyc").write_text("new")
    found = states(manifest, Places(folder, folder))
    assert found["commit"].state == "ready" and found["environment"].state == "missing"
    assert found["run"].state == "missing"
    (folder / "train.py").write_text("2")
    assert states(manifest, Places(folder, folder))["commit"].state == "differs"


def test_objects_are_looked_for_by_their_versions(project: Repository) -> None:
    with moto_server.serving() as server:
        client = server.client("s3")
        client.create_bucket(Bucket="bucket",
                             CreateBucketConfiguration={"LocationConstraint": moto_server.REGION})
        client.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        client.put_object(Bucket="bucket", Key="k", Body=b"1")
        entry = s3.dataset("s3://bucket/k", client)
        manifest = recorded(project, data={"x": entry})
        client.put_object(Bucket="bucket", Key="k", Body=b"2")
        assert states(manifest, at(project, s3=client))["data x"].state == "ready"
        client.delete_object(Bucket="bucket", Key="k", VersionId=entry.version)
        gone = states(manifest, at(project, s3=client))["data x"]
    assert gone.state == "missing" and "its version" in gone.sentence


def test_the_plan_is_the_same_for_the_same_manifest() -> None:
    one = made(image=Image("a@sha256:0", "sha256:" + "1" * 64))
    assert plan(one, "/again") == plan(one, "/again")
    image = next(step for step in plan(one, "/again") if step.kind == "image")
    assert image.command[-1] == "a@sha256:" + "1" * 64
