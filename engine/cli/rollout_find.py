"""Which rollout a name means, and what to say when it means none that is fit for the verb."""

from __future__ import annotations

import difflib

from engine.api import wire
from engine.api.light import Client
from engine.cli.rollout import VERBS
from engine.cli.rollout_text import ending, remedy
from engine.errors import Conflict, NotFound


def find(client: Client, name: str) -> wire.Rollout:
    """By service or by run. Raises NotFound with the nearest name."""
    try:
        return client.rollout(name)
    except NotFound:
        if name.isdigit():
            raise
        services = _services(client)
        if name in services:
            raise NotFound(f"there has been no rollout of {name} yet",
                           hint=f"`opsdeck rollout start {name} --to VARIANT` begins one") from None
        raise unknown(name, services) from None


def running(client: Client, name: str, verb: str) -> wire.Rollout:
    """The rollout that runs. Raises NotFound, or Conflict that says how the last one ended."""
    found = find(client, name)
    if found.ended is not None:
        raise Conflict(f"there is nothing to {verb}: the rollout of {found.service} (run {found.run}) has "
                       f"ended, {ending(found)}", hint=remedy(found))
    return found


def service(client: Client, name: str) -> None:
    """Raise NotFound, with the nearest name, unless the engine watches a service of that name."""
    services = _services(client)
    if name not in services:
        raise unknown(name, services)


def _services(client: Client) -> list[str]:
    return sorted(one.name for one in client.status().services)


def unknown(name: str, services: list[str]) -> NotFound:
    near = difflib.get_close_matches(name, services, 1)
    verbs = difflib.get_close_matches(name, VERBS, 1)
    if near:
        hint = f"did you mean {near[0]}?"
    elif verbs:
        hint = f"did you mean `opsdeck rollout {verbs[0]} NAME`?"
    else:
        hint = f"services: {', '.join(services)}" if services else "no services are watched"
    return NotFound(f"there is no service {name!r}", hint=hint)
