"""What a lease leads to when it runs out: the fallback it was given, and how nothing can block it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed, Conflict, UsageError
from engine.serving import weights
from engine.serving.traffic_state import Lease, State, load, save
from engine.serving.weights import Traffic
from tests.serving.harness import Gateway, call, wait_for

VARIANTS = ["champion", "challenger"]
ALL = {"champion": 100.0, "challenger": 0.0}
OLD = {"champion": 0.0, "challenger": 100.0}  # a challenger that was promoted before
NEW = {"champion": 5.0, "challenger": 95.0}
HALF = {"champion": 50.0, "challenger": 50.0}
Make = Callable[[], Traffic]


@pytest.fixture
async def traffic(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Traffic] = []

    def make() -> Traffic:
        made.append(Traffic(service="flights", champion="champion", initial=ALL,
                            state_file=tmp_path / "state.json", on_change=lambda weights: None))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def leased(traffic: Make) -> Traffic:
    """All traffic was on the challenger; now the champion has 5 % of it, on a lease."""
    one = traffic()
    await one.start()
    await one.set_weights(OLD)
    await one.set_weights(NEW, lease_s=30, fallback=OLD)
    return one


def on_disk(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "state.json").read_text())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


def full(path: Path, service: str, state: State) -> None:
    raise OSError(28, "No space left on device")


async def test_a_lease_that_runs_out_puts_its_fallback_in_force_in_memory_and_on_disk(
        leased: Traffic, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await leased.set_weights(NEW, lease_s=0.1, fallback=OLD)
    await until(lambda: leased.state.cause == "lease_expired")
    assert leased.state == State(OLD, 5, None, "lease_expired")
    assert leased.split.ranges().keys() == {"challenger"}
    await until(lambda: on_disk(tmp_path)["weights"] == OLD and on_disk(tmp_path)["lease"] is None)
    assert "goes back to challenger 100 %." in capsys.readouterr().err


async def test_the_view_tells_what_a_lease_leads_to_also_where_no_fallback_was_given(
        leased: Traffic) -> None:
    assert leased.view()["lease"]["fallback"] == OLD
    await leased.set_weights(HALF, lease_s=30)
    assert leased.view()["lease"]["fallback"] == ALL
    await leased.set_weights(HALF)
    assert leased.view()["lease"] is None


async def test_a_renewed_lease_keeps_its_fallback(leased: Traffic, tmp_path: Path) -> None:
    await leased.renew(0.2)
    assert on_disk(tmp_path)["lease"]["fallback"] == OLD
    await until(lambda: leased.state.weights == OLD)
    with pytest.raises(Conflict, match="no lease"):
        await leased.renew(30)


async def test_a_lease_that_ran_out_while_the_gateway_was_down_leads_to_its_fallback(
        traffic: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "state.json", "flights",
         State(NEW, 7, Lease(time.time() - 1, 60.0, OLD), "set"))
    one = traffic()
    await one.start()
    assert one.state == State(OLD, 8, None, "lease_expired") and on_disk(tmp_path)["weights"] == OLD
    assert "ran out while the gateway was down" in capsys.readouterr().err


async def test_a_lease_that_still_runs_after_a_restart_leads_to_its_fallback(
        traffic: Make, tmp_path: Path) -> None:
    save(tmp_path / "state.json", "flights",
         State(NEW, 7, Lease(time.time() + 0.3, 60.0, OLD), "set"))
    one = traffic()
    await one.start()
    assert one.state.weights == NEW and one.view()["lease"]["fallback"] == OLD
    await until(lambda: one.state.weights == OLD)


async def test_the_fallback_is_open_on_a_full_disk_and_says_it_is_not_durable(
        leased: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_SAVE_AGAIN_S", 0.02)
    monkeypatch.setattr(weights, "save", full)
    with pytest.raises(ActionFailed, match="nothing was changed"):
        await leased.set_weights(HALF, lease_s=30, fallback=OLD)
    assert leased.state.weights == NEW
    assert await leased.set_weights(OLD) is False
    assert leased.state.weights == OLD and leased.lease_left() is None
    assert on_disk(tmp_path)["weights"] == NEW
    # Whoever is not sure that it was heard says it again.
    assert await leased.set_weights(OLD) is False
    assert leased.state.weights == OLD
    monkeypatch.setattr(weights, "save", save)
    await until(lambda: on_disk(tmp_path)["weights"] == OLD)


async def test_on_a_full_disk_an_expired_lease_leads_to_the_fallback_at_once(
        leased: Traffic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await leased.set_weights(NEW, lease_s=0.05, fallback=OLD)
    monkeypatch.setattr(weights, "_SAVE_AGAIN_S", 0.02)
    monkeypatch.setattr(weights, "save", full)
    await until(lambda: leased.state.weights == OLD)
    assert on_disk(tmp_path)["weights"] == NEW
    monkeypatch.setattr(weights, "save", save)
    await until(lambda: on_disk(tmp_path)["weights"] == OLD)


async def test_a_way_back_with_a_new_fallback_waits_for_the_disk(
        leased: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "save", full)
    for back in (ALL, OLD):
        with pytest.raises(ActionFailed, match="nothing was changed"):
            await leased.set_weights(back, lease_s=30, fallback=HALF)
    assert leased.state.weights == NEW and leased.view()["lease"]["fallback"] == OLD
    assert await leased.set_weights(ALL, lease_s=30, fallback=OLD) is False
    assert leased.state.weights == ALL and leased.view()["lease"]["fallback"] == OLD


async def test_making_leased_weights_last_waits_for_the_disk(
        leased: Traffic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "save", full)
    with pytest.raises(ActionFailed, match="nothing was changed"):
        await leased.set_weights(NEW)
    assert leased.lease_left() is not None


async def test_the_way_back_also_keeps_to_the_revision(leased: Traffic) -> None:
    with pytest.raises(Conflict, match="revision 3, not 2"):
        await leased.set_weights(OLD, if_revision=2)
    assert leased.state.weights == NEW


@pytest.mark.parametrize(("fallback", "lease_s", "says"), [
    (OLD, None, "there is none"), ({"champion": 50}, 30, "fallback: The weights add up to 50"),
    ({}, 30, "fallback: The weights are missing"), ("champion", 30, "fallback: The weights"),
    ({"other": 100}, 30, "fallback: There is no variant 'other'"),
    ({"champion": float("nan")}, 30, "fallback: The weight of champion is nan")])
async def test_a_fallback_that_is_not_a_whole_split_or_has_no_lease_is_refused(
        leased: Traffic, fallback: Any, lease_s: float | None, says: str) -> None:
    before = leased.state
    with pytest.raises(UsageError, match=says):
        await leased.set_weights(HALF, lease_s=lease_s, fallback=fallback)
    assert leased.state == before


def test_a_state_from_before_there_were_fallbacks_is_read(tmp_path: Path) -> None:
    (tmp_path / "s").write_text(json.dumps({
        "format": 1, "service": "flights", "weights": NEW, "revision": 3, "cause": "set",
        "lease": {"expires_at": 1795000000.5, "granted_s": 30.0},
        "sha256": "63c24bf2d1ffd11765cb367b2775ed8eccf54ce3fe2e1ac19f01574fe8d46385"}))
    assert load(tmp_path / "s", "flights", VARIANTS) == State(
        NEW, 3, Lease(1795000000.5, 30.0, None), "set")


@pytest.mark.parametrize("fallback", [{"gone": 100.0}, {"champion": 50.0}, {}, 5])
async def test_a_state_whose_fallback_is_no_split_of_these_variants_sends_all_to_the_champion(
        traffic: Make, tmp_path: Path, fallback: Any) -> None:
    save(tmp_path / "state.json", "flights",
         State(NEW, 7, Lease(time.time() + 60, 60.0, fallback), "set"))
    one = traffic()
    await one.start()
    assert one.state.weights == ALL and one.state.cause == "state_corrupt"


def test_a_killed_gateway_comes_back_at_the_fallback_of_a_lease_that_ran_out_meanwhile(
        home: Path, gateways: Callable[..., Gateway]) -> None:
    gateway = gateways(home, {"champion": 1, "challenger": 2})
    answer = gateway.put(5, lease_s=0.3, fallback=OLD)
    assert answer.status == 200 and answer.json["lease"]["fallback"] == OLD
    expires = time.monotonic() + 0.3
    gateway.kill()
    wait_for(lambda: time.monotonic() > expires, "the end of the lease")
    gateway.start()
    found = gateway.weights()
    assert (found["weights"], found["cause"], found["lease"]) == (OLD, "lease_expired", None)
    refused = gateway.put(5, fallback=OLD)
    assert refused.status == 400 and "there is none" in refused.json["error"]
    assert call(gateway.admin, "PUT", "/weights", {"weights": ALL, "lease_s": 1,
                                                   "fallback": [1]}).status == 400
