"""SIGKILL of the engine at every boundary: nothing acknowledged is lost, no `once` step runs twice."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from engine.journal.sqlite import SqliteJournal

COMMITS = 9  # of an undisturbed run of the six steps with its two approvals
ONCE = ("first", "gate", "probed", "last")
BOUNDARIES = [f"append:{n}:{side}" for n in range(1, COMMITS + 1) for side in ("before", "after")] + [
    f"effect:{step}:{side}" for step in ("look", "first", "gate", "again", "probed", "last")
    for side in ("before", "during", "after")]
KILLED = -9


def engine(home: Path, boundary: str, how: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tests.crash.driver", str(home), boundary, how],
                          capture_output=True, text=True, timeout=60,
                          cwd=Path(__file__).parents[2])


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
