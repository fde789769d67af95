"""What a rollout relies on, kept up while it runs: its lease at the router, the weights that it set, a
router that does what it says, and the old version, which has to be there for the way back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from engine.errors import ActionFailed, OpsdeckError
from engine.monitoring.windows import Increment
from engine.procedures.executor import Live
from engine.rollout.facts import Facts, Stage, holds, shifting, stage
from engine.rollout.means import Means
from engine.rollout.succession import ending
from engine.rollout.traffic import verify
from engine.rollout.traffic.router import LeasedRouter, Traffic, read_traffic
from engine.words import percents, span

log = logging.getLogger("opsdeck")
RENEWALS = 6  # a lease is renewed so many times in its length
LEAST_PATIENCE_S = 2.0  # for an answer of the router
LOST_PATIENCE = 3  # renewals in a row that may fail before the router counts as lost
WARM_EVERY_S = 5.0  # how often the old version's process is looked at


class Keeper:
    """Keeps up what one rollout relies on. `end(why)` ends it where that is lost.

    `confirmed` is the stage whose weights the router was seen to have.
    """

    def __init__(self, live: Live, means: Means, end: Callable[[str], Awaitable[None]]) -> None:
        self.live = live
        self.confirmed: str | None = None
        self._lease: tuple[float | None, float] = (None, 0.0)  # what was left, and when that was read
        self._means = means
        self._end = end
        self._renewed: float | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._failures = 0
        self._honest = verify.Watch()
        self._looked: float | None = None
        self._warming: asyncio.Task[None] | None = None
        self._cold = False

    @property
    def lease_s(self) -> float | None:
        """What is left of the router's lease, in seconds, None without one."""
        left, at = self._lease
        return None if left is None else max(0.0, left - (self._means.monotonic() - at))

    def lied(self, found: Facts, at: Stage, increments: Sequence[Increment]) -> str | None:
        """The sentence for a router whose traffic does not go where it says."""
        if not at.leased or shifting(self.live.progress):
            return None
        said = found.split(at.weight)
        if {name for name, share in said.items() if share > 0} - {one.variant for one in increments}:
            return None  # one that is not measured may well have had its share
        # a session goes where its first request went: many requests of few sessions show nothing
        got = {name: round(sum(one.requests if one.units is None else one.units
                               for one in increments if one.variant == name)) for name in said}
        verdict = self._honest.add(said, got, self._means.monotonic())
        if verdict.state != "contradicts":
            return None
        return f"the router does not do what it says: {verdict.text}"

    def keep(self, found: Facts, at: Stage) -> None:
        """Renew the lease when that is due, beside whatever else goes on."""
        now = self._means.monotonic()
        every = found.plan.lease / RENEWALS
        if self.confirmed == at.step and self._renewed is not None and now - self._renewed < every:
            return
        if self._renewing is not None and not self._renewing.done():
            return
        self._renewed = now
        self._renewing = asyncio.create_task(self._renew_now(found, at))

    async def _renew_now(self, found: Facts, at: Stage) -> None:
        """Renew the lease and see that the router has the weights that this rollout set."""
        router = self._means.router()
        try:
            traffic = await self._asked(
                router.renew(found.service, found.plan.lease) if isinstance(router, LeasedRouter)
                else read_traffic(router, found.service), found)
        except OpsdeckError as error:
            await self._not_renewed(found, at, error)
            return
        self._failures = 0
        self._lease = (traffic.lease_s, self._means.monotonic())
        run = self.live.progress
        if run.finished or ending(self.live) or shifting(run) or stage(run, found) != at:
            return
        if holds(traffic.weights, found.split(at.weight)):
            self.confirmed = at.step
            return
        await self._end(self._moved(found, traffic.weights))

    async def _asked(self, work: Coroutine[Any, Any, Traffic], found: Facts) -> Traffic:
        """What a router answers in time. Raises OpsdeckError: one that hangs must not stop the renewals."""
        patience = max(LEAST_PATIENCE_S, found.plan.lease / RENEWALS)
        try:
            return await asyncio.wait_for(work, patience)
        except TimeoutError:
            raise ActionFailed(f"it has not answered for {span(patience)}") from None

    async def _not_renewed(self, found: Facts, at: Stage, error: OpsdeckError) -> None:
        """A lease that ran out is gone; a router that does not answer is asked again."""
        self._failures += 1
        self._renewed = None
        if self._failures == LOST_PATIENCE:
            self._means.page(f"the lease on the traffic of {found.service} cannot be renewed: "
                             f"{error.message}", self.live)
        try:
            weights = (await self._asked(read_traffic(self._means.router(), found.service), found)).weights
        except OpsdeckError:
            return
        run = self.live.progress
        if run.finished or ending(self.live) or shifting(run) or stage(run, found) != at:
            return
        if not holds(weights, found.split(at.weight)):
            await self._end(self._moved(found, weights))

    def _moved(self, found: Facts, weights: Mapping[str, float]) -> str:
        if holds(weights, found.safe):
            return ("the router has the weights from before: its lease was not renewed in time, or somebody "
                    "set them")
        return f"the weights are {percents(weights)}, which this rollout did not set"

    def keep_warm(self, found: Facts) -> None:
        """See every few seconds that the old version's process runs, and start it where it does not."""
        now = self._means.monotonic()
        if not self._means.supervised(found.service, found.champion) or (
                self._looked is not None and now - self._looked < WARM_EVERY_S):
            return
        if self._warming is None or self._warming.done():
            self._looked = now
            self._warming = asyncio.create_task(self._keep_warm(found))

    async def _keep_warm(self, found: Facts) -> None:
        name = f"{found.service}/{found.champion}"
        supervisor = self._means.supervisor()
        try:
            status = await supervisor.status(name)
            if status.state == "running":
                self._cold = False
                return
            if not self._cold:  # one page for one outage, however often it is started in vain
                self._cold = True
                self._means.page(f"{name}, which the traffic would go back to, is {status.state}; "
                                 "starting it", self.live)
            await supervisor.start(name)
        except OpsdeckError as error:
            log.error("%s is not kept warm: %s", name, error)

    async def close(self) -> None:
        for task in (self._renewing, self._warming):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
