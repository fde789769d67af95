"""An engine's start, its end, and everything that may lie in its way."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine import home as homes
from engine.api.light import Client, connect
from engine.daemon import lifecycle, sockets
from engine.daemon.lifecycle import recorded, start, status, stop
from engine.errors import EngineUnreachable, HomeBusy, NotPermitted, OpsdeckError, UsageError
from engine.home import Home
from engine.journal.lease import take
from tests.daemon.opsdeck_in_memory import PROGRAM

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(autouse=True)
def _in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "PROGRAM", PROGRAM)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home whose engine, if one was started, is stopped afterwards."""
    home = homes.at(tmp_path / "home")
    yield home
    stop(home, timeout=10, force=True)


def until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def test_start_returns_once_the_socket_answers_and_stop_once_it_has_ended(home: Home) -> None:
    started = start(home)
    assert not started.already
    assert status(home) == {"pid": started.info.pid, "socket": str(home.socket),
                            "version": started.info.version, "state": "serving"}
    assert stop(home) == started.info.pid
    assert status(home)["state"] == "stopped"
    assert not home.socket.exists()
    assert not home.record.exists()
    assert (home.path / "closed").read_text() == str(started.info.pid), "the backend was not closed"


def test_a_started_engine_is_nobodys_child_and_has_a_session_of_its_own(home: Home) -> None:
    pid = start(home).info.pid
    assert os.getsid(pid) != os.getsid(0)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_the_home_is_private_and_so_is_what_is_in_it(home: Home) -> None:
    start(home)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(home.log.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.record.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.socket.stat().st_mode) == 0o660


def test_two_starts_at_once_give_one_engine_and_both_say_so(home: Home) -> None:
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(lambda _: start(home), range(4)))
    assert len({s.info.pid for s in started}) == 1
    assert sorted(s.already for s in started) == [False, True, True, True]


def test_a_second_start_finds_the_first(home: Home) -> None:
    first, second = start(home), start(home)
    assert second.already
    assert second.info.pid == first.info.pid


def test_a_start_during_a_stop_gives_a_fresh_engine(home: Home) -> None:
    first = start(home).info.pid
    os.kill(first, signal.SIGTERM)
    until(lambda: not home.socket.exists())
    second = start(home)
    assert second.info.pid != first
    assert not second.already


def test_a_socket_left_by_a_killed_engine_is_recovered(home: Home) -> None:
    first = start(home).info.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: recorded(home) is None and not sockets.answers(home.socket))
    assert home.socket.exists()
    with pytest.raises(EngineUnreachable, match="no engine answers"):
        connect(home).engine()
    assert start(home).info.pid != first


def test_a_socket_that_somebody_answers_on_is_left_alone(home: Home) -> None:
    homes.prepare(home)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(home.socket))
        other.listen()
        with pytest.raises(HomeBusy, match="another process answers"):
            sockets.listen(home)
        assert sockets.answers(home.socket)


def test_what_is_no_socket_is_never_removed(home: Home) -> None:
    homes.prepare(home)
    home.socket.write_text("precious")
    with pytest.raises(UsageError, match="holds something else"):
        sockets.listen(home)
    assert home.socket.read_text() == "precious"


def test_a_home_that_an_embedded_run_holds_refuses_an_engine_and_names_the_holder(
        home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "SETTLE", 0.1)
    homes.prepare(home)
    with take(home.lock, engine="opsdeck run --embedded"), \
            pytest.raises(HomeBusy, match=rf"opsdeck run --embedded, pid {os.getpid()}"):
        start(home, timeout=20)


def test_a_config_with_problems_is_told_to_who_starts_the_engine(home: Home) -> None:
    homes.prepare(home)
    home.config.write_text("rolls: {}\nengine: {window: soon}\n")
    with pytest.raises(OpsdeckError, match="the config has 2 problems") as refused:
        start(home)
    problems = refused.value.problems  # type: ignore[attr-defined]
    assert "did you mean `roles`?" in problems[0]
    assert f"{home.config}:2" in problems[1]


def test_an_unknown_group_is_told_too(home: Home) -> None:
    homes.prepare(home)
    home.config.write_text("engine: {group: no-such-group}\n")
    with pytest.raises(UsageError, match="no-such-group"):
        start(home)


def test_stop_ends_only_the_process_that_the_record_means(home: Home) -> None:
    homes.prepare(home)
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        home.record.write_text(json.dumps({"pid": bystander.pid, "ticks": 1, "boot": "other"}))
        assert recorded(home) is None
        assert stop(home) is None
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("record", ["", "{", "[]", '{"pid": "x", "ticks": 1, "boot": "b"}'])
def test_a_record_that_cannot_be_read_names_nobody(home: Home, record: str) -> None:
    homes.prepare(home)
    home.record.write_text(record)
    assert recorded(home) is None


def test_an_engine_that_does_not_end_is_killed_only_on_demand(home: Home) -> None:
    pid = start(home).info.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineUnreachable, match="has not ended"):
        stop(home, timeout=0.2)
    assert recorded(home) is not None
    assert stop(home, timeout=0.2, force=True) == pid
    until(lambda: recorded(home) is None)


def test_sigterm_lets_what_is_under_way_finish_and_exits_with_zero(
        home: Home, engine_process: Start) -> None:
    engine = engine_process(home.path)
    engine.send_signal(signal.SIGTERM)
    assert engine.wait(10) == 0


def test_a_lost_terminal_stops_nothing(home: Home, engine_process: Start) -> None:
    engine = engine_process(home.path)
    engine.send_signal(signal.SIGHUP)
    assert Client(home.socket).engine().pid == engine.pid
    assert engine.poll() is None


def test_a_second_engine_in_front_is_refused_with_the_name_of_the_first(
        home: Home, engine_process: Start) -> None:
    first = engine_process(home.path)
    second = engine_process(home.path)
    assert second.wait(10) == HomeBusy.exit_code
    assert second.stderr is not None
    assert f"pid {first.pid}" in second.stderr.read()
    assert Client(home.socket).engine().pid == first.pid


def test_a_system_engine_is_never_started_by_a_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="systemd"):
        start(homes.at(tmp_path / "home", "system"))


def test_systemd_hears_that_the_engine_is_ready_and_that_it_stops(
        home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_process: Start) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        engine = engine_process(home.path)
        assert manager.recv(64) == b"READY=1"
        engine.send_signal(signal.SIGTERM)
        assert manager.recv(64) == b"STOPPING=1"


def test_a_path_too_long_for_a_socket_moves_and_is_found_from_any_environment(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    deep = tmp_path / ("a" * 60) / ("b" * 60) / "home"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    home = homes.at(deep)
    assert len(str(home.socket)) <= homes.SOCKET_LIMIT
    try:
        pid = start(home).info.pid
        monkeypatch.delenv("XDG_RUNTIME_DIR")
        assert homes.at(deep).socket == home.socket
        assert connect(homes.at(deep)).engine().pid == pid
    finally:
        stop(home, timeout=10, force=True)
    assert not home.socket.exists()
    assert not os.path.lexists(deep / "engine.sock")


def test_a_home_that_others_may_write_is_refused(tmp_path: Path) -> None:
    open_to_all = tmp_path / "shared"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(NotPermitted, match="others may write"):
        start(homes.at(open_to_all))
