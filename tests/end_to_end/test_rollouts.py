"""The demo's challenger rolled out for real: good, bad in every way, and with the engine killed on the way.

What the split was is told by the gateway itself, asked twenty times a second from outside.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.end_to_end.live import Demo
from tests.end_to_end.rolling import ALL_CHAMPION, LEASE_S, PLANS, Rolling
from tests.procedures.kit import running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
HARD = [("model_error", 100), ("out_of_memory", 100), ("invalid_input", 100), ("unavailable", 100),
        ("timeout", 100)]
HARD_S = 5.0
# At 12.5 requests a second of the challenger, five seconds of them and what was under way.
HARMED = 75


@pytest.fixture
def rolling(demo_home: Demo) -> Rolling:
    """The demo with both servers, without faults, at 95 and 5, and the quick plans in its library."""
    demo_home("demo", "fault", "clear")
    demo_home.start_missing()
    found = Rolling(demo_home)
    for name, text in PLANS.items():
        found.plan(name, text)
    found.gateway.put({"champion": 95.0, "challenger": 5.0})
    demo_home.until("watched", lambda: demo_home.weights() == {"champion": 95.0, "challenger": 5.0})
    return found


def states(view: dict[str, Any]) -> dict[str, str]:
    return {step["id"]: step["state"] for step in view["steps"]}


def holds(rolling: Rolling, run: str) -> list[dict[str, Any]]:
    """The journal verifies, and the rollout's verdicts come out again equal to the bit; its events."""
    assert rolling.demo.json("audit", "verify")["breaks"] == []
    again = rolling.demo.json("judge", "replay", run)
    assert again["bit_equal"] and again["decisions"] and again["ticks"] > 0
    events: list[dict[str, Any]] = rolling.demo.json("timeline", run)["events"]
    return events


def test_a_good_version_is_promoted_though_the_engine_is_killed_on_the_way_and_undo_goes_back(
        rolling: Rolling) -> None:
    with rolling.witness() as witness:
        begun = time.monotonic()
        run = rolling.start("quick")
        rolling.at(witness, 50.0, begun)
        rolling.demo.until("watched", lambda: rolling.rollout(run)["step"] == "watch-50"
                           and rolling.rollout(run)["exposed"] > 30)
        killed = time.monotonic()
        rolling.kill_engine()
        rolling.start_engine()
        view = rolling.ended(run, 90.0)
        assert view["state"] == "done" and states(view)["promote"] == "done", view["reason"]
        promoted = rolling.at(witness, 100.0, killed)
        seen = [one.weights["challenger"] for one in witness.history if begun <= one.asked <= promoted.asked]
        assert seen == sorted(seen), "the weights went down on the way"
        assert [step["attempt"] for step in view["steps"] if step["id"] == "weight-50"] == [1]
        events = holds(rolling, run)
        assert sum(event["kind"] == "rollout.began" for event in events) == 1
        told = rolling.rollout(run)
        assert told["verdict"] == "good" and told["concurrent"] and told["bad"] == 0
        undone = rolling.demo("rollout", "undo", "flights", "--yes")
        assert undone.returncode == 0, undone.stdout + undone.stderr
        assert rolling.gateway.seen().weights == ALL_CHAMPION


def test_every_hard_failure_is_rolled_back_within_five_seconds(rolling: Rolling) -> None:
    """Measured from before the command that injects it. A timeout is known only after the gateway's 2 s."""
    with rolling.witness() as witness:
        for number, (fault, amount) in enumerate(HARD):
            found = rolling.break_at_25(witness, fault, str(amount), retry=number > 0)
            assert found.view["state"] == "rolled_back", found
            assert found.seconds <= HARD_S, found
            assert 0 < found.failed <= HARMED, found
            assert witness.most("challenger", found.back) == 0.0, found


def test_what_an_earlier_rollout_left_unanswered_is_not_held_against_the_next(rolling: Rolling) -> None:
    """A retry at once: the earlier one's requests are still under way, and will be timeouts."""
    with rolling.witness() as witness:
        rolling.break_at_25(witness, "timeout", "100", settled=False)
        begun = time.monotonic()
        run = str(rolling.demo.json("rollout", "retry", "flights", "--no-follow")["id"])
        rolling.at(witness, 25.0, begun)
        rolling.demo.until("watched", lambda: rolling.rollout(run)["exposed"] > 40)
        assert rolling.rollout(run)["state"] == "running" and rolling.rollout(run)["bad"] == 0
        assert rolling.demo("rollout", "abort", "flights").returncode == 0
        assert rolling.ended(run)["state"] == "rolled_back"


def test_a_server_that_dies_is_rolled_back_and_the_next_rollout_starts_it(rolling: Rolling) -> None:
    with rolling.witness() as witness:
        found = rolling.break_at_25(witness, "kill")
        assert found.view["state"] == "rolled_back" and found.seconds <= HARD_S, found
        assert found.failed <= HARMED, found
        begun = time.monotonic()
        run = rolling.start("stays")
        rolling.at(witness, 25.0, begun)
        assert rolling.demo("rollout", "abort", "flights").returncode == 0
        assert rolling.ended(run)["state"] == "rolled_back"
        assert running(rolling.demo.pid("challenger") or 0)


@pytest.mark.parametrize(("fault", "amount", "by"), [("latency", "300", "latency"),
                                                     ("model_error", "40", "errors")])
def test_a_version_that_is_only_worse_is_rolled_back_by_its_evidence(
        rolling: Rolling, fault: str, amount: str, by: str) -> None:
    with rolling.witness() as witness:
        found = rolling.break_at_25(witness, fault, amount)
    assert found.view["state"] == "rolled_back"
    assert f"worse: {by}" in found.view["reason"]
    holds(rolling, found.view["id"])


def test_a_bad_version_is_rolled_back_while_its_gate_waits_for_a_person(rolling: Rolling) -> None:
    with rolling.witness() as witness:
        run = rolling.start("gated")
        rolling.demo.until("at the gate", lambda: rolling.rollout(run)["gate"] is not None)
        injected = time.monotonic()
        rolling.demo("demo", "fault", "model_error", "--amount", "100")
        witness.first(lambda seen: seen.weights == ALL_CHAMPION, injected)
        view = rolling.ended(run)
        assert view["state"] == "rolled_back"
        assert "worse" in view["reason"] or "requests failed" in view["reason"]
        assert states(view)["weight-25"] not in ("intent", "done")
        assert witness.most("challenger", 0.0) == 5.0
        assert rolling.demo("approve", run, "weight-25").returncode != 0


def test_without_its_engine_the_champion_has_all_traffic_within_the_lease(rolling: Rolling) -> None:
    """The gateway does it by itself; an engine that comes later rolls back and raises nothing."""
    with rolling.witness() as witness:
        begun = time.monotonic()
        run = rolling.start("stays")
        rolling.at(witness, 25.0, begun)
        rolling.demo.until("watched", lambda: rolling.rollout(run)["exposed"] > 0)
        killed = time.monotonic()
        rolling.kill_engine()
        back = witness.first(lambda seen: seen.weights == ALL_CHAMPION, killed)
        assert back.cause == "lease_expired"
        assert back.at - killed <= LEASE_S + 0.5
        rolling.start_engine()
        view = rolling.ended(run)
        assert view["state"] == "rolled_back" and "its lease was not renewed in time" in view["reason"]
        assert witness.most("challenger", back.asked) == 0.0
        holds(rolling, run)


def test_an_abort_that_was_accepted_is_done_though_the_engine_is_killed_at_once(rolling: Rolling) -> None:
    with rolling.witness() as witness:
        begun = time.monotonic()
        run = rolling.start("stays")
        rolling.at(witness, 25.0, begun)
        rolling.demo.until("watched", lambda: rolling.rollout(run)["exposed"] > 0)
        pid = rolling.engine().pid
        rolling.abort(run, "a call")
        rolling.kill_engine(pid)
        rolling.start_engine()
        view = rolling.ended(run)
        assert view["state"] == "rolled_back" and view["reason"].startswith("aborted by")
        back = witness.first(lambda seen: seen.weights == ALL_CHAMPION, begun)
        assert witness.most("challenger", back.asked) == 0.0
        assert rolling.gateway.seen().lease_s is None
