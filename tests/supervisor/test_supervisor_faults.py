"""What the supervisor promises when things go wrong, each promise with an attempt to break it."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace as Host

import pytest

from engine.config import Process
from engine.errors import ActionFailed
from engine.supervision.supervisor import ProcessSupervisor

Known = dict[str, Process]
NAME = "flights/champion"

ENGINE = """
import asyncio, json, pathlib, sys
from engine.config import Process
from engine.supervision.supervisor import ProcessSupervisor
home, process = pathlib.Path(sys.argv[1]), Process(**json.loads(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(ProcessSupervisor(home, {"flights/champion": process}).start("flights/champion"))
print("started", flush=True)
sys.stdin.readline()
"""


def engine(home: Path, process: Process) -> "subprocess.Popen[str]":
    """Another engine, which starts the process when it is told `go`."""
    child = subprocess.Popen([sys.executable, "-c", ENGINE, str(home), process.model_dump_json()],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                             start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


def go(child: "subprocess.Popen[str]") -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


async def test_it_survives_the_sigkill_of_its_engine_and_the_next_engine_finds_it(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    with engine(tmp_path, known[NAME]) as first:
        go(first)
        assert first.stdout is not None and first.stdout.readline() == "started\n"
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    status = await supervisor.status(NAME)
    assert (status.state, status.ready) == ("running", True)
    assert host.living(port) == [status.pid]
    assert await supervisor.start(NAME) == status


async def test_wherever_an_engine_is_killed_during_a_start_the_next_start_leaves_one_process(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    rng = random.Random(20261124)
    moments = []
    for _ in range(8):
        with engine(tmp_path, known[NAME]) as victim:
            go(victim)
            moments.append(rng.uniform(0.0, 0.12))
            time.sleep(moments[-1])
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        status = await supervisor.start(NAME)
        assert host.living(port) == [status.pid], f"killed after {moments[-1]:.3f} s"
        await supervisor.stop(NAME)
        assert host.living(port) == []


async def test_two_starters_at_once_give_one_process(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    with engine(tmp_path, known[NAME]) as other:
        go(other)
        others = [ProcessSupervisor(tmp_path, known) for _ in range(4)]
        statuses = await asyncio.gather(*(each.start(NAME) for each in [supervisor, *others]))
        assert other.stdout is not None and other.stdout.readline() == "started\n"
        go(other)
    assert host.living(port) == [statuses[0].pid]
    assert len(set(statuses)) == 1


async def test_a_recycled_pid_is_never_killed(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    known[NAME] = host.serving(host.free_port())
    await supervisor.start(NAME)
    path = tmp_path / "run/flights-champion.json"
    record = json.loads(path.read_text())
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            path.write_text(json.dumps({**record, "pid": stranger.pid}))
            assert (await supervisor.status(NAME)).state == "dead"
            assert (await supervisor.stop(NAME, grace_s=0.2)).state == "stopped"
            assert stranger.poll() is None
        finally:
            stranger.kill()


async def test_the_same_pid_and_start_time_of_an_earlier_boot_is_another_process(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    pid = (await supervisor.start(NAME)).pid
    path = tmp_path / "run/flights-champion.json"
    ours = path.read_text()
    path.write_text(json.dumps({**json.loads(ours), "boot": "an earlier one"}))
    assert (await supervisor.status(NAME)).state == "dead"
    await supervisor.stop(NAME, grace_s=0.2)
    assert host.living(port) == [pid]
    path.write_text(ours)


async def test_one_that_never_gets_ready_fails_with_its_log_and_is_ended_again(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port, "deaf", within=0.5)
    with pytest.raises(ActionFailed) as failed:
        await supervisor.start(NAME)
    assert f"did not answer 200 at http://127.0.0.1:{port}/ping within 0.5 s" in str(failed.value)
    assert f"serving on {port}" in str(failed.value)
    assert host.living(port) == []
    assert (await supervisor.status(NAME)).state == "stopped"


@pytest.mark.parametrize("ready", [True, False])
async def test_one_that_dies_at_once_fails_with_its_log(
        supervisor: ProcessSupervisor, known: Known, host: Host, ready: bool) -> None:
    dying = host.python("print('no model at /models/8'); raise SystemExit(3)")
    url = f"http://127.0.0.1:{host.free_port()}/ping" if ready else None
    known[NAME] = dying.model_copy(update={"ready": url})
    begun = time.monotonic()
    with pytest.raises(ActionFailed, match="no model at /models/8") as failed:
        await supervisor.start(NAME)
    assert "it ended" in failed.value.message
    assert time.monotonic() - begun < 10.0, "it waited for a dead process"
    assert (await supervisor.status(NAME)).state == "stopped"


@pytest.mark.parametrize(("change", "said"), [
    ({"command": ["/nowhere/model-server"]}, "No such file or directory"),
    ({"cwd": Path("/nowhere")}, "its folder /nowhere could not be entered"),
])
async def test_one_that_cannot_be_executed_says_why_and_leaves_no_record(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path,
        change: dict[str, object], said: str) -> None:
    known[NAME] = host.serving(host.free_port()).model_copy(update=change)
    with pytest.raises(ActionFailed, match=said):
        await supervisor.start(NAME)
    assert not (tmp_path / "run/flights-champion.json").exists()


async def test_one_that_runs_but_does_not_answer_is_not_ended_by_a_second_start(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port, within=0.5)
    status = await supervisor.start(NAME)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGSTOP)
    with pytest.raises(ActionFailed, match="left running"):
        await supervisor.start(NAME)
    assert host.living(port) == [status.pid]
    assert await supervisor.status(NAME) == status.__class__(
        NAME, "running", status.pid, status.started, False)


async def test_a_stranger_on_its_port_is_not_taken_for_the_process(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    port = host.free_port()
    known["other/squatter"] = host.serving(port)
    squatter = await supervisor.start("other/squatter")
    known[NAME] = host.serving(port)
    with pytest.raises(ActionFailed, match="something else already answers"):
        await supervisor.start(NAME)
    assert host.living(port) == [squatter.pid]


async def test_a_killed_process_is_dead_and_leaves_no_zombie_to_the_engine(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    status = await supervisor.start(NAME)
    assert status.pid is not None
    os.kill(status.pid, signal.SIGKILL)
    assert host.eventually(lambda: host.living(port) == [])
    assert (await supervisor.status(NAME)).state == "dead"
    with pytest.raises(ChildProcessError):
        os.waitpid(status.pid, os.WNOHANG)
    fresh = await supervisor.start(NAME)
    assert fresh.pid != status.pid
    assert host.living(port) == [fresh.pid]


async def test_an_unreadable_record_stops_a_start_rather_than_giving_a_second_process(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    pid = (await supervisor.start(NAME)).pid
    path = tmp_path / "run/flights-champion.json"
    ours = path.read_text()
    path.write_text("{")
    for call in (supervisor.start, supervisor.stop, supervisor.status):
        with pytest.raises(ActionFailed, match="cannot be read"):
            await call(NAME)
    with pytest.raises(ActionFailed, match="cannot be read"):
        await supervisor.stop_all()
    assert host.living(port) == [pid]
    path.write_text(ours)


async def test_a_cancelled_start_leaves_a_process_that_can_be_found_and_stopped(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port, "deaf")
    task = asyncio.ensure_future(supervisor.start(NAME))
    await asyncio.sleep(0)
    while not host.living(port):
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await supervisor.status(NAME)).state == "running"
    await supervisor.stop(NAME)
    assert host.living(port) == []
