"""Parameters from texts and JSON, all problems at once, secrets as references only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.api import wire
from engine.api.params import check_value, parse_value
from engine.config import Engine
from engine.errors import DocumentError, NotPermitted
from engine.procedures.document import Document
from engine.procedures.library import bind, parameters
from engine.procedures.secrets import SecretRef
from tests.procedures.language import GOOD, check


@pytest.fixture(scope="module")
def document() -> Document:
    found = check(GOOD).document
    assert found is not None
    return found


def param(type: Any, **more: Any) -> wire.Param:
    return wire.Param(name="x", type=type, required=more.pop("required", False),
                      default=None, help="", **more)


def test_texts_become_typed_values_and_what_is_left_out_takes_its_default(
        document: Document) -> None:
    assert parameters(document, {"service": "flights", "weight": "25", "ratio": "1"}) == {
        "service": "flights", "weight": 25, "ratio": 1.0, "reason": "", "token": None}


def test_all_problems_are_told_at_once_with_hints(document: Document) -> None:
    with pytest.raises(DocumentError) as error:
        parameters(document, {"wieght": "1", "weight": "lots", "ratio": "nan", "token": "hunter2"})
    text = "\n".join(error.value.problems)
    assert "there is no parameter `wieght`\n  did you mean `weight`?" in text
    assert "`weight` must be a whole number" in text and "`ratio` must be a finite number" in text
    assert "`service` is needed\n  Service to roll back" in text
    assert "`token` must be a reference" in text and "hunter2" not in str(error.value) + text
    assert error.value.exit_code == 2


def test_a_newline_does_not_slip_past_a_pattern(document: Document) -> None:
    with pytest.raises(DocumentError):
        parameters(document, {"service": "flights\n"})


def test_a_secret_that_would_use_the_engines_rights_wants_a_trusted_caller(
        document: Document) -> None:
    for reference in ("command:cat /etc/shadow", "file:/etc/shadow"):
        with pytest.raises(NotPermitted):
            parameters(document, {"service": "a", "token": reference})
        given_ = parameters(document, {"service": "a", "token": reference}, trusted=True)
        assert given_["token"] == reference


def test_an_operator_names_only_the_variables_that_are_for_operators(document: Document) -> None:
    chosen = {"service": "a", "token": "env:DEPLOY_TOKEN"}
    assert parameters(document, chosen, variables=["X", "DEPLOY_*"])["token"] == "env:DEPLOY_TOKEN"
    for name in ("AWS_SECRET_ACCESS_KEY", "MY_DEPLOY_TOKEN", "deploy_token"):
        with pytest.raises(NotPermitted) as error:
            parameters(document, {"service": "a", "token": f"env:{name}"}, variables=["DEPLOY_*"])
        assert f"add {name} to `engine: secret_env:`" in str(error.value.hint)
        assert error.value.where == f"the parameter token of {document.id}"
    assert parameters(document, chosen, trusted=True)["token"] == "env:DEPLOY_TOKEN"


def test_a_documents_own_default_may_name_any_variable() -> None:
    document = check(GOOD.replace("{type: secret, required: false}", '{type: secret, default: "env:OWN"}'))
    assert document.document is not None
    assert parameters(document.document, {"service": "a", "token": "env:OWN"})["token"] == "env:OWN"
    assert parameters(document.document, {"service": "a"})["token"] == "env:OWN"


def test_unless_the_config_says_so_only_a_single_users_engine_gives_its_variables() -> None:
    assert list(Engine().operators_variables("single-user")) == ["*"]
    assert list(Engine().operators_variables("system")) == []
    for names in ([], ["DEPLOY_*"]):
        engine = Engine(secret_env=names)
        assert engine.operators_variables("single-user") == names
        assert engine.operators_variables("system") == names


def test_expressions_see_a_secret_as_a_reference_object(document: Document) -> None:
    names = bind(document, parameters(document, {"service": "a", "token": "env:TOKEN"},
                                      trusted=True))
    assert names["token"] == SecretRef("env:TOKEN") and names["service"] == "a"
    assert bind(document, parameters(document, {"service": "a"}))["token"] is None


@pytest.mark.parametrize(("wanted", "given_", "value"), [
    (param("integer"), " 7 ", 7), (param("integer"), 7.0, 7), (param("number"), "1e3", 1000.0),
    (param("number"), 3, 3.0), (param("boolean"), "Yes", True), (param("boolean"), False, False),
    (param("string"), 5, "5"), (param("string", choices=["a", 5]), "5", "5"),
    (param("integer", choices=[1, 2]), "2", 2), (param("secret"), "file:/run/t", "file:/run/t")])
def test_a_value_is_parsed_to_its_type(wanted: wire.Param, given_: Any, value: Any) -> None:
    parsed = parse_value(wanted, given_)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(("wanted", "text", "said"), [
    (param("integer"), "1.5", "a whole number"), (param("integer"), "1_0", "a whole number"),
    (param("integer", min=1, max=5), "9", "from 1 to 5"), (param("integer", min=1), "0", "at least 1"),
    (param("number", max=2), "3", "at most 2"), (param("number"), "inf", "a finite number"),
    (param("boolean"), "maybe", "true or false"), (param("string", choices=["a", "b"]), "c",
                                                   "one of a, b"),
    (param("string", pattern="[a-z]+"), "a1", "text that matches [a-z]+"),
    (param("string"), "a\0", "a text without zero bytes"),
    (param("secret"), "hunter2", "never the secret itself"),
    (param("secret"), "file:relative", "a reference"), (param("string", required=True), " ", "needed"),
    (param("integer"), "9" * 30, "a whole number")])
def test_the_form_says_in_a_few_words_what_is_wrong(wanted: wire.Param, text: str, said: str) -> None:
    answer = check_value(wanted, text)
    assert answer is not None and said in answer
    assert "hunter2" not in answer


def test_the_form_leaves_an_optional_field_empty_in_peace() -> None:
    assert check_value(param("integer"), "") is None
    assert check_value(param("secret"), "env:TOKEN") is None


@given(st.sampled_from(["string", "integer", "number", "boolean", "secret"]),
       st.text(max_size=20) | st.none() | st.booleans() | st.integers() | st.floats() |
       st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()))
def test_any_json_value_is_parsed_or_refused_with_a_sentence(type: Any, value: Any) -> None:
    try:
        parsed = parse_value(param(type), value)
    except ValueError as error:
        assert str(error) and len(str(error)) < 200
    else:
        assert isinstance(parsed, str | int | float | bool)
