"""A model is registered once, whole, with all that it was made of; or not at all."""

from __future__ import annotations

import json
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed
from engine.pipeline.releasing import recording
from engine.pipeline.releasing.registry import CANDIDATE, IDENTITY, Registry
from engine.pipeline.stages import register
from engine.reproduce import manifest
from tests.pipeline.releasing.built import MODEL, Built, build, commit, registered


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def registry(built: Built) -> Registry:
    return Registry(str(built.work("register").settings["tracking"]))


@pytest.fixture(scope="module")
def first(built: Built, registry: Registry) -> dict[str, Any]:
    done = register.run(built.work("register", "first"))
    assert done.passed
    return dict(done.result)


def killed_at(where: str, built: Built, patch: Callable[[], None], name: str) -> None:
    """Register in a process of its own that is killed as soon as it comes to that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pid = os.fork()
    if pid == 0:
        try:
            patch()
            register.run(built.work("register", name))
        finally:
            os._exit(3)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, f"it was not killed at {where}"


def kill(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_version_has_its_files_its_tags_and_the_alias_of_one_that_waits(
        built: Built, registry: Registry, first: dict[str, Any]) -> None:
    assert (first["name"], first["version"], first["alias"]) == (MODEL, "1", CANDIDATE)
    assert first["already"] is False
    version = registry.client.get_model_version_by_alias(MODEL, CANDIDATE)
    tags = version.tags
    assert tags["opsdeck.run"] == "7" and tags["opsdeck.data"] == "d" * 64
    assert tags["opsdeck.payload"] == first["payload"] and len(tags["opsdeck.commit"]) == 40
    assert tags["opsdeck.manifest_sha256"] == first["manifest_sha256"]
    folder = registry.mlflow.artifacts.download_artifacts(
        f"models:/{MODEL}/1", tracking_uri=registry.tracking)
    assert (Path(folder) / "model.onnx").read_bytes() == (built.output("train") / "model.onnx").read_bytes()
    pinned = (Path(folder) / "requirements.txt").read_text().split()
    assert {"numpy==2.4.0", "onnxruntime==1.24.0"} <= set(pinned)


def test_the_manifest_in_the_registry_is_the_one_whose_digest_the_journal_holds(
        built: Built, registry: Registry, first: dict[str, Any]) -> None:
    path = registry.client.download_artifacts(first["mlflow_run"], "opsdeck/manifest-7.json")
    read = manifest.read(Path(path).read_bytes())
    assert read.sha256 == first["manifest_sha256"]
    assert read.known.lock is not None and read.known.lock.path == "requirements.lock"
    assert read.known.artifacts["model.onnx"].kind == "model" and "predictions.npy" in read.known.artifacts
    assert read.known.metrics["rmse"] == 4.2 and read.known.loss == 0.4 and read.known.seeds == {"seed": 0}
    assert read.known.data["data"].sha256 == "d" * 64 and read.known.environment.packages
    logged = registry.client.get_run(first["mlflow_run"]).data.metrics
    assert logged["eval.rmse"] == 4.2 and logged["eval.rmse.high"] == 4.6 and logged["gate.no worse"] == 1.0


def test_the_same_build_is_registered_once_and_said_to_be_there(
        built: Built, registry: Registry, first: dict[str, Any]) -> None:
    done = register.run(built.work("register", "again", run="8"))
    assert done.result["already"] and done.result["version"] == "1"
    assert "already, registered by run 7" in done.says
    assert done.result["version_manifest_sha256"] == first["manifest_sha256"]
    assert done.result["manifest_sha256"] != first["manifest_sha256"]
    assert [one["version"] for one in registered(registry.client)] == ["1"]


def test_a_commit_of_what_is_not_the_models_code_is_no_other_build(
        built: Built, registry: Registry, first: dict[str, Any]) -> None:
    (built.folder / "README.md").write_text("What this is.\n")
    commit(built.folder, "a readme")
    (built.folder / "cases.yaml").write_text("passed_at: now\n")
    done = register.run(built.work("register", "readme", run="8"))
    (built.folder / "cases.yaml").unlink()
    assert done.result["already"] and done.result["version"] == "1"


def test_a_change_of_its_code_is_another_build_and_the_patch_is_kept(
        built: Built, registry: Registry, first: dict[str, Any]) -> None:
    source = built.folder / "training.py"
    source.write_text(source.read_text() + "# faster\n")
    done = register.run(built.work("register", "dirty", run="9"))
    assert not done.result["already"] and done.result["version"] == "2"
    tags = registry.client.get_model_version(MODEL, "2").tags
    assert len(tags["opsdeck.dirty"]) == 64
    kept = json.loads((built.work("register", "dirty").output / "manifest.json").read_text())
    assert kept["code"]["changed"] == ["training.py"]
    written = done.result["written_by"]
    assert written["uncommitted"] == 1 and written["since"] is None and len(written["commit"]) == 40
    assert [(one["name"], one["email"]) for one in written["people"]] == [("t", "t@t")]
    names = [one.path for one in registry.client.list_artifacts(done.result["mlflow_run"], "opsdeck")]
    assert f"opsdeck/patch-{kept['code']['patch']}.diff" in names


MOMENTS: list[tuple[str, Callable[[], None]]] = [
    ("the model half logged", lambda: _patched("finalize_logged_model")),
    ("before the version", lambda: _patched("create_model_version")),
    ("before the alias", lambda: _patched("set_registered_model_alias"))]


def _patched(name: str) -> None:
    import mlflow

    setattr(mlflow.MlflowClient, name, kill)


@pytest.fixture()
def fresh(built: Built, first: dict[str, Any]) -> Iterator[Built]:
    source = built.folder / "training.py"
    source.write_text(source.read_text() + "# again\n")
    commit(built.folder, "again")
    yield built


@pytest.mark.parametrize(("where", "patch"), MOMENTS, ids=[where for where, _ in MOMENTS])
def test_killed_in_the_middle_nothing_is_half_registered_and_the_next_attempt_completes_it(
        where: str, patch: Callable[[], None], fresh: Built, registry: Registry) -> None:
    before = registered(registry.client)
    recorded = recording.record(fresh.work("register"), register.dt.datetime.now(register.dt.UTC))
    killed_at(where, fresh, patch, "killed")
    between = [one for one in registered(registry.client) if one not in before]
    assert all(one["tags"]["opsdeck.payload"] for one in between)
    assert all(one["tags"][IDENTITY] == recorded.identity for one in between)
    assert len(between) == (1 if where == "before the alias" else 0)
    done = register.run(fresh.work("register", "after"))
    after = [one for one in registered(registry.client) if one not in before]
    assert [one["version"] for one in after] == [done.result["version"]]
    assert registry.aliases(MODEL)[CANDIDATE] == done.result["version"]
    whole = [one for one in registry.client.search_logged_models(["1"])
             if one.tags.get(IDENTITY) == recorded.identity]
    assert [str(one.status) for one in whole] == ["READY"]


def test_a_registry_that_is_down_is_said_and_nothing_is_left(built: Built, registry: Registry) -> None:
    work = built.work("register", "down", settings={"tracking": "http://127.0.0.1:9", "artifacts": None})
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    with pytest.raises(ActionFailed) as told:
        register.run(work)
    assert "registry does not" in told.value.message and told.value.where == "http://127.0.0.1:9"
    assert "half-registered" in (told.value.hint or "")


def test_a_folder_without_onnx_is_registered_as_it_is(
        tmp_path: Path, built: Built, registry: Registry, first: dict[str, Any]) -> None:
    folder = built.output("train") / "model"
    folder.mkdir()
    (folder / "weights.json").write_text("[1, 2]")
    content = (built.output("train") / "model.onnx").read_bytes()
    (built.output("train") / "model.onnx").unlink()
    try:
        done = register.run(built.work("register", "folder", run="12"))
    finally:
        (built.output("train") / "model.onnx").write_bytes(content)
        (folder / "weights.json").unlink()
        folder.rmdir()
    got = registry.client.get_model_version_download_uri(MODEL, done.result["version"])
    assert (Path(got.removeprefix("file://")) / "weights.json").read_text() == "[1, 2]"
