"""Whatever a file holds, `check` reports problems and never breaks; what passes can be read again."""

from __future__ import annotations

import random
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.procedures.actions import Registry
from engine.procedures.check import check_document, parse
from engine.procedures.library import shipped
from tests.procedures.language import GOOD, TODAY, check, registry

SHIPPED = [GOOD, *(path.read_text() for path in sorted(Path(shipped()).rglob("*.yaml")))]
WORDS = ["${{ params.x }}", "${{", "}}", "null", "[]", "{}", "''", "0", "-1", "yes", "1e400", "steps.a",
         "params", "result", "\"", "'", "|", "&a", "*a", "goto", "{goto: look}", "use: x", "[1, {a: b}]",
         "manual: x", "needs: [look]", "\t", "é", "2026-01-01", "[1].map(x, x)", "id: look"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SHIPPED), st.integers(0, 2**32), st.integers(1, 6))
def test_a_procedure_with_any_of_its_text_mangled(text: str, seed: int, edits: int) -> None:
    chance = random.Random(seed)
    lines = text.splitlines(keepends=True)
    for _ in range(edits):
        lines = [line for line in lines if line] or ["\n"]
        at = chance.randrange(len(lines))
        line = lines[at]
        cut = chance.randrange(len(line))
        lines[at] = chance.choice([
            "", line + line, line[:cut] + line[cut + 1:], line[:cut] + chance.choice(WORDS) + line[cut:],
            line[:line.find(":") + 1] + " " + chance.choice(WORDS) + "\n",
            lines[chance.randrange(len(lines))], "  " + line])
    _holds("".join(lines))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 500) | st.floats(allow_nan=False) | st.text(max_size=8)
    | st.sampled_from(WORDS), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["id", "use", "with", "shell", "when", "effect", "undo", "env", "needs", "x"]),
        inner, max_size=4), max_leaves=8)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["params", "preconditions", "steps", "contacts", "for_alerts", "reviewed", "id"]),
       VALUES, st.sampled_from(["id", "use", "with", "shell", "manual", "confirm", "approvals", "retry",
                                "probe", "undo", "on_failure", "when", "expect", "needs", "env", "stdin",
                                "evidence", "undo_on", "timeout"]), VALUES)
def test_a_procedure_with_any_value_in_any_key(key: str, value: object, of_step: str,
                                              inner: object) -> None:
    raw = yaml.safe_load(GOOD)
    raw["reviewed"] = "2026-11-20"
    raw["steps"][2][of_step] = inner
    _holds(yaml.safe_dump(raw))
    raw[key] = value
    _holds(yaml.safe_dump(raw))


def test_a_circle_a_thousand_steps_long_and_one_step_too_many_are_answered_quickly() -> None:
    steps = "".join(f"  - {{id: s{i}, title: x, shell: ['true'], irreversible: x, needs: [s{i + 1}]}}\n"
                    for i in range(1000))
    head = GOOD[:GOOD.index("steps:")]
    assert any("at most 200 long" in p.message for p in check(head + "steps:\n" + steps).problems)


def test_expressions_that_would_multiply_are_not_evaluated() -> None:
    bomb = "[1,2,3,4,5,6,7,8,9]" + ".map(a, [1,2,3,4,5,6,7,8,9]" * 9 + ")" * 9
    report = check(GOOD.replace("params.weight <= 50", f"{bomb}.size() > 0"))
    assert any("nested" in p.message for p in report.problems)


def _holds(text: str) -> None:
    for actions in (registry(), Registry()):
        report = check_document(text, "rollback-model.yaml", actions, today=TODAY)
        lines = text.count("\n") + 1
        for problem in report.problems:
            assert problem.message and 0 <= problem.line <= lines + 1
        if report.document is None:
            assert report.errors
        else:
            assert not report.errors
            assert parse(text, "again") == report.document
