"""What is known of triggers, as people are shown it. Pure but for the clock that it is given."""

from __future__ import annotations

from engine.api import wire
from engine.pipeline.project.model import Retraining
from engine.pipeline.triggers import deciding
from engine.pipeline.triggers.deciding import Cause, Told
from engine.pipeline.triggers.projects import Registered, mark_of
from engine.pipeline.triggers.state import State, key
from engine.pipeline.triggers.watcher import PORT
from engine.words import span


def view(one: Registered, state: State, latest: dict[str, str], now: float, busy: str | None) -> wire.Trigger:
    """A project: what waits and why, and the last causes of its model. `latest`: why sources cannot look now,
    in today's words. `busy`: a run of the model that somebody else began."""
    model = state.model(one.model)
    quiet = one.triggers.quiet
    asked = state.asked_of(one.name)
    why = deciding.why(model, now, quiet, busy)
    if asked and model.waiting is None:
        why = "looks at what would be built" + ("" if model.building is None else f"; {why}")
    mark = state.marks.get(key(one.name, mark_of(one.triggers.commits))) if one.triggers.commits else None
    problems = [wire.TriggerProblem(source.partition("/")[2], latest.get(source, blind.text), blind.since)
                for source, blind in state.blind.items()
                if source.startswith(f"{one.name}/") or source in (key(one.model, "beginning"), PORT)]
    waiting = model.waiting
    return wire.Trigger(
        project=one.name, model=one.model, at=now, why=why, watches=watches(one.triggers), commit=mark,
        waiting=None if waiting is None else _cause(waiting.cause, "waits"),
        due=None if waiting is None else deciding.due_at(waiting, quiet),
        run=model.building.run if model.building is not None else busy,
        asked=[wire.TriggerCause(a.at, a.kind, a.text, a.by, "is looked at") for a in asked],
        recent=[_told(told) for told in reversed(model.recent)], problems=problems)


def watches(triggers: Retraining) -> list[str]:
    """What begins a project, each in a few words."""
    found = []
    if triggers.commits is not None:
        found.append(f"commits of {triggers.commits.branch}, every {span(triggers.commits.every)}")
    if triggers.data is not None:
        found.append(f"data, every {span(triggers.data.every)}")
    found += [f"schedule {one.at} ({one.zone})" for one in triggers.cron]
    found += [name for name in ("drift", "webhook") if getattr(triggers, name)]
    return found


def _cause(cause: Cause, said: str) -> wire.TriggerCause:
    return wire.TriggerCause(cause.at, cause.kind, cause.text, cause.by, said)


def _told(told: Told) -> wire.TriggerCause:
    return wire.TriggerCause(told.at, told.kind, told.text, told.by, told.said)
