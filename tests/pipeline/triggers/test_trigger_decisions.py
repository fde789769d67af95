"""What is built and what is not, whatever comes, whenever the clock jumps and wherever the engine dies."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.pipeline.triggers import deciding
from engine.pipeline.triggers.deciding import Cause, Fact, Model, fold

QUIET = 60.0


@dataclass
class World:
    """A journal, runs that really exist, and an engine that can die after any commit."""

    journal: list[Fact] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    now: float = 1_000_000.0
    model: Model = field(default_factory=Model)
    heard: int = 0
    newest: str | None = None
    by_hand_again: set[str] = field(default_factory=set)

    def commit(self, facts: list[Fact]) -> None:
        self.journal += facts
        for fact in facts:
            self.model = fold(self.model, fact)

    def cause(self, what: str, kind: deciding.Kind = "commit") -> None:
        self.heard += 1
        self.newest = what
        if kind == "hand":
            self.by_hand_again.add(what)
        self.commit(deciding.hear(self.model, Cause(f"c{self.heard}", kind, "flights", what, self.now,
                                                    f"{kind} {self.heard}")))

    def beat(self, die: bool = False) -> None:
        if deciding.is_due(self.model, self.now, QUIET):
            self.commit([deciding.build(self.model, str(len(self.journal) + 1), self.now)])
            if die:
                self.restart()
                return
        self.make()

    def make(self) -> None:
        building = self.model.building
        if building is not None and building.run not in self.runs:
            assert not self.live, "two at once"
            self.runs[building.run] = building.cause.what
            self.live.add(building.run)

    def end(self, state: str) -> None:
        building = self.model.building
        if building is not None and building.run in self.live:
            self.live.remove(building.run)
            self.commit([deciding.ended(self.model, state, self.now)])

    def restart(self) -> None:
        again = Model()
        for fact in msgspec.json.decode(msgspec.json.encode(self.journal), type=list[Fact]):
            again = fold(again, fact)
        assert again == self.model
        self.model = again


KINDS = ("commit", "data", "cron", "drift", "webhook", "hand")
STEPS = st.one_of(
    st.tuples(st.just("cause"), st.sampled_from("ABCDEF"), st.sampled_from(KINDS)),
    st.tuples(st.just("time"), st.floats(-200_000, 200_000)), st.tuples(st.just("time"), st.just(61.0)),
    st.tuples(st.just("beat"), st.booleans()),
    st.tuples(st.just("end"), st.sampled_from(["done", "aborted", "failed", "rolled_back"])),
    st.tuples(st.just("restart")))


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_nothing_is_built_twice_or_at_once_and_the_newest_is_built_in_the_end(steps: list[tuple]) -> None:
    world = World()
    for step in steps:
        match step:
            case ("cause", what, kind):
                world.cause(what, kind)
            case ("time", jump):
                world.now += jump
            case ("beat", die):
                world.beat(die)
            case ("end", state):
                world.end(state)
            case ("restart",):
                world.restart()
        assert len(world.live) <= 1
    for _ in range(3):
        world.now += QUIET * 3
        world.beat()
        world.end("done")
    assert world.model.waiting is None
    assert world.model.building is None
    built = list(world.runs.values())
    assert {what for what in built if built.count(what) > 1} <= world.by_hand_again
    if world.newest is not None:
        assert world.newest in built
    assert len(world.model.recent) <= deciding.RECENT


@settings(max_examples=8, deadline=None)
@given(st.lists(st.sampled_from([f"w{n}" for n in range(1000)]), min_size=300, max_size=600, unique=True))
def test_the_state_stays_small_whatever_is_built(whats: list[str]) -> None:
    world = World()
    for what in whats:
        world.cause(what)
        world.now += QUIET
        world.beat()
        world.end("done")
    assert len(world.model.outcomes) == deciding.KEPT
    assert set(world.model.outcomes) == set(whats[-deciding.KEPT:])


def test_of_several_that_wait_only_the_newest_is_built_and_the_others_are_recorded() -> None:
    world = World()
    world.cause("A")
    world.now += QUIET
    world.beat()
    for what in "BCD":
        world.cause(what)
        world.now += QUIET * 2
        world.beat()
    assert list(world.runs.values()) == ["A"]
    assert deciding.why(world.model, world.now, QUIET) == (
        "waits until run 2 has ended: one at a time for a model")
    world.end("done")
    world.beat()
    assert list(world.runs.values()) == ["A", "D"]
    given_up = [fact.data["cause"]["what"] for fact in world.journal if fact.kind == "superseded"]
    assert given_up == ["B", "C"]


def test_a_cause_waits_until_nothing_newer_has_come_for_a_while() -> None:
    world = World()
    for what in "ABC":
        world.cause(what)
        world.now += QUIET - 1
        world.beat()
        assert not world.runs
    world.now += 1
    world.beat()
    assert list(world.runs.values()) == ["C"]


def test_causes_that_never_pause_do_not_put_a_build_off_for_ever() -> None:
    world = World()
    for n in range(100):
        world.cause(f"w{n}")
        world.now += QUIET / 2
        world.beat()
        if world.runs:
            break
    assert world.now - 1_000_000.0 == pytest.approx(deciding.MOST_QUIETS * QUIET, abs=QUIET)


def test_what_was_built_is_not_built_again_and_it_is_said_which_run_did() -> None:
    world = World()
    world.cause("A")
    world.now += QUIET
    world.beat()
    world.cause("A", "data")
    assert world.model.recent[-1].said == "nothing to do: run 2 builds exactly this"
    world.end("done")
    world.cause("A", "hand")
    assert world.model.recent[-1].said == "nothing to do: run 2 has built exactly this"
    assert world.model.waiting is None


def test_what_was_refused_is_built_again_only_where_a_person_asks() -> None:
    world = World()
    world.cause("A")
    world.now += QUIET
    world.beat()
    world.end("aborted")
    world.cause("A", "cron")
    assert world.model.recent[-1].said == "nothing to do: run 2 was for exactly this, and it was aborted"
    world.cause("A", "hand")
    world.now += QUIET
    world.beat()
    assert list(world.runs.values()) == ["A", "A"]


def test_a_change_that_is_taken_back_gives_up_what_waited_for_it() -> None:
    world = World()
    world.cause("A")
    world.now += QUIET
    world.beat()
    world.end("done")
    world.cause("B")
    world.cause("A")
    world.now += QUIET
    world.beat()
    assert list(world.runs.values()) == ["A"]
    assert [told.said for told in world.model.recent][-2:] == [
        "given up for something newer: commit 3", "nothing to do: run 2 has built exactly this"]


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    world = World()
    world.cause("A")
    world.now -= 86400
    world.beat()
    assert list(world.runs.values()) == ["A"]
