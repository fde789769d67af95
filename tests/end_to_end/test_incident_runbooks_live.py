"""Each shipped incident runbook, run for real against the demo's service with its fault in it."""

from __future__ import annotations

import os
import signal

import pytest

from tests.end_to_end.live import Demo

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SERVICE = ("-p", "service=flights", "-p", "hold_s=1")


def states(view: dict[str, object]) -> dict[str, str]:
    return {s["id"]: s["state"] for s in view["steps"]}  # type: ignore[attr-defined]


def test_high_latency_drains_the_slow_challenger(demo: Demo) -> None:
    demo("demo", "fault", "latency", "--amount", "400")
    demo.until("slow", lambda: (demo.variant("challenger")["p99_ms"] or 0) > 300)
    view = demo.go("high-latency", *SERVICE)
    assert view["state"] == "done" and states(view)["drain"] == "done"
    assert demo.weights() == {"champion": 100.0, "challenger": 0.0}
    assert (demo.service()["p99_ms"] or 0) < 150


def test_high_latency_asks_a_person_when_the_champion_is_the_slow_one(demo: Demo) -> None:
    demo("demo", "fault", "latency", "--variant", "champion", "--amount", "400")
    demo.until("slow", lambda: (demo.variant("champion")["p99_ms"] or 0) > 300)
    demo_view = demo.json("run", "high-latency", *SERVICE, code=3)
    assert states(demo_view)["drain"] == "skipped" and "is not what makes flights slow" in demo_view["next"]
    demo("demo", "fault", "clear")
    assert demo("answer", demo_view["id"], "look", "a noisy neighbour; moved it").returncode == 0
    demo.until("ended", lambda: demo.json("show", demo_view["id"])["state"] == "done", 90)
    assert demo.weights() == {"champion": 95.0, "challenger": 5.0}


def test_error_spike_drains_the_failing_challenger(demo: Demo) -> None:
    demo.split(50, 50)
    demo("demo", "fault", "model_error", "--amount", "60")
    demo.until("failing", lambda: demo.variant("challenger")["errors"]["model_error"] > 3)
    view = demo.go("error-spike", *SERVICE)
    assert view["state"] == "done" and states(view)["drain"] == "done"
    assert demo.weights()["challenger"] == 0.0 and demo.service()["error_ratio"] < 0.02


def test_error_spike_starts_a_server_that_has_died(demo: Demo) -> None:
    demo.split(50, 50)
    before = demo.pid("challenger")
    demo("demo", "fault", "kill", "--variant", "challenger")
    demo.until("failing", lambda: demo.variant("challenger")["errors"]["unavailable"] > 3)
    view = demo.go("error-spike", *SERVICE)
    assert view["state"] == "done" and states(view)["start"] == "done"
    assert demo.pid("challenger") != before


def test_rollback_model_gives_the_champion_everything_and_stops_the_challenger(demo: Demo) -> None:
    demo.split(50, 50)
    demo.until("split", lambda: demo.weights()["challenger"] == 50.0)
    view = demo.go("rollback-model", *SERVICE, "-p", "stop_challenger=true")
    assert view["state"] == "done" and states(view)["stop"] == "done"
    assert demo.weights() == {"champion": 100.0, "challenger": 0.0}
    assert demo.pid("challenger") is None


def test_restart_server_drains_restarts_and_gives_the_traffic_back(demo: Demo) -> None:
    before = demo.pid("challenger")
    view = demo.go("restart-server", *SERVICE)
    assert view["state"] == "done" and demo.pid("challenger") != before
    assert demo.weights() == {"champion": 95.0, "challenger": 5.0}


def test_drain_variant_moves_its_share(demo: Demo) -> None:
    view = demo.go("drain-variant", *SERVICE)
    assert view["state"] == "done"
    assert demo.weights() == {"champion": 100.0, "challenger": 0.0}


def test_a_drain_that_is_rolled_back_gives_the_traffic_back(demo: Demo) -> None:
    """The service is not well after the drain: the verification fails, and a person rolls back."""
    demo("demo", "fault", "model_error", "--variant", "champion", "--amount", "50")
    demo.until("failing", lambda: demo.service()["error_ratio"] > 0.1)
    started = demo.json("run", "drain-variant", *SERVICE, "--confirm", "drain=flights", "--detach")
    demo.until("drained", lambda: demo.weights()["challenger"] == 0.0)
    assert demo("abort", started["id"], "--rollback", "--reason", "no better").returncode == 0
    demo.until("undone", lambda: demo.json("show", started["id"])["state"] == "rolled_back")
    demo.until("as before", lambda: demo.weights() == {"champion": 95.0, "challenger": 5.0})


def test_gateway_down_starts_it_again_and_its_weights_survive(demo: Demo) -> None:
    before = demo.pid("gateway")
    assert before is not None
    os.kill(before, signal.SIGKILL)
    demo.until("stale", lambda: all(v["stale"] for v in demo.service()["variants"]))
    view = demo.go("gateway-down", *SERVICE)
    assert view["state"] == "done" and demo.pid("gateway") != before
    assert demo.weights() == {"champion": 95.0, "challenger": 5.0}


def test_the_fault_runbook_breaks_the_demo_and_its_undo_mends_it(demo: Demo) -> None:
    view = demo.go("fault", "-p", "variant=challenger", "-p", "kind=timeout", "-p", "amount=100")
    assert view["state"] == "done"
    demo.until("timeouts", lambda: demo.variant("challenger")["errors"]["timeout"] > 0)
    assert demo.go("clear-faults")["state"] == "done"
    demo.until("mended", lambda: demo.variant("challenger")["errors"]["timeout"] == 0)
