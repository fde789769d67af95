"""`opsdeck rollout watch` over a pipe: lines as they happen, through a restart, to the run's result."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import msgspec
import pytest

from engine.api import wire
from engine.api.light import Client, connect
from engine.cli import rollout_watch
from engine.errors import EngineUnreachable, JournalUnavailable, OpsdeckError
from tests.cli.rolling import Engine
from tests.daemon.rollouts import STARTED, rollout, steps

Watch = Callable[..., subprocess.Popen[str]]
GATE = wire.Gate("approval", "cafe", "Is it well?", approvals_needed=1, roles=["approver"])


@pytest.fixture
def watch(rolling: Engine) -> Iterator[Watch]:
    """`opsdeck rollout watch …` in a process of its own, its output a pipe."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(
            [sys.executable, "-m", "engine.cli.main", f"--home={rolling.path}", "rollout", "watch", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("failed", 1), ("rolled_back", 5), ("aborted", 6)])
def test_it_ends_with_the_result_of_the_run(rolling: Engine, watch: Watch, state: str, code: int) -> None:
    rolling.roll()
    process = watch("flights")
    assert "2026-11-24 03:19:07Z  flights 41  watching  challenger 8 beside champion 7" in line(process)
    rolling.now(weight=25.0, step="watch-25", steps=steps("watch-25"))
    rest = [line(process), line(process)]
    rolling.now(state=state, ended=STARTED + 400)
    rest.append(line(process))
    assert [one.split("  ")[2].split()[0] for one in rest] == ["step", "weight", "ended"]
    assert process.wait(10) == code


def test_each_change_is_one_json_object_without_cursor_tricks(rolling: Engine, watch: Watch) -> None:
    rolling.roll()
    process = watch("flights", "--json")
    first = json.loads(line(process))
    assert {"at", "kind", "text", "run", "service", "state", "step", "weight", "verdict", "ln_e", "bad",
            "exposed"} == set(first)
    rolling.now(verdict="bad", sentence="worse\x1b[2J")
    second = json.loads(line(process))
    assert (second["kind"], second["verdict"]) == ("verdict", "bad")
    assert "\x1b" not in second["text"]


def test_one_that_has_ended_is_told_and_its_code_returned(rolling: Engine) -> None:
    rolling.roll(state="rolled_back", ended=STARTED + 400, reason="errors are worse")
    done = rolling.opsdeck("watch", "flights")
    assert done.code == 5
    assert "ended: rolled back: errors are worse" in done.out.splitlines()[-1]


@pytest.mark.parametrize(("given", "code"), [
    ({"state": "waiting", "gate": GATE}, 3), ({"state": "paused", "paused_by": "oncall1"}, 3),
    ({"state": "waiting", "steps": [wire.RolloutStep("weight-5", "Send 5 %", "unknown", 5.0)]}, 4)])
def test_with_no_wait_it_returns_where_only_a_person_helps(rolling: Engine, given: dict[str, Any],
                                                           code: int) -> None:
    rolling.roll(**given)
    assert rolling.opsdeck("watch", "flights", "--no-wait").code == code


def test_with_no_wait_it_stays_where_the_engine_waits_for_evidence(rolling: Engine, watch: Watch) -> None:
    rolling.roll(state="paused", paused_by="engine", missing="too little traffic")
    process = watch("flights", "--no-wait")
    assert "paused by engine" in line(process)
    rolling.now(state="running", paused_by=None, missing=None)
    assert "running" in line(process)
    rolling.now(state="waiting", gate=GATE)
    assert process.wait(10) == 3


def released(rolling: Engine, state: str = "intent", gate: wire.Gate | None = None) -> None:
    """A run that has registered a model for flights and is at its release."""
    step = {name: wire.StepView(name, title, "done", 1, None, "", result, None, STARTED, STARTED + 500)
            for name, title, result in (("register", "Register it", {"service": "flights"}),
                                        ("release", "Release it to production", None))}
    now = msgspec.structs.replace(step["release"], state=state, ended=None, gate=gate)
    rolling.backend.views["52"] = wire.RunView(
        "52", "train-and-release", "waiting" if gate else "running", [step["register"], now], "Train", "ann",
        STARTED, None, STARTED + 600, {}, None, 1, False, None, None, "0" * 64)


def test_right_after_an_approval_it_waits_for_the_rollout_that_the_release_starts(rolling: Engine,
                                                                                  watch: Watch) -> None:
    rolling.roll(state="done", ended=STARTED + 400)  # of the release before
    released(rolling)
    process = watch("flights")
    assert process.stderr is not None
    assert process.stderr.readline() == (
        "run 52 (train-and-release) is to start a rollout of flights and is at release (Release it to "
        "production); waiting for it\n")
    rolling.roll("53", started=STARTED + 601)
    assert "flights 53  watching" in line(process)
    rolling.now("53", state="done", ended=STARTED + 700)
    assert process.wait(10) == 0


def test_before_the_approval_it_says_which_run_waits_for_it(rolling: Engine) -> None:
    released(rolling, "waiting", GATE)
    for verb in ("watch", "status"):
        done = rolling.opsdeck(verb, "flights")
        assert done.code == 2 and "run 52 (train-and-release) is to start a rollout of flights" in done.err
        assert "`opsdeck approve 52 release` lets it go on" in done.err


def test_a_release_whose_rollout_has_ended_is_not_waited_for(rolling: Engine) -> None:
    released(rolling)
    rolling.roll("53", started=STARTED + 601, state="done", ended=STARTED + 700)
    assert rolling.opsdeck("watch", "flights").code == 0


def test_it_stays_through_a_restart_of_the_engine_and_says_so(rolling: Engine, watch: Watch) -> None:
    rolling.roll()
    process = watch("flights")
    line(process)
    rolling.stop()
    assert "reconnecting" in line(process)
    rolling.now(weight=25.0)
    rolling.start()
    assert "the engine is back" in line(process)
    assert "5 % → 25 %" in line(process)
    rolling.now(state="done", ended=STARTED + 400)
    assert process.wait(10) == 0


def test_without_its_evidence_the_run_still_says_how_it_ended(rolling: Engine, watch: Watch) -> None:
    rolling.roll()
    process = watch("flights")
    line(process)
    del rolling.backend.rolling["41"]
    connect(rolling.home).act("41", "abort", wire.Act(rollback=True))
    assert "ended: rolled back" in line(process)
    assert process.wait(10) == 5


def test_it_keeps_to_the_run_that_it_began_with(rolling: Engine, watch: Watch) -> None:
    rolling.roll("41")
    process = watch("flights")
    line(process)
    rolling.roll("42", started=STARTED + 100)
    rolling.now("41", state="aborted", ended=STARTED + 101, reason="superseded by run 42")
    assert "superseded by run 42" in line(process)
    assert process.wait(10) == 6


def test_a_reader_that_leaves_is_no_error(rolling: Engine, watch: Watch) -> None:
    rolling.roll()
    process = watch("flights")
    line(process)
    assert process.stdout is not None
    process.stdout.close()
    rolling.now(weight=25.0)
    assert process.wait(10) == 0


class Scripted(Client):
    """Answers what it was given, one answer a look; an error is raised, and then the next one."""

    def __init__(self, answers: list[wire.Rollout | Exception]) -> None:
        self._answers = iter(answers)

    def rollout(self, name: str) -> wire.Rollout:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Clock:
    """Each wait takes ten seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += 10.0


def test_a_minute_without_a_change_has_a_heartbeat(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    same = [rollout(at=STARTED + 300 + 10 * n) for n in range(1, 14)]
    end = rollout(state="done", ended=STARTED + 500, at=STARTED + 500)
    code = rollout_watch.watch(Scripted([*same, end]), rollout(), json=True, wait=True, clock=clock,
                               sleep=clock.sleep)
    lines = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert [(one["kind"], one["at"] - STARTED) for one in lines] == [
        ("watching", 300), ("heartbeat", 360), ("heartbeat", 420), ("ended", 500)]
    assert code == 0


@pytest.mark.parametrize("error", [EngineUnreachable("nobody answers"), JournalUnavailable("it is locked")])
def test_an_engine_that_stays_away_ends_the_watch_in_the_end(
        error: OpsdeckError, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    away: list[wire.Rollout | Exception] = [error] * 20
    with pytest.raises(type(error)):
        rollout_watch.watch(Scripted(away), rollout(), json=False, wait=True, clock=clock, sleep=clock.sleep)
    assert capsys.readouterr().out.count("reconnecting") == 1
    assert rollout_watch.AWAY <= clock.now <= rollout_watch.AWAY + 30


