"""What an expression is given: only what it reads, and never more than it may walk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.procedures.evaluation import ExpressionError, evaluate
from engine.procedures.inputs import MOST_VALUES
from engine.procedures.inputs import given as given_to
from engine.procedures.scanner import bodies

ROWS = [{"name": f"row {i}", "ok": True, "n": i} for i in range(3000)]


@pytest.mark.parametrize(("expr", "says"), [
    ("steps.look.result.rows.map(r, r.n).size() > 0", "map or filter would copy a list of 3,000 entries"),
    ("rows.filter(r, r.ok).size() > 0", "map or filter would copy a list of 3,000 entries"),
    ("rows.all(a, rows.exists(b, a.n == b.n))", "walk a list of 3,000 entries, "),
    ("few.map(x, few).size() > 0", "map or filter would copy a list of 150 entries"),
    ("few.map(x, text + text).size() > 0", "map or filter would copy a list of 150 entries"),
    ("many.size() > 0", "reads more than 50,000 values"),
    ("[" + ",".join(["1"] * 500) + "].map(a, few.map(b, a)).size() > 0", "a list of 502 entries")])
def test_what_would_hold_the_engine_is_refused_before_it_begins(expr: str, says: str) -> None:
    names = {"rows": ROWS, "few": list(range(150)), "text": "x" * 10_000,
             "many": [0] * MOST_VALUES, "steps": {"look": {"result": {"rows": ROWS}}}}
    with pytest.raises(ExpressionError) as error:
        evaluate(expr, names, "runbook.yaml:7, step look")
    assert says in error.value.message and error.value.hint == "compute it in a step of its own"
    assert error.value.where == "runbook.yaml:7, step look" and error.value.kind == "value"


@pytest.mark.parametrize(("expr", "value"), [
    ("rows.all(r, r.ok)", True), ("rows.exists(r, r.n == 2999)", True), ("rows[2999].n", 2999),
    ("numbers.map(x, x + 1).size()", 1000), ("numbers.filter(x, x > 499).size()", 500),
    ("small.all(a, small.exists(b, a == b))", True), ("small.map(a, a * params.by)[7]", 21)])
def test_lists_as_long_as_runbooks_have_them_are_walked(expr: str, value: Any) -> None:
    names = {"rows": ROWS, "numbers": list(range(1000)), "small": list(range(300)), "params": {"by": 3}}
    assert evaluate(expr, names) == value


def test_what_an_expression_does_not_read_costs_it_nothing() -> None:
    steps = {"big": {"result": [0] * (2 * MOST_VALUES)}, "small": {"exit_code": 0, "state": "done"}}
    assert evaluate("steps.small.exit_code == 0 && steps['small'].state == 'done'", {"steps": steps}) is True
    assert given_to("steps.small.exit_code", ["steps"], {"steps": steps}) == {
        "steps": {"small": {"exit_code": 0}}}
    with pytest.raises(ExpressionError, match=r"there is no `exit_cod` in steps\.small") as error:
        evaluate("steps.small.exit_cod == 0", {"steps": steps})
    assert error.value.hint == "did you mean `exit_code`?"
    with pytest.raises(ExpressionError, match="more than 50,000 values"):
        evaluate("size(steps) == 2", {"steps": steps})


def test_a_loop_variable_may_have_the_name_of_something_outside() -> None:
    names = {"steps": {"a": {"state": "done"}, "b": {"state": "done"}}, "states": ["done"]}
    assert evaluate("states.all(steps, steps == 'done')", names) is True
    assert evaluate("steps.a.state in states && states.exists(states, states == 'done')", names) is True


def test_the_bodies_of_macros_are_found_also_within_each_other() -> None:
    assert bodies("a.map(x, b.map(y, f(y)) + [x]) + c.filter(z, z)", {"map"}) == [
        "y, f(y)", "x, b.map(y, f(y)) + [x]"]
    assert bodies("map(x, 1) + a.mapped(2) + '.map('", {"map"}) == []


values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)), max_leaves=12)
paths = st.lists(st.sampled_from([".a", ".b", "['c']", "[0]", "[1]", "[int('1')]"]), max_size=3).map("".join)


@given(st.dictionaries(st.sampled_from("abc"), values, max_size=3), paths, paths)
def test_less_is_given_and_the_value_is_the_same(top: dict[str, Any], one: str, other: str) -> None:
    expr = f"[x{one}, x{other}]"

    def outcome(context: Mapping[str, Any]) -> Any:
        try:
            return evaluate(expr, context)
        except ExpressionError as error:
            return error.kind

    context = {"x": top}
    assert outcome(context) == outcome(given_to(expr, ["x"], context))
    assert outcome(context) == outcome({"x": top} | given_to("x", ["x"], context))
