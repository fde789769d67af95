"""The definitions that runs have used: kept once, put back whole, and nothing unseen is lost by it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from engine import home as homes
from engine.actions.pipeline import _keep_definition
from engine.api import wire
from engine.api.backend import Caller
from engine.app import open_engine
from engine.cli.projects import meant
from engine.config_file import of_engine
from engine.errors import ActionFailed, Conflict, DocumentError, NotFound, NotPermitted, UsageError
from engine.pipeline.building import places
from engine.pipeline.project import history
from tests.pipeline.project.written import project


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project(tmp_path / "project")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "home" / "pipelines" / "delays"


def use(root: Path, folder: Path, run: str, text: str = "steps: one") -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    history.keep(root, (folder / "opsdeck.pipeline.yaml").read_bytes(), "train-and-release", text, run=run,
                 by="ann", at=float(run))


def change(folder: Path, more: str) -> None:
    path = folder / "opsdeck.pipeline.yaml"
    path.write_text(path.read_text() + more)


def back(root: Path, folder: Path, number: int, *, force: bool = False) -> None:
    history.restore(root, history.plan(root, folder, number, force=force), by="ben", reason="why", at=9.0)


def test_a_run_keeps_what_it_uses_once_however_many_stages_ask(root: Path, folder: Path) -> None:
    for _ in range(3):
        use(root, folder, "1")
    use(root, folder, "2")
    (one,) = history.definitions(root)
    assert [line.run for line in one.runs] == ["1", "2"]
    assert history.content(root, one.file) == (folder / "opsdeck.pipeline.yaml").read_bytes()


def test_what_a_system_engines_run_uses_is_found_where_the_api_looks(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "home" / "pipelines" / "delays" / "engine").mkdir(parents=True)
    at = places.of(tmp_path / "home", "delays")
    assert at.apart and at.own.root != at.root
    run = SimpleNamespace(id="4", document=SimpleNamespace(id="train-and-release"), text="steps: one",
                          initiator=SimpleNamespace(user="ann"))
    context: Any = SimpleNamespace(run="4", clock=lambda: 4.0,
                                   extra={"live": {"4": SimpleNamespace(progress=run)}})
    _keep_definition(context, at, folder)
    (one,) = history.definitions(at.root)
    assert [(line.run, line.by) for line in one.runs] == [("4", "ann")]


def test_another_procedure_is_another_version(root: Path, folder: Path) -> None:
    use(root, folder, "1")
    use(root, folder, "2", "steps: two")
    assert [one.number for one in history.definitions(root)] == [1, 2]


def test_an_earlier_file_comes_back_as_it_was_and_that_is_a_line(root: Path, folder: Path) -> None:
    path = folder / "opsdeck.pipeline.yaml"
    path.chmod(0o640)
    use(root, folder, "1")
    first = path.read_bytes()
    change(folder, "title: Another\n")
    use(root, folder, "2")
    back(root, folder, 1)
    assert path.read_bytes() == first and path.stat().st_mode & 0o777 == 0o640
    last = history.one(root, 1).lines[-1]
    assert (last.how, last.by, last.reason) == ("rollback", "ben", "why")


def test_a_change_that_no_run_has_used_is_not_lost(root: Path, folder: Path) -> None:
    use(root, folder, "1")
    change(folder, "title: Never used\n")
    unseen = (folder / "opsdeck.pipeline.yaml").read_bytes()
    with pytest.raises(Conflict, match="changes that no run has used"):
        history.plan(root, folder, 1)
    assert (folder / "opsdeck.pipeline.yaml").read_bytes() == unseen
    back(root, folder, 1, force=True)
    assert history.content(root, history.one(root, 2).file) == unseen
    back(root, folder, 2)
    assert (folder / "opsdeck.pipeline.yaml").read_bytes() == unseen


def test_a_file_that_changes_after_it_was_looked_at_is_left_alone(root: Path, folder: Path) -> None:
    use(root, folder, "1")
    change(folder, "title: Another\n")
    use(root, folder, "2")
    planned = history.plan(root, folder, 1)
    change(folder, "owner: somebody\n")
    with pytest.raises(Conflict, match="changed meanwhile"):
        history.restore(root, planned, by="ben", reason="why", at=9.0)


def test_a_version_that_there_is_not_is_said_with_those_there_are(root: Path, folder: Path) -> None:
    with pytest.raises(NotFound) as none:
        history.plan(root, folder, 1)
    assert none.value.hint == "no run has used one yet"
    use(root, folder, "1")
    with pytest.raises(NotFound) as beyond:
        history.plan(root, folder, 2)
    assert beyond.value.hint == "there is only version 1"


def test_a_version_that_is_no_project_file_any_more_is_not_put_back(root: Path, folder: Path) -> None:
    root.parent.mkdir(parents=True)
    history.keep(root, b"opsdeck: 7\n", "p", "", run="1", by="ann", at=1.0)
    with pytest.raises(DocumentError):
        history.plan(root, folder, 1, force=True)


def test_what_was_kept_and_altered_is_found_out(root: Path, folder: Path) -> None:
    use(root, folder, "1")
    change(folder, "title: Another\n")
    use(root, folder, "2")
    (root / "definitions" / "objects" / history.one(root, 1).file).write_bytes(b"something else")
    with pytest.raises(ActionFailed, match="not what it was"):
        history.plan(root, folder, 1)


def test_a_line_that_was_cut_off_is_not_read_and_the_next_is_whole(root: Path, folder: Path) -> None:
    use(root, folder, "1")
    log = root / "definitions" / "log.jsonl"
    with log.open("ab") as file:
        file.write(b'{"file": "cut')
    assert len(history.definitions(root)) == 1
    use(root, folder, "2")
    assert [json.loads(line)["run"] for line in log.read_text().splitlines()] == ["1", "2"]


def test_killed_in_the_middle_the_file_is_the_old_or_the_new_one(root: Path, folder: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "opsdeck.pipeline.yaml"
    use(root, folder, "1")
    first = path.read_bytes()
    change(folder, "title: Another\n")
    use(root, folder, "2")
    second = path.read_bytes()
    for call in ("fsync", "open"):
        child = os.fork()
        if child == 0:
            monkeypatch.setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
            back(root, folder, 1)
            os._exit(0)
        os.waitpid(child, 0)
        assert path.read_bytes() in (first, second)
    back(root, folder, 1)
    assert path.read_bytes() == first


async def test_the_engine_puts_one_back_for_a_reason_and_the_journal_says_who(tmp_path: Path) -> None:
    home = homes.at(tmp_path / "home")
    homes.prepare(home)
    folder = project(tmp_path / "project")
    home.config.write_text(f"pipelines: {{projects: {{delays: {folder}}}}}\n")
    use(home.path / "pipelines" / "delays", folder, "1")
    change(folder, "title: Never used\n")
    caller = Caller("ben", 1000, 1, frozenset({"operator"}), "tests")
    wanted = wire.RestoreDefinition("delays", "the gates\x1b[31m refuse all", force=True)
    async with open_engine(home, of_engine(home)) as app:
        assert (await app.backend.definitions("delays")).unused
        with pytest.raises(UsageError, match="for a reason"):
            await app.backend.restore(caller, 1, wire.RestoreDefinition("delays", " "))
        with pytest.raises(NotPermitted):
            await app.backend.restore(msgspec.structs.replace(caller, roles=frozenset({"viewer"})), 1, wanted)
        done = await app.backend.restore(caller, 1, wanted)
        assert (done.changed, done.saved, done.problems) == (True, 2, [])
        told = await app.backend.definitions("delays")
        assert [(one.number, one.present) for one in told.definitions] == [(2, False), (1, True)]
        again = await app.backend.restore(caller, 1, wanted)
        assert not again.changed and "in place already" in again.text
        event = next(e for e in await app.backend.events(20, None) if e.kind == "definition.restored")
        assert event.by == "ben" and "version 1" in event.text and "\x1b" not in event.text
        with pytest.raises(NotFound, match="no project nothing"):
            await app.backend.definitions("nothing")


def test_a_folder_is_named_by_its_whole_path_and_a_name_stays_one(monkeypatch: pytest.MonkeyPatch,
                                                                  folder: Path) -> None:
    monkeypatch.chdir(folder)
    assert meant(".") == str(folder) and meant("../project/") == str(folder / ".." / "project")
    assert meant("project") == "project"
