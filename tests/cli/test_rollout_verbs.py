"""`opsdeck rollout VERB NAME`, as a person, a script and a pipeline type it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.api import wire
from engine.api.backend import Caller, Verb
from engine.errors import JournalUnavailable
from tests.cli.rolling import Engine
from tests.daemon.rollouts import STARTED, metric, steps

ROLLED_BACK: dict[str, Any] = {"state": "rolled_back", "ended": STARTED + 360, "reason": "errors are worse",
                               "weight": None, "step": None}
DONE: dict[str, Any] = {"state": "done", "ended": STARTED + 900, "weight": None, "step": None,
                        "steps": steps(None)}


def test_start_begins_the_plan_for_the_variant_and_follows_it_to_its_end(rolling: Engine) -> None:
    ending = rolling.soon(lambda client: client.act("1", "promote-full", wire.Act()),
                          lambda: rolling.asked("start"))
    done = rolling.opsdeck("start", "flights", "--to", "challenger", "-p", "requests=500", "--yes")
    ending.join(10)
    request = rolling.asked("start")[0]
    assert request.procedure == "start-rollout"
    assert request.params == {"service": "flights", "to": "challenger", "requests": "500"}
    assert request.yes
    assert done.code == 0, done.err
    assert "run 1 done" in done.out


def test_a_start_that_is_rolled_back_exits_with_5_and_one_that_is_aborted_with_6(rolling: Engine) -> None:
    for number, rollback, code in (("1", True, 5), ("2", False, 6)):
        ending = rolling.soon(
            lambda client, n=number, r=rollback: client.act(n, "abort", wire.Act(rollback=r)),
            lambda n=number: len(rolling.asked("start")) == int(n))
        done = rolling.opsdeck("start", "flights", "--to", "challenger", "--json")
        ending.join(10)
        assert done.code == code
        assert json.loads(done.out)["id"] == number


def test_start_without_following_says_how_to_watch(rolling: Engine) -> None:
    done = rolling.opsdeck("start", "flights", "--to", "challenger", "--no-follow")
    assert done.code == 0
    assert "run 1" in done.out
    assert "opsdeck rollout watch 1" in done.out
    again = rolling.opsdeck("start", "flights", "--to", "challenger", "--no-follow", "--json")
    assert json.loads(again.out)["params"]["to"] == "challenger"


def test_a_dry_run_prints_what_would_run_and_does_not_stay(rolling: Engine) -> None:
    done = rolling.opsdeck("start", "flights", "--to", "challenger", "--dry-run")
    assert done.code == 0
    assert "nothing that has an effect was run" in done.out
    assert "rollout.watch" in done.out
    assert [request.dry_run for request in rolling.asked("start")] == [True]


def test_a_plan_may_be_another_procedure_or_a_path(rolling: Engine) -> None:
    missing = rolling.opsdeck("start", "flights", "--to", "challenger", "--plan", "no/such.yaml")
    assert missing.code == 2
    assert "no/such.yaml" in missing.err
    other = rolling.opsdeck("start", "flights", "--to", "challenger", "--plan", "nil")
    assert "no procedure 'nil'" in other.err


@pytest.mark.parametrize(("words", "says"), [
    (("start", "flihgts", "--to", "challenger"), "did you mean flights?"),
    (("start", "zzz", "--to", "challenger"), "services: flights"),
    (("start", "flights", "--to", "challenger", "-p", "to=champion"), "what --to says already"),
    (("start", "flights", "--to", "challenger", "-p", "requests"), "-p takes k=v"),
    (("start", "flights"), "--to"),
    (("pause", "flihgts"), "did you mean flights?"),
    (("status", "flights"), "opsdeck rollout start flights --to VARIANT"),
    (("77",), "there is no rollout 77"),
    (("pasue", "flights"), "did you mean `pause`?"),
    (("flights", "pause"), "did you mean `opsdeck rollout pause flights`?"),
    (("pasue",), "did you mean `opsdeck rollout pause NAME`?"),
    (("promote-full", "flights", "--yes"), "unrecognized arguments: --yes")])
def test_what_is_not_understood_says_what_is_near(rolling: Engine, words: tuple[str, ...], says: str) -> None:
    done = rolling.opsdeck(*words)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert rolling.backend.seen == []


@pytest.mark.parametrize("name", ["flights", "41"])
@pytest.mark.parametrize(("verb", "act"), [
    ("pause", wire.Act(reason="a call")), ("resume", wire.Act(reason="a call")),
    ("abort", wire.Act(reason="a call", rollback=True))])
def test_a_verb_finds_the_run_by_service_or_id_and_never_asks(rolling: Engine, name: str, verb: Verb,
                                                              act: wire.Act) -> None:
    rolling.roll(**({"state": "paused", "paused_by": "oncall2"} if verb == "resume" else {}))
    done = rolling.opsdeck(verb, name, "--reason", "a call", typed="")
    assert done.code == 0, done.err
    assert rolling.asked(verb) == [act]
    assert "41" in done.out


@pytest.mark.parametrize(("given", "says"), [
    ({}, "is not paused: it goes on by itself"),
    ({"state": "waiting", "gate_step": "approve-25",
      "gate": wire.Gate("approval", "cafe", "Is it well?", approvals_needed=1, roles=["approver"])},
     "is not paused: it waits for 1 approval of approver\n  opsdeck approve 41 approve-25"),
    ({"paused_by": "engine", "missing": "too little traffic"}, "the engine holds it: too little traffic")])
def test_resuming_what_is_not_paused_says_so(rolling: Engine, given: dict[str, Any], says: str) -> None:
    rolling.roll(**given)
    done = rolling.opsdeck("resume", "flights")
    assert (done.code, done.out, rolling.backend.seen) == (1, "", [])
    assert says in done.err


def test_a_plan_that_is_no_rollout_is_refused_as_that(rolling: Engine, tmp_path: Path) -> None:
    done = rolling.opsdeck("start", "flights", "--to", "challenger", "--plan", "ask")
    assert (done.code, rolling.backend.seen) == (2, [])
    assert "ask is no plan of a rollout: it is a runbook" in done.err
    path = tmp_path / "mine.yaml"
    path.write_text("opsdeck: 1\nid: mine\nkind: runbook\n")
    done = rolling.opsdeck("start", "flights", "--to", "challenger", "--plan", str(path))
    assert (done.code, rolling.backend.seen) == (2, [])
    assert "it is a runbook" in done.err


def test_the_path_of_weights_says_where_one_that_went_back_stopped(rolling: Engine) -> None:
    rolling.roll(**ROLLED_BACK)
    assert "✔ 1 %  ✘ 5 % stopped here  · 25 %" in rolling.opsdeck("flights").out


def test_an_abort_says_where_the_traffic_goes(rolling: Engine) -> None:
    rolling.roll()
    done = rolling.opsdeck("abort", "flights")
    assert done.out == ("aborting run 41: back to champion 100 %, challenger 0 %\n"
                        "  it has ended: rolled back\n")


def test_an_abort_does_not_need_the_journal(rolling: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(name: str) -> wire.Rollout:
        raise JournalUnavailable("the disk is full")

    rolling.roll()
    rolling.backend.services[0].rollout = {"run": "41"}
    monkeypatch.setattr(rolling.backend, "rollout", broken)
    for name in ("flights", "41"):
        assert rolling.opsdeck("abort", name).code == 0
    assert rolling.opsdeck("pause", "flights").code == 1
    assert [verb for verb, *_ in rolling.backend.seen] == ["abort", "abort"]


def test_the_run_is_printed_as_json_after_a_verb(rolling: Engine) -> None:
    rolling.roll()
    assert json.loads(rolling.opsdeck("pause", "flights", "--json").out)["state"] == "paused"


@pytest.mark.parametrize("verb", ["pause", "resume", "promote", "promote-full", "abort"])
@pytest.mark.parametrize(("ended", "says", "next"), [
    (ROLLED_BACK, "has ended, rolled back at 03:20:07Z: errors are worse", "opsdeck rollout retry flights"),
    (DONE, "has ended, done at 03:29:07Z", "opsdeck rollout undo flights")])
def test_a_rollout_that_has_ended_says_how_and_what_can_be_done(rolling: Engine, verb: str,
                                                                ended: dict[str, Any], says: str,
                                                                next: str) -> None:
    rolling.roll(**ended | {"at": STARTED + 1000})
    done = rolling.opsdeck(verb, "flights")
    assert (done.code, done.out) == (1, "")
    assert says in done.err
    assert next in done.err
    assert rolling.backend.seen == []


@pytest.mark.parametrize(("words", "step"), [
    (("promote", "flights", "--yes"), "watch-5"),
    (("promote-full", "flights", "--confirm", "flights"), "watch-5")])
def test_without_a_terminal_a_promotion_wants_its_option(rolling: Engine, words: tuple[str, ...],
                                                         step: str) -> None:
    rolling.roll()
    refused = rolling.opsdeck(*words[:2])
    assert (refused.code, rolling.backend.seen) == (2, [])
    assert f"opsdeck rollout {' '.join(words)}" in refused.err
    assert rolling.opsdeck(*words, "--reason", "quiet night").code == 0
    assert rolling.asked(words[0]) == [wire.Act(step=step, reason="quiet night")]


def test_promoting_in_full_wants_the_services_own_name(rolling: Engine) -> None:
    rolling.roll()
    refused = rolling.opsdeck("promote-full", "41", "--confirm", "41")
    assert refused.code == 2
    assert "--confirm flights" in refused.err
    assert rolling.backend.seen == []


@pytest.mark.parametrize(("verb", "typed", "agreed"), [
    ("promote", "y\n", True), ("promote", "\n", False), ("promote", "", False), ("promote", "no\n", False),
    ("promote-full", "flights\n", True), ("promote-full", "y\n", False), ("promote-full", "41\n", False)])
def test_on_a_terminal_a_promotion_shows_what_it_is_about_and_has_no_default_yes(
        rolling: Engine, verb: str, typed: str, agreed: bool) -> None:
    rolling.roll()
    done = rolling.opsdeck(verb, "flights", typed=typed)
    for told in ("challenger 8 beside champion 7", "at 5 %, watch-5", "undecided", "approvals stay",
                 "champion 100 %"):
        assert told in done.out
    assert (done.code, len(rolling.asked(verb))) == ((0, 1) if agreed else (3, 0))


@pytest.mark.parametrize("changed", [{"step": "watch-25"}, {"weight": 25.0}, {"verdict": "bad"},
                                     {"state": "paused"}])
def test_a_promotion_of_what_has_moved_on_since_it_was_shown_is_refused(
        rolling: Engine, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]) -> None:
    rolling.roll()
    whole: Callable[[str], Any] = rolling.backend.rollout

    async def moving(name: str) -> wire.Rollout:
        found: wire.Rollout = await whole(name)
        rolling.now(**changed)
        return found

    monkeypatch.setattr(rolling.backend, "rollout", moving)
    done = rolling.opsdeck("promote", "flights", typed="y\n")
    assert done.code == 1
    assert "when you looked" in done.err
    assert rolling.asked("promote") == []


def test_who_may_not_promote_hears_it_from_the_engine(rolling: Engine,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.daemon import identity

    def operator(self: identity.Gatekeeper, peer: Any) -> Caller:
        return Caller("alice", 10, 1, frozenset({"viewer", "operator"}), "test")

    monkeypatch.setattr(identity.Gatekeeper, "caller", operator)
    rolling.roll()
    done = rolling.opsdeck("promote", "flights", "--yes")
    assert done.code == 8
    assert "alice may not promote a rollout: that wants the role approver" in done.err


def test_retry_starts_the_same_plan_with_the_same_parameters_and_says_so(rolling: Engine) -> None:
    rolling.roll(**ROLLED_BACK)
    done = rolling.opsdeck("retry", "flights", "--no-follow")
    assert done.code == 0, done.err
    assert "retrying run 41 of flights, rolled back at" in done.out
    assert "it starts start-rollout with service=flights, to=challenger, requests=200" in done.out
    assert [(r.procedure, r.params) for r in rolling.asked("start")] == [
        ("start-rollout", {"service": "flights", "to": "challenger", "requests": 200})]


def test_undo_goes_back_to_who_was_champion_before_and_says_so(rolling: Engine) -> None:
    rolling.roll(**DONE)
    done = rolling.opsdeck("undo", "flights", "--no-follow", "--json")
    assert "undoing run 41 of flights: from challenger 8 back to champion 7" in done.err
    assert "it starts rollback-after-promotion with service=flights, to=champion" in done.err
    assert json.loads(done.out)["procedure"] == "rollback-after-promotion"
    assert rolling.asked("start")[0].params == {"service": "flights", "to": "champion"}


@pytest.mark.parametrize(("verb", "given", "says"), [
    ("retry", {}, "still runs"), ("undo", {}, "still runs"), ("retry", DONE, "nothing to retry"),
    ("undo", ROLLED_BACK, "promoted nothing")])
def test_retry_is_for_what_failed_and_undo_for_what_is_done(rolling: Engine, verb: str,
                                                            given: dict[str, Any], says: str) -> None:
    rolling.roll(**given)
    done = rolling.opsdeck(verb, "flights")
    assert done.code == 1
    assert says in done.err
    assert "opsdeck rollout " in done.err
    assert rolling.backend.seen == []


@pytest.mark.parametrize("words", [("flights",), ("status", "flights"), ("41",), ("flights", "--json")])
def test_the_verb_may_be_left_out_to_see_it_on_one_screen(rolling: Engine, words: tuple[str, ...]) -> None:
    seen = rolling.roll()
    done = rolling.opsdeck(*words)
    assert done.code == 0
    if "--json" in words:
        assert json.loads(done.out) == json.loads(rolling.opsdeck("status", "41", "--json").out)
        assert json.loads(done.out)["run"] == seen.run
    else:
        assert "rollout 41 of flights" in done.out


def test_one_screen_tells_path_evidence_budget_verdict_and_what_is_to_do(rolling: Engine) -> None:
    gate = wire.Gate("approval", "cafe", "Is it well?", approvals_needed=1, roles=["approver"])
    rolling.roll(state="waiting", gate=gate, gate_step="approve-25", missing="too little traffic",
                 wait_s=125.0, concurrent=False, next="an approver must look",
                 metrics=[metric(values=("38 ms", "36 ms"), expected=0.0123),
                          metric("score", "scores", critical=False, line=None)])
    screen = rolling.opsdeck("flights").out
    for told in ("◆ waiting  rollout 41 of flights: challenger 8 beside champion 7, by oncall1",
                 "✔ 1 %  ▶ 5 %  · 25 %  · 50 %  · 100 %  now 5 %", "watch-5 (6 of 12): Watch at 5 %",
                 "1.01 % of 1,480 (38 ms)", "1.00 % of 28,120 (36 ms)", "EXPECTED", "1.23 %",
                 "scores (advisory)", "6.20",
                 "15 of 200 bad requests, 1,480 of 20,000 exposed",
                 "undecided: neither worse nor shown to be as good yet",
                 "too little traffic; about 2 min 5 s at this rate", "not concurrent",
                 "1 approval of approver", "opsdeck approve 41 approve-25", "an approver must look"):
        assert told in screen, screen
    assert len(screen.splitlines()) <= 24
    assert "undecided: undecided" not in screen


def test_a_router_that_does_not_answer_is_unknown_not_zero(rolling: Engine) -> None:
    rolling.roll(weight=None, metrics=[metric(canary=(0, 0))])
    screen = rolling.opsdeck("flights").out
    assert "now unknown" in screen
    assert "no requests yet" in screen


def test_one_that_has_ended_shows_how_and_what_is_left_to_do(rolling: Engine) -> None:
    rolling.roll(**ROLLED_BACK)
    screen = rolling.opsdeck("flights").out
    assert "reason    errors are worse" in screen
    rolling.now(sentence="errors are worse")
    assert rolling.opsdeck("flights").out.count("errors are worse") == 1
    assert "`opsdeck rollout retry flights` starts it again" in screen
    for gone in ("unknown", "then ", "undo ", "nothing is analysed"):
        assert gone not in screen


def test_before_the_champion_is_known_it_is_left_out(rolling: Engine) -> None:
    rolling.roll(champion="", champion_version=None, metrics=[], safe={}, weight=None)
    screen = rolling.opsdeck("flights").out
    assert "rollout 41 of flights: challenger 8, by oncall1" in screen


def test_the_list_has_those_that_run_first(rolling: Engine) -> None:
    assert "opsdeck rollout start SERVICE" in rolling.opsdeck("list").out
    rolling.roll("40", **ROLLED_BACK)
    rolling.roll("41")
    rows = rolling.opsdeck("list").out.splitlines()[1:]
    assert [row.split()[1] for row in rows] == ["41", "40"]
    assert "rolled back" in rows[1]
    assert [r["run"] for r in json.loads(rolling.opsdeck("list", "--json").out)["rollouts"]] == ["41", "40"]


def test_text_from_elsewhere_cannot_move_the_cursor(rolling: Engine) -> None:
    rolling.roll(sentence="well\x1b[2J", next="look\nthere")
    assert "\x1b" not in rolling.opsdeck("flights").out


def test_without_an_engine_every_verb_exits_with_7(rolling: Engine) -> None:
    rolling.stop()
    try:
        for words in (("flights",), ("abort", "flights"), ("start", "flights", "--to", "b"), ("list",)):
            done = rolling.opsdeck(*words)
            assert done.code == 7
            assert "opsdeck engine start" in done.err
    finally:
        rolling.start()


HEAVY = ("pydantic", "httpx", "starlette", "uvicorn", "textual", "numpy", "scipy", "pandas", "mlflow",
         "boto3", "asyncio")


def test_the_command_stays_light() -> None:
    names = ("", "_acts", "_changes", "_find", "_start", "_text", "_watch")
    modules = ", ".join(f"engine.cli.rollout{name}" for name in names)
    code = f"import sys, {modules}; print(*sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
