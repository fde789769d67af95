"""The watchdog: a real process, a real HAProxy, and an engine that is killed."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config_routers import HAProxy
from engine.errors import ActionFailed
from engine.rollout.traffic.leases import Leases, boottime
from tests.rollout.traffic.haproxies import SERVERS, RealHAProxy, running
from tests.rollout.traffic.meddler import Meddler, everything
from tests.rollout.traffic.meddler import line as take_line
from tests.serving.harness import wait_for

ENGINE = Path(__file__).with_name("leasing_engine.py")
ALL = {"champion": 100.0, "challenger": 0.0}
HALF = {"champion": 50.0, "challenger": 50.0}


@pytest.fixture(scope="module")
def real() -> Iterator[RealHAProxy]:
    with running() as proxy:
        yield proxy


@pytest.fixture
def haproxy(real: RealHAProxy) -> RealHAProxy:
    real.tell("set weight flights/s1 100;set weight flights/s2 0")
    return real


@pytest.fixture
def leases() -> Iterator[Leases]:
    """The leases of a home of its own; its watchdog, if any, ends with the test."""
    with tempfile.TemporaryDirectory(prefix="wd") as folder:
        leases = Leases(Path(folder))
        yield leases
        if pid := leases.watchdog():
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: leases.watchdog() is None, "the watchdog's end")


@pytest.fixture
def engine(leases: Leases, haproxy: RealHAProxy) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts what an engine does (half of the traffic to the challenger under a lease)."""
    config = leases.folder.parent / "opsdeck.yaml"
    started = []

    def start(lease_s: float, by: Path | None = None) -> subprocess.Popen[str]:
        router = place(haproxy).model_dump(mode="json") | ({} if by is None else {"socket": str(by)})
        config.write_text(json.dumps({"services": {"flights": {"router": router}}}))
        process = subprocess.Popen([sys.executable, str(ENGINE), str(leases.folder.parent), str(config),
                                    str(lease_s), "50"], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def place(proxy: RealHAProxy) -> HAProxy:
    return HAProxy(kind="haproxy", socket=proxy.admin, backend="flights", servers=SERVERS)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def sleeps_until(moment: float) -> bool:
    return boottime() >= moment


# The engine is killed.


def test_a_killed_engine_leaves_all_traffic_to_the_champion_within_the_lease(
        haproxy: RealHAProxy, leases: Leases, engine: Callable[..., subprocess.Popen[str]]) -> None:
    lease_s = 1.2
    process = engine(lease_s)
    assert line(process) == "shifted"
    for _ in range(6):  # one and a half leases
        assert line(process) == "renewed"
        assert 3 <= haproxy.ask(10)["challenger"] <= 7
    process.kill()
    wait_for(lambda: haproxy.ask(10) == {"champion": 10}, "all traffic at the champion", lease_s + 2)
    assert haproxy.ask(50) == {"champion": 50}
    note = wait_for(lambda: leases.fallback("flights"), "the note of what was done")
    assert note.weights == ALL and note.attempts == 1 and note.problem is None
    assert leases.ran_out("flights")


def test_a_killed_engine_whose_router_is_down_is_gone_back_from_when_the_router_returns(
        leases: Leases, engine: Callable[..., subprocess.Popen[str]], haproxy: RealHAProxy) -> None:
    process = engine(1.0)
    assert line(process) == "shifted"
    away = haproxy.admin.with_name("away.sock")
    haproxy.admin.rename(away)  # nobody reaches HAProxy, which goes on serving
    try:
        process.kill()
        note = wait_for(lambda: _tried(leases, 2), "two attempts")
        assert "HAProxy does not answer" in note.problem and note.stood is None
        assert 3 <= haproxy.ask(10)["challenger"] <= 7
    finally:
        away.rename(haproxy.admin)
    wait_for(lambda: haproxy.ask(10) == {"champion": 10}, "all traffic at the champion")
    note = wait_for(lambda: (found := leases.fallback("flights")) and found.stood and found, "the last note")
    assert note.attempts > 2 and note.problem is None


def _tried(leases: Leases, times: int) -> object:
    note = leases.fallback("flights")
    return note if note is not None and note.attempts >= times else None


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_an_engine_killed_right_before_or_after_the_routers_change_is_gone_back_from(
        haproxy: RealHAProxy, leases: Leases, engine: Callable[..., subprocess.Popen[str]], moment: str
        ) -> None:
    """The one who hands the change on to HAProxy kills who asked for it, once."""
    front = leases.folder.parent / "m.sock"
    asked, process = asyncio.Event(), None

    def changes(request: bytes) -> bool:
        if b"set server" not in request or asked.is_set():
            return False
        asked.set()
        assert process is not None
        process.kill()
        return moment == "before"  # then it is swallowed

    meddler = Meddler(back=haproxy.admin, front=front, take_request=take_line, take_answer=everything,
                      changes=changes, trouble="swallow")
    await meddler.start()
    process = engine(1.0, front)
    await asyncio.wait_for(asked.wait(), 20)
    lease = leases.lease("flights")
    assert lease is not None and lease.fallback == ALL, "the lease came before the change"
    while not leases.settled(lease):
        assert boottime() < lease.until + 10
        await asyncio.sleep(0.01)
    assert haproxy.percents() == ALL
    assert await asyncio.to_thread(haproxy.ask, 20) == {"champion": 20}
    await meddler.stop()


# What ends it, and what does not.


def test_a_lease_that_is_ended_leaves_the_split_as_it_is(haproxy: RealHAProxy, leases: Leases) -> None:
    haproxy.tell("set weight flights/s1 50;set weight flights/s2 50")
    leases.ensure_watchdog()
    lease = leases.grant("flights", ALL, 0.6, place(haproxy))
    leases.end("flights")
    other = leases.grant("fares", ALL, 0.9, place(haproxy).model_copy(update={"backend": "none"}))
    wait_for(lambda: sleeps_until(max(lease.until, other.until)), "the time of both leases")
    wait_for(lambda: leases.fallback("fares"), "the watchdog to act on the other lease")
    assert haproxy.percents() == HALF
    assert leases.fallback("flights") is None


def test_the_way_back_is_given_up_when_a_new_lease_is_granted(haproxy: RealHAProxy, leases: Leases) -> None:
    haproxy.tell("set weight flights/s1 50;set weight flights/s2 50")
    away = haproxy.admin.with_name("away.sock")
    haproxy.admin.rename(away)
    try:
        leases.grant("flights", ALL, 0.1, place(haproxy))
        leases.ensure_watchdog()
        wait_for(lambda: leases.fallback("flights"), "a first attempt")
        leases.grant("flights", HALF, 60, place(haproxy))
        looked = boottime() + 0.6  # longer than until the watchdog's next look
        wait_for(lambda: sleeps_until(looked), "a look")
    finally:
        away.rename(haproxy.admin)
    settled = boottime() + 1.5  # longer than until the next attempt would have been
    wait_for(lambda: sleeps_until(settled), "time for another attempt")
    assert leases.fallback("flights") is None
    assert haproxy.percents() == HALF


def test_what_stood_once_is_not_set_again(haproxy: RealHAProxy, leases: Leases) -> None:
    leases.grant("flights", ALL, 0.1, place(haproxy))
    leases.ensure_watchdog()
    first = wait_for(lambda: (note := leases.fallback("flights")) and note.stood and note, "the fallback")
    haproxy.tell("set weight flights/s1 50;set weight flights/s2 50")
    pid = leases.watchdog()
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: leases.watchdog() is None, "its end")
    leases.ensure_watchdog()  # another, which knows of nothing but the files
    leases.grant("fares", ALL, 0.1, place(haproxy).model_copy(update={"backend": "none"}))
    wait_for(lambda: leases.fallback("fares"), "the new one at work")
    assert haproxy.percents() == HALF
    assert leases.fallback("flights") == first


def test_an_engine_that_starts_after_its_machine_did_has_the_traffic_sent_back(
        haproxy: RealHAProxy, leases: Leases) -> None:
    assert leases.resume() == [] and leases.watchdog() is None
    haproxy.tell("set weight flights/s1 50;set weight flights/s2 50")
    lease = leases.grant("flights", ALL, 3600, place(haproxy))
    path = leases.folder / "flights.lease.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "the one before"}))
    assert [found.id for found in leases.resume()] == [lease.id]
    wait_for(lambda: haproxy.percents() == ALL, "all traffic at the champion")
    wait_for(lambda: leases.resume() == [], "the lease to be settled")


def test_there_is_one_to_a_home_and_another_comes_when_it_is_killed(leases: Leases) -> None:
    leases.ensure_watchdog()
    pid = leases.watchdog()
    leases.ensure_watchdog()
    assert pid and leases.watchdog() == pid
    assert os.getsid(pid) == pid, "it has a session of its own"
    done = subprocess.run([sys.executable, "-m", "engine.rollout.traffic.watchdog", "--home",
                           str(leases.folder.parent)], timeout=20)
    assert done.returncode == 0 and leases.watchdog() == pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: leases.watchdog() is None, "its end")
    leases.ensure_watchdog()
    assert leases.watchdog() not in (None, pid)


def test_it_outlives_a_closed_terminal(leases: Leases) -> None:
    leases.ensure_watchdog()
    pid = leases.watchdog()
    assert pid
    os.kill(pid, signal.SIGHUP)
    os.kill(pid, signal.SIGINT)
    leases.grant("fares", ALL, 0.1, HAProxy(kind="haproxy", socket=leases.folder / "none", backend="x",
                                            servers=SERVERS))
    wait_for(lambda: leases.fallback("fares"), "it to act")
    assert leases.watchdog() == pid


def test_it_ends_by_itself_when_there_is_nothing_to_watch(leases: Leases, haproxy: RealHAProxy) -> None:
    leases.grant("flights", ALL, 0.3, place(haproxy))
    done = subprocess.run([sys.executable, "-m", "engine.rollout.traffic.watchdog", "--idle", "0.2", "--home",
                           str(leases.folder.parent)], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert "flights is back at champion 100 %" in done.stdout
    assert done.stdout.strip().endswith("no lease left to watch")
    assert leases.watchdog() is None


def test_a_watchdog_that_cannot_be_started_is_told(leases: Leases) -> None:
    leases.folder.mkdir()
    (leases.folder / "watchdog.log").mkdir()
    with pytest.raises(ActionFailed, match="could not be started: its log cannot be opened"):
        leases.ensure_watchdog()
