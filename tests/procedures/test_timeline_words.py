"""The words of the timeline: what a post-mortem needs to read without the data beside it."""

from __future__ import annotations

from typing import Any

import pytest

from engine.api import wire
from engine.cli.timeline import markdown
from engine.journal.events import SYSTEM, Event
from engine.timeline import LONGEST, sentence, wire_event


def event(kind: str, data: dict[str, Any], attempt: int | None = 1) -> Event:
    return Event(1, "2", 1, 0.0, kind, SYSTEM, "verify", attempt, data, "", "")


BEGAN = {"to": "challenger", "champion": "champion", "versions": {"champion": "7", "challenger": "8"},
         "safe": {"challenger": 0.0, "champion": 100.0},
         "setup": {"alpha": 0.01, "metrics": [
             {"name": "errors", "alpha": 0.005}, {"name": "latency p95", "alpha": 0.002},
             {"name": "errors: timeout", "alpha": 0.001}, {"name": "errors: model_error", "alpha": 0.001},
             {"name": "predictions", "alpha": 0.0}]}}


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
    ("run.finished", {"state": "rolled_back"}, "ended: rolled back"),
    ("rollout.began", BEGAN, "judges challenger 8 against champion 7 on errors, latency p95, "
                             "2 kinds of errors, at α = 0.01; an abort goes back to champion 100 %, "
                             "challenger 0 %"),
    ("rollout.began", BEGAN | {"versions": {}, "safe": {}, "setup": {"alpha": 0.05, "metrics": []}},
     "judges challenger against champion, at α = 0.05"),
    ("rollout.frozen", {"edges": {"latency p95": 0.0125, "latency p99": 0.15}, "requests": 1480},
     "what counts as slow is fixed: p95 over 12.5 ms, p99 over 150 ms, from 1,480 requests of "
     "the old version"),
    ("rollout.tick", {"weight": 5.0, "requests": [12, 1230], "failed": [3, 0]},
     "at 5 %: new version 12 requests, 3 failed; old version 1,230 requests, 0 failed"),
    ("rollout.tick", {"weight": 5.0, "requests": [1, 10], "failed": [0, 9], "mark": "incident"},
     "at 5 %: new version 1 request, 0 failed; old version 10 requests, 9 failed; the old version fails "
     "itself, so nothing is learnt"),
    ("rollout.promoted", {"step": "watch-5", "verdict": "undecided", "reason": "it is urgent"},
     "engine skipped the watching of watch-5, while the verdict was undecided: it is urgent"),
    ("run.rollback", {"queue": ["undo:a"], "cause": "abort"}, "rolls back 1 step after abort"),
    ("rollout.promoted", {"full": True, "verdict": None}, "engine skipped all further watching"),
    ("rollout.halted", {"kind": "few", "text": "too little traffic"}, "stands: too little traffic"),
    ("rollout.halted", {"kind": None, "text": "it goes on"}, "it goes on"),
    ("rollout.verdict", {"verdict": "good", "text": "no worse than the old version, at α = 0.01"},
     "verdict good: no worse than the old version, at α = 0.01"),
    ("rollout.verdict", {"verdict": "undecided", "text": "undecided; nothing speaks against it"},
     "verdict undecided; nothing speaks against it")])
def test_an_event_in_words(kind: str, data: dict[str, Any], words: str) -> None:
    assert sentence(event(kind, data)) == words


def test_a_long_last_line_is_cut_and_says_so() -> None:
    said = sentence(event("step.outcome", {"state": "done", "stdout": "a" * 500}))
    assert said == "done: " + "a" * LONGEST + "…"


def test_a_timeline_leaves_the_ticks_out_and_says_how_many() -> None:
    events = [wire_event(event("rollout.tick", {"weight": 5.0, "requests": [1, 9], "failed": [0, 0]}))
              for _ in range(3)] + [wire_event(event("run.finished", {"state": "done"}))]
    view = wire.RunView("2", "plan", "done", [], "Roll out", "ann", 0.0, 1.0, 1.0, {}, None, 4, False,
                        None, None, "ab")
    short, long = markdown(view, events), markdown(view, events, ticks=True)
    assert short[-1] == "3 `rollout.tick` rows are left out; `--ticks` shows them."
    assert not any("new version" in line for line in short)
    assert sum("new version" in line for line in long) == 3 and "left out" not in long[-1]
