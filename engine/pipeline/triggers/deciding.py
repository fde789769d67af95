"""Which cause is built, and when: a state machine for each model, folded from the journal's events. Pure.

A cause carries `what`, the digest of what would be built if it were built now. Of a model at most one run
goes on; one cause at most waits, and a newer one takes its place; nothing that was built, is being built or
was refused is built again, but that a person may ask again for what was refused. An event is recorded before
it counts, so that an engine that dies anywhere goes on from what is recorded: the id of a run is recorded
before the run is made, and the run is made under that id or not at all.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Kind = Literal["commit", "data", "cron", "drift", "webhook", "hand"]
KEPT = 256  # outcomes of a model, newest: what is older than that is forgotten
RECENT = 10
MOST_QUIETS = 20  # a cause that is replaced again and again is built after so many times `quiet`


class Cause(msgspec.Struct, frozen=True):
    """Why something would be built. `at`: when it was heard, UTC seconds. `by` and `uid`: who asked, where
    somebody did. `folder` and `commit`: what would be built, `commit` None outside a watched repository."""

    id: str
    kind: Kind
    project: str
    what: str
    at: float
    text: str
    by: str = "engine"
    uid: int = -1
    folder: str = ""
    commit: str | None = None


class Waiting(msgspec.Struct, frozen=True):
    """`since`: when the first of the causes was heard that came one after the other without a pause."""

    cause: Cause
    since: float


class Building(msgspec.Struct, frozen=True):
    cause: Cause
    run: str
    since: float


class Outcome(msgspec.Struct, frozen=True):
    """How a build ended: `done`, the run's other state, or `refused` where the run could not begin."""

    run: str
    state: str
    at: float


class Told(msgspec.Struct, frozen=True):
    """One cause and what came of it, for people."""

    id: str
    at: float
    kind: str
    text: str
    by: str
    said: str


class Model(msgspec.Struct, frozen=True):
    """One model's state. `outcomes` by what was built, oldest first."""

    waiting: Waiting | None = None
    building: Building | None = None
    outcomes: dict[str, Outcome] = {}
    recent: tuple[Told, ...] = ()


class Fact(msgspec.Struct, frozen=True):
    """An event before it is recorded: its kind without the prefix `trigger.`, and its data."""

    kind: str
    data: dict[str, Any]


def hear(model: Model, cause: Cause) -> list[Fact]:
    """What is to be recorded when a cause comes. It is the newest: what waits is given up for it, also where
    nothing has to be built, as the world is no longer what was waited with."""
    waiting = model.waiting
    if waiting is not None and waiting.cause.what == cause.what:
        return [_nothing(cause, f"exactly this waits already, because of {waiting.cause.text}")]
    given_up = [] if waiting is None else [_fact("superseded", waiting.cause, by=cause.id,
                                                 text=f"given up for something newer: {cause.text}")]
    why = known(model, cause)
    if why is not None:
        return [*given_up, _nothing(cause, why)]
    since = cause.at if waiting is None else min(waiting.since, cause.at)
    return [*given_up, _fact("heard", cause, since=since, text=f"is to be built: {cause.text}")]


def known(model: Model, cause: Cause) -> str | None:
    """Why there is nothing to build, or None."""
    if model.building is not None and model.building.cause.what == cause.what:
        return f"run {model.building.run} builds exactly this"
    outcome = model.outcomes.get(cause.what)
    if outcome is None:
        return None
    if outcome.state == "done":
        return f"run {outcome.run} has built exactly this"
    if cause.kind == "hand":
        return None
    if outcome.state == "refused":
        return "exactly this was refused before it began"
    return f"run {outcome.run} was for exactly this, and it {_ended_as(outcome.state)}"


def due_at(waiting: Waiting, quiet: float) -> float:
    """When a cause may be built: once nothing came for `quiet` seconds, or after `MOST_QUIETS` times that."""
    return min(waiting.cause.at + quiet, waiting.since + MOST_QUIETS * quiet)


def is_due(model: Model, now: float, quiet: float) -> bool:
    """Whether what waits is to be built now. A clock that was set back by more than `quiet` is not waited
    for: so nothing waits longer than twice that on its account."""
    waiting = model.waiting
    if waiting is None or model.building is not None:
        return False
    return now >= due_at(waiting, quiet) or now < waiting.cause.at - quiet


def build(model: Model, run: str, now: float) -> Fact:
    """Record that `run`, an id that is new, builds what waits. Only for what `is_due`."""
    assert model.waiting is not None and model.building is None
    cause = model.waiting.cause
    return _fact("building", cause, run=run, since=now, text=f"run {run} builds it: {cause.text}")


def ended(model: Model, state: str, now: float, why: str | None = None) -> Fact:
    """Record how the run that was building has ended; `refused`: it could not begin, and `why`."""
    assert model.building is not None
    run, cause = model.building.run, model.building.cause
    text = f"could not begin: {why}" if state == "refused" else f"run {run} {_ended_as(state)}"
    return _fact("ended", cause, run=run, state=state, ended=now, text=text)


def fold(model: Model, fact: Fact) -> Model:
    """The state after an event. What does not belong to this machine changes nothing."""
    data = fact.data
    if "cause" not in data:
        return model
    cause = msgspec.convert(data["cause"], Cause)
    match fact.kind:
        case "heard":
            return _told(msgspec.structs.replace(model, waiting=Waiting(cause, data["since"])), cause,
                         "waits")
        case "nothing":
            return _told(model, cause, data["text"])
        case "superseded":
            return _told(msgspec.structs.replace(model, waiting=None), cause, data["text"])
        case "building":
            return _told(msgspec.structs.replace(
                model, waiting=None, building=Building(cause, data["run"], data["since"])), cause,
                f"run {data['run']}")
        case "ended":
            outcome = Outcome(data["run"], data["state"], data["ended"])
            kept = {what: one for what, one in model.outcomes.items() if what != cause.what}
            kept[cause.what] = outcome
            for what in list(kept)[:max(0, len(kept) - KEPT)]:
                del kept[what]
            return _told(msgspec.structs.replace(model, building=None, outcomes=kept), cause, data["text"])
    return model


def why(model: Model, now: float, quiet: float, busy: str | None = None) -> str:
    """What happens now, in a sentence. `busy`: a run of the same model that somebody else began."""
    waiting, building = model.waiting, model.building
    if waiting is None:
        return "nothing waits" if building is None else f"run {building.run} goes on"
    run = building.run if building is not None else busy
    if run is not None:
        return f"waits until run {run} has ended: one at a time for a model"
    left = due_at(waiting, quiet) - now
    return f"waits {left:.0f} s more for something newer" if left > 0 else "is about to begin"


def _ended_as(state: str) -> str:
    return {"failed": "has failed", "aborted": "was aborted", "rolled_back": "was rolled back"}.get(
        state, f"is {state}")


def _told(model: Model, cause: Cause, said: str) -> Model:
    others = tuple(one for one in model.recent if one.id != cause.id)
    told = Told(cause.id, cause.at, cause.kind, cause.text, cause.by, said)
    return msgspec.structs.replace(model, recent=(*others, told)[-RECENT:])


def _nothing(cause: Cause, why: str) -> Fact:
    return _fact("nothing", cause, text=f"nothing to do: {why}")


def _fact(kind: str, cause: Cause, **data: Any) -> Fact:
    return Fact(kind, {**data, "cause": msgspec.to_builtins(cause)})
