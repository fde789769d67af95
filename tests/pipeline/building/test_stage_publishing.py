"""What a stage made is in place whole or not at all, whoever else makes it and whenever it is killed."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import durable
from engine.errors import ActionFailed, UsageError
from engine.pipeline.building import cache, places, publishing
from engine.pipeline.building.memo import Memo
from engine.pipeline.building.places import Places
from tests.pipeline.building.making import everything, kept

FIELDS = {"stage": "train", "settings": {"lr": 0.1}}


@pytest.fixture
def at(tmp_path: Path) -> Places:
    return places.make(tmp_path, "delays")


def test_the_folders_are_the_users_alone(at: Places) -> None:
    made = [at.root.parent, at.root, *(at.root / name for name in (
        "stages", "runs", "failed", "work", "environments"))]
    assert [stat.S_IMODE(one.stat().st_mode) for one in made] == [0o700] * 7


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "a" * 200, "a\nb"])
def test_a_name_that_would_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        places.of(tmp_path, name)


def test_what_passed_is_found_by_its_key_until_a_file_of_it_is_gone_or_other(at: Places) -> None:
    one = kept(at, "train", FIELDS, {"model.onnx": "weights", "metrics.json": "{}"})
    assert cache.look_up(at.steps, "train", one.key) == one
    assert cache.look_up(at.steps, "train", "0" * 64) is None
    (one.output / "model.onnx").write_text("WEIGHTS")
    assert cache.look_up(at.steps, "train", one.key) is not None
    assert cache.look_up(at.steps, "train", one.key, Memo(at.memo)) is None
    assert cache.altered(one, Memo(at.memo)) == "model.onnx"
    (one.output / "model.onnx").write_text("cut")
    assert cache.look_up(at.steps, "train", one.key) is None


def test_a_damaged_one_is_replaced_by_the_next_that_is_made(at: Places) -> None:
    one = kept(at, "train", FIELDS, {"model.onnx": "weights"})
    (one.output / "model.onnx").unlink()
    assert cache.look_up(at.steps, "train", one.key) is None
    again = kept(at, "train", FIELDS, {"model.onnx": "weights"}, run="2")
    assert (again.output / "model.onnx").exists()
    assert publishing.sweep(at.steps) and everything(at.steps.work) == []


def test_a_link_in_an_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("/etc/hostname")
    with pytest.raises(ActionFailed, match=r"model\.onnx, which is neither"):
        publishing.outputs(tmp_path)


def make(root: Path, run: str, begin: object) -> None:
    begin.wait()  # type: ignore[attr-defined]
    kept(places.of(root, "delays"), "train", FIELDS, {"model.onnx": "weights", "run": "same"}, run=run)


def test_of_those_that_make_the_same_at_once_one_stays_and_none_fails(at: Places, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(6)
    makers = [context.Process(target=make, args=(tmp_path, str(n), begin)) for n in range(6)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join(20)
    assert [maker.exitcode for maker in makers] == [0] * 6
    assert len(list(at.steps.stage("train").iterdir())) == 1
    assert everything(at.steps.work) == []
    assert cache.look_up(at.steps, "train", cache.key(FIELDS), Memo(at.memo)) is not None


CALLS = ("mkdir", "write", "outputs", "record", "sync", "rename", "after")


@pytest.mark.parametrize("boundary", CALLS)
def test_a_process_killed_anywhere_in_publishing_leaves_nothing_half_in_place(
        at: Places, tmp_path: Path, boundary: str) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def dying(name: str, real: Callable[..., object], after: bool = False) -> Callable[..., object]:
        def call(*args: object, **named: object) -> object:
            if not after:
                die()
            found = real(*args, **named)
            die()
            return found
        return call if boundary == name else real

    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            publishing.outputs = dying("outputs", publishing.outputs)  # type: ignore[assignment]
            publishing._sync = dying("sync", publishing._sync, after=True)  # type: ignore[assignment]
            places.write_json = dying("record", places.write_json)  # type: ignore[assignment]
            Path.rename = dying("rename", Path.rename)  # type: ignore[assignment, method-assign]
            Path.write_text = dying("write", Path.write_text)  # type: ignore[assignment, method-assign]
            Path.mkdir = dying("mkdir", Path.mkdir, after=True)  # type: ignore[assignment, method-assign]
            durable.sync_folder = dying("after", durable.sync_folder)  # type: ignore[assignment]
            kept(at, "train", FIELDS, {"model.onnx": "weights"})
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    for folder in at.steps.stage("train").iterdir() if at.steps.stage("train").exists() else ():
        assert cache.kept_at(folder, folder.name, Memo(at.memo)) is not None
    one = kept(at, "train", FIELDS, {"model.onnx": "weights"}, run="2")
    assert cache.altered(one, Memo(at.memo)) is None
    assert everything(at.steps.work) == []


def test_the_work_of_a_process_that_lives_is_left_alone(at: Places) -> None:
    code = ("import sys, pathlib\nfrom engine.pipeline.building import places, publishing\n"
            "at = places.of(pathlib.Path(sys.argv[1]), 'delays')\n"
            "with publishing.working(at.steps, '1.train.1') as work:\n"
            "    (work / 'output' / 'half').write_text('x'); print('on', flush=True); sys.stdin.read()\n")
    child = subprocess.Popen([sys.executable, "-c", code, str(at.root.parent.parent)], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == "on\n"
    assert publishing.sweep(at.steps) == [] and (at.steps.work / "1.train.1" / "output" / "half").exists()
    child.kill()
    child.wait()
    child.stdout.close()
    assert publishing.sweep(at.steps) == ["1.train.1"] and everything(at.steps.work) == []


def test_only_the_newest_failures_are_kept(at: Places) -> None:
    for n in range(publishing.KEPT_FAILURES + 3):
        folder = at.steps.failed / f"{n}.train.1"
        folder.mkdir()
        os.utime(folder, (n, n))
    publishing.sweep(at.steps)
    assert sorted(int(p.name.partition(".")[0]) for p in at.steps.failed.iterdir())[0] == 3


def test_a_note_that_cannot_be_read_says_where_it_is(at: Places) -> None:
    noted = at.steps.noted("7", "train")
    noted.parent.mkdir()
    assert at.result("7", "train") is None
    for text in ("{", "[]", '"x"'):
        noted.write_text(text)
        with pytest.raises(ActionFailed) as told:
            at.result("7", "train")
        assert told.value.where == str(noted) and told.value.hint
    noted.unlink()
    noted.symlink_to("/etc/hostname")
    with pytest.raises(ActionFailed):
        at.result("7", "train")


def test_a_note_is_whole_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    places.write_json(path, {"n": 0})
    pid = os.fork()
    if pid == 0:
        for n in range(40):
            places.write_json(path, {"n": n, "pad": "x" * 5000})
        os._exit(0)
    seen = 0
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        found = places.read_json(path)
        assert found is not None and found["n"] >= seen
        seen = found["n"]
        time.sleep(0)
    assert json.loads(path.read_text())["n"] == 39 and list(tmp_path.iterdir()) == [path]


def test_a_system_engines_own_notes_are_where_the_steps_user_cannot_write(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a second user wants root")
    found = places.make(tmp_path, "delays", "nobody")
    assert found.apart and places.of(tmp_path, "delays") == found
    assert found.own.root != found.steps.root
    work = (found.root / "work").stat()
    assert work.st_uid != 0 and stat.S_IMODE(work.st_mode) == 0o755
    root = found.root.stat()
    assert (root.st_gid, stat.S_IMODE(root.st_mode)) == (pwd.getpwnam("nobody").pw_gid, 0o710)
    for path in (found.root, found.own.root, found.own.root / "runs"):
        assert path.stat().st_uid == 0 and not path.stat().st_mode & 0o022
