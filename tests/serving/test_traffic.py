"""Weights, revisions and leases: what is in force, what is on disk, and in which order."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ActionFailed, Conflict, UsageError
from engine.serving import traffic_state, weights
from engine.serving.traffic_state import Lease, State, StateCorrupt, load, save
from engine.serving.weights import Traffic

VARIANTS = ["champion", "canary"]
ALL = {"champion": 100.0, "canary": 0.0}
CANARY = {"champion": 95.0, "canary": 5.0}
Make = Callable[..., Traffic]


@pytest.fixture
async def traffic(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Traffic] = []

    def make(initial: Mapping[str, float] = ALL, **more: Any) -> Traffic:
        seen: list[Mapping[str, float]] = []
        one = Traffic(service="flights", champion="champion", initial=initial,
                      state_file=tmp_path / "state.json", on_change=seen.append, **more)
        one.seen = seen  # type: ignore[attr-defined]
        made.append(one)
        return one

    yield make
    for one in made:
        await one.close()


def on_disk(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "state.json").read_text())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.002)


async def test_a_first_start_takes_the_initial_weights_and_writes_them(traffic: Make,
                                                                      tmp_path: Path) -> None:
    one = traffic(CANARY)
    await one.start()
    assert one.view() == {"service": "flights", "weights": CANARY, "champion": "champion",
                          "revision": 1, "cause": "initial", "lease": None}
    assert on_disk(tmp_path)["weights"] == CANARY and one.seen == [CANARY]  # type: ignore[attr-defined]


async def test_a_change_is_on_disk_before_it_is_in_force(traffic: Make, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    one = traffic()
    await one.start()
    in_force: list[Any] = []

    def watched(path: Path, service: str, state: State) -> None:
        in_force.append(one.state.weights)
        save(path, service, state)

    monkeypatch.setattr(weights, "save", watched)
    assert await one.set_weights(CANARY)
    assert in_force == [ALL] and one.state.weights == CANARY and one.state.revision == 2
    assert on_disk(tmp_path)["weights"] == CANARY
    assert one.split.ranges()["canary"][1] > 0


async def test_weights_survive_a_restart_and_win_over_the_initial_ones(traffic: Make) -> None:
    one = traffic()
    await one.start()
    await one.set_weights(CANARY)
    two = traffic({"champion": 50.0, "canary": 50.0})
    await two.start()
    assert two.state == one.state


async def test_a_change_on_an_old_revision_is_refused_and_changes_nothing(traffic: Make) -> None:
    one = traffic()
    await one.start()
    await one.set_weights(CANARY, if_revision=1)
    for stale in (ALL, {"champion": 50.0, "canary": 50.0}):
        with pytest.raises(Conflict, match="revision 2, not 1"):
            await one.set_weights(stale, if_revision=1)
    assert one.state.weights == CANARY and one.state.revision == 2


async def test_of_many_changes_at_once_on_one_revision_exactly_one_wins(traffic: Make) -> None:
    one = traffic()
    await one.start()
    asked = [one.set_weights({"champion": 100.0 - i, "canary": float(i)}, if_revision=1)
             for i in range(1, 21)]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(outcome is True for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 19
    assert one.state.revision == 2


async def test_a_lease_without_renewal_gives_all_to_the_champion_in_memory_and_on_disk(
        traffic: Make, tmp_path: Path) -> None:
    one = traffic()
    await one.start()
    await one.set_weights(CANARY, lease_s=0.1)
    left = one.lease_left()
    assert left is not None and 0 < left <= 0.1
    await until(lambda: one.state.cause == "lease_expired")
    assert one.state == State(ALL, 3, None, "lease_expired") and one.lease_left() is None
    await until(lambda: on_disk(tmp_path)["cause"] == "lease_expired")
    assert one.split.ranges().keys() == {"champion"}


async def test_a_renewed_lease_goes_on_and_is_renewed_on_disk(traffic: Make,
                                                             tmp_path: Path) -> None:
    one = traffic()
    await one.start()
    await one.set_weights(CANARY, lease_s=0.2)
    first = on_disk(tmp_path)["lease"]["expires_at"]
    await one.renew(30.0)
    assert on_disk(tmp_path)["lease"]["expires_at"] > first + 20
    await until(lambda: time.time() > first + 0.05)
    assert one.state.weights == CANARY and one.state.revision == 2


async def test_there_is_nothing_to_renew_without_a_lease_or_after_it_ran_out(
        traffic: Make) -> None:
    one = traffic()
    await one.start()
    with pytest.raises(Conflict, match="no lease"):
        await one.renew(30.0)
    await one.set_weights(CANARY, lease_s=0.02)
    await until(lambda: one.lease_left() is None)
    with pytest.raises(Conflict, match="no lease"):
        await one.renew(30.0)


async def test_a_renewal_that_the_disk_delays_beyond_the_lease_is_refused_and_undone(
        traffic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = traffic()
    await one.start()
    await one.set_weights(CANARY, lease_s=0.1)

    ends = time.monotonic() + (one.lease_left() or 0.0)

    def slow(path: Path, service: str, state: State) -> None:
        while time.monotonic() <= ends:
            time.sleep(0.005)
        save(path, service, state)

    monkeypatch.setattr(weights, "save", slow)
    with pytest.raises(Conflict, match="no lease"):
        await one.renew(30.0)
    assert one.state.weights == ALL
    monkeypatch.setattr(weights, "save", save)
    await until(lambda: on_disk(tmp_path)["cause"] == "lease_expired")


async def test_a_lease_that_ran_out_while_the_gateway_was_down_is_over_at_the_start(
        traffic: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "state.json", "flights",
         State(CANARY, 7, Lease(time.time() - 1, 60.0), "set"))
    one = traffic()
    await one.start()
    assert one.state == State(ALL, 8, None, "lease_expired")
    assert on_disk(tmp_path)["weights"] == ALL
    assert "ran out while the gateway was down" in capsys.readouterr().err


async def test_a_lease_that_still_runs_goes_on_after_a_restart(traffic: Make,
                                                              tmp_path: Path) -> None:
    save(tmp_path / "state.json", "flights",
         State(CANARY, 7, Lease(time.time() + 0.3, 60.0), "set"))
    one = traffic()
    await one.start()
    assert one.state.weights == CANARY
    await until(lambda: one.state.weights == ALL)


async def test_a_clock_set_back_cannot_stretch_a_lease_beyond_what_was_granted(
        traffic: Make, tmp_path: Path) -> None:
    save(tmp_path / "state.json", "flights", State(CANARY, 7, Lease(time.time() + 9e6, 60.0), "set"))
    one = traffic()
    await one.start()
    left = one.lease_left()
    assert left is not None and left <= 60


async def test_weights_that_cannot_be_written_are_not_in_force(
        traffic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = traffic()
    await one.start()
    monkeypatch.setattr(weights, "save", _full)
    with pytest.raises(ActionFailed, match="nothing was changed"):
        await one.set_weights(CANARY)
    assert one.state.weights == ALL and on_disk(tmp_path)["weights"] == ALL


async def test_the_way_back_to_the_champion_is_open_on_a_full_disk_and_says_it_is_not_durable(
        traffic: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = traffic()
    await one.start()
    await one.set_weights(CANARY)
    monkeypatch.setattr(weights, "_SAVE_AGAIN_S", 0.02)
    monkeypatch.setattr(weights, "save", _full)
    assert await one.set_weights(ALL) is False
    assert one.state.weights == ALL and on_disk(tmp_path)["weights"] == CANARY
    monkeypatch.setattr(weights, "save", save)
    await until(lambda: on_disk(tmp_path)["weights"] == ALL)


def _full(path: Path, service: str, state: State) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("damage", [
    lambda text: text[:-20], lambda text: "", lambda text: "[]", lambda text: "{}",
    lambda text: text.replace("95.0", "59.0"), lambda text: text.replace('"flights"', '"other"'),
    lambda text: text.replace('"format": 1', '"format": 2'), lambda text: "[" * 200_000])
async def test_a_state_that_is_not_whole_sends_everything_to_the_champion_and_says_so(
        traffic: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        damage: Callable[[str], str]) -> None:
    save(tmp_path / "state.json", "flights", State(CANARY, 7, None, "set"))
    text = damage((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(text)
    one = traffic(CANARY)
    await one.start()
    assert one.state.weights == ALL and one.state.cause == "state_corrupt"
    # No reader who remembers a revision may find it again with other weights.
    assert one.state.revision > 1_000_000_000
    assert "not usable" in capsys.readouterr().err
    assert (tmp_path / "state.json.corrupt").read_text() == text
    assert on_disk(tmp_path)["weights"] == ALL


def test_a_state_that_names_a_variant_which_is_gone_is_not_usable(tmp_path: Path) -> None:
    save(tmp_path / "s", "flights", State({"champion": 50.0, "gone": 50.0}, 2, None, "set"))
    with pytest.raises(StateCorrupt, match="gone"):
        load(tmp_path / "s", "flights", VARIANTS)


def test_a_variant_that_is_new_in_the_config_starts_with_nothing(tmp_path: Path) -> None:
    save(tmp_path / "s", "flights", State({"champion": 100.0}, 2, None, "set"))
    state = load(tmp_path / "s", "flights", VARIANTS)
    assert state is not None and state.weights == ALL


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_write_that_breaks_off_leaves_the_old_state(tmp_path: Path, step: str,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = State(ALL, 1, None, "initial"), State(CANARY, 2, None, "set")
    save(tmp_path / "s", "flights", old)

    def fails(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*((traffic_state.os, "fsync") if step == "fsync" else (Path, "rename")),
                        fails)
    with pytest.raises(OSError, match="Input/output"):
        save(tmp_path / "s", "flights", new)
    assert load(tmp_path / "s", "flights", VARIANTS) == old
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_the_state_file_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    save(tmp_path / "s", "flights", State(ALL, 1, None, "initial"))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("lease", [0, -1, float("nan"), float("inf"), "60", True, 1e9, []])
def test_a_lease_is_a_number_of_seconds_up_to_a_day(lease: object) -> None:
    with pytest.raises(UsageError, match="lease_s"):
        weights.check_lease(lease)
