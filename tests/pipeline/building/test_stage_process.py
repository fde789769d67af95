"""The process of a stage by itself: what it is started with, what it sees, and which user it is."""

from __future__ import annotations

import contextlib
import datetime  # noqa: F401  (the other user cannot read where modules are)
import errno
import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import home as homes
from engine.actions.pipeline import Staged, _given, folder_of, settings
from engine.config import Config
from engine.errors import NotFound, NotPermitted, UsageError
from engine.pipeline.building import handing, places, plan
from engine.pipeline.project.model import Project
from engine.pipeline.project.reading import read
from engine.pipeline.stages.main import _of_the_disk, main
from engine.pipeline.stages.table import STAGES
from engine.procedures.actions import Context
from tests.pipeline.building.trivial import FIVE, PROCESS, run_of
from tests.pipeline.project.written import project


def arguments(stage: str, folder: Path, home: Path, *more: str) -> list[str]:
    return [stage, "--project", "delays", "--folder", str(folder), "--home", str(home), "--run", "1",
            "--step", stage, "--attempt", "1", *more]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project(tmp_path / "delays")


def alone(stage: str, folder: Path, home: Path) -> dict[str, Any]:
    done = subprocess.run([*PROCESS, *arguments(stage, folder, home)], capture_output=True, text=True,
                          timeout=60, check=False)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (1 if "error" in told else 0)
    return told


def test_by_hand_it_looks_in_the_cache_itself(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "engine"
    assert alone("two", folder, home / "none")["error"].endswith("No such file or directory")
    home.mkdir()
    assert "two needs what one gives; in this run one has not passed" in alone("two", folder, home)["error"]
    assert alone("one", folder, home)["result"]["cached"] is False
    assert alone("one", folder, home)["result"]["cached"] is True
    assert alone("two", folder, home)["result"]["n"] == 1
    assert "there is no stage six" in alone("six", folder, home)["error"]


def test_a_project_file_that_is_wrong_is_told_with_its_lines(folder: Path, tmp_path: Path) -> None:
    (folder / "opsdeck.pipeline.yaml").write_text("opsdeck: 1\nproject: delays\ntaks: binary\n")
    told = alone("one", folder, tmp_path)
    assert "opsdeck.pipeline.yaml:3:7: unknown key `taks`" in told["error"]


def test_a_disk_that_is_full_is_a_sentence_with_what_is_free_however_it_is_wrapped(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "train.parquet"))
    try:
        raise RuntimeError("a library's own words") from full
    except RuntimeError as error:
        told = _of_the_disk(error, str(tmp_path))
    assert told is not None and told.endswith(" MB are free)")
    assert told.startswith(f"{tmp_path}/train.parquet: it cannot be written: no space left")
    assert _of_the_disk(OSError(errno.ENOENT, "none", "x"), str(tmp_path)) is None


def test_starting_it_loads_nothing_heavy() -> None:
    code = ("import sys, engine.pipeline.stages.main; print(sorted({'pydantic', 'msgspec', 'yaml', 'numpy', "
            "'mlflow', 'asyncio', 'engine.pipeline.project.model'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Path]]:
    """A home and a project that another user can read, as a system engine has them."""
    if os.geteuid() != 0:
        pytest.skip("a second user wants root")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        at = Path(made)
        at.chmod(0o755)
        home = at / "home"
        home.mkdir(mode=0o711)
        home.chmod(0o711)
        yield home, project(at / "delays")


def as_user(name: str | None, argv: list[str], result: Path) -> dict[str, Any]:
    """The process of a stage as another user; forked, since that user may not read where modules are."""
    owner = pwd.getpwnam(name) if name else None
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.environ["OPSDECK_RESULT"] = str(result)
            if owner is not None:
                os.setgroups([])
                os.setgid(owner.pw_gid)
                os.setuid(owner.pw_uid)
            os._exit(main(argv, FIVE, run_of))
        os._exit(70)
    os.waitpid(pid, 0)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def test_in_a_system_engine_both_users_stages_read_each_other_and_only_their_own_is_theirs_to_write(
        system: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home, folder = system
    user = pwd.getpwnam("nobody")
    out = home / "out"
    out.mkdir()
    os.chown(out, user.pw_uid, user.pw_gid)
    monkeypatch.setitem(FIVE, "two", STAGES["register"].__class__(
        "two", "The second", needs=("one",), cached=False, user="engine"))
    at = places.make(home, "delays", "nobody")

    def begin(stage: str) -> list[str]:
        prepared = plan.prepare(FIVE[stage], read(folder), folder, at, "1", 1, stages=FIVE)
        path = handing.hand(at, read(folder), prepared, "1", 1, {})
        return arguments(stage, folder, home, "--planned", str(path))

    assert as_user("nobody", begin("one"), out / "one")["result"]["says"] == "one is fine"
    assert as_user(None, begin("two"), out / "two")["result"]["says"] == "two is fine"
    assert as_user("nobody", begin("three"), out / "three")["result"]["says"] == "three is fine"
    one, two = at.result("1", "one"), at.result("1", "two")
    assert one is not None and two is not None
    assert Path(one["output"]).stat().st_uid == user.pw_uid and Path(two["output"]).stat().st_uid == 0
    assert Path(two["output"]).is_relative_to(at.own.root)
    hit = plan.prepare(FIVE["one"], read(folder), folder, at, "2", 1, stages=FIVE)
    assert hit.found is not None and handing.hit(at, at.own, "2", hit)["cached"]
    assert at.own.noted("2", "one").stat().st_uid == 0


def context(mode: Any, home: Path, folder: Path, **more: Any) -> Context:
    nothing: Any = None
    config = Config.model_validate({"pipelines": {"projects": {"delays": str(folder)}}, **more})
    return Context("1", "a", 1, nothing, nothing, nothing, {}, lambda text: None, nothing, nothing,
                   {"config": config, "home": homes.at(home, mode)})


def test_a_system_engine_builds_only_what_its_config_names_or_it_laid_out_itself(tmp_path: Path) -> None:
    folder = tmp_path / "delays"
    single, system = (context(mode, tmp_path, folder) for mode in ("single-user", "system"))
    for one in (single, system):
        assert folder_of(one, Staged(project="delays")) == folder
        with pytest.raises(NotFound, match="there is no project other"):
            folder_of(one, Staged(project="other"))
    assert folder_of(single, Staged(project="/elsewhere/x")) == Path("/elsewhere/x")
    laid_out = tmp_path / "pipelines" / "delays" / "commits" / "abc"
    assert folder_of(system, Staged(project="delays", folder=str(laid_out))) == laid_out
    for given in (Staged(project="/elsewhere/x"), Staged(project="delays", folder="/elsewhere"),
                  Staged(project="delays", folder=str(tmp_path / "pipelines" / "delays" / "work" / "x")),
                  Staged(project="delays", folder=str(tmp_path / "pipelines" / ".." / ".." / "x"))):
        with pytest.raises(NotPermitted):
            folder_of(system, given)


def changed(project: Project, **more: Any) -> Project:
    return Project.model_validate(project.model_dump(by_alias=True) | more)


def test_a_stage_is_given_the_variables_it_cannot_do_without_and_no_other(
        folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_REGION", "MLFLOW_TRACKING_TOKEN", "UV_CACHE_DIR", "STORE",
                 "OTHER"):
        monkeypatch.setenv(name, "value")
    config, home, known = Config(), homes.at(tmp_path), read(folder)
    env, secrets = _given(STAGES["tests"], known, config, home)
    assert env.get("UV_CACHE_DIR") == "value" and not {"STORE", "OTHER", "AWS_REGION"} & env.keys()
    assert "MLFLOW_TRACKING_TOKEN" not in env.keys() | secrets.keys()
    remote = Config.model_validate({"pipelines": {"tracking": "https://mlflow.example", "artifacts": "s3://b/a"}})
    env, secrets = _given(STAGES["register"], known, remote, home)
    assert env["AWS_REGION"] == "value" and secrets == {
        name: f"env:{name}" for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN")}
    assert settings(known, remote, home) == {"tracking": "https://mlflow.example", "artifacts": "s3://b/a"}
    train = changed(known, train={**known.train.model_dump(), "credentials": {"STORE_PASSWORD": "env:STORE"}})
    assert _given(STAGES["train"], train, config, home)[1]["STORE"] == "env:STORE"
    with pytest.raises(NotPermitted, match="STORE"):
        _given(STAGES["train"], train, remote, homes.at(tmp_path, "system"))


@pytest.mark.parametrize(("pipelines", "says"), [
    ({}, "none is named"),
    ({"tracking": "sqlite:////srv/mlflow.db"}, "not in sqlite:…"),
    ({"tracking": "http://engine:secret@127.0.0.1:5000"}, "holds a name or a password"),
    ({"tracking": "http://127.0.0.1:5000", "artifacts": "/srv/artifacts"}, "written by whoever trains")])
def test_a_system_engine_begins_nothing_without_a_server_that_keeps_the_registry(
        folder: Path, tmp_path: Path, pipelines: dict[str, str], says: str) -> None:
    config = Config.model_validate({"pipelines": pipelines})
    with pytest.raises(UsageError, match=says) as told:
        settings(read(folder), config, homes.at(tmp_path, "system"))
    assert told.value.hint and "secret" not in str(told.value)
    assert settings(read(folder), config, homes.at(tmp_path))


def test_a_project_cannot_have_the_registrys_password_sent_to_a_server_of_its_own(
        folder: Path, tmp_path: Path) -> None:
    config = Config.model_validate({"pipelines": {"tracking": "http://127.0.0.1:5000"}})
    system, own = homes.at(tmp_path, "system"), changed(read(folder), tracking="http://elsewhere:5000")
    with pytest.raises(NotPermitted, match="a registry of its own, http://elsewhere:5000"):
        settings(own, config, system)
    assert settings(changed(own, tracking="http://127.0.0.1:5000"), config, system)["artifacts"] is None
