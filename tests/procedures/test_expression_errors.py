"""A mistake in an expression is said in plain words, with the place and what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.procedures.evaluation import FUNCTIONS, ExpressionError, compile_only, evaluate, truth
from engine.procedures.secrets import SecretRef

NAMES: dict[str, Any] = {
    "params": {"service": "flights", "weight": 10, "ratio": 1.5, "token": SecretRef("env:TOKEN")},
    "steps": {"look": {"state": "done", "result": {"weights": {"champion": 90.0}}, "json": None},
              "my-step": {"result": [1, 2]}},
    "result": {"a": None}}


@pytest.mark.parametrize(("expression", "kind", "message", "hint"), [
    ("steps.look.result.wieghts", "missing", "there is no `wieghts` in steps.look.result",
     "did you mean `weights`?"),
    ("steps.look.result.weights.b", "missing", "there is no `b` in steps.look.result.weights",
     "it has `champion`"),
    ("steps.later.result", "missing", "there is no `later` in steps", "step later has not run"),
    ("steps.look.json.x", "missing", "steps.look.json is null, so it has no `x`", "not JSON"),
    ("params.service.x", "missing", "params.service is a text, so it has no `x`", None),
    ('steps["my-step"].result[7]', "missing", 'steps["my-step"].result has 2 entries, none at 7',
     None),
    ("parms.service", "name", "there is no name `parms` here", "did you mean `params`?"),
    ("siez(params.service)", "name", "there is no function `siez`", "did you mean `size`?"),
    ("params.weight + params.ratio", "type",
     "do not fit: params.weight is a whole number, params.ratio is a number", "double()"),
    ("params.weight / 0", "value", "divides by zero", None),
    ("params.weight >", "syntax", "cannot be read as CEL at its end", None),
    ("params.weight > 1 and true", "syntax", "at `and true`", "CEL writes && for and"),
    ("params.weight = 1", "syntax", "at `= 1`", "CEL compares with =="),
    ("if == 1", "syntax", "`if` is a reserved word", "cannot be used as a name"),
    ("params.service.matches()", "type", "`matches` cannot take these arguments", None),
    ("", "syntax", "the expression is empty", None),
    ("1 + " * 600 + "1", "syntax", "longer than 2,000 characters", None),
    ("(" * 300 + ")" * 300, "syntax", "nested too deeply", None),
    ("[1].map(a, [1].map(b, [1].map(c, a + b + c)))", "syntax", "more than two", "a step of its own"),
    ('b"x"', "type", "no plain value", "string"),
])
def test_each_mistake_has_its_sentence(expression: str, kind: str, message: str,
                                       hint: str | None) -> None:
    with pytest.raises(ExpressionError) as error:
        evaluate(expression, NAMES, "f.yaml:7, step drain")
    assert error.value.kind == kind
    assert message in error.value.message
    assert error.value.where == "f.yaml:7, step drain"
    assert error.value.exit_code == 2
    if hint is not None:
        assert error.value.hint is not None and hint in error.value.hint


def test_an_error_names_the_place_it_was_asked_for_though_programs_are_cached() -> None:
    for where in ("a.yaml:1", "b.yaml:2"):
        with pytest.raises(ExpressionError) as error:
            evaluate("params.weight >", NAMES, where)
        assert error.value.where == where


@pytest.mark.parametrize(("expression", "value"), [
    ("params.weight > 5 && params.service == 'flights'", True),
    ("false && nope.at.all", False), ("has(params.nope)", False), ("params.weight", 10),
    ("steps['my-step'].result.exists(x, x > 1)", True), ("steps.look.result.weights.champion", 90.0),
    ("duration('90s') > duration('1m')", True), ("duration('90s')", 90.0),
    ("timestamp('2026-11-24T05:00:00Z')", "2026-11-24T05:00:00Z"),
    ("params.token != null", True), ("[1, 2].map(x, [x].map(y, y * 2))", [[2], [4]])])
def test_values_come_back_as_plain_data(expression: str, value: Any) -> None:
    assert evaluate(expression, NAMES) == value


def test_a_condition_must_be_true_or_false() -> None:
    assert truth("params.weight == 10", NAMES) is True
    with pytest.raises(ExpressionError, match="a whole number, not true or false"):
        truth("params.weight", NAMES)


def test_what_a_program_printed_is_never_too_odd_to_be_looked_at() -> None:
    odd = {"stdout": "\udcff\x00é", "json": {"n": 2**70, "d": {"1": float("inf")}}}
    assert evaluate("stdout.startsWith('?')", odd) is True
    assert evaluate("json.n > 5", odd) is True


OF_TIMES = ("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
            "getHours", "getMinutes", "getSeconds", "getMilliseconds")
CALLS = {"size": "size('a')", "contains": "'a'.contains('a')", "startsWith": "'a'.startsWith('a')",
         "endsWith": "'a'.endsWith('a')", "matches": "'a'.matches('a')", "int": "int('1')",
         "uint": "uint('1')", "double": "double('1')", "string": "string(1)",
         "bytes": "bytes('a') == b'a'", "type": "string(type(1)) == 'int' || true",
         "dyn": "dyn(1)", "timestamp": "timestamp('2026-11-24T05:00:00Z')",
         "duration": "duration('1s')",
         **{name: f"timestamp('2026-11-24T05:00:00Z').{name}()" for name in OF_TIMES}}


def test_every_function_that_check_lets_pass_is_known_to_the_library() -> None:
    assert set(CALLS) == FUNCTIONS
    for call in CALLS.values():
        evaluate(call, {})


@settings(max_examples=300)
@given(st.text(max_size=40) | st.lists(st.sampled_from(
    ["params", ".", "weight", "[", "]", "(", ")", "'", "\"", "+", "&&", "map", ",", "{", "}", ":", "1",
     "?", "!", "steps", "look", " ", "in", "null"]), max_size=12).map("".join))
def test_evaluating_any_text_gives_a_value_or_an_expression_error(text: str) -> None:
    try:
        compile_only(text)
        evaluate(text, NAMES)
    except ExpressionError as error:
        assert error.message and "\n" not in error.message


def test_the_command_line_of_the_library_is_not_loaded() -> None:
    code = ("import sys; from engine.procedures.expressions import evaluate; evaluate('1 + 1', {});"
            "print([m for m in sys.modules if m.split('.')[0] in ('typer', 'prompt_toolkit')])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_package_can_still_be_imported_afterwards() -> None:
    evaluate("1 + 1", {})
    import cel

    assert cel.evaluate("1 + 1") == 2
