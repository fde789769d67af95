"""What may be done when, and what is refused because the world moved."""

from __future__ import annotations

import copy
from collections.abc import Callable

import msgspec
import pytest

from console import asks, fake_runs, run_text, safety
from console.acting import body, sentence
from console.asks import Choice
from console.fake_world import START, World
from console.glyphs import UNICODE
from console.source import Link, Tick
from console.state import STALE_AFTER_S, State
from engine.api import wire
from engine.api.backend import VERBS
from engine.daemon.routes import WANTS
from engine.errors import NotPermitted

RUNS = {run.id: run for run in fake_runs.runs(START)}
GATES = {"184": "typed", "182": "approval", "181": "answer", "180": "settle", "179": "failed",
         "178": "confirm"}


def state(*, write: bool = True, read_only: bool = False, age: float = 1.0,
          small: bool = False) -> State:
    made = State(lambda: 1000.0, write=write, read_only=read_only)
    made.tick = Tick(World().snapshot(), 1000.0 - age, Link("live"))
    made.too_small = small
    return made


def gated(id: str) -> tuple[wire.RunView, wire.StepView]:
    run = copy.deepcopy(RUNS[id])
    return run, next(s for s in run.steps if s.gate is not None)


@pytest.mark.parametrize("verb", [*VERBS, "start"])
def test_in_write_mode_on_fresh_data_everything_may_be_done(verb: str) -> None:
    assert safety.refusal(verb, state()) is None


@pytest.mark.parametrize("hindered", [
    {"write": False}, {"age": STALE_AFTER_S + 0.1}, {"small": True}])
@pytest.mark.parametrize("verb", [v for v in (*VERBS, "start") if v != "abort"])
def test_reading_mode_old_data_and_a_small_terminal_refuse_with_a_sentence(
        verb: str, hindered: dict[str, float]) -> None:
    refused = safety.refusal(verb, state(**hindered))  # type: ignore[arg-type]
    assert refused is not None and refused.endswith(".")


def test_abort_is_refused_by_nothing_but_read_only() -> None:
    assert safety.refusal("abort", state(write=False, age=9e9, small=True)) is None
    refused = safety.refusal("abort", state(read_only=True))
    assert refused is not None and "--read-only" in refused


def test_read_only_beats_write() -> None:
    assert not state(write=True, read_only=True).write


def test_old_data_is_named_with_its_age_and_abort_is_offered() -> None:
    refused = safety.refusal("approve", state(age=12.0))
    assert refused == ("The data is 12 s old, so nothing is approved on it. Abort still works "
                       "(x, then y).")


def _digest(step: wire.StepView) -> None:
    assert step.gate is not None
    step.gate = msgspec.structs.replace(step.gate, digest="0" * 16)


def _world(step: wire.StepView) -> None:
    assert step.preview is not None
    step.preview = msgspec.structs.replace(step.preview, state={"champion": 80, "challenger": 20})


def _state(step: wire.StepView) -> None:
    step.state = "done"


def _attempt(step: wire.StepView) -> None:
    step.attempt += 1


def _command(step: wire.StepView) -> None:
    step.command = "traffic.shift flights champion=0"


@pytest.mark.parametrize(("change", "says"), [
    (_digest, "is not what was shown"), (_world, "The world changed"),
    (_state, "is now done"), (_attempt, "Step drain"), (_command, "is not what was shown")])
def test_what_a_dialog_stated_must_still_hold(
        change: Callable[[wire.StepView], None], says: str) -> None:
    run, step = gated("184")
    before = safety.stated(run, step.id)
    assert safety.changed(before, run) is None
    change(step)
    difference = safety.changed(before, run)
    assert difference is not None and says in difference


def test_events_beside_the_step_do_not_void_what_was_stated() -> None:
    run, step = gated("184")
    before = safety.stated(run, step.id)
    run.revision += 5
    run.at += 60
    run.steps[0].stdout += "more"
    assert safety.changed(before, run) is None


@pytest.mark.parametrize("id", GATES)
def test_every_question_states_target_effect_and_undo_and_has_no_default(id: str) -> None:
    run, step = gated(id)
    ask = asks.gate(run, step, START)
    labels = {label for label, _ in ask.facts}
    assert {"Target", "Effect", "Undo"} <= labels
    assert all(len(choice.key) == 1 for choice in ask.choices)
    if step.preview is not None:
        assert {"Now", "After"} <= labels


@pytest.mark.parametrize("id", GATES)
def test_every_answer_sends_what_its_verb_wants_and_nothing_else(id: str) -> None:
    run, step = gated(id)
    ask = asks.gate(run, step, START)
    for choice in (*ask.choices, *asks.abort(run).choices, *asks.pause(run).choices):
        about = ask if choice in ask.choices else \
            asks.abort(run) if choice.verb == "abort" else asks.pause(run)
        assert choice.verb != "start"
        act = body(about, choice, "a reason")
        given = {f for f in act.__struct_fields__ if getattr(act, f) not in (None, False)}
        wants, may = WANTS[choice.verb]
        assert wants <= given <= wants | may, (choice, given)


def test_typing_the_name_is_wanted_where_the_gate_wants_it() -> None:
    run, step = gated("184")
    choice, = asks.gate(run, step, START).choices
    assert (choice.wants, choice.expected, choice.verb) == ("typed", "flights", "confirm")


def test_abort_undoes_only_on_a_key_of_its_own() -> None:
    run, step = gated("184")
    assert [c.key for c in asks.abort(run).choices] == ["y"]
    step.state, step.gate = "done", None
    assert [(c.key, c.rollback) for c in asks.abort(run).choices] == [("y", False), ("r", True)]


@pytest.mark.parametrize("id", GATES)
@pytest.mark.parametrize("width", [80, 160])
def test_the_next_human_action_is_a_whole_sentence_that_names_a_key(id: str, width: int) -> None:
    run, step = gated(id)
    text, role = run_text.next_action(run, step, state())
    assert "enter" in text or "A " in text
    assert role == "ask" and text.rstrip().endswith((".", "?"))


@pytest.mark.parametrize("total", range(8, 46))
@pytest.mark.parametrize("steps", [1, 5, 30])
def test_the_action_keeps_its_lines_whatever_else_is_there(total: int, steps: int) -> None:
    for action in (1, 2, 3):
        high = run_text.heights(total, steps, 8, action)
        assert sum(high) + action + 1 <= max(total, action + 4)
        assert high[0] >= 1 and high[1] >= 2


def test_the_steps_tell_their_state_by_glyph_and_word() -> None:
    run, _ = gated("180")
    marks = {row.key: (row.mark[0], row.cells["note"][0]) for row in
             run_text.rows(run, UNICODE, START)}
    assert marks["restart"] == ("?", "outcome unknown")


def test_an_error_is_told_in_sentences() -> None:
    error = NotPermitted("you may not approve run 7", hint="wanted: approver")
    assert sentence(error) == "You may not approve run 7. Wanted: approver."


def test_a_dry_run_is_a_choice_of_its_own() -> None:
    procedure = fake_runs.library()[0]
    choices: tuple[Choice, ...] = asks.start(procedure, {"service": "flights"},
                                             World().snapshot().services).choices
    assert [(c.key, c.dry_run) for c in choices] == [("y", False), ("d", True)]


def test_a_step_that_an_abort_has_ended_is_shown_as_aborted_and_not_as_failed() -> None:
    from engine.procedures.ending import ABORTED
    run = copy.deepcopy(RUNS["175"])
    run.state, run.steps[1].error = "aborted", ABORTED
    shown = run_text.rows(run, UNICODE, START)[1]
    assert shown.mark == ("■", "warn") and shown.cells["note"] == ("aborted", "warn")
    facts = "\n".join("".join(t for t, _ in row) for row in run_text.panel(run, run.steps[1], START, 90, 9))
    assert f"Ended      {ABORTED}" in facts and "Error" not in facts
    run.steps[1].error = "exit code 1: unit not found"
    assert run_text.rows(run, UNICODE, START)[1].mark == ("✘", "bad")


def test_what_a_person_is_to_do_is_shown_whole_where_there_is_room() -> None:
    run, step = gated("181")
    step.command = "Ask the owner of the model whether the numbers of last night are right. " * 6
    def text(spare: int) -> str:
        rows = ["".join(t for t, _ in row[1:]) for row in run_text.panel(run, step, START, 89, 9, spare)]
        return " ".join(" ".join(rows).split())
    assert step.command.strip() in text(40)
    assert step.command.strip() not in text(0) and "…" in text(0)


def test_the_timeline_names_the_step_and_its_second_attempt() -> None:
    event = World().events(5, None)[1]
    again = msgspec.structs.replace(event, attempt=2, text="begins", step="notify", by="engine")
    whole = msgspec.structs.replace(event, step=None, attempt=None, text="started setup", by="root")
    assert [row.split("Z", 1)[1] for row in run_text.event_lines([whole, again], START, 90)] == [
        "  root                started setup", "  engine   notify (2) begins"]


def test_the_roles_that_the_console_asks_for_are_the_engine_s() -> None:
    from engine.daemon.identity import VERB_ROLES
    assert {verb: roles for verb, roles in safety.ROLES.items() if verb != "start"} == {
        verb: roles for verb, roles in VERB_ROLES.items() if verb != "abort"}


@pytest.mark.parametrize("verb", [*VERBS, "start"])
def test_who_lacks_the_role_is_told_so_but_never_kept_from_an_abort(verb: str) -> None:
    now = state()
    assert now.snapshot is not None
    now.snapshot.engine.roles = ["viewer"]
    refused = safety.refusal(verb, now)
    if verb == "abort":
        assert refused is None
    else:
        assert refused == (f"You may not {verb} here: that wants the role {' or '.join(safety.ROLES[verb])}, "
                           "and you have viewer.")


def test_an_error_about_the_reader_says_you() -> None:
    error = NotPermitted("nc-ann may not approve a run: that wants the role approver, and you have operator")
    assert sentence(error, "nc-ann").startswith("You may not approve a run:")
    assert sentence(NotPermitted("nc-bob may not approve"), "nc-ann") == "Nc-bob may not approve."
