"""service.*: the acts on processes, over a supervisor that keeps books, and once over the real one."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import Process
from engine.errors import ActionFailed, NotFound
from engine.procedures.actions import ProcessStatus
from engine.supervision.supervisor import ProcessSupervisor

NAME = "flights/gateway"
OF = {"service": "flights", "process": "gateway"}


def running(world: Any, ready: bool | None = True) -> None:
    world.supervisor.of[NAME] = ProcessStatus(NAME, "running", 4711, world.time - 7380, ready)


async def test_read_tells_state_pid_readiness_and_age(world: Any) -> None:
    running(world)
    assert await world.run("service.read", **OF) == {
        "state": "running", "pid": 4711, "ready": True, "running_s": 7380.0}
    assert world.logged == [f"{NAME}: running with pid 4711 for 2 h 3 min, ready"]


@pytest.mark.parametrize(("state", "ready", "told"), [
    ("running", None, True), ("running", False, False), ("stopped", None, False),
    ("dead", None, False)])
async def test_ready_is_what_its_check_says_and_only_for_what_runs(
        world: Any, state: Any, ready: bool | None, told: bool) -> None:
    world.supervisor.of[NAME] = ProcessStatus(NAME, state, 4711, world.time, ready)
    assert (await world.run("service.read", **OF))["ready"] is told


async def test_start_starts_and_stop_stops_with_its_grace(world: Any) -> None:
    world.supervisor.of[NAME] = ProcessStatus(NAME, "stopped", None, None, None)
    assert (await world.run("service.start", **OF))["state"] == "running"
    assert await world.run("service.stop", **OF, grace="2s") == {"state": "stopped", "was": 4712}
    assert world.supervisor.did == [f"start {NAME}", f"stop {NAME} grace 2"]


async def test_restart_stops_and_starts_and_tells_both_pids(world: Any) -> None:
    running(world)
    result = await world.run("service.restart", **OF)
    assert (result["was"], result["pid"], result["ready"]) == (4711, 4712, True)
    assert world.supervisor.did == [f"stop {NAME} grace 10", f"start {NAME}"]


@pytest.mark.parametrize(("name", "now", "after"), [
    ("service.start", "running with pid 4711 for 2 h 3 min, ready", "unchanged, it runs already"),
    ("service.stop", "running with pid 4711 for 2 h 3 min, ready", "stopped"),
    ("service.restart", "running with pid 4711 for 2 h 3 min, ready",
     "running with a new pid, after a break"),
])
async def test_the_preview_shows_the_process_and_its_state_does_not_age(
        world: Any, name: str, now: str, after: str) -> None:
    running(world)
    preview = await world.preview(name, **OF)
    assert (preview.now, preview.after) == (now, after)
    world.time += 60
    assert (await world.preview(name, **OF)).state == preview.state == {
        "state": "running", "pid": 4711}


async def test_an_unknown_process_is_an_error_for_each_of_them(world: Any) -> None:
    for name in ("service.read", "service.start", "service.stop", "service.restart"):
        with pytest.raises(NotFound):
            await world.run(name, service="flights", process="gatway")


@pytest.mark.parametrize("params", [
    {"service": "flights"}, {"service": "flights", "process": "../x"},
    {"service": "flights", "process": "x", "grace": "-1s"}])
def test_wrong_parameters_are_refused(world: Any, params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        world.action("service.stop").params.model_validate(params)


async def test_over_the_real_supervisor_a_process_comes_goes_and_fails_with_its_log(
        world: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-S", "-c"]
    world.supervisor = ProcessSupervisor(tmp_path, {
        NAME: Process(command=[*command, "import signal; signal.pause()"]),
        "flights/broken": Process(command=[*command, "raise SystemExit('no model here')"])})
    try:
        started = await world.run("service.start", **OF)
        again = await world.run("service.restart", **OF)
        assert again["was"] == started["pid"] != again["pid"]
        with pytest.raises(ActionFailed, match="no model here"):
            await world.run("service.start", service="flights", process="broken")
        assert (await world.run("service.stop", **OF))["state"] == "stopped"
    finally:
        await world.supervisor.stop_all(grace_s=0.2)
