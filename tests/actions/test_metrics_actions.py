"""metrics.read and metrics.check over signals that a script gives."""

from typing import Any

import pytest
from pydantic import ValidationError

from engine.actions import metrics, signals
from engine.config import Config
from engine.errors import ActionFailed, NotFound

GOOD = {"rps": 50.0, "p50_ms": 11.0, "p95_ms": 38.0, "p99_ms": 90.0, "error_ratio": 0.0,
        "errors": {"timeout": 0.0}, "in_flight": 2.0, "weight": 95.0, "stale": False, "age_s": 0.4}
GONE = {"rps": None, "p50_ms": None, "p95_ms": None, "p99_ms": None, "error_ratio": None,
        "errors": {}, "in_flight": None, "weight": 5.0, "stale": True, "age_s": 42.0}
CHECK = {"service": "flights", "condition": "p99_ms < 150"}


def script(world: Any, *parts: tuple[float, dict[str, Any]], variant: str | None = None) -> float:
    """Signals that change: each part holds from so many seconds after now."""
    begun: float = world.time
    world.signals.of["flights", variant] = lambda now: [
        entry for at, entry in parts if now - begun >= at][-1]
    return begun


async def test_a_condition_that_holds_long_enough_passes_as_soon_as_it_has(world: Any) -> None:
    begun = script(world, (0, {**GOOD, "p99_ms": 212.0}), (10, GOOD))
    result = await world.run("metrics.check", **CHECK, **{"for": "30s"})
    assert world.time - begun == pytest.approx(40, abs=1)
    assert result["held_s"] >= 30
    assert result["last"]["p99_ms"] == 90.0


async def test_a_hold_of_nothing_passes_at_once(world: Any) -> None:
    begun = script(world, (0, GOOD))
    await world.run("metrics.check", **CHECK)
    assert world.time == begun


async def test_a_break_starts_the_hold_again(world: Any) -> None:
    begun = script(world, (0, GOOD), (20, {**GOOD, "p99_ms": 151.0}), (21, GOOD))
    await world.run("metrics.check", **CHECK, **{"for": "30s"})
    assert world.time - begun == pytest.approx(51, abs=1)


@pytest.mark.parametrize(("broken", "said"), [
    (GONE, "cannot be told: the signals are stale (42 s old)"),
    ({**GOOD, "p99_ms": None}, "cannot be told: p99_ms is not known"),
])
async def test_stale_and_unknown_signals_break_the_hold_and_say_so(
        world: Any, broken: dict[str, Any], said: str) -> None:
    begun = script(world, (0, GOOD), (20, broken), (25, GOOD))
    await world.run("metrics.check", **CHECK, **{"for": "30s"})
    assert world.time - begun == pytest.approx(55, abs=1)
    assert any(said in line for line in world.logged)


async def test_it_fails_at_the_deadline_with_what_it_was_like_at_last(world: Any) -> None:
    begun = script(world, (0, {**GOOD, "p99_ms": 212.4}))
    with pytest.raises(ActionFailed) as failed:
        await world.run("metrics.check", **CHECK, **{"for": "30s", "within": "3m"})
    assert failed.value.message == (
        "`p99_ms < 150` did not hold for 30 s within 3 min on flights: at the end it does not hold "
        "(p99_ms 212.4).")
    assert world.time - begun <= 180


async def test_it_does_not_wait_for_a_deadline_that_it_can_no_longer_make(world: Any) -> None:
    begun = script(world, (0, {**GOOD, "p99_ms": 212.0}), (40, GOOD))
    with pytest.raises(ActionFailed):
        await world.run("metrics.check", **CHECK, **{"for": "30s", "within": "60s"})
    assert world.time - begun == pytest.approx(31, abs=1)


async def test_progress_is_told_each_five_seconds_and_on_change(world: Any) -> None:
    script(world, (0, {**GOOD, "p99_ms": 212.0}), (12, GOOD))
    await world.run("metrics.check", **CHECK, **{"for": "7s"})
    assert world.logged == [
        "p99_ms < 150 does not hold (p99_ms 212)",
        "p99_ms < 150 does not hold (p99_ms 212)",
        "p99_ms < 150 does not hold (p99_ms 212)",
        "p99_ms < 150 holds for 0 ms of 7 s (p99_ms 90)",
        "p99_ms < 150 holds for 5 s of 7 s (p99_ms 90)",
        "p99_ms < 150 held for 7 s (p99_ms 90)"]


async def test_one_variant_is_looked_at_where_one_is_named(world: Any) -> None:
    script(world, (0, {**GOOD, "p99_ms": 212.0}))
    script(world, (0, GOOD), variant="champion")
    await world.run("metrics.check", **CHECK, variant="champion")
    with pytest.raises(NotFound):
        await world.run("metrics.check", **CHECK, variant="chalenger")


@pytest.mark.parametrize(("condition", "state"), [
    ("error_ratio < 0.01 && p99_ms < 150", "holds"),
    ("rps > 0 && in_flight < 5", "holds"),
    ("errors.timeout == 0.0", "holds"),
    ("errors.model_error == 0.0", "holds"),
    ("errors['timeout'] > 1.0", "does not hold"),
    ("errors.all(type, errors[type] < 1.0)", "holds"),
    ("errors.slow_disk < 1.0", "cannot be told: errors.slow_disk is not known"),
    ("weight == 95.0 && !stale", "holds"),
])
def test_conditions_read_every_signal(condition: str, state: str) -> None:
    assert metrics.judge(condition, GOOD) == state


@pytest.mark.parametrize(("condition", "said"), [
    ("p99 < 150", "no signal p99. Did you mean"),
    ("p99_ms <", "cannot be read as CEL"),
    ("", "at least 1 character"),
])
def test_a_condition_with_a_mistake_is_refused_before_anything_runs(
        world: Any, condition: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        world.action("metrics.check").params.model_validate({**CHECK, "condition": condition})
    with pytest.raises(ValidationError, match="could never hold so long"):
        world.action("metrics.check").params.model_validate({**CHECK, "for": "2m", "within": "1m"})


async def test_a_condition_that_is_no_condition_fails_with_a_sentence(world: Any) -> None:
    script(world, (0, GOOD))
    with pytest.raises(Exception, match="not true or false"):
        await world.run("metrics.check", service="flights", condition="p99_ms + 1.0")


async def test_read_makes_every_number_safe_to_compare(world: Any) -> None:
    script(world, (0, GOOD))
    script(world, (0, {**GOOD, "p99_ms": 212.0, "error_ratio": 0.02,
                       "errors": {"timeout": 1.0, "slow_disk": 0.5}}), variant="champion")
    script(world, (0, GONE), variant="challenger")
    result = await world.run("metrics.read", service="flights")
    assert result["service"]["p99_ms"] == 90.0
    assert result["service"]["known"] is True
    gone = result["variants"]["challenger"]
    assert (gone["p99_ms"], gone["rps"], gone["known"], gone["stale"]) == (-1.0, -1.0, False, True)
    assert gone["errors"] == dict.fromkeys(signals.ERRORS, -1.0)
    assert result["variants"]["champion"]["errors"] == {
        "timeout": 1.0, "out_of_memory": 0.0, "invalid_input": 0.0, "model_error": 0.0,
        "unavailable": 0.0, "slow_disk": 0.5}
    assert (result["slowest"], result["most_errors"]) == ("champion", "champion")
    assert (result["main_error"], result["main_error_at"]) == ("timeout", "champion")


def test_the_main_error_is_the_most_frequent_one_and_where_there_is_most_of_it() -> None:
    # A challenger that fails often but seldom gets a request, beside a champion that is down.
    def entry(**errors: float) -> dict[str, Any]:
        return signals.settled({**GOOD, "errors": errors})
    variants = {"challenger": entry(model_error=2.0, unavailable=0.5),
                "champion": entry(unavailable=6.0)}
    assert signals.main_error(variants) == ("unavailable", "champion")
    assert signals.main_error({"champion": signals.settled({})}) == ("", "")
    assert signals.main_error({}) == ("", "")


async def test_where_nothing_is_wrong_the_worst_is_nobody(world: Any) -> None:
    for variant in (None, "champion", "challenger"):
        script(world, (0, {**GOOD, "p99_ms": None}), variant=variant)
    result = await world.run("metrics.read", service="flights")
    assert {result[name] for name in ("slowest", "most_errors", "main_error", "main_error_at")} == {
        ""}
    assert result["service"]["known"] is False


async def test_variants_are_those_of_the_signals_then_the_router_then_the_config(
        world: Any) -> None:
    script(world, (0, {**GOOD, "variants": ["v7"]}))
    script(world, (0, GOOD), variant="v7")
    assert list((await world.run("metrics.read", service="flights"))["variants"]) == ["v7"]
    script(world, (0, GOOD))
    assert list((await world.run("metrics.read", service="flights"))["variants"]) == [
        "champion", "challenger"]

    async def down(service: str) -> dict[str, float]:
        raise ActionFailed("The gateway does not answer.")
    world.router.read = down
    world.config = Config.model_validate({"services": {"flights": {"versions": {"next": "8"}}}})
    assert list((await world.run("metrics.read", service="flights"))["variants"]) == [
        "champion", "next"]
