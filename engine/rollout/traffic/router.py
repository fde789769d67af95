"""The port to whatever splits a service's traffic.

The least that an adapter offers is `Router` (`engine.procedures.actions`): weights in percent by
variant, read and set atomically. One that knows more (which variant is the champion, a revision to
guard against two writers, a lease) also satisfies `DetailedRouter`. What every adapter raises:

    ActionFailed     nothing was changed: nobody answered, or the change was refused
    OutcomeUnknown   the request was sent and no answer came back
    NotFound         the adapter does not route this service
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engine.procedures.actions import Router

__all__ = ["DetailedRouter", "LeasedRouter", "MirroringRouter", "ObservedRouter", "Router", "Traffic",
           "read_traffic"]


@dataclass(frozen=True)
class Traffic:
    """A service's split. `weights` in percent; `lease_s` is how many seconds are left until all
    traffic goes back to the champion, None without a lease; `revision` changes with each change."""

    weights: dict[str, float]
    champion: str | None = None
    revision: int | None = None
    lease_s: float | None = None


@runtime_checkable
class DetailedRouter(Router, Protocol):
    async def traffic(self, service: str) -> Traffic:
        """The split with what else is known of it."""
        ...

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        """As `shift`, refused with ActionFailed if the split is no longer the one `seen`."""
        ...


@runtime_checkable
class LeasedRouter(DetailedRouter, Protocol):
    """One that goes back by itself: when a lease is not renewed in time, `fallback` comes into force
    (without it all traffic goes to the champion). Behind others a watchdog process does that."""

    async def shift_leased(self, seen: Traffic, service: str, weights: Mapping[str, float],
                           lease_s: float, fallback: Mapping[str, float]) -> dict[str, float]:
        """As `shift_from`, with a lease that ends in the `fallback` weights (percent, whole split)."""
        ...

    async def renew(self, service: str, lease_s: float) -> Traffic:
        """Let the lease run for `lease_s` seconds from now. ActionFailed where there is none any more."""
        ...


@runtime_checkable
class MirroringRouter(Router, Protocol):
    """One that can send requests a second time, to a version whose answers nobody gets."""

    async def mirror(self, service: str, variant: str, percent: float, lease_s: float) -> None:
        """Mirror that share of the requests for `lease_s` seconds, or until `unmirror`."""
        ...

    async def unmirror(self, service: str) -> None: ...


@runtime_checkable
class ObservedRouter(Router, Protocol):
    """One that counts by itself what it really sent where."""

    async def served(self, service: str) -> dict[str, float]:
        """Requests sent to each variant so far, a counter that only grows (or starts again at 0)."""
        ...


async def read_traffic(router: Router, service: str) -> Traffic:
    """The split, with as much as this router knows of it."""
    if isinstance(router, DetailedRouter):
        return await router.traffic(service)
    return Traffic(weights=dict(await router.read(service)))
