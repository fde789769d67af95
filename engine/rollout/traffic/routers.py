"""Every service's router as one: the embedded gateway, or the adapter of what its config names.

Satisfies DetailedRouter, LeasedRouter, ObservedRouter and MirroringRouter; what the router of a service
cannot do is refused with ActionFailed. The gateway keeps leases by itself. For all others they are kept
here: a lease is granted before the split changes and ended after, so that wherever the engine dies in
between, the watchdog finds one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from engine.config import Config, Service
from engine.config_routers import variants
from engine.errors import ActionFailed, NotFound, OutcomeUnknown
from engine.located import did_you_mean
from engine.rollout.traffic.adapters import make
from engine.rollout.traffic.gateway import GatewayRouter
from engine.rollout.traffic.leases import Leases
from engine.rollout.traffic.router import (
    DetailedRouter,
    LeasedRouter,
    MirroringRouter,
    ObservedRouter,
    Traffic,
)
from engine.rollout.traffic.weights import whole_split

__all__ = ["Routers"]
_AT_ONCE = 0.001  # seconds


class Routers:
    """`config`: whose services; `leases`: those of the engine's home. Adapters are made when first used."""

    def __init__(self, config: Config, leases: Leases) -> None:
        self._services = config.services
        self._leases = leases
        self._gateways = GatewayRouter({name: service.gateway.admin
                                        for name, service in config.services.items()
                                        if service.gateway is not None})
        self._adapters: dict[str, DetailedRouter] = {}

    async def read(self, service: str) -> dict[str, float]:
        return await self._router(service).read(service)

    async def traffic(self, service: str) -> Traffic:
        """The split. The champion is the router's word, or the config's where it has none."""
        traffic = await self._router(service).traffic(service)
        if self._gateway_of(service):
            return traffic
        return dataclasses.replace(traffic, champion=self._services[service].champion,
                                   lease_s=self._lease_s(service))

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split. With a lease it ends in all traffic to the champion."""
        router = self._router(service)
        if self._gateway_of(service):
            return await router.shift(service, weights, lease_s)
        return await self._under_lease(service, lease_s, None, lambda: router.shift(service, weights))

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        router = self._router(service)
        if self._gateway_of(service):
            return await router.shift_from(seen, service, weights, lease_s)
        return await self._under_lease(service, lease_s, None,
                                       lambda: router.shift_from(seen, service, weights))

    async def shift_leased(self, seen: Traffic, service: str, weights: Mapping[str, float],
                           lease_s: float, fallback: Mapping[str, float]) -> dict[str, float]:
        """As `shift_from`, with a lease that ends in the `fallback` weights (percent, whole split)."""
        router = self._router(service)
        if self._gateway_of(service):
            return await self._gateways.shift_leased(seen, service, weights, lease_s, fallback)
        return await self._under_lease(service, lease_s, fallback,
                                       lambda: router.shift_from(seen, service, weights))

    async def renew(self, service: str, lease_s: float) -> Traffic:
        """Let the lease run for `lease_s` seconds from now, and read the split. Raises ActionFailed where
        there is no lease any more, or the split cannot be read (the lease is renewed all the same)."""
        self._router(service)
        if self._gateway_of(service):
            return await self._gateways.renew(service, lease_s)
        await asyncio.to_thread(self._renew, service, lease_s)
        return await self.traffic(service)

    async def served(self, service: str) -> dict[str, float]:
        router = self._router(service)
        if not isinstance(router, ObservedRouter):
            raise ActionFailed(f"The router of {service} does not count what it sends where.")
        return await router.served(service)

    async def mirror(self, service: str, variant: str, percent: float, lease_s: float) -> None:
        await self._mirroring(service).mirror(service, variant, percent, lease_s)

    async def unmirror(self, service: str) -> None:
        await self._mirroring(service).unmirror(service)

    def leased(self, service: str) -> bool:
        """Whether a split of this service can have a lease. Raises NotFound."""
        return isinstance(self._router(service), LeasedRouter) or not self._gateway_of(service)

    def observed(self, service: str) -> bool:
        """Whether its router counts by itself what it sends where. Raises NotFound."""
        return isinstance(self._router(service), ObservedRouter)

    async def _under_lease(self, service: str, lease_s: float | None, fallback: Mapping[str, float] | None,
                           act: Callable[[], Awaitable[dict[str, float]]]) -> dict[str, float]:
        if lease_s is None:
            async with self._kept(service):
                split = await act()
            await asyncio.to_thread(self._leases.end, service)
            return split
        first = await asyncio.to_thread(self._grant, service, lease_s, fallback)
        try:
            async with self._kept(service):
                split = await act()
        except ActionFailed:
            if first:  # nothing was changed, so there is nothing to go back from
                await asyncio.to_thread(self._leases.end, service)
            raise
        await asyncio.to_thread(self._still_leased, service, lease_s)
        return split

    @contextlib.asynccontextmanager
    async def _kept(self, service: str) -> AsyncIterator[None]:
        """Renew the lease there is as long as this lasts: some routers take minutes for a change."""
        keeping = asyncio.create_task(self._keep(service), name=f"lease of {service}")
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)  # what it met shows when it is renewed next

    async def _keep(self, service: str) -> None:
        """Returns when there is no lease that runs."""
        while True:
            lease = self._leases.lease(service)
            if lease is None or self._leases.seconds_left(lease) <= 0:
                return
            await asyncio.sleep(lease.lease_s / 3)
            try:
                await asyncio.to_thread(self._leases.renew, service, lease.lease_s)
            except ActionFailed:
                continue  # it has run out, or cannot be written now and may be in a moment

    def _still_leased(self, service: str, lease_s: float) -> None:
        """Raises OutcomeUnknown where a change came into force after its lease, as when this engine was
        frozen in between: the watchdog may have gone back before it, so that it must once more."""
        lease = self._leases.lease(service)
        try:
            self._leases.renew(service, lease_s)
        except ActionFailed as error:
            router = self._services[service].router
            if lease is not None and router is not None:
                self._leases.grant(service, lease.fallback, _AT_ONCE, router)
                self._leases.ensure_watchdog()
            raise OutcomeUnknown(f"The split of {service} was set, but its lease was not kept meanwhile; its "
                                 f"traffic goes back: {error.message}", where=error.where,
                                 hint="See what is in force before you set other weights.") from error

    def _grant(self, service: str, lease_s: float, fallback: Mapping[str, float] | None) -> bool:
        """Grant a lease that a watchdog keeps. Whether it is the first, or the one before had run out."""
        settings = self._services[service]
        router = settings.router
        assert router is not None
        after = whole_split(service, variants(router), fallback or {settings.champion: 100.0})
        left = self._leases.left(service)
        self._leases.ensure_watchdog()  # a start takes a while, which is not to come off the lease
        self._leases.grant(service, after, lease_s, router)
        try:
            self._leases.ensure_watchdog()  # one that was about to end had not seen this lease
        except ActionFailed:
            if not left:
                self._leases.end(service)
            raise
        return not left

    def _renew(self, service: str, lease_s: float) -> None:
        self._leases.renew(service, lease_s)
        self._leases.ensure_watchdog()

    def _lease_s(self, service: str) -> float | None:
        """Seconds left; 0.0 while the way back is under way, None without a lease and when it is done."""
        lease = self._leases.lease(service)
        if lease is None:
            return None
        left = self._leases.seconds_left(lease)
        if left > 0:
            return left
        return None if self._leases.settled(lease) else 0.0

    def _router(self, service: str) -> DetailedRouter:
        if self._gateway_of(service):
            return self._gateways
        if service not in self._adapters:
            router = self._services[service].router
            if router is None:
                raise NotFound(f"{service} has neither a gateway nor a router in the config.",
                               hint="Give it one under services in opsdeck.yaml.")
            self._adapters[service] = make(service, router)
        return self._adapters[service]

    def _gateway_of(self, service: str) -> bool:
        return self._settings(service).gateway is not None

    def _settings(self, service: str) -> Service:
        try:
            return self._services[service]
        except KeyError:
            raise NotFound(f"There is no service {service} in the config.",
                           hint=did_you_mean(service, self._services)) from None

    def _mirroring(self, service: str) -> MirroringRouter:
        router = self._router(service)
        if not isinstance(router, MirroringRouter):
            raise ActionFailed(f"The router of {service} cannot mirror requests.",
                               hint="The embedded gateway can.")
        return router
