"""Journal events in words. Pure."""

from __future__ import annotations

from engine.api import wire
from engine.journal.events import Event
from engine.procedures.output import harmless

LONGEST = 120  # characters of what a step said last


def wire_event(event: Event) -> wire.Event:
    """An event as a screen shows it: one sentence, with the data beside it."""
    data = {k: v for k, v in event.data.items() if k != "document"}
    return wire.Event(seq=event.seq, at=event.at, kind=event.kind, by=event.actor.user,
                      origin=event.actor.origin, run=event.run if event.run.isdigit() else None,
                      step=event.step, attempt=event.attempt, text=harmless(sentence(event)),
                      hash=event.hash, data=data)


def sentence(event: Event) -> str:
    """What happened, in one line, without the time and the step's name."""
    data = event.data
    why = f": {data['reason']}" if data.get("reason") else ""
    match event.kind:
        case "run.created":
            given = ", ".join(f"{k}={v}" for k, v in data["params"].items() if v not in ("", None))
            return f"started {data['procedure']}" + (f" with {given}" if given else "")
        case "step.ready":
            return f"is ready: {data['command']}" if data["command"] else "could not be made ready"
        case "step.intent":
            again = " again" if data.get("resumed") or data.get("retry") else ""
            why = ", as the engine ended before it did" if data.get("resumed") else ""
            return f"begins{again}, attempt {event.attempt}{why}"
        case "step.outcome":
            return _outcome(data)
        case "step.settled":
            return f"settled as {data['verdict']} by {data['how']}"
        case "step.skipped":
            return "skipped" + why
        case "step.retry":
            return "is to be tried again"
        case "step.goto":
            return f"goes on to {data['target']}"
        case "gate.confirmed":
            via = data.get("via")
            return f"confirmed by {via} given at the start" if via else "confirmed"
        case "gate.approved":
            broken = data.get("break_glass")
            return f"approved alone, glass broken: {broken}" if broken else "approved"
        case "gate.rejected":
            return "rejected" + why
        case "run.paused":
            return "paused" + why
        case "run.resumed":
            return "resumed"
        case "run.abort":
            return ("aborted, with rollback" if data.get("rollback") else "aborted") + why
        case "run.rollback":
            return f"rolls back {len(data['queue'])} steps after {data['cause']}"
        case "run.finished":
            return f"ended: {data['state'].replace('_', ' ')}" + why
        case _:
            return data.get("text") or event.kind.replace(".", " ") + why


def _outcome(data: dict[str, object]) -> str:
    state = str(data["state"])
    if data.get("error"):
        return f"{state}: {data['error']}"
    if data.get("answered"):
        result = data.get("result")
        return f"answered: {result['answer'] if isinstance(result, dict) else result}"
    code = data.get("exit_code")
    if code not in (None, 0):
        return f"{state}, exit code {code}"
    said = str(data.get("stdout") or "").split("\n")
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    return f"{state}: {last[:LONGEST]}{'…' if len(last) > LONGEST else ''}" if last else state
