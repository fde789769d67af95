"""A value has one byte string, which reads back as the same value; what JSON would change is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.journal import events
from engine.reproduce import canonical

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = (st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1)
           | st.floats(allow_nan=False, allow_infinity=False) | texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(texts, inner, max_size=4), max_leaves=20)


@given(values)
def test_reading_the_bytes_gives_the_value_and_the_value_gives_the_bytes(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.encode(msgspec.json.decode(data)) == data
    assert canonical.encode(json.loads(data)) == data


@given(st.dictionaries(texts, scalars, min_size=2), st.randoms())
def test_the_order_of_keys_does_not_matter(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical.encode({key: value[key] for key in keys}) == canonical.encode(value)


@given(values)
def test_the_bytes_are_those_the_journal_would_write(value: Any) -> None:
    assert canonical.encode(value) == events.canonical(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_keeps_its_every_bit(value: float) -> None:
    again = msgspec.json.decode(canonical.encode([value]))[0]
    assert math.copysign(1, again) == math.copysign(1, value) and again == value


@given(st.floats())
def test_a_number_that_is_not_finite_is_kept_by_its_name(value: float) -> None:
    again = canonical.as_number(canonical.number(value))
    assert again == value or (math.isnan(again) and math.isnan(value))


@pytest.mark.parametrize(("value", "place", "why"), [
    ({"metrics": {"auc": math.nan}}, "metrics.auc", "it is NaN"),
    ({"a": [1, {"b": math.inf}]}, "a.1.b", "it is Infinity"),
    ({"seed": 2**64}, "seed", "does not fit in 64 bits"),
    ({"a": {1: 2}}, "a", "its key 1 is not text"),
    ({"name": "\udc80"}, "name", "it is not Unicode text"),
    ({"\udc80": 1}, "the value itself", "it is not Unicode text"),
    ({"when": {1, 2}}, "when", "it is a set"),
])
def test_what_json_would_change_is_refused_with_its_place(value: Any, place: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        canonical.encode(value)
    assert refused.value.where == place


def test_a_value_nested_without_end_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(UsageError, match="nested too deeply"):
        canonical.encode(value)
