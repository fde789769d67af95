"""`opsdeck rollout watch NAME`: a line for each change, until the rollout has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from engine.api import wire
from engine.api.light import Client
from engine.cli.following import ENDED, EXIT
from engine.cli.rollout_changes import Change, Changes, change, heartbeat
from engine.cli.text import stamp
from engine.errors import EngineUnreachable, JournalError, NotFound

LOOK = 0.5     # seconds between two looks: half of the engine's tick
BEAT = 60.0    # seconds without a line before one says how it stands
AWAY = 120.0   # seconds that an engine may be away before the watch ends


def exit_code(rollout: wire.Rollout) -> int:
    """The code for how a rollout stands; 4 where a step's outcome is unknown."""
    if rollout.state not in ENDED and any(step.state == "unknown" for step in rollout.steps):
        return 4
    return EXIT[rollout.state]


def watch(client: Client, first: wire.Rollout, *, json: bool, wait: bool,
          clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> int:
    """Print the changes of a rollout until it ends; its exit code.

    Without `wait` it also returns when only a person can make it go on. It stays while the engine is
    away or cannot read its journal, and raises that error once it has lasted AWAY seconds.
    """
    changes, rollout, told = Changes(), first, clock()
    while True:
        found = changes.see(rollout)
        if not found and clock() - told >= BEAT:
            found = [heartbeat(rollout)]
        if found:
            told = clock()
            _tell(found, json=json)
        if rollout.ended is not None or (not wait and _waits(rollout)):
            return exit_code(rollout)
        sleep(LOOK)
        rollout = _look(client, rollout, json=json, clock=clock, sleep=sleep)


def _look(client: Client, last: wire.Rollout, *, json: bool, clock: Callable[[], float],
          sleep: Callable[[float], None]) -> wire.Rollout:
    lost: float | None = None
    while True:
        try:
            found = _found(client, last)
        except (EngineUnreachable, JournalError) as error:
            if lost is None:
                lost = clock()
                _tell([change(last, "reconnecting", error.message, time.time())], json=json)
            if clock() - lost > AWAY:
                raise
            sleep(LOOK)
            continue
        if lost is not None:
            _tell([change(found, "connected", "the engine is back")], json=json)
        return found


def _found(client: Client, last: wire.Rollout) -> wire.Rollout:
    """The rollout as it is; where its evidence cannot be read, as it was, with how its run stands."""
    try:
        return client.rollout(last.run)
    except NotFound:
        import msgspec

        view = client.run(last.run)
        return msgspec.structs.replace(last, state=view.state, ended=view.ended, at=view.at,
                                       reason=view.reason)


def _waits(rollout: wire.Rollout) -> bool:
    """Whether only a person can make it go on."""
    return rollout.gate is not None or rollout.state == "waiting" or (
        rollout.state == "paused" and rollout.paused_by != "engine")


def _tell(found: list[Change], *, json: bool) -> None:
    import msgspec

    for one in found:
        line = msgspec.json.encode(one).decode() if json else (
            f"{stamp(one.at)}  {one.service} {one.run}  {one.kind:<9} {one.text}")
        sys.stdout.write(line + "\n")
    sys.stdout.flush()  # a log or a pipe wants each line when it is true
