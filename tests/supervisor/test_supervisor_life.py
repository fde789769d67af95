"""A supervised process from its start to its end."""

import asyncio
import json
import os
import shlex
import signal
from pathlib import Path
from types import SimpleNamespace as Host

import pytest

from engine.config import Config, Process
from engine.errors import ActionFailed, NotFound
from engine.supervision import output
from engine.supervision.supervisor import ProcessSupervisor, processes
from tests.procedures.kit import running

Known = dict[str, Process]
NAME = "flights/champion"


async def test_a_started_process_is_running_ready_and_in_a_session_of_its_own(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    known[NAME] = host.serving(host.free_port())
    status = await supervisor.start(NAME)
    assert (status.state, status.ready) == ("running", True)
    assert status.pid is not None
    assert os.getsid(status.pid) == os.getpgid(status.pid) == status.pid
    assert json.loads((tmp_path / "run/flights-champion.json").read_text())["pid"] == status.pid
    assert "serving on" in (tmp_path / "log/flights-champion.log").read_text()
    assert (tmp_path / "run/flights-champion.json").stat().st_mode & 0o777 == 0o600


async def test_it_is_no_child_of_the_engine_and_keeps_none_of_its_descriptors(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    known[NAME] = host.serving(host.free_port())
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        pid = (await supervisor.start(NAME)).pid
        assert pid is not None
        parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
        assert int(parent) != os.getpid()
        held = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
        held = {name for name in held if not name.startswith("socket:")}
        assert held == {"/dev/null", str(tmp_path / "log/flights-champion.log")}
    finally:
        os.close(reading)
        os.close(writing)


async def test_starting_what_runs_and_is_ready_changes_nothing(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    known[NAME] = host.serving(host.free_port())
    first = await supervisor.start(NAME)
    assert await supervisor.start(NAME) == first


async def test_stop_ends_it_and_stopping_again_is_no_error(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port)
    await supervisor.start(NAME)
    assert (await supervisor.stop(NAME)).state == "stopped"
    assert host.living(port) == []
    assert not (tmp_path / "run/flights-champion.json").exists()
    assert (await supervisor.stop(NAME)).state == "stopped"


async def test_one_that_ignores_sigterm_is_killed_after_the_grace(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    port = host.free_port()
    known[NAME] = host.serving(port, "stubborn")
    await supervisor.start(NAME)
    await supervisor.stop(NAME, grace_s=0.2)
    assert host.living(port) == []


async def test_one_that_was_suspended_ends_by_sigterm_and_not_only_by_sigkill(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    said = tmp_path / "said"
    known[NAME] = host.python(
        "import signal, pathlib\n"
        f"def end(*_): pathlib.Path({str(said)!r}).write_text('goodbye'); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('listening', flush=True)\n"
        "while True: signal.pause()")
    status = await supervisor.start(NAME)
    assert status.pid is not None
    assert host.eventually(lambda: "listening" in supervisor.log(NAME).read_text())
    os.kill(status.pid, signal.SIGSTOP)
    await supervisor.stop(NAME, grace_s=10.0)
    assert said.read_text() == "goodbye"


async def test_what_it_started_ends_with_it(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port, pids = host.free_port(), tmp_path / "pids"
    known[NAME] = host.serving(port, "family", env={"PIDS": str(pids)})
    await supervisor.start(NAME)
    assert host.eventually(lambda: pids.exists() and pids.read_text().endswith("\n"))
    await supervisor.stop(NAME, grace_s=0.3)
    assert host.living(port) == []


async def test_stop_waits_until_what_it_started_has_given_back_all_it_held(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    """Memory goes before sockets do: a large child still holds its port when its memory is gone."""
    large = host.python("import signal; held = bytearray(200 << 20); print('up', flush=True); signal.pause()")
    command = f"{shlex.join(large.command)} & echo $! > {tmp_path / 'child'}; wait"
    known[NAME] = Process(command=["/bin/sh", "-c", command])
    await supervisor.start(NAME)
    assert host.eventually(lambda: "up\n" in supervisor.log(NAME).read_text())
    child = int((tmp_path / "child").read_text())
    assert running(child)
    await supervisor.stop(NAME)
    assert not running(child)


async def test_what_a_dead_one_left_behind_is_ended_before_the_next_start(
        supervisor: ProcessSupervisor, known: Known, host: Host, tmp_path: Path) -> None:
    port, pids = host.free_port(), tmp_path / "pids"
    known[NAME] = host.serving(port, "family", env={"PIDS": str(pids)})
    status = await supervisor.start(NAME)
    assert status.pid is not None
    assert host.eventually(lambda: pids.exists() and pids.read_text().endswith("\n"))
    orphan = int(pids.read_text())
    os.kill(status.pid, signal.SIGKILL)
    assert host.eventually(lambda: status.pid not in host.living(port))
    assert (await supervisor.status(NAME)).state == "dead"
    assert orphan in host.living(port)
    known[NAME] = host.serving(port)
    again = await supervisor.start(NAME)
    assert host.living(port) == [again.pid]


async def test_its_environment_is_the_configs_over_a_scrubbed_one(
        supervisor: ProcessSupervisor, known: Known, host: Host, monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("PYTHONPATH", "/tmp/evil")
    known[NAME] = Process(command=["/bin/sh", "-c", "env; pwd; echo '${HOME}'; exec sleep 600"],
                          env={"MODEL": "${HOME}/7", "TZ": "UTC"})
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    await supervisor.start(NAME)
    assert host.eventually(lambda: "${HOME}\n" in supervisor.log(NAME).read_text())
    text = supervisor.log(NAME).read_text()
    assert "MODEL=${HOME}/7\n" in text
    assert "TZ=UTC\n" in text
    assert f"PATH={os.environ['PATH']}\n" in text
    assert f"\n{tmp_path}\n" in text
    assert "hush" not in text
    assert "PYTHONPATH" not in text
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false\n" in text


async def test_only_its_own_config_lets_it_unpickle_models(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    known[NAME] = Process(command=["/bin/sh", "-c", "env; echo END; exec sleep 600"],
                          env={"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"})
    await supervisor.start(NAME)
    assert host.eventually(lambda: "END\n" in supervisor.log(NAME).read_text())
    assert "MLFLOW_ALLOW_PICKLE_DESERIALIZATION=true\n" in supervisor.log(NAME).read_text()


async def test_stop_all_ends_every_process_of_the_home_also_those_gone_from_the_config(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    ports = [host.free_port(), host.free_port()]
    known[NAME] = host.serving(ports[0])
    known["flights/gateway"] = host.serving(ports[1])
    await asyncio.gather(supervisor.start(NAME), supervisor.start("flights/gateway"))
    del known["flights/gateway"]
    stopped = await supervisor.stop_all()
    assert [s.name for s in stopped] == [NAME, "flights/gateway"]
    assert {s.state for s in stopped} == {"stopped"}
    assert [pid for port in ports for pid in host.living(port)] == []


async def test_an_unknown_name_is_an_error_that_lists_the_known_ones(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    known[NAME] = host.serving(host.free_port())
    for call in (supervisor.start, supervisor.status, supervisor.stop):
        with pytest.raises(NotFound) as refused:
            await call("flights/chalenger")
        assert NAME in str(refused.value)
    with pytest.raises(NotFound):
        await supervisor.start("../flights/champion")


async def test_two_names_that_would_share_their_files_are_refused(
        supervisor: ProcessSupervisor, known: Known, host: Host) -> None:
    known["a-b/c"] = known["a/b-c"] = host.serving(host.free_port())
    with pytest.raises(ActionFailed, match="share their files"):
        await supervisor.start("a/b-c")


def test_a_log_over_its_limit_is_put_aside_and_one_generation_kept(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("old" * 10)
    assert output.rotate(log, limit=100) == 30
    assert output.rotate(log, limit=10) == 0
    log.write_text("newer" * 10)
    assert output.rotate(log, limit=10) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["x.log.1"]
    assert (tmp_path / "x.log.1").read_text().startswith("newer")


def test_the_quoted_log_holds_no_control_sequences_and_no_earlier_lines(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_bytes(b"yesterday\n\x1b[31mred\x1b[0m\x07 caf\xc3\xa9 \xff\n\nlast\r\n")
    text = output.tail(log, offset=len(b"yesterday\n"))
    assert "yesterday" not in text
    assert text.splitlines()[1:] == ["  red café \ufffd", "  last"]
    assert output.tail(tmp_path / "none.log").startswith("It wrote nothing")


def test_of_a_stack_trace_the_exceptions_are_quoted_and_no_frames(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    trace = "Traceback (most recent call last):\n" + '  File "x.py", line 1\n    f()\n' * 30
    log.write_text(f"loading\n{trace}Refused: no pickles\n  unless you say so\n\n{trace}Ended: 1\n")
    assert output.tail(log).splitlines()[1:] == [
        "  loading", "  Refused: no pickles", "    unless you say so", "  Ended: 1"]
    log.write_text("x" * 100_000)
    assert 4000 < len(output.tail(log)) < 5000


def test_the_processes_of_a_config_are_named_by_service_and_process() -> None:
    config = Config.model_validate({"services": {"flights": {"processes": {
        "gateway": {"command": ["gateway"]}, "champion": {"command": ["model"]}}}}})
    assert sorted(processes(config)) == ["flights/champion", "flights/gateway"]
