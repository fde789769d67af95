"""What counts once: sessions and chains of retries, in memory and through a real gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving import units as module
from engine.serving.units import UnitKeys, Units
from tests.serving.harness import Gateway, ScriptedVariant, free_port, response

WINDOW_S = 60.0


def counted(*answers: tuple[int, float, str]) -> tuple[int, dict[str, int]]:
    units = Units(WINDOW_S)
    for key, arrived, error_type in answers:
        units.answered(key, arrived, error_type)
    return units.count, units.failures


def test_failures_of_one_unit_count_once_for_each_type_and_once_for_any() -> None:
    assert counted((1, 0, "timeout"), (1, 1, "timeout"), (1, 2, "model_error"),
                   (1, 3, "timeout")) == (1, {"timeout": 1, "any": 1, "model_error": 1})


def test_a_unit_that_was_counted_as_good_and_then_fails_is_a_failure_once() -> None:
    assert counted((1, 0, ""), (1, 5, "timeout"), (1, 6, ""), (1, 7, "timeout")) == (
        1, {"timeout": 1, "any": 1})


def test_units_fail_each_for_itself() -> None:
    assert counted((1, 0, "timeout"), (2, 0, "timeout"), (3, 0, "")) == (
        3, {"timeout": 2, "any": 2})


def test_after_its_window_a_key_is_a_new_unit_however_busy_it_was() -> None:
    busy = [(1, float(second), "timeout") for second in range(60)]
    assert counted(*busy) == (1, {"timeout": 1, "any": 1})
    assert counted(*busy, (1, 60.0, "timeout")) == (2, {"timeout": 2, "any": 2})


def test_an_answer_that_was_overtaken_belongs_to_the_unit_that_was_begun_by_a_later_request() -> None:
    assert counted((1, 10.0, ""), (1, 8.0, "timeout")) == (1, {"timeout": 1, "any": 1})


@given(st.lists(st.tuples(st.integers(0, 5), st.floats(0, 40),
                          st.sampled_from(["", "timeout", "model_error"])), max_size=60))
def test_it_counts_as_one_would_by_keeping_everything(steps: list[tuple[int, float, str]]) -> None:
    began: dict[int, int] = {}
    failed: dict[int, set[str]] = {}
    count, failures, now, answers = 0, Counter[str](), 0.0, []
    for key, later, error_type in steps:
        now += later
        answers.append((key, now, error_type))
        at = int(now * 1000)
        if key not in began or at - began[key] >= 60_000:
            began[key], failed[key] = at, set()
            count += 1
        types = {error_type, "any"} - failed[key] if error_type else set()
        failures.update(types)
        failed[key] |= types
    assert counted(*answers) == (count, dict(failures))


def test_what_is_over_is_forgotten_and_beyond_the_limit_the_oldest(
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1000)
    units = Units(WINDOW_S)
    for key in range(5000):
        units.answered(key, key / 100, "timeout")
        assert len(units) <= 1000
    units.answered(4500, 50.0, "timeout")  # still remembered
    assert (units.count, units.failures["any"]) == (5000, 5000)
    units.answered(3000, 50.0, "timeout")  # forgotten, and so another
    assert (units.count, units.failures["any"]) == (5001, 5001)
    for key in range(600):
        units.answered(-key, 200.0, "")
    assert len(units) == 600


def test_a_key_that_begins_again_does_not_keep_those_after_it_in_memory() -> None:
    units = Units(WINDOW_S)
    for key in range(10):
        units.answered(key, 0.0, "")
    for key in (0, 101, 102, 103, 104, 105):
        units.answered(key, 60.0, "")
    assert len(units) == 6


KEYS: list[tuple[dict[str, str], str]] = [
    ({"x-session-id": "s 1"}, "a"), ({"x-session-id": "s 1", "x-retry-of": "z"}, "b"),
    ({}, "c"), ({}, "c"), ({"x-retry-of": "c"}, "d"), ({"x-retry-of": "d"}, "e"),
    ({"x-retry-of": "e"}, "f"), ({"x-retry-of": "c"}, "g"), ({}, "h"), ({"x-retry-of": "n o"}, "i"),
    ({"x-session-id": ""}, "h"), ({"x-session-id": "h"}, "h")]


def test_the_session_comes_first_then_the_chain_of_retries_then_the_requests_own_id() -> None:
    key = UnitKeys("x-session-id")
    found = [key(headers, correlation) for headers, correlation in KEYS]
    assert found[0] == found[1]
    assert found[2] == found[3] == found[4] == found[5] == found[6] == found[7]
    assert found[8] == found[10]
    assert len(set(found)) == 5


def test_retries_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 3)
    key = UnitKeys("x-session-id")
    for n in range(10):
        key({"x-retry-of": f"r{n}"}, f"r{n + 1}")
    first = key({"x-retry-of": "r0"}, "r1")
    assert key({"x-retry-of": "r1"}, "other") == first
    assert key({"x-retry-of": "r5"}, "another") == UnitKeys("x-session-id")({}, "r5")


def units(gateway: Gateway, variant: str) -> float:
    return gateway.metrics()[f'opsdeck_units_total{{service="flights",variant="{variant}"}}']


def failures(gateway: Gateway, variant: str) -> dict[str, float]:
    start = "opsdeck_unit_failures_total{"
    return {name.partition('error_type="')[2].partition('"')[0]: value
            for name, value in gateway.metrics().items()
            if name.startswith(start) and f'variant="{variant}"' in name}


def test_a_session_that_tries_again_and_again_is_one_failed_unit_of_many_failed_requests(
        home: Path, gateways: Callable[..., Gateway],
        variants: Callable[..., ScriptedVariant]) -> None:
    said = iter([response(500, "{}"), response(503, "{}"), response(500, "{}"),
                 response(200, '{"predictions": []}')])
    last = response(200, '{"predictions": []}')
    gateway = gateways(home, {"champion": variants(lambda _: next(said, last)).port,
                              "challenger": free_port()}, session_header="X-Visit")
    assert units(gateway, "champion") == units(gateway, "challenger") == 0
    for _ in range(4):
        gateway.post(x_visit="7")
    first = gateway.post().headers["x-correlation-id"]
    second = gateway.post(x_retry_of=first).headers["x-correlation-id"]
    gateway.post(x_retry_of=second)
    gateway.post()
    assert gateway.count("champion") == 5 and gateway.count("champion", "model_error") == 2
    assert units(gateway, "champion") == 3
    assert failures(gateway, "champion") == {"model_error": 1, "unavailable": 1, "any": 1}
    assert units(gateway, "challenger") == 0 and failures(gateway, "challenger") == {}
