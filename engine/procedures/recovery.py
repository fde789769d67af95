"""After a restart: load the runs that had not ended, and settle the steps that were in flight.

| what is found                                  | what is done                                   |
|------------------------------------------------|------------------------------------------------|
| its process lives                              | wait for it, no longer than its timeout        |
| its exit status is in its folder               | that is the outcome                            |
| known never to have started                    | start it                                       |
| effect none or idempotent                      | run it again                                   |
| effect once, a probe                           | 0 done · 1 not done: run it · else ask a person |
| effect once, no probe                          | ask a person                                   |
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import OpsdeckError
from engine.journal.events import Event, NewEvent
from engine.procedures import rendering
from engine.procedures.attempts import Outcome, State
from engine.procedures.check import parse
from engine.procedures.folding import apply, begin
from engine.procedures.run import RunProgress, StepRun

if TYPE_CHECKING:
    from engine.procedures.executor import Executor, Live

T = TypeVar("T")
IN_DOUBT = "the engine stopped while it ran, and nothing tells whether it took effect"


def fold(events: list[Event]) -> RunProgress:
    """A run's state from all its events."""
    document = parse(events[0].data["document"], f"run {events[0].run}")
    run = begin(events[0], document)
    for event in events[1:]:
        apply(run, event)
    return run


def auto_answers(created: Event) -> dict[str, Any]:
    """The confirmations given with the start of the run."""
    return {"yes": created.data["yes"], "confirm": created.data["confirm"]}


async def settle_all(executor: Executor, live: Live) -> None:
    """Settle every step in flight, side by side, before the run goes on."""
    flying = live.progress.in_flight
    for step in flying:
        live.tasks[step.id] = executor.watched(live, _settle(executor, live, step), step.id)
    live.stopping = live.progress.abort == "plain"


async def _settle(executor: Executor, live: Live, step: StepRun) -> None:
    run = live.progress
    if step.op is not None and executor.performer.left_a_process(run.id, step):
        found = await _cut_short(executor, executor.job(
            live, step, executor.performer.adopt(run.id, step)))
        if isinstance(found, Outcome):
            await executor.record(live, step.id, found)
            return
        if found == "never-started" and not executor.held_back(live, step):
            await _again(executor, live, step)
            return
    if executor.held_back(live, step):
        state: State = "unknown" if step.effect == "once" else "failed"
        await executor.record(live, step.id, Outcome(state, IN_DOUBT))
    elif step.effect != "once":
        await _again(executor, live, step)
    elif step.spec.probe is not None:
        await _ask_probe(executor, live, step)
    else:
        await _settled(executor, live, step, "unknown", "crash")


async def _ask_probe(executor: Executor, live: Live, step: StepRun) -> None:
    run = live.progress
    probe = step.spec.probe
    assert probe is not None
    where = f"{run.document.id}: probe of step {step.id}"
    try:
        rendered = rendering.render_operation(
            probe, rendering.context(run, executor.home), executor.registry, where=where,
            service=run.service)
        verdict = await _cut_short(executor, executor.job(
            live, step, executor.performer.probe(run.id, step, rendered.op))) or "unknown"
    except OpsdeckError:
        verdict = "unknown"
    if verdict == "not-done" and not executor.held_back(live, step):
        await _again(executor, live, step)
    else:
        await _settled(executor, live, step, "unknown" if verdict == "not-done" else verdict,
                       "probe")


async def _cut_short(executor: Executor, work: Coroutine[Any, Any, T]) -> T | None:
    """What the work comes to, or None when an abort ended it before it could tell."""
    try:
        return await work
    except asyncio.CancelledError:
        if executor.performer.closing:
            raise
        return None


async def _again(executor: Executor, live: Live, step: StepRun) -> None:
    """The next attempt of the same command, as the gate (if any) allowed it before."""
    event = executor.planner.event(live.progress.id, "step.intent", step=step.id, attempt=step.attempt + 1,
                           boot=executor.performer.boot, by=step.by, resumed=True)
    await _keep_trying(executor, live, event)


async def _settled(executor: Executor, live: Live, step: StepRun, verdict: str, how: str) -> None:
    error = IN_DOUBT if verdict == "unknown" else None
    await _keep_trying(executor, live, executor.planner.event(
        live.progress.id, "step.settled", step=step.id, attempt=step.attempt, verdict=verdict,
        how=how, error=error))


async def _keep_trying(executor: Executor, live: Live, event: NewEvent) -> None:
    live.tasks.pop(event.step or "", None)
    await executor.persist(live, event)


