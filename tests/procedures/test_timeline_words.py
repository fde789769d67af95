"""The words of the timeline: what a post-mortem needs to read without the data beside it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.journal.events import SYSTEM, Event
from engine.timeline import LONGEST, sentence


def event(kind: str, data: dict[str, Any], attempt: int | None = 1) -> Event:
    return Event(1, "2", 1, 0.0, kind, SYSTEM, "verify", attempt, data, "", "")


@pytest.mark.parametrize(("kind", "data", "words"), [
    ("step.intent", {}, "begins, attempt 1"),
    ("step.intent", {"retry": True}, "begins again, attempt 1"),
    ("step.intent", {"resumed": True}, "begins again, attempt 1, as the engine ended before it did"),
    ("step.outcome", {"state": "done"}, "done"),
    ("step.outcome", {"state": "done", "stdout": "it holds\nflights: champion 100 %\n\n"},
     "done: flights: champion 100 %"),
    ("step.outcome", {"state": "failed", "exit_code": 3, "stdout": "x"}, "failed, exit code 3"),
    ("step.outcome", {"state": "failed", "error": "no gateway"}, "failed: no gateway"),
    ("step.outcome", {"state": "done", "answered": True, "result": {"answer": "yes"}}, "answered: yes"),
    ("run.finished", {"state": "rolled_back"}, "ended: rolled back")])
def test_an_event_in_words(kind: str, data: dict[str, Any], words: str) -> None:
    assert sentence(event(kind, data)) == words


def test_a_long_last_line_is_cut_and_says_so() -> None:
    said = sentence(event("step.outcome", {"state": "done", "stdout": "a" * 500}))
    assert said == "done: " + "a" * LONGEST + "…"
