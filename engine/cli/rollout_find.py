"""Which rollout a name means, and what to say when it means none that is fit for the verb."""

from __future__ import annotations

import difflib
import sys

from engine.api import wire
from engine.api.light import Client
from engine.cli import rollout_coming
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
            raise none_yet(client, name) from None
        raise unknown(name, services) from None


def awaited(client: Client, name: str) -> wire.Rollout:
    """As `find`, and where a run is about to start the service's next rollout, that one, once it is there."""
    if name.isdigit():
        return find(client, name)
    first = rollout_coming.newest(client, name)
    found = rollout_coming.awaited(client, name, first, lambda text: print(text, file=sys.stderr, flush=True))
    return found if found is not None else find(client, name)


def none_yet(client: Client, service: str) -> NotFound:
    """That a service has had no rollout, and which run is about to start one."""
    on_its_way = rollout_coming.coming(client, service)
    if on_its_way is not None:
        return NotFound(f"there has been no rollout of {service} yet; {on_its_way.says()}",
                        hint=on_its_way.hint())
    return NotFound(f"there has been no rollout of {service} yet",
                    hint=f"`opsdeck rollout start {service} --to VARIANT` begins one, or the release of a "
                         "model (`opsdeck runs`)")


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
