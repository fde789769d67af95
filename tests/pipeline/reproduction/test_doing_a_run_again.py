"""`opsdeck reproduce RUN`: the same comes out, or it is said what differs or is missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import NotFound, UsageError
from engine.pipeline.building import places
from engine.pipeline.project import history
from engine.pipeline.reproduction import finding, rebuilding
from engine.pipeline.reproduction.finding import Found, find
from engine.pipeline.reproduction.rebuilding import NotAgain
from engine.reproduce import rebuild
from engine.reproduce.parts import Dataset, Derivation
from tests.pipeline.reproduction.ran import Ran, run_once
from tests.reproduce.manifests import changed

OPSDECK = Path(sys.executable).with_name("opsdeck")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run_once(tmp_path_factory.mktemp("ran"))


@pytest.fixture
def outside(ran: Ran) -> Iterator[None]:
    """What training looks at, and nothing records, has changed."""
    ran.outside.touch()
    yield
    ran.outside.unlink()


def reproduce(ran: Ran, *words: str) -> tuple[int, str, str]:
    done = subprocess.run([OPSDECK, "reproduce", *words, "--home", str(ran.home)], text=True,
                          capture_output=True, timeout=100, check=False, env=dict(os.environ))
    return done.returncode, done.stdout, done.stderr


def found(ran: Ran, **changes: Any) -> Found:
    manifest = ran.manifest
    for path, value in changes.items():
        manifest = changed(manifest, path.replace("__", "."), value)
    folder = ran.repository.folder / "models"
    return Found(manifest, folder, find("7", ran.home, {"weather": folder}).kept)


def unheard(step: str, line: str) -> None:
    pass


def missing(one: Found, root: Path) -> NotAgain:
    with pytest.raises(NotAgain) as raised:
        rebuilding.look(rebuild.plan(one.manifest, str(root / "code")), one, root)
    return raised.value


def test_a_run_with_uncommitted_changes_is_done_again_to_the_bit(ran: Ran, tmp_path: Path) -> None:
    """The project has been changed since, and its data is in no commit; the repository is left as it was."""
    file = ran.repository.folder / "models" / "opsdeck.pipeline.yaml"
    before = file.read_text()
    file.write_text(before.replace("rows: 200", "rows: 50"))
    try:
        code, out, err = reproduce(ran, "7", "--in", str(tmp_path / "again"))
    finally:
        file.write_text(before)
    assert code == 0, out + err
    assert "the 1 uncommitted changes are applied" in out and "are the same" in out
    for name in ("checksum model.onnx", "checksum predictions.npy", "loss loss", "metric rmse"):
        assert f"{name}: " in out
    assert "differs" not in out and "data/rows.csv is copied from" in out
    made = json.loads((tmp_path / "again" / "manifest.json").read_bytes())
    assert made["run"]["id"] == "7 again" and made["config"]["train"]["params"] == {"rows": 200}
    assert made["code"]["dirty"] == ran.manifest.known.code.dirty


def test_what_nothing_recorded_explains_is_told_as_such(ran: Ran, outside: None) -> None:
    code, out, _ = reproduce(ran, "7", "--json")
    told = json.loads(out)
    assert code == 1 and told["verdict"] == "different" and told["reproduced"] is False
    assert "nothing that was recorded explains it" in told["sentence"]
    steps = {one["step"] for one in told["steps"]}
    assert {"run", "code", "environment", "data", "train", "evaluate"} <= steps
    worktrees = ran.repository.git("worktree", "list", "--porcelain")
    assert "opsdeck-reproduce-" not in worktrees, "the worktree of a run that is not kept is given up"


def test_a_run_that_left_no_manifest_is_told(ran: Ran) -> None:
    code, _, err = reproduce(ran, "8")
    assert code == 2 and "Run 8 has left no manifest" in err and "--manifest" in err


def test_a_commit_that_is_gone_and_a_patch_that_was_not_kept_are_told_at_once(
        ran: Ran, tmp_path: Path) -> None:
    gone = found(ran, code__commit="f" * 40, code__patch="0" * 64)
    problem = missing(gone, tmp_path)
    assert problem.exit_code == 2 and problem.where == "commit, patch"
    assert "is not in this repository" in problem.message and "is not at hand" in problem.message
    assert not (tmp_path / "code").exists()


def test_nothing_is_rebuilt_over_what_is_there(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    assert "not empty" in missing(found(ran), tmp_path).message


def test_data_that_changed_since_is_not_taken_for_the_runs(ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(NotAgain, match=r"data/rows.csv has other content than at the run"):
        rebuilding.data(found(ran, data__data__sha256="1" * 64), tmp_path, unheard)
    elsewhere = Found(ran.manifest, tmp_path / "elsewhere", {})
    with pytest.raises(NotAgain, match="neither in the commit nor in"):
        rebuilding.data(elsewhere, tmp_path, unheard)


def test_sources_of_derived_data_are_those_of_the_run_or_named(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "make.py").write_text("print(1)")
    entry = Dataset("derived:weather", "derived", "2" * 64,
                    derived=Derivation("3" * 64, {"make.py": "4" * 64}, ["python", "make.py"]))
    with pytest.raises(NotAgain, match=r"make.py, which the data is made from, is not that of the run"):
        rebuilding._sources(entry, tmp_path, unheard)


def test_data_recorded_without_a_version_cannot_be_told_from_other_data(ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(NotAgain, match="without a version or digest"):
        rebuilding.data(found(ran, data__data__sha256=None), tmp_path, unheard)


def test_a_project_outside_git_is_copied_where_its_files_are_those_of_the_run(
        ran: Ran, tmp_path: Path) -> None:
    from engine.reproduce import git

    folder = tmp_path / "plain"
    shutil.copytree(ran.repository.folder / "models", folder)
    code = {"commit": None, "dirty": None, "changed": [], "folder": "", "remote": None, "patch": None,
            "sources": git.code(folder).sources}
    one = Found(changed(ran.manifest, "code", code), folder, {})
    rebuilding.look(rebuild.plan(one.manifest, str(tmp_path / "again" / "code")), one, tmp_path / "again")
    copied = rebuilding.checkout(one, tmp_path / "copied", unheard)
    assert git.code(copied).sources == code["sources"]
    (folder / "train.py").write_text("print(2)")
    assert "changed since" in missing(one, tmp_path / "again").message


def test_a_manifest_named_by_hand_needs_the_projects_folder(ran: Ran, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(ran.manifest.encode())
    with pytest.raises(NotFound, match="folder of the project weather is not known"):
        find(None, ran.home, {}, manifest=path)
    with pytest.raises(UsageError, match="is of run 7, not of 9"):
        find("9", ran.home, {}, manifest=path)
    with pytest.raises(UsageError, match="Neither a run nor a manifest"):
        find(None, ran.home, {})
    assert find(None, ran.home, {}, manifest=path, folder=tmp_path).manifest.sha256 == ran.manifest.sha256


def test_a_project_that_a_run_was_given_by_its_path_is_found_there(ran: Ran, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="folder of the project weather is not known") as caught:
        find("7", ran.home, {})
    assert "--project FOLDER" in str(caught.value.hint)
    root = places.of(ran.home, "weather").root
    try:
        for run, folder in (("7", tmp_path), ("8", tmp_path / "other")):
            history.keep(root, b"opsdeck: 1\n", "train", "", run=run, by="ann", at=1.0, folder=folder)
        assert find("7", ran.home, {}).folder == tmp_path.resolve()
        elsewhere = ran.repository.folder / "models"
        assert find("7", ran.home, {"weather": elsewhere}).folder == elsewhere.resolve()
    finally:
        shutil.rmtree(root / "definitions")


def test_the_patch_beside_the_manifest_is_found_by_its_digest(ran: Ran) -> None:
    assert ran.manifest.known.code.patch in found(ran).kept
    assert finding.PATCH in {path.name for path in found(ran).kept.values()}
