"""Journal events in words. Pure."""

from __future__ import annotations

from typing import Any

from engine.api import wire
from engine.journal.events import Event
from engine.procedures.output import harmless
from engine.words import percents

LONGEST = 120  # characters of what a step said last
KIND = "errors: "  # begins the name of a metric of one kind of errors


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
            own = f" by an author ({data['wrote']})" if data.get("wrote") else ""
            return f"approved alone{own}, glass broken: {broken}" if broken else "approved"
        case "gate.rejected":
            return "rejected" + why
        case "run.paused":
            return "paused" + why
        case "run.resumed":
            return "resumed"
        case "run.abort":
            return ("aborted, with rollback" if data.get("rollback") else "aborted") + why
        case "run.rollback":
            steps = "1 step" if len(data["queue"]) == 1 else f"{len(data['queue'])} steps"
            return f"rolls back {steps} after {data['cause']}"
        case "run.finished":
            return f"ended: {data['state'].replace('_', ' ')}" + why
        case "rollout.began":
            return _began(data)
        case "rollout.frozen":
            return _frozen(data)
        case "rollout.tick":
            return _tick(data)
        case "rollout.promoted":
            skipped = "all further watching" if data.get("full") else f"the watching of {data.get('step')}"
            verdict = f", while the verdict was {data['verdict']}" if data.get("verdict") else ""
            return f"{event.actor.user} skipped {skipped}{verdict}{why}"
        case "rollout.halted":
            return f"stands: {data['text']}" if data.get("kind") else str(data["text"])
        case "rollout.verdict":
            text = str(data["text"])
            return f"verdict {text if text.startswith(data['verdict']) else data['verdict'] + ': ' + text}"
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


def _began(data: dict[str, Any]) -> str:
    """What is judged against what, at which α, and which weights are gone back to."""
    versions = data.get("versions", {})

    def named(variant: str) -> str:
        return f"{variant} {versions[variant]}" if versions.get(variant) else variant

    setup = data.get("setup", {})
    critical = [metric["name"] for metric in setup.get("metrics", ()) if metric.get("alpha", 0) > 0]
    kinds = sum(name.startswith(KIND) for name in critical)
    judged = [name for name in critical if not name.startswith(KIND)]
    if kinds:
        judged.append("one kind of errors" if kinds == 1 else f"{kinds} kinds of errors")
    on = f" on {', '.join(judged)}" if judged else ""
    alpha = f", at α = {setup['alpha']:g}" if "alpha" in setup else ""
    safe = data.get("safe", {})
    largest = dict(sorted(safe.items(), key=lambda one: -one[1]))
    back = f"; an abort goes back to {percents(largest)}" if safe else ""
    return f"judges {named(data['to'])} against {named(data['champion'])}{on}{alpha}{back}"


def _frozen(data: dict[str, Any]) -> str:
    """The latencies above which a request counts as slow; the event has them in seconds."""
    edges = ", ".join(f"{name.removeprefix('latency ')} over {1000 * edge:.3g} ms"
                      for name, edge in data["edges"].items())
    requests = f", from {data['requests']:,.0f} requests of the old version" if data.get("requests") else ""
    return f"what counts as slow is fixed: {edges}{requests}"


def _tick(data: dict[str, Any]) -> str:
    """Both sides' requests and failures at the weight in force."""
    (new, old), (bad, borne) = data["requests"], data["failed"]
    mark = {"incident": "; the old version fails itself, so nothing is learnt",
            "recorded": "; compared with what was recorded before"}.get(data.get("mark", ""), "")
    return (f"at {data['weight']:g} %: new version {_requests(new)}, {bad:,} failed; "
            f"old version {_requests(old)}, {borne:,} failed{mark}")


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"
