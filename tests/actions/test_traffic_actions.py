"""traffic.read and traffic.shift over a router."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.actions import traffic
from engine.errors import ActionFailed, OutcomeUnknown
from engine.rollout.traffic.router import Traffic

NOW = {"champion": 95.0, "challenger": 5.0}


async def test_read_gives_what_a_later_shift_needs_to_restore_it(world: Any) -> None:
    assert await world.run("traffic.read", service="flights") == {
        "weights": NOW, "champion": None, "lease_s": None}


async def test_a_shift_sets_every_variant_and_says_what_was_before(world: Any) -> None:
    result = await world.run("traffic.shift", service="flights", weights={"champion": 100})
    assert result == {"before": NOW, "after": {"champion": 100.0, "challenger": 0.0}}
    assert world.router.asked == [({"champion": 100.0, "challenger": 0.0}, None)]


async def test_a_shift_to_what_is_there_already_asks_for_nothing(world: Any) -> None:
    await world.run("traffic.shift", service="flights", weights=NOW)
    assert world.router.asked == []


async def test_a_drain_gives_the_share_to_the_named_variant_or_to_the_others(world: Any) -> None:
    world.router.now = {"champion": 80.0, "a": 10.0, "b": 10.0}
    result = await world.run("traffic.shift", service="flights", drain="a", to="b")
    assert result["after"] == {"champion": 80.0, "a": 0.0, "b": 20.0}
    result = await world.run("traffic.shift", service="flights", drain="champion")
    assert result["after"] == {"champion": 0.0, "a": 0.0, "b": 100.0}


async def test_draining_the_only_one_with_traffic_wants_to_know_who_takes_it(world: Any) -> None:
    world.router.now = {"champion": 100.0, "challenger": 0.0}
    with pytest.raises(ActionFailed, match="carries all the traffic") as failed:
        await world.run("traffic.shift", service="flights", drain="champion")
    assert "`to`" in str(failed.value)
    assert world.router.asked == []


async def test_an_unknown_variant_is_refused_with_the_nearest_one(world: Any) -> None:
    for params in ({"weights": {"chalenger": 100}}, {"drain": "chalenger"},
                   {"drain": "champion", "to": "chalenger"}):
        with pytest.raises(ActionFailed, match="Did you mean challenger") as failed:
            await world.run("traffic.shift", service="flights", **params)
        assert "nothing was changed" in failed.value.message
    assert world.router.asked == []


async def test_somebody_elses_change_at_the_same_time_is_reported(world: Any) -> None:
    async def shift(service: str, weights: Any, lease_s: Any = None) -> dict[str, float]:
        world.router.now = {"champion": 50.0, "challenger": 50.0}
        return dict(weights)
    world.router.shift = shift
    with pytest.raises(ActionFailed, match="somebody changed it at the same time"):
        await world.run("traffic.shift", service="flights", weights={"champion": 100})


async def test_set_but_not_readable_again_is_unknown(world: Any) -> None:
    async def gone(service: str) -> dict[str, float]:
        raise ActionFailed("The gateway does not answer.")

    async def shift(service: str, weights: Any, lease_s: Any = None) -> dict[str, float]:
        world.router.read = gone
        return dict(weights)
    world.router.shift = shift
    with pytest.raises(OutcomeUnknown, match="cannot be read back"):
        await world.run("traffic.shift", service="flights", weights={"champion": 100})


async def test_the_preview_says_now_and_after_and_carries_the_weights(world: Any) -> None:
    preview = await world.preview("traffic.shift", service="flights", drain="challenger")
    assert preview.now == "champion 95 %, challenger 5 %"
    assert preview.after == "champion 100 %, challenger 0 %"
    assert preview.state == NOW
    preview = await world.preview("traffic.shift", service="flights", weights=NOW, lease_s="60s")
    assert preview.after == "champion 95 %, challenger 5 %, for 60 s unless renewed"
    assert world.router.asked == []


class Leased:
    """A detailed router whose split has a lease."""

    def __init__(self, lease_s: float | None) -> None:
        self.split = Traffic({**NOW, "other": 0.0}, "champion", 7, lease_s)
        self.asked: list[Any] = []

    async def traffic(self, service: str) -> Traffic:
        return self.split

    async def read(self, service: str) -> dict[str, float]:
        return self.split.weights

    async def shift(self, service: str, weights: Any, lease_s: Any = None) -> dict[str, float]:
        raise AssertionError("a detailed router is asked with what was seen")

    async def shift_from(self, seen: Traffic, service: str, weights: Any,
                         lease_s: Any = None) -> dict[str, float]:
        self.asked.append((seen.revision, lease_s))
        self.split = Traffic(dict(weights), "champion", 8, lease_s)
        return self.split.weights


@pytest.mark.parametrize(("params", "lease_s"), [
    ({"drain": "challenger", "to": "other"}, 20.0),
    ({"drain": "challenger", "to": "other", "lease_s": 60}, 60.0),
    ({"weights": {"champion": 50, "challenger": 50}}, None),
    ({"weights": NOW}, None),
    ({"weights": NOW, "lease_s": 60}, 60.0),
])
async def test_a_drain_keeps_the_lease_and_weights_replace_it(
        world: Any, params: dict[str, Any], lease_s: float | None) -> None:
    world.router = Leased(20.0)
    await world.run("traffic.shift", service="flights", **params)
    assert world.router.asked == [(7, lease_s)]


async def test_a_lease_that_is_nearly_over_is_still_one_that_a_shift_can_take(world: Any) -> None:
    world.router = Leased(0.0)
    result = await world.run("traffic.read", service="flights")
    assert result["lease_s"] == 1.0
    assert result["champion"] == "champion"


@pytest.mark.parametrize(("params", "said"), [
    ({}, "either weights or drain"),
    ({"weights": {"champion": 100}, "drain": "challenger"}, "either weights or drain"),
    ({"weights": {"champion": 90}}, "add up to 90, not to 100"),
    ({"weights": {"champion": 150, "challenger": -50}}, "less than or equal to 100"),
    ({"weights": {"champion": float("nan")}}, "finite number"),
    ({"weights": {"champion": True}}, "add up to 1"),
    ({"drain": "a", "to": "a"}, "takes the share"),
    ({"weights": {"a": 100}, "to": "a"}, "takes the share"),
    ({"drain": "a", "lease_s": 0}, "greater than 0"),
])
def test_wrong_parameters_are_refused_with_a_reason(world: Any, params: dict[str, Any],
                                                    said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        world.action("traffic.shift").params.model_validate({"service": "flights", **params})


def test_the_description_is_exact(world: Any) -> None:
    action = world.action("traffic.shift")
    for params, line in [
        ({"weights": {"challenger": 5, "champion": 95}, "lease_s": "1m"},
         "traffic.shift flights champion=95 challenger=5 lease 60 s"),
        ({"drain": "challenger"}, "traffic.shift flights drain challenger"),
        ({"drain": "challenger", "to": "champion"},
         "traffic.shift flights drain challenger to champion"),
    ]:
        assert action.describe(action.params.model_validate({"service": "flights", **params})) == line


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 100), min_size=2),
       st.data())
def test_a_drain_keeps_the_sum_and_the_proportions_of_the_others_and_is_idempotent(
        raw: dict[str, float], data: st.DataObject) -> None:
    total = sum(raw.values())
    now = {name: weight * 100 / total for name, weight in raw.items()}
    drained = data.draw(st.sampled_from(sorted(now)))
    params = traffic.Shift(service="flights", drain=drained)
    after = traffic.target(now, params)
    assert after[drained] == 0
    assert sum(after.values()) == pytest.approx(100)
    rest = sorted(set(now) - {drained})
    for one, other in itertools.pairwise(rest):
        assert after[one] * now[other] == pytest.approx(after[other] * now[one])
    assert traffic.target(after, params) == pytest.approx(after)
