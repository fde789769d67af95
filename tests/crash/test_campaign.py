"""Random SIGKILLs: a short seeded campaign always, a thousand with `pytest -m soak`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.crash.campaign import Result, campaign

RESULT = Path(__file__).with_name("soak-result.json")


def holds(result: Result) -> None:
    assert result.twice == [], f"a once step ran twice: {result.twice}"
    assert result.lost == [], f"acknowledged and gone: {result.lost}"
    assert result.breaks == []
    assert result.runs > 0 and result.done > 0


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_forty_random_kills(tmp_path: Path, seed: int) -> None:
    holds(campaign(tmp_path / "home", kills=40, seed=seed))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_thousand_random_kills(tmp_path: Path) -> None:
    result = campaign(tmp_path / "home", kills=1000, seed=20261124)
    RESULT.write_text(json.dumps(result.as_dict(), indent=1) + "\n")
    holds(result)


def test_the_last_soak_that_was_committed_held() -> None:
    holds(Result(**json.loads(RESULT.read_text())))
