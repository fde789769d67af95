"""A gateway that is killed keeps what it acknowledged, and a dead engine leaves no canary."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serving.conftest import ModelServer
from tests.serving.harness import Gateway, ScriptedVariant, response, wait_for

Make = Callable[..., Gateway]
TWO = {"champion": 1, "challenger": 2}


def change_until_killed(gateway: Gateway, kill_after: int, rng: random.Random) -> tuple[Any, Any]:
    """Change weights until SIGKILL hits; returns the last acknowledged state and the last asked."""
    acknowledged, asked = gateway.weights(), None
    killer = threading.Timer(0, gateway.process.kill)
    for i in range(10_000):
        if i == kill_after:
            # Somewhere within the next change, not between two.
            killer = threading.Timer(rng.uniform(0, 0.004), gateway.process.kill)
            killer.start()
        asked = round(rng.uniform(1, 99), 3)
        try:
            answer = gateway.put(asked)
        except (OSError, http.client.HTTPException):
            break
        assert answer.status == 200
        acknowledged = answer.json
    killer.join()
    gateway.process.wait(10)
    return acknowledged, asked


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak)
                                       for seed in range(1, 26))])
def test_sigkill_in_the_middle_of_changes_loses_no_acknowledged_weights(
        home: Path, gateways: Make, seed: int) -> None:
    rng = random.Random(seed)
    gateway = gateways(home, TWO)
    for _ in range(4):
        acknowledged, asked = change_until_killed(gateway, rng.randint(0, 20), rng)
        gateway.start()
        found = gateway.weights()
        if found["revision"] == acknowledged["revision"]:
            assert found["weights"] == acknowledged["weights"]
        else:
            # The last change was on disk and its answer was lost on the way.
            assert found["revision"] == acknowledged["revision"] + 1
            assert found["weights"]["champion"] == asked
        assert found["cause"] in ("set", "initial") and "not usable" not in gateway.said


def test_a_lease_runs_out_with_nobody_to_renew_it_and_survives_a_kill_right_after(
        home: Path, gateways: Make, variants: Callable[..., ScriptedVariant]) -> None:
    variant = variants(lambda request: response(200, "{}"))
    gateway = gateways(home, {"champion": variant.port, "challenger": variant.port})
    gateway.put(0, lease_s=0.4)
    assert gateway.post().headers["x-opsdeck-variant"] == "challenger"
    wait_for(lambda: gateway.post().headers["x-opsdeck-variant"] == "champion", "the lease's end")
    wait_for(lambda: '"lease_expired"' in (home / "state.json").read_text(), "the state on disk")
    gateway.kill()
    gateway.start()
    assert gateway.weights()["weights"] == {"champion": 100.0, "challenger": 0.0}
    assert gateway.said.count("ran out without renewal") == 1


def test_after_a_kill_a_lease_goes_on_or_is_over_and_a_corrupt_state_is_not_trusted(
        home: Path, gateways: Make) -> None:
    gateway = gateways(home, TWO, initial_weights={"champion": 50, "challenger": 50})
    gateway.put(90, lease_s=30)
    gateway.kill()
    gateway.start()
    found = gateway.weights()
    assert found["weights"]["champion"] == 90 and 5 < found["lease"]["expires_in_s"] < 30

    gateway.put(90, lease_s=0.3)
    expires = time.monotonic() + 0.3
    gateway.kill()
    wait_for(lambda: time.monotonic() > expires, "the end of the lease")
    gateway.start()
    found = gateway.weights()
    assert found["weights"]["champion"] == 100 and found["cause"] == "lease_expired"
    assert found["lease"] is None

    gateway.kill()
    (home / "state.json").write_bytes(b"\x00" * 200)
    gateway.start()
    found = gateway.weights()
    assert found["weights"]["champion"] == 100 and found["cause"] == "state_corrupt"
    assert "not usable" in gateway.said


def test_a_killed_model_server_is_unavailable_and_back_when_it_is_back(
        home: Path, gateways: Make, model_dir: Path) -> None:
    server = ModelServer(model_dir, home)
    server.wait_ready(server.port)
    gateway = gateways(home, {"champion": server.port})
    try:
        assert gateway.post().status == 200
        server.kill()
        answer = gateway.post()
        assert answer.status == 503 and answer.json["error_type"] == "unavailable"
        server = ModelServer(model_dir, home, port=server.port)
        wait_for(lambda: gateway.post().status == 200, "the model server's return")
    finally:
        server.kill()
