"""The oracle of the campaign sees what it is there to see: shown on histories that are wrong."""

from __future__ import annotations

from tests.crash.rollout_oracle import Told, _beyond, _left, _raised

STEPS = [(1.0, 10.0), (2.0, 30.0)]
BACK = Told("7", began=0.5, ended=4.0, state="rolled_back", aborted=3.0, by="engine", reason="worse",
            steps=STEPS)
DONE = Told("8", began=5.0, ended=9.0, state="done", aborted=None, by=None, reason="",
            steps=[(6.0, 10.0), (8.0, 100.0)])


def seen(*looks: tuple[float, float]) -> list[list[object]]:
    return [[at, at + 0.01, weight, "set"] for at, weight in looks]


def test_a_weight_that_rises_after_an_abort_is_found() -> None:
    assert _raised(BACK, 5.0, seen((2.5, 30.0), (3.05, 30.0), (3.2, 0.0), (3.9, 0.0))) == []
    assert len(_raised(BACK, 5.0, seen((3.2, 0.0), (3.4, 10.0), (3.6, 0.0)))) == 1
    assert _raised(BACK, 5.0, seen((3.2, 0.0), (5.5, 10.0))) == [], "that is the next rollout's"


def test_more_than_the_plans_step_is_found() -> None:
    assert _beyond([BACK], seen((1.5, 10.0), (2.5, 30.0), (4.5, 0.0)), []) == []
    assert len(_beyond([BACK], seen((1.5, 30.0)), [])) == 1
    assert len(_beyond([BACK], seen((0.7, 10.0)), [])) == 1, "before its first step"
    assert len(_beyond([BACK], seen((4.5, 10.0)), [])) == 1, "after it was rolled back"


def test_what_was_promoted_stays_until_somebody_resets_it() -> None:
    assert _beyond([BACK, DONE], seen((8.5, 100.0), (9.5, 100.0)), [10.0]) == []
    assert len(_beyond([BACK, DONE], seen((10.5, 100.0)), [10.0])) == 1
    assert _left([BACK, DONE], [10.0], 9.5) == 100.0 and _left([BACK], [], 9.5) == 0.0
