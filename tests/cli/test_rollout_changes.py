"""What of a rollout is worth a line, and that each thing is told once."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import wire
from engine.cli.rollout_changes import QUARTERS, Changes, heartbeat
from tests.daemon.rollouts import STARTED, metric, rollout, steps

GATE = wire.Gate("approval", "cafe", "Is it well?", approvals_needed=1, roles=["approver"])


def told(*seen: dict[str, Any]) -> list[tuple[str, str]]:
    """Kind and text of each line after the first look at a rollout that changes so."""
    changes, now = Changes(), rollout()
    changes.see(now)
    found = []
    for changed in seen:
        now = msgspec.structs.replace(now, **changed)
        found += [(one.kind, one.text) for one in changes.see(now)]
    return found


def test_the_first_line_says_how_it_stands() -> None:
    first, *rest = Changes().see(rollout())
    assert rest == []
    assert (first.kind, first.at, first.run, first.weight) == ("watching", STARTED + 300, "41", 5.0)
    assert first.text == ("challenger 8 beside champion 7: running at 5 %, watch-5 (6 of 12): Watch at 5 %, "
                          "undecided: neither worse nor shown to be as good yet")


def test_a_gate_that_waits_already_is_told_at_once() -> None:
    kinds = [one.kind for one in Changes().see(rollout(state="waiting", gate=GATE, gate_step="approve-25"))]
    assert kinds == ["watching", "gate"]


@pytest.mark.parametrize(("changed", "line"), [
    ({"weight": 25.0}, ("weight", "5 % → 25 %")),
    ({"weight": None}, ("weight", "5 % → unknown: the router does not say")),
    ({"step": "watch-25", "steps": steps("watch-25")}, ("step", "watch-25 (8 of 12): Watch at 25 %")),
    ({"verdict": "good", "sentence": "as good as the champion"},
     ("verdict", "undecided → good: as good as the champion")),
    ({"state": "paused", "paused_by": "oncall2"}, ("state", "paused by oncall2")),
    ({"paused_by": "engine"}, ("state", "running, paused by engine")),
    ({"missing": "too little traffic", "wait_s": 125.0},
     ("missing", "too little traffic; about 2 min 5 s at this rate")),
    ({"gate": GATE, "gate_step": "approve-25"},
     ("gate", "waits for 1 approval of approver: opsdeck approve 41 approve-25")),
    ({"concurrent": False}, ("baseline", "the baseline is not concurrent: no error guarantee is claimed")),
    ({"watching": False}, ("baseline", "nothing is analysed now")),
    ({"bad": 50}, ("budget", "25 % of the budget of bad requests is spent: 50 of 200 bad requests, "
                             "1,480 of 20,000 exposed")),
    ({"exposed": 15_000}, ("budget", "75 % of the budget of exposed requests is spent: 15 of 200 bad "
                                     "requests, 15,000 of 20,000 exposed")),
    ({"metrics": [metric(ln_e=3.2)]}, ("evidence", "errors: ln E 3.20, 50 % of the way to bad at 6.20")),
    ({"ln_e_all": 4.7}, ("evidence", "all together: ln E 4.70, 100 % of the way to bad at 4.60")),
    ({"state": "rolled_back", "ended": STARTED + 400, "reason": "errors are worse"},
     ("ended", "ended: rolled back: errors are worse"))])
def test_each_thing_that_matters_has_its_line(changed: dict[str, Any], line: tuple[str, str]) -> None:
    assert told(changed) == [line]


def test_the_end_says_nothing_of_what_nobody_asks_for_any_more() -> None:
    ended = {"state": "done", "ended": STARTED + 900, "weight": None, "watching": False, "step": None,
             "missing": None, "gate": None}
    waiting = {"missing": "stale data", "gate": GATE}
    assert told(waiting, ended)[-1] == ("ended", "ended: done")
    assert len(told(waiting, ended)) == len(told(waiting)) + 1


def test_a_watch_that_begins_after_the_end_says_so_and_nothing_of_weights_or_steps() -> None:
    over = rollout(state="rolled_back", ended=STARTED + 400, reason="errors are worse", weight=None,
                   step=None)
    assert [one.text for one in Changes().see(over)] == [
        "challenger 8 beside champion 7: has ended, undecided: neither worse nor shown to be as good yet",
        "ended: rolled back: errors are worse"]


def test_no_line_is_later_than_the_end() -> None:
    changes = Changes()
    changes.see(rollout())
    found = changes.see(rollout(state="rolled_back", ended=STARTED + 400, at=STARTED + 401, bad=50))
    assert [(one.kind, one.at) for one in found] == [("budget", STARTED + 400), ("ended", STARTED + 400)]


def test_what_goes_away_again_is_told_too() -> None:
    assert told({"missing": "stale data"}, {"missing": None})[1] == ("missing", "nothing is missing any more")
    assert told({"gate": GATE}, {"gate": None})[1] == ("gate", "waits for nobody any more")


def test_numbers_that_only_grow_a_little_are_no_lines() -> None:
    assert told({"bad": 16, "exposed": 1_600, "step_requests": 1_400, "ln_e_all": 0.2, "at": STARTED + 301},
                {"missing": "20 requests", "at": STARTED + 302}, {"missing": "19 requests"}) == [
        ("missing", "20 requests")]


def test_evidence_that_swings_about_a_quarter_is_told_once_and_a_real_fall_again() -> None:
    swinging = [{"metrics": [metric(ln_e=6.2 * part)]} for part in (0.26, 0.24, 0.26, 0.22, 0.27, 0.1)]
    assert [text for _, text in told(*swinging)] == [
        "errors: ln E 1.61, 25 % of the way to bad at 6.20",
        "errors: ln E 0.62, below 25 % of the way to bad at 6.20"]


def test_good_evidence_has_its_own_line() -> None:
    assert told({"metrics": [metric(ln_good=2.4, good_line=4.6)]}) == [
        ("evidence", "errors: ln E 2.40, 50 % of the way to good at 4.60")]


def test_a_limit_that_is_not_set_is_never_spent() -> None:
    assert told({"bad": 10_000, "bad_limit": None, "exposed_limit": 0, "metrics": [metric(line=None)]}) == []


def test_a_heartbeat_says_how_far_it_is() -> None:
    assert heartbeat(rollout()).text == (
        "running at 5 %, watch-5 (6 of 12): Watch at 5 %, undecided, ln E 0.10 of 4.60, "
        "15 of 200 bad requests, 1,480 of 20,000 exposed")


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30))
def test_evidence_of_any_value_is_told_as_a_quarter_of_its_way_and_never_twice_in_a_row(
        values: list[float]) -> None:
    seen: list[dict[str, Any]] = [{"metrics": [metric(ln_e=value)]} for value in values]
    lines = [text.split(", ")[1] for _, text in told(*seen)]
    quarters = ["below 25 %", *(f"{100 * n // QUARTERS} %" for n in range(1, QUARTERS + 1))]
    assert all(any(line.startswith(quarter) for quarter in quarters) for line in lines)
    assert all(one != other for one, other in itertools.pairwise(lines))


@given(st.lists(st.integers(0, 300), max_size=20).map(sorted))
def test_a_budget_that_is_spent_has_at_most_four_lines(spent: list[int]) -> None:
    assert len(told(*({"bad": bad} for bad in spent))) <= QUARTERS
