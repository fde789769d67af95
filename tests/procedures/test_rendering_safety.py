"""What a value holds never becomes more than a value: not an argument, not a command, not a quote."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.procedures.expressions import (
    ExpressionError,
    SecretRef,
    render,
    render_argv,
    render_shell,
    render_value,
)
from engine.procedures.quoting import quote
from engine.procedures.scanner import parts, references

VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
NASTY = st.sampled_from(["", " ", "a b", "'", "\"", "$(touch x)", "`id`", "; rm -rf /", "\n", "\\",
                         "*", "~", "-rf", "2", "if", "#", "$HOME", "a'b\"c", "&&", "{a,b}", "!x"])


def names(value: Any) -> dict[str, Any]:
    return {"params": {"x": value, "n": 3, "ratio": 10.0, "token": SecretRef("env:TOKEN"),
                       "off": False, "none": None, "list": [1, "a"], "map": {"b": 1.5}}}


@given(st.lists(VALUES | NASTY, min_size=1, max_size=4))
def test_each_element_of_an_argument_vector_stays_one_argument(values: list[str]) -> None:
    for value in values:
        argv = render_argv(["cmd", "${{ params.x }}", "a=${{ params.x }}", "last"], names(value))
        assert argv == ["cmd", value, f"a={value}", "last"]


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES | NASTY, min_size=1, max_size=5))
def test_quoting_in_a_script_round_trips_through_a_real_shell(values: list[str]) -> None:
    context = {"params": {f"p{i}": value for i, value in enumerate(values)}}
    words = " ".join(f"${{{{ params.p{i} }}}} x${{{{ params.p{i} }}}}y" for i in range(len(values)))
    script = render_shell(f"printf '%s\\0' {words}", context)
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True)
    expected = [word for value in values for word in (value, f"x{value}y")]
    assert done.stdout.decode().split("\0")[:-1] == expected
    assert done.stderr == b""


PLACES = ["echo {}", "a={} b", "v=$(echo {})", "echo \"x\" {} 'y'", "x # y\necho {}", "echo a#{}",
          "'{}'", "\"{}\"", "# {}", "cat <<E\n{}\nE", "`echo {}`", "\\{}", "${{a:-{}}}", "$(( {} ))",
          "${}", "echo \"$(echo {})\"", "$'{}'", "(echo {})#{}", "a \"b\\\"\" {}", "((1)) {}",
          "case x in a) echo {};; esac", "\"$(case x in x) echo \"{}\";; esac)\""]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(PLACES), NASTY)
@example("$(x)#'{}", "echo {}'", "; touch x")
def test_wherever_a_script_takes_a_value_it_runs_nothing_of_it(
        first: str, second: str, nasty: str) -> None:
    """The value would print a marker if any part of it were run."""
    marker = "printf MARKER"
    for value in (f"{nasty}; {marker};", f"$({marker})", f"`{marker}`", f"'; {marker}; '",
                  f"\"; {marker}; \"", f"\n{marker}\n", f"x\nE\n{marker}\n"):
        script = "; ".join(place.replace("{{", "{").replace("}}", "}").replace(
            "{}", "${{ params.x }}") for place in (first, second))
        try:
            rendered = render_shell(script, {"params": {"x": value}})
        except ExpressionError:
            return
        done = subprocess.run(["sh", "-c", rendered], capture_output=True, check=False,
                              env={"PATH": "/usr/bin:/bin"}, timeout=10)
        text = done.stdout.decode("utf-8", "replace")
        assert text.replace(value, "").replace(marker, "").count("MARKER") == 0, rendered


@pytest.mark.parametrize("script", [
    "echo '${{ params.x }}'", "echo \"${{ params.x }}\"", "# ${{ params.x }}", "$${{ params.x }}",
    "\\${{ params.x }}", "`a ${{ params.x }}`", "cat <<E\n${{ params.x }}\nE",
    "echo \"$(echo ${{ params.x }})\"", "echo $((1 + ${{ params.x }}))", "${a:-${{ params.x }}}",
    "echo $(true)#'\n ${{ params.x }}"])
def test_a_value_where_quotes_would_not_protect_it_is_refused(script: str) -> None:
    with pytest.raises(ExpressionError) as error:
        render_shell(script, names("v"), "f.yaml:3, step a")
    assert error.value.where == "f.yaml:3, step a"
    assert error.value.hint is not None and "env:" in error.value.hint


@given(VALUES | NASTY)
def test_a_quoted_value_is_always_in_quotes_so_that_it_is_no_keyword_and_no_number(
        value: str) -> None:
    assert quote(value).startswith("'") and quote(value).endswith("'")


def test_a_number_before_a_redirection_stays_a_word() -> None:
    script = render_shell("echo ${{ params.x }}>&1", names("2"))
    assert subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout == b"2\n"


def test_a_string_that_is_exactly_one_expression_keeps_its_type() -> None:
    given_ = {"a": "${{ params.n }}", "b": ["${{ params.map }}", "x${{ params.n }}"],
              "c": "${{ params.none }}", "d": 5}
    assert render_value(given_, names("")) == {"a": 3, "b": [{"b": 1.5}, "x3"], "c": None, "d": 5}


@pytest.mark.parametrize(("expression", "text"), [
    ("params.n", "3"), ("params.ratio", "10"), ("params.ratio / 4.0", "2.5"), ("params.off", "false"),
    ("params.list", '[1,"a"]'), ("params.map", '{"b":1.5}'), ("'}}'", "}}"),
    ('{"a": {"b": 1}}', '{"a":{"b":1}}')])
def test_values_have_one_text(expression: str, text: str) -> None:
    assert render(f"<${{{{ {expression} }}}}>", names("")) == f"<{text}>"


@pytest.mark.parametrize("template", ["${{ params.none }}", "${{ 0.0 / 0.0 }}", "${{ 1.0 / 0.0 }}"])
def test_null_and_what_is_no_finite_number_have_no_text(template: str) -> None:
    with pytest.raises(ExpressionError):
        render(template, names(""))


def test_a_zero_byte_is_refused_before_any_command_sees_it() -> None:
    for wrong in (lambda: render_argv(["a", "${{ params.x }}"], names("a\0b")),
                  lambda: render_shell("a ${{ params.x }}", names("a\0b"))):
        with pytest.raises(ExpressionError, match="zero byte"):
            wrong()


def test_a_secret_is_rendered_as_a_whole_value_only_and_then_as_its_reference() -> None:
    assert render_value("${{ params.token }}", names("")) == SecretRef("env:TOKEN")
    for wrong in (lambda: render("${{ params.token }}", names("")),
                  lambda: render_value("Bearer ${{ params.token }}", names("")),
                  lambda: render_value({"a": "${{ params.token }}"}, names("")),
                  lambda: render_value("${{ string(params.token) }}", names("")),
                  lambda: render_argv(["x", "${{ params.token }}"], names("")),
                  lambda: render_shell("x ${{ params['token'] }}", names(""))):
        with pytest.raises(ExpressionError) as error:
            wrong()
        assert error.value.kind == "secret"


def test_however_a_secret_is_reached_its_value_is_not_there_to_be_shown() -> None:
    shown = render("${{ params }} ${{ params['tok' + 'en'] }}", names("x"))
    assert "•••" in shown and "SecretRef" not in shown


@given(st.text(max_size=60))
def test_reading_a_text_for_templates_and_references_never_breaks(text: str) -> None:
    references(text)
    try:
        found = parts(text)
    except ValueError:
        return
    if "${{" not in text:
        assert found == ([text] if text else [])


def test_references_leave_out_strings_functions_and_bound_variables() -> None:
    assert references(
        'steps["my-step"].result.a[0].b + size(params.x) + params.y.size() '
        '+ run.list.map(q, q + z.w) + "steps.no" + a[b.c].d // params.comment') == [
        ("steps", "my-step", "result", "a", 0, "b"), ("params", "x"), ("params", "y"),
        ("run", "list"), ("z", "w"), ("a",), ("b", "c")]
