"""Percents as whole weights and back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ActionFailed
from engine.rollout.traffic.weights import same, shares, whole_split, whole_weights

limits = st.sampled_from([100, 255, 256, 999, 1000])
raw = st.dictionaries(st.sampled_from("abcd"), st.just(0.0) | st.floats(0.001, 100), min_size=1).filter(
    lambda weights: sum(weights.values()) > 0)


@given(raw, limits)
def test_shares_come_back_within_half_a_step_or_are_refused(weights: dict[str, float], most: int) -> None:
    split = shares(weights)
    assert split is not None
    least = min(share for share in split.values() if share > 0)
    try:
        whole = whole_weights(split, most)
    except ActionFailed:
        # Below half a step, and only there; of several small shares each takes from the large one.
        several = sum(share > 0 for share in split.values()) > 2
        assert least < (100 if several else 50) / most
        return
    again = shares(whole)
    assert again is not None and math.isclose(sum(again.values()), 100)
    for name, share in split.items():
        assert 0 <= whole[name] <= most
        assert (whole[name] == 0) == (share == 0)
        assert abs(again[name] - share) <= 50 / most + 1e-9


@given(st.integers(0, 100), limits)
def test_whole_percents_are_themselves(percent: int, most: int) -> None:
    split = {"a": float(percent), "b": 100.0 - percent}
    assert whole_weights(split, most) == split


@given(raw, limits)
def test_what_was_read_can_be_set_again(weights: dict[str, float], most: int) -> None:
    """A rollback sets what was in force before: it must never be refused, nor come out different."""
    whole = {name: math.ceil(weight * most / 100) for name, weight in weights.items()}
    split = shares(whole)
    assert split is not None
    assert same(shares(whole_weights(split, most)) or {}, split, 1e-6)


def test_half_percents_are_met_exactly() -> None:
    assert whole_weights({"a": 99.5, "b": 0.5}, 255) == {"a": 199, "b": 1}
    assert whole_weights({"a": 87.5, "b": 12.5}, 255) == {"a": 7, "b": 1}


def test_no_weight_at_all_is_no_split() -> None:
    assert shares({"a": 0, "b": 0}) is None
    assert shares({}) is None


def test_a_split_names_every_variant() -> None:
    assert whole_split("flights", {"a": "x", "b": "y"}, {"b": 100}) == {"a": 0.0, "b": 100.0}


@pytest.mark.parametrize(("asked", "said"), [
    ({"c": 100.0}, "no variant 'c'"), ({"a": 99.0}, "a 99, b 0"), ({"a": math.nan, "b": 100.0}, "a nan"),
    ({"a": 101.0, "b": -1.0}, "not shares of 100 percent")])
def test_what_is_no_split_is_refused(asked: dict[str, float], said: str) -> None:
    with pytest.raises(ActionFailed, match=said):
        whole_split("flights", {"a": "x", "b": "y"}, asked)
