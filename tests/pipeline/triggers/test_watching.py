"""An engine that watches its projects: what begins a run, what does not, and what people are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine.api import wire
from engine.errors import Conflict, NotFound, NotPermitted
from engine.pipeline.triggers import sight
from tests.pipeline.triggers.engines import ANN, APPROVED, EVE, VIC, Place, engine, fast, until
from tests.pipeline.triggers.triggered import committed, project, repository

QUICK = "procedure: build, quiet: 100ms"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    fast(monkeypatch)


async def test_a_commit_is_built_once_from_a_folder_of_its_own_and_data_comes_along(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", f"{{{QUICK}, commits: {{every: 100ms}}}}")
    (folder / ".gitignore").write_text("data\n")
    repository(folder)
    place.register(flights=folder)
    async with engine(place) as backend:
        first = await until(backend, "flights", lambda t: t.commit)
        assert first.why == "nothing waits"
        head = committed(folder, "better", train="def main(inputs, output, params): return 2")
        await until(backend, "flights", lambda t: t.run)
        (folder / "train.py").write_text("def main(inputs, output, params): return 3")
        place.go()
        done = await until(backend, "flights", lambda t: t.run is None and t.recent[0].said.endswith("done"))
        name, cause, commit, built = place.built()[0]
        assert (name, cause, commit) == ("flights", f"commit {head[:12]}: better", head)
        assert Path(built, "train.py").read_text().endswith("return 2")
        assert Path(built, "data/rows.csv").read_text() == "x,y\n1,0\n"
        await backend.trigger(ANN, "flights", wire.TriggerNow(reason="to see"))
        again = await until(backend, "flights", lambda t: t.recent[0].kind == "hand")
        run = done.recent[0].said.split()[1]
        assert again.recent[0].said == f"nothing to do: run {run} has built exactly this"
    assert len(place.built()) == 1


async def test_new_data_is_built_and_what_the_world_was_before_the_engine_came_is_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", f"{{{QUICK}, data: {{every: 100ms}}}}")
    place.register(flights=folder)
    place.go()
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: _seen(place))
        (folder / "data/rows.csv").write_text("x,y\n1,1\n")
        await until(backend, "flights", lambda t: t.recent and t.recent[0].said.endswith("done"))
    assert [built[1].split(",")[0] for built in place.built()] == ["new data"]
    (folder / "data/rows.csv").write_text("x,y\n0,1\n")
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: len(t.recent) == 2 and t.recent[0].said.endswith("done"))
    assert len(place.built()) == 2


async def test_one_at_a_time_and_of_what_waits_only_the_newest(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", f"{{{QUICK}}}")
    place.register(flights=folder)
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: True)
        await backend.trigger(ANN, "flights", wire.TriggerNow())
        await until(backend, "flights", lambda t: t.run)
        for n in range(3):
            (folder / "train.py").write_text(f"def main(inputs, output, params): return {n}")
            await backend.trigger(ANN, "flights", wire.TriggerNow(reason=f"try {n}"))
            await until(backend, "flights", lambda t, n=n: t.waiting and t.waiting.text.endswith(f"try {n}"))
        shown = (await backend.triggers("flights"))[0]
        assert shown.why == f"waits until run {shown.run} has ended: one at a time for a model"
        assert len(place.built()) == 1
        place.go()
        await until(backend, "flights", lambda t: t.run is None and t.waiting is None and not t.asked)
    assert [built[1] for built in place.built()] == ["by hand", "by hand: try 2"]


async def test_who_asks_by_hand_is_who_starts_it_and_so_may_not_approve_it(tmp_path: Path) -> None:
    place = Place(tmp_path, steps=APPROVED)
    folder = project(tmp_path / "flights", f"{{{QUICK}, data: {{every: 100ms}}}}")
    place.register(flights=folder)
    place.go()
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: _seen(place))
        await backend.trigger(EVE, "flights", wire.TriggerNow())
        run = (await until(backend, "flights", lambda t: t.run and place.built())).run
        assert run is not None
        view = await _waiting(backend, run)
        assert view.by == "eve"
        gate = next(step.gate for step in view.steps if step.id == "release")
        with pytest.raises(NotPermitted):
            await backend.act(EVE, run, "approve", wire.Act(step="release", digest=gate.digest))
        await backend.act(ANN, run, "abort", wire.Act(reason="enough"))
        await until(backend, "flights", lambda t: t.run is None)
        (folder / "data/rows.csv").write_text("x,y\n5,1\n")
        run = (await until(backend, "flights", lambda t: t.run and len(place.built()) == 2)).run
        assert run is not None
        view = await _waiting(backend, run)
        assert view.by == "engine"
        gate = next(step.gate for step in view.steps if step.id == "release")
        assert gate.not_initiator
        await backend.act(EVE, run, "approve", wire.Act(step="release", digest=gate.digest))
        await until(backend, "flights", lambda t: t.run is None and t.recent[0].said.endswith("done"))


async def test_drift_and_a_person_are_heard_where_that_is_wanted(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.register(flights=project(tmp_path / "flights", f"{{{QUICK}}}"),
                   fares=project(tmp_path / "fares", f"{{{QUICK}, drift: true}}", "fares", "fare"))
    place.go()
    async with engine(place) as backend:
        await until(backend, "fares", lambda t: True)
        with pytest.raises(Conflict, match="is not begun by drift"):
            await backend.trigger(ANN, "flights", wire.TriggerNow("drift"))
        with pytest.raises(NotFound, match="there is no project prices"):
            await backend.trigger(ANN, "prices", wire.TriggerNow())
        with pytest.raises(NotPermitted):
            await backend.trigger(VIC, "fares", wire.TriggerNow())
        await backend.trigger(ANN, "fares", wire.TriggerNow("drift", "PSI of temp 0.4"))
        await until(backend, "fares", lambda t: t.recent and t.recent[0].said.endswith("done"))
    assert [built[1] for built in place.built()] == ["drift: PSI of temp 0.4"]


async def test_a_source_that_fails_is_reported_once_and_the_others_go_on(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sight, "TICKET_AFTER", 0.5)
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", f"{{{QUICK}, data: {{every: 100ms}}, "
                                           f"commits: {{every: 100ms, repository: {tmp_path}/nowhere}}}}")
    place.register(flights=folder, broken=tmp_path / "broken")
    place.go()
    async with engine(place) as backend:
        shown = await until(backend, "flights", lambda t: t.problems and _seen(place))
        assert [one.source for one in shown.problems] == ["commits"]
        assert "cannot be read" in shown.problems[0].text
        (folder / "data/rows.csv").write_text("x,y\n1,1\n")
        await until(backend, "flights", lambda t: t.recent and t.recent[0].said.endswith("done"))
        broken = (await backend.triggers("broken"))[0]
        assert broken.problems[0].source == "project"
        await until(backend, "flights", lambda t: _kinds(place).count("trigger.ticket") == 2)
        told = [event for event in await backend.events(200, None) if event.kind == "trigger.blind"]
        assert {event.data.get("level") for event in told} == {None, "ticket"}
        assert len([e for e in told if e.data.get("source") == "flights/commits"]) == 1
        shutil.copytree(folder, tmp_path / "nowhere")
        repository(tmp_path / "nowhere")
        await until(backend, "flights", lambda t: not t.problems)


async def test_a_schedule_that_came_while_no_engine_ran_is_caught_up_with(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", f"{{{QUICK}, cron: [{{at: '* * * * * *', missed: catch up}}]}}")
    place.register(flights=folder)
    place.go()
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: t.recent and "has built exactly this" in t.recent[0].said)
    assert len(place.built()) == 1


async def test_a_model_whose_procedure_is_not_there_waits_and_says_so(tmp_path: Path) -> None:
    place = Place(tmp_path)
    folder = project(tmp_path / "flights", "{procedure: nothing-such, quiet: 100ms}")
    place.register(flights=folder)
    place.go()
    async with engine(place) as backend:
        await until(backend, "flights", lambda t: True)
        await backend.trigger(ANN, "flights", wire.TriggerNow())
        shown = await until(backend, "flights", lambda t: t.problems)
        assert shown.problems[0].text == "there is no procedure `nothing-such`"
        file = folder / "opsdeck.pipeline.yaml"
        file.write_text(file.read_text().replace("nothing-such", "build"))
        await until(backend, "flights", lambda t: t.recent and t.recent[0].said.endswith("done"))
    assert len(place.built()) == 1


async def _waiting(backend, run: str) -> wire.RunView:
    async for view in backend.follow(run):
        if isinstance(view, wire.RunView) and any(step.gate for step in view.steps):
            return view
    raise AssertionError(f"run {run} ended")


def _kinds(place: Place) -> list[str]:
    from engine.journal.sqlite import SqliteJournal

    journal = SqliteJournal.open_readonly(place.home.journal)
    try:
        return [event.kind for event in journal.read("triggers")]
    finally:
        journal.close()


def _seen(place: Place) -> bool:
    return "trigger.seen" in _kinds(place)
