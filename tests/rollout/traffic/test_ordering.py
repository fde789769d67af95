"""The order to set a router's weights in, where they cannot be set at once."""

from hypothesis import given
from hypothesis import strategies as st

from engine.rollout.traffic.ordering import in_order


@st.composite
def splits(draw: st.DrawFn) -> dict[str, float]:
    raw = draw(st.lists(st.integers(0, 10_000), min_size=2, max_size=5).filter(any))
    return {f"v{at}": 100 * weight / sum(raw) for at, weight in enumerate(raw)}


@given(st.integers(0, 100), st.integers(0, 100))
def test_of_two_percents_no_half_way_split_exposes_more_than_before_or_after(before: int, after: int
                                                                             ) -> None:
    now, wanted = {"a": 100 - before, "b": before}, {"a": 100 - after, "b": after}
    standing = dict(now)
    for name in in_order(now, wanted):
        standing[name] = wanted[name]
        assert sum(standing.values()) > 0
        share = standing["b"] / sum(standing.values())
        assert min(before, after) / 100 - 1e-12 <= share <= max(before, after) / 100 + 1e-12
    assert standing == wanted


@given(splits(), splits())
def test_the_order_leaves_nothing_out_and_never_takes_all_weight_away(
        now: dict[str, float], wanted: dict[str, float]) -> None:
    now = {name: now.get(name, 0.0) for name in {*now, *wanted}}
    wanted = {name: wanted.get(name, 0.0) for name in now}
    standing = dict(now)
    for name in in_order(now, wanted):
        standing[name] = wanted[name]
        assert sum(standing.values()) > 0
    assert standing == wanted


def test_the_champion_is_set_first_when_a_small_scale_becomes_a_large_one() -> None:
    assert in_order({"champion": 1, "challenger": 0}, {"champion": 99, "challenger": 1}) == [
        "champion", "challenger"]


def test_what_changes_nothing_sets_nothing() -> None:
    assert in_order({"a": 5, "b": 1}, {"a": 5, "b": 1}) == []
