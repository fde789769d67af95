"""What the AWS routers share: how a shift is compared, asked for, waited for and read back."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.config_routers import Aws
from engine.errors import ActionFailed, OutcomeUnknown
from engine.rollout.traffic.aws import READ_FIRST, Asking, Clients
from engine.rollout.traffic.router import Traffic
from engine.rollout.traffic.weights import same, shares, whole_split

SETTLE = 300.0
POLL = 1.0

C = TypeVar("C", bound=Aws)


@dataclass(frozen=True)
class Found:
    """Weights in force by AWS's names, all of them, and `raw`, from which a change is made."""

    weights: dict[str, float]
    raw: Any = None


@dataclass(frozen=True)
class Asked:
    """A change that AWS took: the percents after rounding, and its name for the change if it has one."""

    split: dict[str, float]
    change: str | None = None


class AwsRouter(Asking[C]):
    """Reads and shifts one AWS thing that splits traffic. Satisfies DetailedRouter.

    `lease_s` has no meaning to AWS: a watchdog keeps the leases of such routers. AWS knows no
    compare-and-set for weights either: `shift_from` compares just before it writes, and a change by
    another engine between the two would be overwritten.

    settle_s: until a change that was taken must be in force, and before it until one may be asked for;
    poll_s: between two looks.
    """

    def __init__(self, services: Mapping[str, C], clients: Clients | None = None, *,
                 settle_s: float = SETTLE, poll_s: float = POLL) -> None:
        super().__init__(services, clients)
        self._settle = settle_s
        self._poll = poll_s
        self._writing: dict[str, asyncio.Lock] = {}

    async def read(self, service: str) -> dict[str, float]:
        return (await self.traffic(service)).weights

    async def traffic(self, service: str) -> Traffic:
        config = self._config(service)
        return Traffic(weights=self._percents(service, config, await self._look(service, config)))

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split, wait until it is in force and return it as read back.

        Raises ActionFailed where nothing was changed, OutcomeUnknown where that cannot be said or where
        the change was taken and is not in force after `settle_s`.
        """
        return await self._shift(service, weights, None)

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        """As `shift`, refused with ActionFailed if the weights are no longer those that were `seen`."""
        return await self._shift(service, weights, seen)

    @abc.abstractmethod
    def _names(self, config: C) -> Mapping[str, str]:
        """What AWS calls each variant."""

    @abc.abstractmethod
    def _find(self, client: Any, config: C) -> Found:
        """What is in force. Blocks, in a thread."""

    @abc.abstractmethod
    async def _set(self, service: str, config: C, found: Found, split: Mapping[str, float]) -> Asked:
        """Ask once for `split` (percent by variant, whole)."""

    async def _ready(self, service: str, config: C) -> None:
        """Return when a change may be asked for. Raises ActionFailed when it may not."""
        return

    async def _settled(self, service: str, config: C, asked: Asked, deadline: float) -> None:
        """Return when AWS says that it has carried out the change. Raises ActionFailed when it says that
        it will not, or not by `deadline` (the loop's clock)."""
        return

    async def _shift(self, service: str, weights: Mapping[str, float],
                     seen: Traffic | None) -> dict[str, float]:
        config = self._config(service)
        split = whole_split(service, self._names(config), weights)
        async with self._writing.setdefault(service, asyncio.Lock()):
            await self._ready(service, config)
            found = await self._look(service, config)
            self._all_named(service, config, found)
            if seen is not None and not same(now := self._percents(service, config, found), seen.weights):
                raise ActionFailed(
                    f"{service} has {_words(now)} and no longer {_words(seen.weights)}: somebody "
                    "changed it in the meantime. Nothing was changed.", where=self._where(config),
                    hint="Look again and decide on what is there now.")
            asked = await self._set(service, config, found, split)
        # Outside the lock: what is asked next, an abort for instance, must not wait for this to settle.
        deadline = self._now() + self._settle
        try:
            await self._settled(service, config, asked, deadline)
            return await self._in_force(service, config, asked, deadline)
        except ActionFailed as error:
            raise OutcomeUnknown(f"{self.title} took {_words(asked.split)} for {service}; after that: "
                                 f"{error.message}", where=error.where, hint=READ_FIRST) from error

    async def _in_force(self, service: str, config: C, asked: Asked, deadline: float) -> dict[str, float]:
        while True:
            found = self._percents(service, config, await self._look(service, config))
            if same(found, asked.split):
                return found
            if self._now() >= deadline:
                raise OutcomeUnknown(
                    f"{self.title} took {_words(asked.split)} for {service}, but has {_words(found)}.",
                    where=self._where(config), hint=READ_FIRST)
            await asyncio.sleep(self._poll)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _look(self, service: str, config: C) -> Found:
        return await self._call(service, config, lambda client: self._find(client, config))

    def _percents(self, service: str, config: C, found: Found) -> dict[str, float]:
        """Percents by variant of the service. Raises ActionFailed where they would not be the whole."""
        self._all_named(service, config, found)
        split = shares({variant: found.weights.get(name, 0.0)
                        for variant, name in self._names(config).items()})
        if split is None:
            raise ActionFailed(f"{self.title} has no weight above 0 for {service}.",
                               where=self._where(config), hint="A shift to a whole split sets them.")
        return split

    def _all_named(self, service: str, config: C, found: Found) -> None:
        known = set(self._names(config).values())
        strange = [name for name, weight in found.weights.items()
                   if weight > 0 and name not in known]
        if strange:
            raise ActionFailed(
                f"{self.title} sends traffic of {service} to what is not among its variants: "
                f"{', '.join(strange)}.", where=self._where(config),
                hint="Name it in the router of opsdeck.yaml, or take its weight away there.")


def _words(split: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3g} %" for name, weight in split.items())
