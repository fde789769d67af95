"""Random SIGKILLs in the middle of rollouts on a real gateway; many with `pytest -m soak`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.rollout_campaign import campaign
from tests.crash.rollout_oracle import Result

RESULT = Path(__file__).with_name("rollout-result.json")
KILLS = 200


@pytest.fixture
def short_home() -> Iterator[Path]:
    """A Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="roll", dir="/var/tmp") as folder:
        yield Path(folder) / "home"


def holds(result: Result) -> None:
    assert result.wrong == {}
    assert result.runs > 0 and result.samples > 0


@pytest.mark.slow
def test_five_random_kills_of_an_engine_that_rolls_out(short_home: Path) -> None:
    holds(campaign(short_home, kills=5, seed=1))


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_two_hundred_random_kills_of_an_engine_that_rolls_out(short_home: Path) -> None:
    result = campaign(short_home, kills=KILLS, seed=20261124)
    RESULT.write_text(json.dumps(result.as_dict(), indent=1) + "\n")
    holds(result)
    assert result.done > 0 and result.rolled_back > 0 and result.leases_out > 0 and result.aborted > 0


def test_the_last_campaign_of_rollouts_that_was_committed_held() -> None:
    holds(Result(**json.loads(RESULT.read_text())))
