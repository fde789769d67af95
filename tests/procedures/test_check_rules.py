"""`check` finds each mistake a procedure can make, names its line, and says what to do."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from engine.config import Policy
from engine.errors import DocumentError
from engine.procedures.check import check_paths, parse
from tests.procedures.language import GOOD, TODAY, check, edited, line_of, registry, told


def test_a_good_procedure_has_no_problem_and_becomes_a_document() -> None:
    report = check(GOOD)
    assert report.problems == []
    assert report.document is not None
    assert report.document.step("note").confirm == "yes"
    assert report.document.step("drain").timeout == 60.0
    assert report.where("drain", "undo") == (
        f"rollback-model.yaml:{line_of(GOOD, 'undo:')}, step drain")


CASES = [
    # what is changed, the message, the hint, a part of the line that is named
    ("timeout: 60s", "timout: 60s", "unknown key `timout`", "did you mean `timeout`", "timout"),
    ("timeout: 60s", "timeout: 0", "`timeout` must be more than 0", None, "timeout: 0"),
    ("timeout: 60s", "timeout: soon", "not a duration", None, "timeout: soon"),
    ("expires: 30m", "expires: 0m", "`expires` must be more than 0", None, "expires"),
    ("min: 2, roles: [approver]", "min: 0, roles: [approver]", "`min` must be at least 1", None,
     "min: 0"),
    ("[approver]", "[aprover]", "no role `aprover`", "did you mean `approver`", "aprover"),
    ("confirm: yes", "confirm: maybe", "`confirm` must be `none`, `yes`", None, "maybe"),
    ("typed: \"${{ params.service }}\"", "typed: \"\"", "`typed` must be something", None, 'typed:'),
    ("typed: \"${{ params.service }}\"}\n", "typed: \"${{ params.reason }}\"}\n",
     None, None, "typed"),
    ("use: traffic.read", "use: traffic.raed", "no action `traffic.raed`",
     "did you mean `traffic.read`", "traffic.raed"),
    ("with: {service: \"${{ params.service }}\"}", "with: {servise: x}", "unknown key `servise`",
     "did you mean `service`", "servise"),
    ("with: {service: \"${{ params.service }}\"}", "with: {}", "`service` is missing", None,
     "with: {}"),
    ("needs: [drain]", "needs: [drian]", "no step `drian`", "did you mean `drain`", "drian"),
    ("needs: [drain]", "needs: [watch]", "cannot wait for itself", None, "needs"),
    ("on_failure: rollback", "on_failure: {goto: lok}", "no step `lok`", "did you mean `look`",
     "goto: lok"),
    ("on_failure: rollback", "on_failure: {goto: drain}", "cannot go to itself", "retry", "goto"),
    ("expect: \"result.weights.champion >= 0\"", "expect: \"steps.look.state == 'done'\"",
     "has not ended yet", "say `state` alone", "expect"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"steps.lok.state == 'done'\"",
     "no step `lok`", "did you mean `look`", "steps.lok"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"steps.look.rseult == 1\"",
     "a step has no `rseult`", "did you mean `result`", "rseult"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"steps.watch.result == 1\"",
     "`watch` cannot have run before", None, "steps.watch"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"result.x == 1\"",
     "known in `expect` only", "steps.<id>.result", "result.x"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"params.weight <\"",
     "cannot be read as CEL", None, "weight <\""),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"${{ true }}\"",
     "is an expression already", "leave", "true }}"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"params.weight\"",
     "a whole number, not true or false", "compare", "when: \"params.weight"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"params.service + 1 == 2\"",
     "types in .* do not fit", "CEL converts nothing", "+ 1"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"siez(params.reason) > 0\"",
     "no function `siez`", "did you mean `size`", "siez"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"weight > 1\"",
     "no name `weight`", "did you mean `params.weight`", "weight > 1"),
    ("when: \"steps.look.result.weights.champion < 100\"", "when: \"run.hmoe == 'x'\"",
     "no `hmoe` in run", "did you mean `home`", "run.hmoe"),
    ("check: \"params.weight <= 50\"", "check: \"params.wieght <= 50\"", "no parameter `wieght`",
     "did you mean `weight`", "wieght"),
    ("check: \"params.weight <= 50\"", "check: \"steps.look.state == 'done'\"",
     "before any step has run", "params", "steps.look.state"),
    ("check: \"params.weight <= 50\"", "check: \"params.weight / 0 == 1\"", "divides by zero",
     None, "/ 0"),
    ("effect: idempotent\n    env", "effect: once\n    env", "`retry` would repeat",
     "effect: idempotent", "retry"),
    ("    irreversible: notes are kept\n", "", "says nothing of how to undo it", "irreversible",
     "id: note"),
    ("    irreversible: notes are kept\n", "    irreversible: \"\"\n",
     "`irreversible` must be something", None, "irreversible"),
    ("on_failure: rollback", "irreversible: no", "cannot be `irreversible`", "remove one", "irrev"),
    ("evidence: [stdout]", "evidence: [stduot]", "cannot be evidence", "stdout", "stduot"),
    ("env: {TOKEN: ", "env: {TO-KEN: ", "cannot be the name of a variable", None, "TO-KEN"),
    ("env: {TOKEN: \"${{ params.token }}\"}", "env: {TOKEN: \"Bearer ${{ params.token }}\"}",
     "must be the whole value", "write", "Bearer"),
    ("champion=100\"]\n    effect", "${{ params.token }}\"]\n    effect", "would show it", "env:",
     "trafficctl\", \"set"),
    ("back under 300 ms?", "${{ params.token }}", "would show it", "env:", "manual"),
    ("echo ${{ params.reason }}", "echo \"${{ params.reason }}\"", "inside double quotes", "env:",
     "echo"),
    ("echo ${{ params.reason }}", "eval ${{ params.reason }}", "`eval` reads its text", "env:",
     "echo|eval"),
    ("echo ${{ params.reason }}", "echo ${{ params.reason", "never closed", None, "echo"),
    ("echo ${{ params.reason }}", "echo ${{ }}", "nothing between", None, "echo"),
    ("echo ${{ params.reason }}", "echo ${{ params.reson }}", "no parameter `reson`", "reason",
     "echo"),
    ("probe: {shell: [\"trafficctl\", \"is\", \"${{ params.service }}\", \"champion=100\"]}",
     "probe: {use: traffic.shift, with: {service: a, weights: {a: 100}}}", "only looks", None,
     "probe"),
    ("probe: {shell: [\"trafficctl\", \"is\", \"${{ params.service }}\", \"champion=100\"]}",
     "probe: {shell: [x], use: y}", "says `use` and `shell`", None, "probe"),
    ("needs: [drain]", "timeout: 5s", "no meaning in a manual step", "remove", "timeout: 5s"),
    ("needs: [drain]", "undo: {shell: [x]}", "no meaning in a manual step", "remove", "undo: {sh"),
    ("    use: traffic.read\n", "", "does nothing", None, "id: look"),
    ("    use: traffic.read\n", "    use: traffic.read\n    manual: x\n", "says `use` and `manual`",
     None, "id: look"),
    ("id: note", "id: look", "two steps `look`", "line", "id: look"),
    ("id: note", "id: Note", "`id` must be text that matches", None, "id: Note"),
    ("default: 10}", "default: 200}", "default of `weight` must be from 0 to 100", None, "default: 2"),
    ("default: 10}", "default: ten}", "default of `weight` must be a whole number", None, "ten"),
    ("default: 0.5}", "pattern: x}", "`pattern` is for strings", None, "pattern: x"),
    ("default: \"\"}", "min: 3, default: \"\"}", "`min` is for numbers", None, "min: 3"),
    ("default: \"\"}", "choices: [a, b], default: \"\"}", "default of `reason` must be one of a, b",
     None, "choices"),
    ("pattern: \"^[a-z0-9-]+$\"", "pattern: \"(\"", "cannot be read", None, "pattern: \"(\""),
    ("required: true, pattern", "required: true, default: x, pattern", "never used", "one of",
     "default: x"),
    ("{type: secret, required: false}", "{type: secret, default: hunter2}",
     "must be a reference, never the secret itself", "env:NAME", "hunter2"),
    ("  ratio: ", "  9ratio: ", "cannot be the name of a parameter", "letter first", "9ratio"),
    ("reviewed: 2026-11-20", "reviewed: 2026-01-20", "308 days ago: past its 90 days", "read it",
     "reviewed"),
    ("reviewed: 2026-11-20", "reviewed: 2027-11-20", "yet to come", None, "reviewed"),
    ("reviewed: 2026-11-20", "reviewed: last week", "a date such as", None, "reviewed"),
    ("id: rollback-model", "id: rollback", "is not the file's name", "rename", "id: rollback"),
    ("for_alerts: [p99_ms]", "for_alerts: [p99]", "no signal is called `p99`", "p99_ms", "p99"),
    ("title: Roll a", "titel: Roll a", "unknown key `titel`", "title", "titel"),
    ("title: Roll a service", "title: Roll ${{ params.service }}", "not filled in here", None,
     "title: Roll"),
    ("title: Note it down", "title: 1.10", "must be text, not 1.10", "put it in quotes: \"1.10\"",
     "1.10"),
    ("kind: runbook", "kind: runbok", "must be `runbook`, `pipeline`", "did you mean `runbook`",
     "runbok"),
    ("opsdeck: 1", "opsdeck: 2", "must be `1`, not 2", None, "opsdeck"),
    ("effect: none", "effect: twice", "must be `none`, `idempotent` or `once`", None, "twice"),
    ("skippable: true", "skippable: maybe", "must be true or false", "without quotes", "maybe"),
]


@pytest.mark.parametrize(("old", "new", "message", "hint", "at"), CASES,
                         ids=[f"{i}-{c[1].strip()[:30]}" for i, c in enumerate(CASES)])
def test_each_mistake_is_named_with_its_line_and_a_hint(
        old: str, new: str, message: str | None, hint: str | None, at: str) -> None:
    text = edited((old, new))
    report = check(text)
    if message is None:
        assert report.problems == []
        return
    problem = told(report, message)
    line = text.splitlines()[problem.line - 1]
    assert any(part in line for part in at.split("|")), f"line {problem.line} is {line!r}"
    if hint is not None:
        assert problem.hint is not None and hint in problem.hint
    assert (report.document is None) == (problem.level == "error")


def test_the_text_to_type_must_not_come_out_empty() -> None:
    text = edited(("typed: \"${{ params.service }}\"", "typed: \"${{ params.reason }}\""),
                  ("    when: \"steps.look.result.weights.champion < 100\"\n", ""))
    assert told(check(text), "would be empty").line == line_of(text, "typed")


def test_an_optional_parameter_without_a_default_is_null_and_null_has_no_text() -> None:
    text = edited(("reason:  {type: string, default: \"\"}", "reason:  {type: string}"))
    problem = told(check(text), "`reason` is null when it is not given")
    assert problem.line == line_of(text, "echo")


def test_a_default_is_not_held_against_a_step_that_its_when_keeps_from_running() -> None:
    text = edited(("reason:  {type: string, default: \"\"}", "reason:  {type: string}"),
                  ("    skippable: true", "    when: \"params.reason != null\""))
    assert check(text).problems == []


def test_the_line_within_a_script_is_named() -> None:
    text = edited(("${{ params.weight }} >> notes", "x >> notes\n      echo ${{ params.wieght }}"))
    assert told(check(text), "wieght").line == line_of(text, "wieght")


def test_every_problem_of_a_file_is_reported_at_once() -> None:
    text = edited(("timeout: 60s", "timout: 60s"), ("kind: runbook", "kind: x"),
                  ("needs: [drain]", "needs: [drian]"), ("params.weight <= 50", "params.wat <= 50"),
                  ("use: traffic.read", "use: traffic.raed"), ("confirm: yes", "confirm: 7"),
                  ("default: 10}", "default: ten}"))
    report = check(text)
    assert len(report.errors) >= 7
    for pattern in ("timout", "kind", "drian", "wat", "raed", "confirm", "ten|whole number"):
        assert any(__import__("re").search(pattern, p.message) for p in report.problems), pattern
    assert [p.line for p in report.problems] == sorted(p.line for p in report.problems)


def test_a_circle_of_needs_is_drawn() -> None:
    text = edited(("    effect: none\n", "    effect: none\n    needs: [note]\n"))
    assert told(check(text), "wait for one another").message.endswith(
        "look → note → drain → look")


def test_a_step_beside_another_may_not_read_it() -> None:
    text = edited(("needs: [drain]", "needs: [look]\n    when: \"steps.note.state == 'done'\""))
    problem = told(check(text), "`watch` does not wait for step `note`")
    assert problem.hint == "add `note` to its `needs`"


def test_goto_back_over_a_step_that_may_run_once_only_is_refused() -> None:
    back = "skippable: true\n    on_failure: {goto: look}"
    assert check(edited(("skippable: true", back))).problems == []
    once = edited(("skippable: true", back),
                  ("effect: idempotent\n    confirm", "effect: once\n    confirm"))
    assert told(check(once), "would repeat `note`").line == line_of(once, "goto: look")


def test_a_goto_back_lets_the_earlier_step_read_what_ran_before() -> None:
    text = edited(("skippable: true", "skippable: true\n    on_failure: {goto: drain}"),
                  ("steps.look.result.weights.champion < 100",
                   "steps.look.result.weights.champion < 100 || steps.note.state == 'failed'"))
    assert check(text).problems == []


def test_an_effect_may_only_be_stricter_than_the_actions_own() -> None:
    shift = ("use: traffic.shift\n    with: {service: a, weights: {a: 100}}\n"
             "    irreversible: x\n    effect: ")
    shell = "shell: |\n      set -e\n      echo ${{ params.reason }} ${{ params.weight }} >> notes\n" \
            "    effect: idempotent\n    confirm: yes\n    irreversible: notes are kept"
    weaker = check(edited((shell, shift + "none")))
    assert "may only be stricter" in told(weaker, "traffic.shift is `idempotent`").message
    assert check(edited((shell, shift + "once"))).problems == []


def test_values_of_actions_are_checked_where_they_are_known_ahead() -> None:
    def with_(text: str) -> str:
        return edited(("use: traffic.read", "use: traffic.shift"), ("effect: none", "irreversible: x"),
                      ("with: {service: \"${{ params.service }}\"}", f"with: {text}"))

    assert told(check(with_("{service: a, weights: {a: lots}}")), "must be a number")
    assert told(check(with_("{service: a, weights: {a: 5}}")), "weights add up to 100")
    known = check(with_("{service: a, weights: {a: 100}, lease_s: \"${{ params.reason }}\"}"))
    assert told(known, "`lease_s` must be a number")
    later = check(with_("{service: a, weights: {a: \"${{ params.service }}\"}}"))
    assert later.problems == []
    assert told(check(with_("{weights: {a: \"${{ params.service }}\"}}")), "`service` is missing")


def test_a_name_with_a_dash_is_a_subtraction_and_the_hint_says_how_to_write_it() -> None:
    text = edited(("  ratio:   {type: number, default: 0.5}", "  max-ratio: {type: number, default: 1}"),
                  ("params.weight <= 50", "params.max-ratio <= 50"))
    assert told(check(text), "subtraction").hint == 'write params["max-ratio"]'
    assert check(text.replace("params.max-ratio", 'params[\\"max-ratio\\"]')).problems == []


def test_asking_whether_a_secret_is_given_does_not_show_it() -> None:
    asked = edited(("    skippable: true", "    when: \"params.token != null\""))
    assert check(asked).problems == []
    shown = edited(("    skippable: true", "    when: \"params.token == 'hunter2'\""))
    assert told(check(shown), "would show it")


def test_an_undo_may_read_its_own_step_and_a_probe_may_not() -> None:
    undo = edited(("restore\", \"${{ params.service }}\"", "restore\", \"${{ steps.drain.stdout }}\""))
    assert check(undo).problems == []
    probe = edited(("is\", \"${{ params.service }}\"", "is\", \"${{ steps.drain.stdout }}\""))
    assert told(check(probe), "cannot have run before")


def test_where_the_policy_asks_for_more_there_is_a_warning() -> None:
    policy = Policy.model_validate({"rules": [
        {"action": "shell", "confirm": "yes", "approvals": {"min": 3}},
        {"action": "traffic.*", "service": "other", "confirm": "yes"}]})
    report = check(GOOD, policy=policy)
    assert report.document is not None
    assert {p.message for p in report.problems} == {"the policy asks for approvals for shell: 3"}
    assert len(report.warnings) == 2


def test_parse_reads_a_pinned_text_again_without_any_registry() -> None:
    assert parse(GOOD, "pinned").step("note").confirm == "yes"
    with pytest.raises(DocumentError) as error:
        parse(GOOD.replace("timeout: 60s", "timout: 60s"), "pinned")
    assert any("timout" in problem for problem in error.value.problems)


def test_parse_with_a_registry_checks_everything() -> None:
    with pytest.raises(DocumentError) as error:
        parse(GOOD.replace("needs: [drain]", "needs: [drian]"), "given", registry(), today=TODAY)
    assert any("drian" in problem for problem in error.value.problems)


def test_an_id_given_twice_over_files_names_both(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rollback-model.yaml").write_text(GOOD)
    (tmp_path / "b" / "broken.yml").write_text("opsdeck: [")
    found = check_paths([tmp_path], registry(), today=TODAY)
    assert found.files == 3
    taken = [p for p in found.problems if "is taken" in p.message]
    assert len(taken) == 1 and str(tmp_path / "a") in (taken[0].hint or "")
    assert any(p.file.endswith("broken.yml") for p in found.problems)


def test_a_path_that_is_not_there_and_an_empty_directory_are_errors(tmp_path: Path) -> None:
    found = check_paths([tmp_path, tmp_path / "nowhere.yaml"], registry(), today=TODAY)
    assert found.errors == 2 and found.files == 0


def test_the_review_is_overdue_the_day_after_its_time() -> None:
    text = edited(("reviewed: 2026-11-20", "reviewed: 2026-08-26"))
    assert check(text).problems == []
    late = check(edited(("reviewed: 2026-11-20", "reviewed: 2026-08-25")))
    assert [p.level for p in late.problems] == ["warning"]
    assert TODAY - dt.date(2026, 8, 25) == dt.timedelta(days=91)
