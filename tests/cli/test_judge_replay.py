"""`opsdeck judge replay`: what a rollout decided, recomputed beside what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import home as homes
from engine.api import wire
from engine.cli.judge_replay import here
from engine.journal.events import SYSTEM, NewEvent
from engine.journal.sqlite import SqliteJournal
from engine.procedures.rollouts import Rollout
from engine.rollout.analysis import Analysis, Tick
from engine.rollout.replay import numbers
from engine.rollout.setup import setup
from tests.cli.rolling import Done, Engine, command
from tests.daemon.rollouts import STARTED

Told = list[tuple[str, dict[str, Any]]]
MADE = {"opsdeck": "0.1.0", "python": "3.11.4", "machine": "x86_64", "system": "linux"}


def told(failed: int, ticks: int = 12) -> Told:
    """The events of a rollout of which so many of 50 requests a tick fail, and what it decided."""
    plan = setup(Rollout.model_validate({"service": "flights", "to": "challenger", "canary": [5, 100]}))
    analysis = Analysis()
    events: Told = [("rollout.began", {"service": "flights", "to": "challenger", "champion": "champion",
                                       "safe": {"champion": 100.0}, "setup": plan.as_data(),
                                       "made_by": MADE})]
    counts = {"errors": (50, failed, 950, 9)}
    tick = Tick(1.0, "weight-5", 5.0, (50, 950), (failed, 9), counts)
    events += [("rollout.tick", tick.as_data())] * ticks
    for kind, data in events:
        analysis.fold(kind, data)
    assert analysis.verdict is not None
    events.append(("rollout.verdict", {"verdict": analysis.verdict.verdict, "text": "it is as it is",
                                       **numbers(analysis)}))
    return events


def changed(events: Told, by: float) -> Told:
    """As recorded by something else: one number of the verdict is another."""
    kind, data = events[-1]
    ln_e = data["ln_e"] | {"errors": data["ln_e"]["errors"] * (1 + by)}
    return [*events[:-1], (kind, data | {"ln_e": ln_e})]


@pytest.fixture
def served(rolling: Engine, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the engine have these events as run 41."""
    def serve(events: Told) -> Engine:
        async def timeline(id: str) -> list[wire.Event]:
            return [wire.Event(n, STARTED + n, kind, "engine", "engine", id, None, None, kind, "00", data)
                    for n, (kind, data) in enumerate(events)]

        monkeypatch.setattr(rolling.backend, "timeline", timeline)
        return rolling

    return serve


def judge(path: Path, *words: str) -> Done:
    return command("--home", str(path), "judge", "replay", *words)


def test_a_bad_verdict_is_recomputed_to_the_bit(served: Any) -> None:
    engine = served(told(failed=20))
    done = judge(engine.path, "41")
    assert done.code == 0, done.err
    assert "run 41: 1 recorded verdict over 12 ticks, made by opsdeck 0.1.0, python 3.11.4" in done.out
    assert "tick 12: recorded bad, recomputed bad: equal to the bit" in done.out
    row = next(line.split() for line in done.out.splitlines() if line.startswith("  errors "))
    assert row[1] == row[2]
    assert float(row[1]) > 5
    assert "differs" not in done.out


def test_as_json_it_has_both_sides_whole(served: Any) -> None:
    events = told(failed=20)
    found = json.loads(judge(served(events).path, "41", "--json").out)
    assert (found["run"], found["ticks"], found["bit_equal"], found["agrees"]) == ("41", 12, True, True)
    assert found["made_by"] == MADE
    assert found["here"] == here()
    decision = found["decisions"][0]
    assert decision["recorded"] == decision["recomputed"]
    assert decision["recorded"]["ln_e"]["errors"] == events[-1][1]["ln_e"]["errors"]
    assert found["end"]["verdict"] == "bad"


@pytest.mark.parametrize(("by", "code", "says"), [
    (1e-14, 0, "the same within 1e-12"), (1e-6, 1, "NOT the same")])
def test_another_number_is_shown_beside_the_recorded_one(served: Any, by: float, code: int,
                                                         says: str) -> None:
    engine = served(changed(told(failed=20), by))
    done = judge(engine.path, "41")
    assert done.code == code
    assert says in done.out
    row = next(line for line in done.out.splitlines() if line.startswith("  errors "))
    assert row.endswith("differs")
    assert "the last bits may differ" in done.out, "it was made elsewhere"
    assert json.loads(judge(engine.path, "41", "--json").out)["bit_equal"] is False


def test_counts_that_were_changed_since_are_found_out(served: Any) -> None:
    events = told(failed=20)
    kind, data = events[3]
    better = (kind, data | {"counts": {"errors": [50, 0, 950, 9]}})
    done = judge(served([*events[:3], better, *events[4:]]).path, "41")
    assert done.code == 1
    assert "NOT the same" in done.out


def test_a_rollout_that_recorded_no_verdict_says_how_it_ends(served: Any) -> None:
    done = judge(served(told(failed=0)[:-1]).path, "41")
    assert done.code == 0
    assert "no verdict was recorded; recomputed it ends undecided" in done.out


def test_a_run_that_is_no_rollout_is_told(served: Any) -> None:
    done = judge(served([("run.created", {})]).path, "41")
    assert done.code == 2
    assert "run 41 cannot be replayed: these are not the events of a rollout" in done.err


def test_an_event_that_cannot_be_folded_points_to_the_journal(served: Any) -> None:
    done = judge(served([*told(failed=0)[:1], ("rollout.tick", {"span": 1.0})]).path, "41")
    assert done.code == 1
    assert "opsdeck audit verify" in done.err
    assert "Traceback" not in done.err


def test_without_an_engine_it_reads_the_journal(tmp_path: Path) -> None:
    home = homes.at(tmp_path / "home")
    homes.prepare(home)
    journal = SqliteJournal.open(home.journal, engine_id="test")
    journal.append([NewEvent("41", kind, STARTED + n, SYSTEM, data=data)
                    for n, (kind, data) in enumerate(told(failed=20))])
    journal.close()
    done = judge(home.path, "41")
    assert done.code == 0, done.err
    assert "equal to the bit" in done.out
    missing = judge(home.path, "42")
    assert missing.code == 2
    assert "no events of run 42" in missing.err


def test_without_an_engine_and_a_journal_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = judge(tmp_path, "41")
    assert done.code == 7
    assert "opsdeck engine start" in done.err
