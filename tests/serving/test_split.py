"""Which variant a key goes to: sticky, by weight, moving as few keys as possible."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.serving.split import SPACE, KeyHash, Split, check_weights

# Edges are whole numbers out of 2**64 computed in floats of 53 bits.
ROUNDING = 2**14
NAMES = ["champion", "b", "c", "d", "e"]
percents = st.floats(0, 100, allow_nan=False)
hashes = st.integers(0, SPACE - 1)


@st.composite
def weights(draw: st.DrawFn, most: int = 5) -> dict[str, float]:
    names = NAMES[:draw(st.integers(1, most))]
    parts = [draw(st.sampled_from([0.0, 1.0]) | st.floats(0, 1)) for _ in names]
    total = math.fsum(parts)
    if total < 1e-9:
        return {name: 100.0 if name == "champion" else 0.0 for name in names}
    return {name: part / total * 100 for name, part in zip(names, parts, strict=True)}


def share(split: Split, name: str) -> float:
    start, end = split.ranges().get(name, (0, 0))
    return (end - start) / SPACE * 100


@given(weights(), hashes)
def test_every_hash_has_exactly_one_variant_and_it_has_weight(w: dict[str, float], h: int) -> None:
    split = Split(w, "champion")
    name = split.variant(h)
    start, end = split.ranges()[name]
    assert start <= h < end and w[name] > 0


@given(weights())
def test_the_ranges_cover_the_line_and_have_the_shares_that_were_asked(w: dict[str, float]) -> None:
    split = Split(w, "champion")
    ranges = list(split.ranges().values())
    assert ranges[0][0] == 0 and ranges[-1][1] == SPACE
    assert all(left[1] == right[0] for left, right in pairwise(ranges))
    for name, weight in w.items():
        assert share(split, name) == pytest.approx(weight, abs=1e-9)


@given(percents, percents, hashes)
def test_a_key_that_has_the_canary_keeps_it_while_the_canary_grows(a: float, b: float,
                                                                  h: int) -> None:
    small, large = sorted([a, b])
    before = Split({"champion": 100 - small, "canary": small}, "champion")
    after = Split({"champion": 100 - large, "canary": large}, "champion")
    if before.variant(h) == "canary":
        assert after.variant(h) == "canary"


@given(percents, percents, percents, percents)
def test_with_two_challengers_a_change_against_the_champion_moves_no_more_than_changed_hands(
        b: float, c: float, more_b: float, more_c: float) -> None:
    scale = max(1.0, (b + c) / 100)
    before = {"b": b / scale, "c": c / scale}
    room = 100 - math.fsum(before.values())
    grown = max(1.0, (more_b + more_c) / max(room, 1e-12))
    after = {"b": before["b"] + more_b / grown, "c": before["c"] + more_c / grown}
    moved = _moved(_with_rest(before), _with_rest(after))
    changed = math.fsum(after.values()) - math.fsum(before.values())
    assert moved <= changed / 100 * SPACE + 4 * ROUNDING


def _with_rest(challengers: dict[str, float]) -> dict[str, float]:
    return {"champion": max(0.0, 100 - math.fsum(challengers.values())), **challengers}


def _moved(before: dict[str, float], after: dict[str, float]) -> int:
    old, new = Split(before, "champion").ranges(), Split(after, "champion").ranges()
    kept = sum(max(0, min(old[name][1], new[name][1]) - max(old[name][0], new[name][0]))
               for name in old if name in new)
    return SPACE - kept


@given(weights(), hashes)
def test_a_new_variant_at_the_end_of_the_config_without_weight_moves_nobody(w: dict[str, float],
                                                                           h: int) -> None:
    assert Split({**w, "new": 0.0}, "champion").variant(h) == Split(w, "champion").variant(h)


@given(st.text(max_size=40))
def test_a_hash_is_the_same_each_time_and_differs_between_services(key: str) -> None:
    assert KeyHash("flights")(key) == KeyHash("flights")(key)
    assert KeyHash("flights")(key) != KeyHash("pricing")(key)


def test_the_hash_of_a_key_is_fixed_for_ever_because_logs_and_replicas_rely_on_it() -> None:
    assert f"{KeyHash('flights')('customer-1'):016x}" == "370ac64b58dbffa8"


def test_real_keys_spread_as_the_weights_say() -> None:
    split, key_hash = Split({"champion": 95.0, "canary": 5.0}, "champion"), KeyHash("flights")
    n = 20_000
    hits = sum(split.variant(key_hash(f"customer-{i}")) == "canary" for i in range(n))
    # Five standard deviations of a binomial: a wrong split fails, chance does not.
    assert abs(hits - 0.05 * n) < 5 * math.sqrt(n * 0.05 * 0.95)


def test_one_key_moves_alone_between_two_services_that_split_alike() -> None:
    split = Split({"champion": 50.0, "canary": 50.0}, "champion")
    one, two = KeyHash("flights"), KeyHash("pricing")
    same = sum(split.variant(one(str(i))) == split.variant(two(str(i))) for i in range(2000))
    assert 850 < same < 1150


@pytest.mark.parametrize(("asked", "says"), [
    ({}, "missing"), ({"champion": 100.0, "x": 0.0}, "no variant 'x'"),
    ({"champion": "100"}, "not a number"), ({"champion": True}, "not a number"),
    ({"champion": float("nan")}, "nan"), ({"champion": float("inf")}, "inf"),
    ({"champion": 101.0, "canary": -1.0}, "101"), ({"champion": 90.0, "canary": 5.0}, "95"),
    ({"champion": 99.98}, "99.98"), ({"champion": None}, "not a number"),
])
def test_weights_that_are_not_valid_are_refused_with_the_reason(asked: dict[str, object],
                                                                says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_weights(asked, ["champion", "canary"])


def test_a_sum_within_a_hundredth_of_100_is_accepted_and_the_rest_gets_nothing() -> None:
    assert check_weights({"champion": 99.99}, ["champion", "canary"]) == {
        "champion": 99.99, "canary": 0.0}
