"""Faults of the demo: what is injected is in the file at once, and clearing takes it away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.demo import faults
from engine.demo.layout import CHALLENGER, CHAMPION, Layout
from engine.errors import ActionFailed, UsageError


def written(home: Path, variant: str) -> Any:
    return json.loads(Layout(home).faults(variant).read_bytes())


def test_latency_and_errors_add_up_and_a_kind_takes_its_new_amount(tmp_path: Path) -> None:
    faults.inject(tmp_path, CHAMPION, "latency", 300)
    faults.inject(tmp_path, CHAMPION, "timeout", 10)
    faults.inject(tmp_path, CHAMPION, "model_error", 5)
    faults.inject(tmp_path, CHAMPION, "timeout", 2)
    assert written(tmp_path, CHAMPION) == {"latency_ms": 300.0, "latency_ratio": 1.0,
                                           "errors": {"timeout": 0.02, "model_error": 0.05}}
    assert faults.describe(faults.read(tmp_path, CHAMPION)) == (
        "300 ms slower, 2 % timeout, 5 % model_error")
    assert faults.describe(faults.read(tmp_path, CHALLENGER)) == "no faults"


def test_an_amount_of_zero_takes_one_fault_away(tmp_path: Path) -> None:
    faults.inject(tmp_path, CHAMPION, "latency", 300)
    faults.inject(tmp_path, CHAMPION, "unavailable", 50)
    faults.inject(tmp_path, CHAMPION, "latency", 0)
    assert faults.inject(tmp_path, CHAMPION, "unavailable", 0) == {
        "latency_ms": 0.0, "latency_ratio": 0.0, "errors": {}}


@pytest.mark.parametrize(("kind", "amount", "sentence"), [
    ("latency", -1, "not between 0 and"), ("latency", 1e9, "not between 0 and"),
    ("latency", float("nan"), "not between 0 and"),
    ("timeout", 101, "not a share"), ("timeout", float("nan"), "not a share"),
    ("smoke", 1, "smoke cannot be injected"), ("kill", 1, "killed by the command kill"),
])
def test_what_makes_no_sense_is_refused_and_changes_nothing(
        tmp_path: Path, kind: str, amount: float, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        faults.inject(tmp_path, CHAMPION, kind, amount)
    assert not Layout(tmp_path).faults(CHAMPION).exists()


def test_more_than_every_request_cannot_fail(tmp_path: Path) -> None:
    faults.inject(tmp_path, CHAMPION, "timeout", 60)
    with pytest.raises(UsageError, match="110% of the requests would fail"):
        faults.inject(tmp_path, CHAMPION, "model_error", 50)
    assert written(tmp_path, CHAMPION)["errors"] == {"timeout": 0.6}


def test_a_variant_is_one_of_two_and_never_a_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no variant"):
        faults.inject(tmp_path, "../../etc/passwd", "latency", 1)


def test_clearing_takes_the_faults_of_one_or_of_all_away_and_may_be_repeated(
        tmp_path: Path) -> None:
    for variant in (CHAMPION, CHALLENGER):
        faults.inject(tmp_path, variant, "latency", 100)
    faults.clear(tmp_path, CHAMPION)
    assert not Layout(tmp_path).faults(CHAMPION).exists()
    assert Layout(tmp_path).faults(CHALLENGER).exists()
    faults.clear(tmp_path)
    faults.clear(tmp_path)
    assert not Layout(tmp_path).faults(CHALLENGER).exists()


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = Layout(tmp_path).faults(CHAMPION)
    faults.inject(tmp_path, CHAMPION, "latency", 1)
    with path.open("rb") as held:
        faults.inject(tmp_path, CHAMPION, "latency", 12345)
        assert json.loads(held.read())["latency_ms"] == 1.0
    assert written(tmp_path, CHAMPION)["latency_ms"] == 12345.0
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_kill_ends_the_process_that_the_supervisor_recorded(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"],
                               stdin=subprocess.PIPE)
    try:
        asked = []

        def pid_of(name: str) -> int:
            asked.append(name)
            return process.pid

        assert faults.kill(tmp_path, CHAMPION, pid_of) == process.pid
        assert process.wait(10) == -signal.SIGKILL
        assert asked == ["flights/champion"]
    finally:
        process.kill()
        process.communicate()


def test_what_does_not_run_cannot_be_killed(tmp_path: Path) -> None:
    with pytest.raises(ActionFailed, match="does not run"):
        faults.kill(tmp_path, CHAMPION, faults.supervised(tmp_path))


def test_a_record_whose_pid_was_recycled_names_nobody(tmp_path: Path) -> None:
    from engine.supervision.record import boot_id

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "flights-champion.json").write_text(json.dumps({
        "name": "flights/champion", "pid": os.getpid(), "ticks": 1, "boot": boot_id(),
        "started": 0.0, "token": "x"}))
    assert faults.supervised(tmp_path)("flights/champion") is None


def test_the_command_of_the_runbook_says_what_it_did(
        tmp_path: Path, step: Callable[..., Any]) -> None:
    home = ["--home", str(tmp_path)]
    done = step("faults", "inject", *home, "--variant", "champion", "--kind", "timeout",
                "--amount", "7.5")
    assert (done.returncode, done.stdout) == (0, "champion: 7.5 % timeout\n")
    assert step("faults", "show", *home).stdout == (
        "champion: 7.5 % timeout\nchallenger: no faults\n")
    assert step("faults", "clear", *home).stdout == "both variants: no faults\n"
    assert step("faults", "killed", *home, "--variant", "champion").returncode == 0
    failed = step("faults", "kill", *home, "--variant", "champion")
    assert failed.returncode == 1 and "does not run" in failed.stderr
