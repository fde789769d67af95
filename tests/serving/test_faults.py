"""Faults on purpose: their plan, their file, and that they are really suffered."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.serving.fault_injection import FAULTS, Faults, Plan, parse


def write(path: Path, document: Any) -> None:
    path.write_text(document if isinstance(document, str) else json.dumps(document))


def test_a_plan_is_read_and_zero_ratios_cost_nothing() -> None:
    plan = parse(b'{"latency_ms": 400, "latency_ratio": 0.5, "errors": {"timeout": 0}}')
    assert plan == Plan(400.0, 0.5, {})
    assert parse(b"{}") == Plan(0.0, 1.0, {})


@pytest.mark.parametrize("text", [
    "", "[]", '{"latncy_ms": 1}', '{"errors": {"oom": 1}}', '{"errors": []}',
    '{"latency_ms": -1}', '{"latency_ratio": 2}', '{"latency_ms": "1"}', '{"latency_ms": true}',
    '{"errors": {"timeout": 0.6, "model_error": 0.6}}', '{"latency_ms": NaN}'])
def test_a_plan_that_is_not_valid_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text.encode())


@given(st.dictionaries(st.sampled_from(FAULTS), st.floats(0.0, 0.2)), st.integers(0, 2**31))
def test_each_error_happens_to_its_ratio_of_requests(errors: dict[Any, float], seed: int) -> None:
    rng, n = random.Random(seed), 2000
    plan = Plan(errors=errors)
    drawn = [plan.fault(rng) for _ in range(n)]
    for fault in FAULTS:
        ratio = errors.get(fault, 0.0)
        # Six standard deviations: chance does not reach them, a wrong edge does.
        assert abs(drawn.count(fault) - n * ratio) <= 6 * (n * ratio * (1 - ratio)) ** 0.5 + 1e-9


def test_latency_happens_to_its_ratio() -> None:
    rng = random.Random(1)
    delays = [Plan(400.0, 0.25).delay_s(rng) for _ in range(4000)]
    assert set(delays) == {0.0, 0.4} and 850 < delays.count(0.4) < 1150


def test_the_file_is_taken_up_when_it_changes_and_ends_with_its_end(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faults.json"
    faults = Faults(path, random.Random(1))
    faults.look()
    assert faults.plan == Plan()
    write(path, {"errors": {"model_error": 1}})
    faults.look()
    assert faults.plan.errors == {"model_error": 1.0}
    write(path, '{"errors": ')
    faults.look()
    faults.look()
    assert faults.plan.errors == {"model_error": 1.0}
    assert capsys.readouterr().err.count("not valid") == 1
    write(path, {"errors": {"timeout": 1}})
    os.utime(path, ns=(1, 1))
    faults.look()
    assert faults.plan.errors == {"timeout": 1.0}
    path.unlink()
    faults.look()
    assert faults.plan == Plan()
