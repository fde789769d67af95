"""SIGKILL of the engine at every boundary: nothing acknowledged is lost, no `once` step runs twice."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from engine.journal.sqlite import SqliteJournal
from tests.crash.driver import main

COMMITS = 9  # of an undisturbed run of the six steps with its two approvals
ONCE = ("first", "gate", "probed", "last")
BOUNDARIES = [f"append:{n}:{side}" for n in range(1, COMMITS + 1) for side in ("before", "after")] + [
    f"effect:{step}:{side}" for step in ("look", "first", "gate", "again", "probed", "last")
    for side in ("before", "during", "after")]
KILLED = -9


def engine(home: Path, boundary: str, how: str) -> subprocess.CompletedProcess[str]:
    """One life of an engine: a forked process, so that a life costs no imports."""
    home.mkdir(exist_ok=True)
    out, err = home / "out", home / "err"
    pid = os.fork()
    if pid == 0:
        try:
            for place, stream in ((out, 1), (err, 2)):
                os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            said = asyncio.run(main(home, boundary, how))
            os.write(1, said.encode())
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        os._exit(70)
    end = time.monotonic() + 60.0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return subprocess.CompletedProcess((boundary, how), os.waitstatus_to_exitcode(status),
                                               out.read_text(), err.read_text())
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError(f"it does not end: {boundary} {how}: {err.read_text()}")
        time.sleep(0.005)


def marks(home: Path) -> Counter[str]:
    path = home / "marks"
    return Counter(path.read_text().split()) if path.exists() else Counter()


def check(home: Path) -> None:
    """The two promises, against the outside logs."""
    counted = marks(home)
    assert all(counted[step] <= 1 for step in ONCE), f"a once step ran twice: {counted}"
    path = home / "acknowledged"
    acknowledged = {tuple(line.split()) for line in path.read_text().splitlines()} if path.exists() \
        else set()
    journal = SqliteJournal.open_readonly(home / "journal.db")
    try:
        recorded = {(e.run, str(e.n), e.hash) for run in {a[0] for a in acknowledged}
                    for e in journal.read(run)}
        assert acknowledged <= recorded, f"lost: {acknowledged - recorded}"
        assert journal.verify().breaks == []
    finally:
        journal.close()


def end(home: Path) -> str:
    """Restart without a kill; what the run came to."""
    final = engine(home, "none", "recover")
    assert final.returncode == 0, final.stderr
    return final.stdout.strip()


def verdict(home: Path, said: str) -> None:
    """The run went on to its end, or asks about one step; nothing is done without its effect."""
    if said == "":
        return  # it ended before it was killed, or its creation was never acknowledged
    assert said.startswith(("done", "waiting")), said
    if said.startswith("done"):
        assert all(marks(home)[step] == 1 for step in ONCE), marks(home)
    else:
        assert any(step in said for step in ("first", "gate", "last")), said


def test_an_undisturbed_run_makes_the_commits_that_the_boundaries_cover(tmp_path: Path) -> None:
    """A boundary after the last commit is never reached, so the ones below it are all there are."""
    done = engine(tmp_path, f"append:{COMMITS + 1}:before", "start")
    assert done.returncode == 0 and done.stdout.strip() == "done []", done.stderr
    check(tmp_path)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_killed_once(tmp_path: Path, boundary: str) -> None:
    killed = engine(tmp_path, boundary, "start")
    assert killed.returncode == KILLED, (killed.stdout, killed.stderr)
    verdict(tmp_path, end(tmp_path))
    check(tmp_path)


@pytest.mark.parametrize("seed", range(12))
def test_killed_again_during_recovery(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    first = engine(tmp_path, rng.choice(BOUNDARIES), "start")
    assert first.returncode == KILLED, first.stderr
    for _ in range(2):
        again = engine(tmp_path, rng.choice(BOUNDARIES[:8] + BOUNDARIES[-18:]), "recover")
        assert again.returncode in (0, KILLED), again.stderr
    verdict(tmp_path, end(tmp_path))
    check(tmp_path)
