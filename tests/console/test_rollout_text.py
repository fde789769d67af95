"""What the Rollout screen says, and what it never leaves out."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from console import evidence, fake_rollouts, rollout_asks, rollout_path, rollout_text, safety
from console.fake_world import START, World
from console.glyphs import ASCII, UNICODE
from console.screens import rollouts as listed
from console.screens.fleet import FOLDED, folded, rolls
from console.source import Link, Tick
from console.state import State
from console.widgets.lines import Line
from engine.api import wire

MADE = {r.run: r for r in fake_rollouts.made(START)}
SIZES = [(80, 22), (80, 17), (100, 30), (160, 46)]


def made(run: str, **changes: Any) -> wire.Rollout:
    return msgspec.structs.replace(copy.deepcopy(MADE[run]), **changes)


def state(*, age: float = 0.0, write: bool = True) -> State:
    world = World()
    world.roll_out()
    shown = State(lambda: 1000.0, write=write)
    shown.tick = Tick(world.snapshot(), 1000.0 - age, Link("live"))
    return shown


def text(lines: list[Line]) -> str:
    return "\n".join("".join(span for span, _ in line).rstrip() for line in lines)


def flat(lines: list[Line]) -> str:
    return " ".join(text(lines).split())


def shown(one: wire.Rollout, width: int = 80, height: int = 22, **of_state: Any) -> str:
    return text(rollout_text.screen(one, state(**of_state), UNICODE, width, height))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("age", [1.0, 31.0])
@pytest.mark.parametrize("run", MADE)
def test_the_next_action_is_whole_and_every_line_fits(
        run: str, age: float, size: tuple[int, int]) -> None:
    one, now = made(run), state(age=age)
    lines = rollout_text.screen(one, now, UNICODE, *size)
    assert rollout_text.next_action(one, now)[0] in flat(lines)
    assert len(lines) == size[1]
    assert all(cell_len("".join(t for t, _ in line).rstrip()) <= size[0] for line in lines)


@given(st.integers(1, 30), st.integers(14, 60), st.sampled_from([80, 120, 160]))
def test_however_many_metrics_there_are_the_screen_fits_and_shows_the_worst(
        count: int, height: int, width: int) -> None:
    metrics = [fake_rollouts.metric(f"m{n}", f"errors: kind {n}", 0.1 * n, (1000, n), (9000, n))
               for n in range(count)]
    metrics[count // 2].ln_e = fake_rollouts.LINE + 1
    one = made("169", metrics=metrics)
    lines = rollout_text.screen(one, state(), UNICODE, width, height)
    assert len(lines) == height
    assert rollout_text.next_action(one, state())[0] in flat(lines)
    assert f"{'errors' if width >= evidence.WIDE else 'err'}: kind {count // 2} " in text(lines)


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=50, unique=True), st.integers(0, 49))
def test_the_live_weight_is_always_on_the_path(weights: list[float], reached: int) -> None:
    plan = sorted(round(w, 1) for w in weights)
    reached = min(reached, len(plan) - 1)
    steps = [wire.RolloutStep(f"weight-{n}", "", "done" if n <= reached else "planned", w)
             for n, w in enumerate(plan)]
    one = made("169", steps=steps, weight=plan[reached])
    line = rollout_path.path(one, UNICODE, 80)
    drawn = "".join(t for t, _ in line)
    assert f"▶ {plan[reached]:g} % live" in drawn and cell_len(drawn) <= 80


def test_a_bar_grows_with_its_evidence_and_is_full_only_at_the_line() -> None:
    def cells(ln_e: float) -> str:
        row = evidence.row(fake_rollouts.metric("e", "errors", ln_e, (10, 1), (10, 1)), 80, UNICODE)
        return "".join(t for t, _ in row)

    counts = [cells(fake_rollouts.LINE * part).count("█") for part in (-1, 0, 0.3, 0.6, 0.999, 1.0, 2.0)]
    assert counts == sorted(counts) and counts[0] == counts[1] == 0
    assert counts[4] == counts[5] - 1 and counts[5] == counts[6]
    assert "✘" in cells(fake_rollouts.LINE) and "100 %" in cells(fake_rollouts.LINE)
    assert "✘" not in cells(fake_rollouts.LINE * 0.999)


def test_without_colour_a_crossed_a_near_and_a_shown_metric_differ() -> None:
    row = {name: "".join(t for t, _ in evidence.row(m, 80, ASCII)) for name, m in {
        "crossed": fake_rollouts.metric("e", "errors", 8.0, (10, 1), (10, 1)),
        "near": fake_rollouts.metric("e", "errors", 6.0, (10, 1), (10, 1)),
        "far": fake_rollouts.metric("e", "errors", 1.0, (10, 1), (10, 1)),
        "shown": fake_rollouts.metric("e", "errors", 7.0, (10, 1), (10, 1), critical=False)}.items()}
    assert [row[name][1] for name in ("crossed", "near", "far", "shown")] == ["x", "!", " ", " "]
    assert "only shown" in row["shown"] and "#" not in row["shown"]


def test_counts_and_shares_stand_on_both_sides_and_values_where_there_are_any() -> None:
    drawn = shown(made("170"))
    assert "66/35k  0.19%   38/1840 2.07%" in drawn and "p99 over 118 ms" in drawn
    wide = shown(made("170"), 160, 46)
    assert "66 of 34,960 = 0.19 %   0.19 %      38 of 1,840 = 2.07 %" in wide
    assert "83–94 ms, 1.00 %" in wide and "212–260 ms, 3.10 %" in wide, "intervals and shares"
    assert "34,960 seen" in wide and "1,840 seen" in wide, "what falls into bins has no share"
    assert "latency p99 over 118 ms" in wide and "0.4 of 4.6" in wide
    own = fake_rollouts.metric("p99", "latency p99", 1.0, (100, 3), (900, 9), values=("38 ms", "212 ms"))
    sides = shown(made("169", metrics=[own]), 160, 46)
    assert "38 ms, 3.00 %" in sides and "212 ms, 1.00 %" in sides


def test_what_is_expected_stands_beside_what_the_canary_had_or_else_the_champion_s_share() -> None:
    metric = fake_rollouts.metric("e", "errors, all", 1.0, (100, 3), (900, 9), expected=0.0125)
    assert evidence.sides(metric, wide=False) == ("9/900", "1.25%", "3/100 3.00%")
    assert evidence.sides(msgspec.structs.replace(metric, expected=None), wide=False)[1] == "1.00%"


def test_where_it_gets_tight_the_metrics_without_a_case_give_way_first() -> None:
    drawn = shown(made("171"))
    assert "3 more metrics had no case at the canary; e shows all" in drawn
    assert "out of memory" not in drawn and "err: timeout" in drawn
    assert "out of memory" in shown(made("171"), 160, 46)


def test_no_baseline_is_said_and_no_error_guarantee_claimed() -> None:
    drawn = shown(made("168"))
    assert "not concurrent: no error guarantee" in drawn and "none" in drawn
    assert "not concurrent" not in shown(made("169"))


def test_what_is_missing_is_said_with_how_long_it_takes() -> None:
    assert ("too little traffic: 96 of 200 requests at this weight; about 41 min at this rate"
            in flat_of("168"))
    assert "how long that takes is not known" in " ".join(
        shown(made("168", wait_s=None)).split())


def flat_of(run: str) -> str:
    return " ".join(shown(made(run)).split())


def test_budget_says_what_is_spent() -> None:
    assert "bad 41 of 200 │█░░░░░│ exposed 1,840 of 20,000" in flat_of("170")
    assert "bad 170 of 200! │█████░│" in " ".join(shown(made("169", bad=170)).split())
    assert "bad 200 of 200, spent │██████│" in " ".join(shown(made("169", bad=200)).split())
    assert "bad 0, no limit" in flat_of("168")


def test_the_gate_says_who_is_wanted_since_when_and_until_when() -> None:
    assert "0 of 1 approval (approver, not mlops3), waits 4 min, expires in 26 min" in flat_of("171")


def test_that_it_is_not_worse_is_told_by_the_metric_that_is_furthest_back() -> None:
    assert "NOT WORSE │█████░░░░░░░│ 41 %: errors, all 1.9 of 4.6" in flat_of("171")
    assert "41 %, about 21 min more: errors, all" in " ".join(shown(made("171", wait_s=1270.0)).split())
    assert "✔ shown for 2 metrics of 2" in flat_of("167")
    unasked = made("169", metrics=[fake_rollouts.metric("e", "errors", 0.0, (10, 1), (10, 1))])
    assert "does not ask for evidence" in shown(unasked)


@pytest.mark.parametrize(("changes", "says"), [
    ({"watching": False, "lease_s": 12.0}, "Nobody watches it"),
    ({"verdict": "bad"}, "It is rolling back to champion 100 %, challenger 0 %."),
    ({"state": "paused", "gate": None, "paused_by": "oncall2"}, "Paused by oncall2. p resumes it"),
    ({"state": "running", "gate": None, "paused_by": "engine"}, "The engine holds it"),
    ({"verdict": "bad", "safe": {}}, "It is rolling back to the weights from before."),
    ({"state": "rolled_back", "ended": START, "weight": None, "reason": "worse"},
     "Rolled back: worse. R tries again"),
    ({"state": "running", "gate": None, "next": None}, "Nothing to do now; it goes on by itself."),
    ({"state": "aborted", "ended": START, "reason": "oncall1 aborted it"}, "Aborted: oncall1 aborted it"),
    ({"weight": None}, "◆ waits the router does not answer, step 8 of 12"),
    ({"champion": "", "champion_version": None, "metrics": [], "threshold": 0.0, "gate": None, "step": None,
      "state": "running", "next": None}, "Nothing to do now")])
def test_each_state_says_what_a_person_must_do(changes: dict[str, Any], says: str) -> None:
    assert says in " ".join(shown(made("171", **changes)).split())


def test_an_approval_that_does_not_count_is_not_asked_for() -> None:
    now = state()
    assert now.snapshot is not None
    now.snapshot.waiting = [msgspec.structs.replace(w, may=False) for w in now.snapshot.waiting]
    action, _ = rollout_text.next_action(made("171"), now)
    assert "Yours does not count. It wants approver, not mlops3." in action and "Press A" not in action


@pytest.mark.parametrize(("verdict", "sentence", "shows"), [
    ("undecided", "undecided; nothing speaks against it", "Verdict undecided; nothing"),
    ("undecided", "too early", "Verdict undecided: too early"),
    ("bad", "worse: errors", "Verdict ✘ worse: errors"), ("bad", "errors", "Verdict ✘ bad: errors"),
    ("good", "no worse than the old version", "Verdict ✔ no worse than")])
def test_the_verdict_says_no_word_twice(verdict: str, sentence: str, shows: str) -> None:
    assert shows in " ".join(shown(made("169", verdict=verdict, sentence=sentence)).split())


def test_why_it_ended_is_told_once() -> None:
    aborted = made("169", state="rolled_back", ended=START, weight=None, verdict="undecided",
                   sentence="aborted by root", reason="aborted by root")
    assert " ".join(shown(aborted).split()).count("aborted by root") == 1
    bad = made("170", sentence="the new version is worse: errors", reason="the new version is worse: errors")
    drawn = " ".join(shown(bad).split())
    assert drawn.count("the new version is worse") == 1 and "✘ the new version is worse: errors" in drawn


def test_a_metric_just_below_its_line_is_not_said_to_have_reached_it() -> None:
    near = fake_rollouts.metric("e", "errors", fake_rollouts.LINE - 0.001, (10, 1), (10, 1))
    drawn = "".join(t for t, _ in evidence.row(near, 80, UNICODE))
    assert " 99 %" in drawn and "100 %" not in drawn


def test_no_minus_stands_before_a_nought() -> None:
    assert evidence.ln(-0.02) == "  0.0" and evidence.ln(-0.06) == " -0.1"


def test_the_last_weight_is_the_promotion_and_a_weight_under_way_says_what_is_live() -> None:
    assert "✔ 99 ── ✔ promoted" in shown(made("167")) and "· 99 ── · promote\n" in shown(made("169"))
    one = made("169", step="weight-25")
    steps = [msgspec.structs.replace(s, state="intent" if s.id == "weight-25" else s.state)
             for s in one.steps]
    assert "▶ 25 being set, 5 % live" in shown(msgspec.structs.replace(one, steps=steps))


def test_a_router_that_says_otherwise_is_shown_on_the_path() -> None:
    assert "▶ 25 router: 20 %" in shown(made("171", weight=20.0))
    assert "▶ 25 router: no answer" in shown(made("171", weight=None))


def test_old_data_makes_no_claim_about_watching() -> None:
    assert "watching: on" not in shown(made("171"), age=31.0)
    assert "stale: watching not known" in shown(made("171"), age=31.0)


@pytest.mark.parametrize(("change", "says"), [
    ({"weight": 50.0}, "The canary got 25 % and gets 50 % now."),
    ({"weight": None}, "The canary got 25 % and gets an unknown share now."),
    ({"verdict": "bad"}, "The verdict was undecided and is now bad"),
    ({"step": "bake"}, "was at step weight-50 and is now at bake"),
    ({"state": "rolled_back"}, "The rollout was waiting and is now rolled back.")])
def test_what_a_dialog_said_of_a_rollout_must_still_hold(change: dict[str, Any], says: str) -> None:
    before = safety.rolling(made("171"))
    assert safety.moved(before, made("171")) is None
    difference = safety.moved(before, made("171", **change))
    assert difference is not None and says in difference and difference.endswith(".")


def test_requests_that_come_in_void_no_dialog() -> None:
    one = made("171")
    before = safety.rolling(one)
    fake_rollouts.advance({one.run: one}, START + 9, 9.0)
    assert one.exposed > MADE["171"].exposed and safety.moved(before, one) is None


@pytest.mark.parametrize("verb", ["approve", "promote", "promote-full", "abort", "pause", "resume", "reject"])
def test_what_nobody_watches_is_not_taken_further_but_may_be_stopped(verb: str) -> None:
    refused = {"approve", "promote", "promote-full"}
    for blind in (made("171", watching=False), made("171", weight=None)):
        said = safety.unwatched(verb, blind)
        assert (said is not None) is (verb in refused)
    assert safety.unwatched(verb, made("171")) is None


def test_every_question_about_a_rollout_states_target_state_effect_and_undo() -> None:
    one = made("169")
    run = fake_rollouts.run_of(one)
    for ask in (rollout_asks.promote(one, run), rollout_asks.promote_full(one, run),
                rollout_asks.pause(one, run), rollout_asks.abort(one)):
        assert {"Target", "Now", "Effect", "Undo"} <= {label for label, _ in ask.facts}
        assert all(choice.key != "enter" for choice in ask.choices)
    assert rollout_asks.abort(one).choices[0].rollback
    full, = rollout_asks.promote_full(one, run).choices
    assert (full.wants, full.expected) == ("typed", "recommend")


def test_a_gate_shows_versions_evidence_exposure_what_comes_next_and_undo() -> None:
    one = made("171")
    run = fake_rollouts.run_of(one)
    step = next(s for s in run.steps if s.gate is not None)
    ask = rollout_asks.gate(one, run, step, START)
    facts = dict(ask.facts)
    assert "version 12 to 13" in facts["Target"] and "8,420 of 20,000" in facts["Exposed"]
    assert {"Verdict", "Evidence", "Next", "Undo", "Now", "After", "Expires"} <= facts.keys()
    assert ask.digest == "5e1d09c2d3e4b5f6" and ask.rolling == safety.rolling(one)


def test_what_waits_for_a_person_stands_first_in_the_list_and_what_ended_last() -> None:
    found = [r.run for r in listed.order(reversed(list(MADE.values())))]
    assert found == ["171", "169", "168", "170", "167"]


@pytest.mark.parametrize(("rollout", "shows"), [
    ({"weight": 5.0, "step": 2, "steps": 6, "state": "waiting", "verdict": "undecided", "waits": True},
     ("5%", "wait", "ask")),
    ({"weight": 25.0, "step": 4, "steps": 6, "state": "running", "verdict": "undecided", "waits": False},
     ("25%", "4/6", "text")),
    ({"weight": 5.0, "step": 2, "steps": 6, "state": "paused", "verdict": "undecided", "waits": False},
     ("5%", "paused", "warn")),
    ({"weight": 5.0, "step": 2, "steps": 6, "state": "running", "verdict": "bad", "waits": False},
     ("", "rolling back", "bad")),
    ({"weight": 5.0, "step": 2, "steps": 6, "state": "rolling_back", "verdict": "undecided", "waits": False},
     ("", "rolling back", "bad")),
    ({"weight": None, "step": 2, "steps": 6, "state": "running", "verdict": "good", "waits": False},
     ("?%", "2/6", "text")), (None, ("", "", "dim"))])
def test_the_fleet_says_what_a_rollout_does(
        rollout: dict[str, Any] | None, shows: tuple[str, str, str]) -> None:
    assert rolls(rollout) == shows


@pytest.mark.parametrize("word", ["page", "ticket", "well", "stale 1 min", "over limit", "1 waits"])
@pytest.mark.parametrize("weight", [1.0, 25.0, 100.0, None])
@pytest.mark.parametrize(("more", "whole"), [
    ({"waits": True, "state": "waiting"}, "wait"), ({"state": "paused"}, "paused"),
    ({"verdict": "bad"}, "rolling back"), ({}, "10/13")])
def test_in_80_columns_state_and_rollout_share_a_cell_and_nothing_is_cut(
        word: str, weight: float | None, more: dict[str, Any], whole: str) -> None:
    rollout = {"run": "1", "weight": weight, "step": 10, "steps": 13, "state": "running",
               "verdict": "undecided", "waits": False, **more}
    text, _ = folded((word, "text"), rollout)
    assert len(text) <= FOLDED
    assert text.startswith(word) or text.endswith(whole)


def test_before_the_first_evidence_and_with_very_much_of_it_the_screen_holds() -> None:
    assert "all together" in shown(made("169", metrics=[], weight=0.0, step="begin"), 160, 46)
    row = evidence.row(fake_rollouts.metric("e", "a title that is far too long", 12345.6, (10, 1), (10, 1)),
                       80, UNICODE)
    drawn = "".join(t for t, _ in row)
    assert "12346" in drawn and len(drawn) <= 80
