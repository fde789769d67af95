"""What a prediction's log line says, and what it must not say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.records import Redaction, Unreadable, columns_of, predictions_of

COLUMNS = {"carrier": ["UA", "AA"], "hour": [7, 9]}
JSON = "application/json"


@pytest.mark.parametrize(("content_type", "body"), [
    (JSON, {"dataframe_split": {"columns": ["carrier", "hour"], "data": [["UA", 7], ["AA", 9]]}}),
    (JSON, {"dataframe_records": [{"carrier": "UA", "hour": 7}, {"carrier": "AA", "hour": 9}]}),
    ("application/json; charset=utf-8",
     {"instances": [{"carrier": "UA", "hour": 7}, {"carrier": "AA", "hour": 9}]}),
    (JSON, {"inputs": {"carrier": ["UA", "AA"], "hour": [7, 9]}}),
])
def test_every_form_of_a_request_gives_the_same_columns(content_type: str, body: Any) -> None:
    assert columns_of(content_type, json.dumps(body).encode()) == COLUMNS


def test_csv_gives_its_columns_as_text() -> None:
    assert columns_of("text/csv", b"carrier,hour\nUA,7\nAA,9\n") == {
        "carrier": ["UA", "AA"], "hour": ["7", "9"]}


def test_numbers_that_only_python_writes_are_read() -> None:
    assert columns_of(JSON, b'{"inputs": {"hour": [Infinity]}}') == {"hour": [float("inf")]}


@pytest.mark.parametrize("body", [
    b"", b"\xff", b"[]", b"{}", b'{"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}',
    b'{"dataframe_split": {"columns": ["a"], "data": 3}}', b"[" * 200_000])
def test_what_has_no_columns_is_said_to_be_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        columns_of(JSON, body)


def test_columns_without_names_are_told_apart_so_that_redaction_can_refuse_them() -> None:
    assert columns_of(JSON, b'{"instances": [[1, 2]]}') == {"": [[1, 2]]}
    assert Redaction(["hour"], True, b"").needs_names
    assert not Redaction([], True, b"").needs_names


def test_columns_are_dropped_or_hashed_by_name() -> None:
    redaction = Redaction(["hour", "hash:carrier"], True, b"k" * 32)
    kept = redaction({"carrier": ["UA", "AA", "UA"], "hour": [1, 2, 3], "temp": [4, 5, 6]})
    assert set(kept) == {"carrier", "temp"} and kept["temp"] == [4, 5, 6]
    one, two, three = kept["carrier"]
    assert one == three != two and len(one) == 16


def test_a_hash_depends_on_the_key_and_on_the_type_of_the_value() -> None:
    values = {"a": ["1", 1]}
    one = Redaction(["hash:a"], True, b"k" * 32)(values)["a"]
    two = Redaction(["hash:a"], True, b"j" * 32)(values)["a"]
    assert len({*one, *two}) == 4


def test_only_the_named_fields_are_kept_when_some_are_named() -> None:
    redaction = Redaction([], ["hour"], b"")
    assert redaction(COLUMNS) == {"hour": [7, 9]}
    assert not Redaction([], False, b"").keeps_any


@given(st.dictionaries(st.text(max_size=8), st.lists(st.text(max_size=20), min_size=1), max_size=6),
       st.sets(st.text(max_size=8), max_size=4))
def test_no_value_of_a_redacted_column_is_ever_kept(columns: dict[str, list[str]],
                                                    names: set[str]) -> None:
    kept = Redaction([f"hash:{n}" for n in names], True, b"k" * 32)(columns)
    for name in names & set(columns):
        assert not set(kept[name]) & set(columns[name])
    assert not set(Redaction(names, True, b"")(columns)) & names - {
        n for n in names if n.startswith("hash:")}


@pytest.mark.parametrize(("body", "predictions"), [
    (b'{"predictions": [{"p": 0.5}]}', [{"p": 0.5}]), (b"nonsense", None), (b"[1]", None),
    (b"{}", None)])
def test_predictions_are_read_where_they_are(body: bytes, predictions: Any) -> None:
    assert predictions_of(body) == predictions
