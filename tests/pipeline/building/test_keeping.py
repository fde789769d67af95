"""What pipelines have left goes when nothing refers to it any more, and never what is still needed."""

from __future__ import annotations

import contextlib
import fcntl
import multiprocessing
import os
import pwd
import sys
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed, UsageError
from engine.pipeline.building import cache, cleaning, keeping, places, publishing, removing
from engine.pipeline.building.cleaning import Cleaned, Cleaner
from engine.pipeline.building.keeping import Held, Policy, Version
from engine.pipeline.building.places import Places
from engine.pipeline.child import environments
from tests.pipeline.building.making import everything, kept

DAY = 86400.0
POLICY = Policy(runs=2, seconds=30 * DAY)
LOCK = "a" * 64


@pytest.fixture
def at(tmp_path: Path) -> Places:
    return places.make(tmp_path, "delays")


def left(at: Places, run: str, stage: str, *, version: str | None = None, lock: str = LOCK,
         **of: Any) -> Path:
    """What a run's stage came to; of the same `of` it is the same output."""
    made = kept(at, stage, {"stage": stage, "settings": of, "environment": {"lock": {"l": lock}}},
                {"out": "x" * 1000}, run=run)
    if version is not None:
        noted = at.steps.noted(run, stage)
        told = places.read_json(noted)
        assert told is not None
        places.write_json(noted, {**told, "result": {"name": "flights", "version": version}})
    return made.folder


def cleaned(at: Places, *, dry: bool = False, going: Collection[str] = (), held: Held | None = None,
            after: float = 60 * DAY, policy: Policy = POLICY, user: str | None = None) -> Cleaned:
    """After so many seconds."""
    def ask(tracking: str, versions: Collection[Version]) -> Held:
        if held is None:
            raise ActionFailed("it is down")
        return held

    return Cleaner(at.root.parent.parent, policy, lambda: going, ask, user).clean(
        "delays", dry=dry, clock=lambda: time.time() + after)


def names(done: Cleaned, kind: str) -> list[str]:
    return sorted(item.name for item in done.gone if item.kind == kind)


def test_the_last_runs_stay_with_all_they_refer_to_and_older_ones_go(at: Places) -> None:
    old, shared = left(at, "1", "train", lr=1), left(at, "1", "data")
    for run in ("2", "3"):
        assert left(at, run, "data") == shared
    newest = left(at, "3", "train", lr=3)
    done = cleaned(at)
    assert names(done, "run") == ["1"] and [one.path for one in done.gone if one.kind == "output"] == [old]
    assert done.bytes >= 1000 and done.problem is None
    assert not old.exists() and shared.exists() and newest.exists()
    assert at.result("1", "train") is None and at.result("2", "data") is not None
    assert {kept.why for kept in done.stays} == {"of the last 2 runs"}
    assert everything(at.steps.work) == []


def test_whatever_is_young_stays_and_an_hour_is_the_least(at: Places) -> None:
    for run in ("1", "2", "3"):
        left(at, run, "train", lr=run)
    assert cleaned(at, after=29 * DAY).gone == []
    assert cleaned(at, after=60.0, policy=Policy(1, 0.0)).gone == []
    assert names(cleaned(at, after=3700.0, policy=Policy(1, 0.0)), "run") == ["1", "2"]


def test_nothing_of_a_run_that_has_not_ended_goes(at: Places) -> None:
    waits = left(at, "1", "train", lr=1)
    (at.steps.failed / "1.evaluate.1").mkdir()
    for run in ("2", "3", "4"):
        left(at, run, "train", lr=run)
    done = cleaned(at, going={"1"})
    assert names(done, "run") == ["2"] and waits.exists() and names(done, "failure") == []
    assert "of run 1, which has not ended" in {kept.why for kept in done.stays}


@pytest.mark.parametrize("alias", ["champion", "previous", "candidate"])
def test_what_the_registry_uses_stays_and_what_it_does_not_goes(at: Places, alias: str) -> None:
    for run in ("1", "2", "3", "4"):
        left(at, run, "register", version=run, lr=run)
    done = cleaned(at, held={("flights", "1"): alias})
    assert names(done, "run") == ["2"]
    assert f"of flights version 1, the {alias}" in {kept.why for kept in done.stays}


def test_while_the_registry_does_not_answer_no_registered_run_goes(at: Places) -> None:
    left(at, "1", "train", lr=1)
    for run in ("2", "3", "4"):
        left(at, run, "register", version=run, lr=run)
    done = cleaned(at, held=None)
    assert names(done, "run") == ["1"] and done.problem is not None and "it is down" in done.problem


def test_a_dry_run_says_the_same_and_touches_nothing(at: Places) -> None:
    for run in ("1", "2", "3"):
        left(at, run, "train", lr=run)
    before = everything(at.root)
    told = cleaned(at, dry=True)
    assert set(everything(at.root)) - set(before) <= {cleaning.LOCK}
    done = cleaned(at)
    assert [one.path for one in told.gone] == [one.path for one in done.gone] and told.bytes == done.bytes
    assert all(kept.bytes for kept in told.stays)


def environment(at: Places, name: str, lock: str) -> Path:
    folder = at.environments / name
    folder.mkdir()
    places.write_json(folder / "opsdeck.json", {"lock": lock, "python": "3.11"})
    return folder


def test_an_environment_goes_with_the_last_output_of_its_lock_unless_a_process_has_it(at: Places) -> None:
    left(at, "1", "train", lr=1, lock="b" * 64)
    for run in ("2", "3"):
        left(at, run, "train", lr=run)
    mine, old, used = (environment(at, name, lock) for name, lock in (
        ("mine", LOCK), ("old", "b" * 64), ("used", "c" * 64)))
    environments._use(used.with_name("used.used"))
    try:
        done = cleaned(at)
        assert names(done, "environment") == ["old"] and [one.name for one in done.used] == ["used"]
        assert mine.exists() and used.exists() and not old.exists()
    finally:
        os.close(environments._IN_USE.pop(used.with_name("used.used")))
    assert names(cleaned(at), "environment") == ["used"]


def test_who_takes_a_stage_keeps_it_from_whoever_cleans(at: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look in the cache, with the note that follows, is one piece to the cleaner."""
    for run in ("1", "2", "3"):
        left(at, run, "train", lr=run)
    key = next(iter(at.steps.stage("train").iterdir())).name
    context = multiprocessing.get_context("fork")
    taken, cleans, ended = context.Event(), context.Event(), context.SimpleQueue()

    def clean() -> None:
        taken.wait(20)
        flock = fcntl.flock

        def waits(handle: int, how: int) -> None:
            cleans.set()
            flock(handle, how)

        monkeypatch.setattr(fcntl, "flock", waits)
        ended.put([one.path.name for one in cleaned(at, going={"9"}).gone])

    process = context.Process(target=clean)
    process.start()
    with cleaning.taking(at):
        found = cache.look_up(at.steps, "train", key)
        assert found is not None
        taken.set()
        assert cleans.wait(20)
        publishing.note(at.own, "9", "train", key, found.folder, found.record, cached=True)
    process.join(20)
    gone = ended.get()
    assert key not in gone and cache.look_up(at.steps, "train", key) is not None
    monkeypatch.setattr(cleaning, "WAIT", 0.0)
    with cleaning.taking(at), pytest.raises(Exception, match="looks for what it can take"):
        cleaned(at)


def test_one_that_dies_in_the_middle_leaves_everything_whole_or_gone(at: Places) -> None:
    for run in ("1", "2", "3", "4"):
        left(at, run, "train", lr=run)

    def dies() -> None:
        move = removing._moved

        def moved(path: Path, to: Path) -> bool:
            if path.name == "1":  # a run's notes, after another's
                os._exit(9)
            return move(path, to)

        removing._moved = moved
        cleaned(at)

    process = multiprocessing.get_context("fork").Process(target=dies)
    process.start()
    process.join(20)
    assert process.exitcode == 9 and everything(at.steps.work) != []
    for folder in at.steps.stage("train").iterdir():
        assert publishing.intact(folder, folder.name) is not None
    assert at.result("2", "train") is None and at.result("1", "train") is not None
    assert names(cleaned(at), "run") == ["1"]
    assert len(list(at.steps.stage("train").iterdir())) == 2 and everything(at.steps.work) == []


def test_only_what_pipelines_leave_can_be_named(at: Places) -> None:
    for path in ("definitions/log.jsonl", "runs/../../x", "stages/train", "/etc/passwd", "runs/."):
        with pytest.raises(UsageError), removing.away(at.steps, [path]):
            pass


class Forked:
    """The process that removes, of another user; forked, since that user may not read where modules are."""

    def __init__(self, user: str, root: Path) -> None:
        owner = pwd.getpwnam(user)
        theirs, mine = os.pipe()
        said, says = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            with contextlib.suppress(BaseException):
                os.close(mine)
                sys.stdin, sys.stdout = os.fdopen(theirs), os.fdopen(says, "w")
                os.setgroups([])
                os.setgid(owner.pw_gid)
                os.setuid(owner.pw_uid)
                os._exit(removing.main(str(root)))
            os._exit(70)
        for one in (theirs, says):
            os.close(one)
        self.stdin, self.stdout = os.fdopen(mine, "w"), os.fdopen(said)

    def wait(self, timeout: float) -> None:
        assert os.waitpid(self.pid, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have things made as another user")
def test_what_the_steps_user_owns_is_removed_by_that_user(monkeypatch: pytest.MonkeyPatch) -> None:
    user = "nobody"
    owner = pwd.getpwnam(user)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as made:
        home = Path(made)
        home.chmod(0o711)
        at = places.make(home, "delays", user)
        for run in ("1", "2", "3"):
            left(at, run, "train", lr=run)
        theirs = [one for one in at.root.rglob("*") if not one.is_relative_to(at.own.root)]
        for path in sorted(theirs):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        outside = home / "outside"
        outside.mkdir()
        (at.steps.stage("train") / ("f" * 64)).symlink_to(outside)
        monkeypatch.setattr(cleaning, "_remover", Forked)
        done = cleaned(at, user=user)
        assert names(done, "run") == ["1"] and len(names(done, "output")) == 1 and done.bytes >= 1000
        assert outside.exists() and everything(at.steps.work) == [] and at.result("2", "train") is not None


def test_a_quick_look_tells_whether_anything_could_go(at: Places) -> None:
    home, now = at.root.parent.parent, time.time()
    for run in ("1", "2"):
        left(at, run, "train", lr=run)
    assert not cleaning.due(home, POLICY, now + 60 * DAY)
    left(at, "3", "train", lr=3)
    assert cleaning.due(home, POLICY, now + 60 * DAY) and not cleaning.due(home, POLICY, now + DAY)
    assert keeping.look(at).runs["3"].refers and cleaning.projects(home) == ["delays"]
