"""Leases in files: what is granted, renewed, over, and what a clock cannot do to them."""

import json
import os
from pathlib import Path

import pytest

from engine.config_routers import HAProxy
from engine.errors import ActionFailed
from engine.rollout.traffic import leases as module
from engine.rollout.traffic.leases import Fallback, Leases

ROUTER = HAProxy(kind="haproxy", socket=Path("/run/h.sock"), backend="flights",
                 servers={"champion": "s1", "challenger": "s2"})
ALL = {"champion": 100.0, "challenger": 0.0}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(tmp_path: Path, clock: Clock) -> Leases:
    return Leases(tmp_path, clock)


def test_a_lease_runs_as_long_as_it_is_renewed(leases: Leases, clock: Clock) -> None:
    leases.grant("flights", ALL, 30, ROUTER)
    clock.now += 20
    assert leases.left("flights") == 10
    leases.renew("flights", 30)
    clock.now += 29
    assert (leases.left("flights"), leases.ran_out("flights")) == (1, False)
    clock.now += 1
    assert (leases.left("flights"), leases.ran_out("flights")) == (0, True)


def test_what_ran_out_is_not_renewed_but_may_be_granted_anew(leases: Leases, clock: Clock) -> None:
    first = leases.grant("flights", ALL, 30, ROUTER)
    clock.now += 30
    with pytest.raises(ActionFailed, match="has run out"):
        leases.renew("flights", 30)
    assert leases.ran_out("flights")
    assert leases.grant("flights", ALL, 30, ROUTER).id != first.id
    assert leases.left("flights") == 30


def test_what_is_ended_is_neither_there_nor_run_out(leases: Leases) -> None:
    leases.grant("flights", ALL, 30, ROUTER)
    leases.end("flights")
    leases.end("flights")
    assert (leases.left("flights"), leases.ran_out("flights")) == (None, False)
    with pytest.raises(ActionFailed, match="no lease on the split of flights to renew") as failed:
        leases.renew("flights", 30)
    assert failed.value.hint


def test_a_change_of_the_date_changes_no_lease(leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch
                                               ) -> None:
    for date in (0.0, 1e11):
        monkeypatch.setattr(module.time, "time", lambda date=date: date)
        leases.grant("flights", ALL, 30, ROUTER)
        assert leases.left("flights") == 30
    clock.now += 31
    assert leases.ran_out("flights")


def test_a_lease_of_another_boot_is_over(leases: Leases) -> None:
    leases.grant("flights", ALL, 30, ROUTER)
    path = leases.folder / "flights.lease.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": "another"}))
    assert leases.ran_out("flights")


def test_another_home_of_the_same_engine_sees_the_same(leases: Leases, tmp_path: Path, clock: Clock) -> None:
    lease = leases.grant("flights", ALL, 30, ROUTER)
    assert Leases(tmp_path, clock).lease("flights") == lease
    assert lease.router == ROUTER.model_dump(mode="json")


def test_a_note_of_what_was_done_holds_until_the_next_lease(leases: Leases) -> None:
    lease = leases.grant("flights", ALL, 30, ROUTER)
    note = Fallback(lease.id, "flights", ALL, began=5.0, attempts=2, stood=7.0, weights=ALL)
    leases.note(note)
    assert leases.fallback("flights") == note
    leases.end("flights")
    assert leases.fallback("flights") == note
    leases.grant("flights", ALL, 30, ROUTER)
    assert leases.fallback("flights") is None


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), 1e9])
def test_a_time_that_is_none_is_refused(leases: Leases, seconds: float) -> None:
    with pytest.raises(ValueError, match="a lease lasts up to"):
        leases.grant("flights", ALL, seconds, ROUTER)
    assert leases.lease("flights") is None


def test_whatever_a_service_is_called_its_file_stays_in_the_folder(leases: Leases) -> None:
    leases.grant("../../etc/flights", ALL, 30, ROUTER)
    assert [path.name for path in leases.folder.iterdir() if "lease." in path.name] == [
        "..%2F..%2Fetc%2Fflights.lease.json"]
    found, broken = leases.granted()
    assert [lease.service for lease in found] == ["../../etc/flights"] and not broken


def test_files_are_for_the_engines_user_alone(leases: Leases) -> None:
    os.umask(os.umask(0o022))
    leases.grant("flights", ALL, 30, ROUTER)
    assert leases.folder.stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_lease_is_told_and_hides_no_other(leases: Leases) -> None:
    leases.grant("flights", ALL, 30, ROUTER)
    (leases.folder / "fares.lease.json").write_text("{")
    found, broken = leases.granted()
    assert ([lease.service for lease in found], broken) == (["flights"], ["fares.lease.json"])
    with pytest.raises(ActionFailed, match="cannot be read"):
        leases.left("fares")


def test_a_full_disk_grants_nothing_and_leaves_the_lease_there_is(
        leases: Leases, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = leases.grant("flights", ALL, 30, ROUTER)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full)
    clock.now += 5
    for act in (lambda: leases.renew("flights", 30), lambda: leases.grant("flights", ALL, 60, ROUTER)):
        with pytest.raises(ActionFailed, match="No space left on device"):
            act()
    assert leases.lease("flights") == lease
    leases.end("flights")
    assert leases.lease("flights") is None
