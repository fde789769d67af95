"""What ends a rollout at once, whatever the evidence: catastrophes and a spent budget. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from engine.rollout.analysis import Analysis, Tick
from engine.rollout.setup import ERRORS

ALL_FAILED = 10  # requests in a row of which not one was answered well
SEVERAL = 3  # sessions or chains of retries that these are of: one that tries again and again proves nothing
INCIDENT_LEAST = 10  # requests of the baseline before it can be called failing
INCIDENT_SHARE = 0.5
MEMORY_LEAST = 5
MEMORY_SHARE = 0.2
MEMORY_S = 10.0


def catastrophe(recent: Sequence[Tick]) -> str | None:
    """The sentence for a canary that answers nothing well, or runs out of memory again and again, while
    the baseline does; None otherwise. `recent`: the last ticks, oldest first."""
    requests = units = base = base_failed = 0
    for tick in reversed(recent):
        if tick.failed[0] < tick.requests[0]:
            break
        requests += tick.requests[0]
        units += _failed_units(tick)
        base += tick.requests[1]
        base_failed += tick.failed[1]
    few = requests < ALL_FAILED or units < SEVERAL
    if not few and base_failed <= INCIDENT_SHARE * base:  # however few requests the baseline has
        return f"all of its last {requests:,} requests failed, and those of the old version did not"
    return _memory(recent)


def _failed_units(tick: Tick) -> int:
    """Sessions or chains of retries of the canary that failed for the first time; requests where no units
    are counted."""
    if ERRORS in tick.counts:
        return tick.counts[ERRORS][1]
    return tick.failed[0] if tick.mark == "recorded" else 0


def _memory(recent: Sequence[Tick]) -> str | None:
    span = 0.0
    requests = here = base = there = 0
    for tick in reversed(recent):
        if span >= MEMORY_S:
            break
        span += tick.span_s
        requests += tick.requests[0]
        base += tick.requests[1]
        here += tick.memory[0]
        there += tick.memory[1]
    if here >= MEMORY_LEAST and here >= MEMORY_SHARE * requests and there < MEMORY_SHARE * max(base, 1):
        return f"it runs out of memory again and again: {here:,} of its last {requests:,} requests"
    return None


def failing(requests: int, failed: int) -> bool:
    """Whether a baseline fails so much that it is an incident of its own."""
    return requests >= INCIDENT_LEAST and failed > INCIDENT_SHARE * requests


def incident(recent: Iterable[Tick]) -> bool:
    """Whether the old version failed so much in the last ten seconds that it can be no measure for the
    next tick. By the past alone: to leave a tick out for what is in it would favour what is left."""
    span = 0.0
    requests = failed = 0
    for tick in reversed(list(recent)):
        if span >= MEMORY_S:
            break
        span += tick.span_s
        requests += tick.requests[1]
        failed += tick.failed[1]
    return failing(requests, failed)


def overspent(analysis: Analysis) -> str | None:
    """The sentence for a budget that is used up, None while it is not."""
    setup = analysis.setup
    if setup is None:
        return None
    if setup.bad_limit is not None and analysis.bad >= setup.bad_limit:
        return f"its budget of {setup.bad_limit:,} bad requests is used up"
    if setup.exposed_limit is not None and analysis.exposed >= setup.exposed_limit:
        return (f"its budget of {setup.exposed_limit:,} exposed requests is used up before it was shown "
                "to be no worse")
    return None
