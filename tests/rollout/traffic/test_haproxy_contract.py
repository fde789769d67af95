"""A real HAProxy keeps the contract of the port."""

from collections.abc import AsyncIterator

import pytest

from engine.config_routers import HAProxy
from engine.errors import ActionFailed
from engine.rollout.traffic.haproxy import HAProxyRouter
from engine.rollout.traffic.haproxy_answers import MOST
from engine.rollout.traffic.weights import whole_weights
from tests.rollout.traffic.contract import ALL, CANARY, Part, SteppedContract
from tests.rollout.traffic.haproxies import SERVERS, RealHAProxy, haproxy
from tests.rollout.traffic.meddler import Meddler, Trouble, everything, line

__all__ = ["haproxy"]


class HAProxyPart(Part):
    step = 100 / MOST
    refusal = "Permission denied"

    def __init__(self, real: RealHAProxy) -> None:
        self._real = real
        front = real.admin.with_name("front.sock")
        self.meddler = Meddler(
            back=real.admin, front=front, take_request=line, take_answer=everything,
            changes=lambda request: b"set server" in request, garbage=b"<html>\n",
            halve=lambda request: request.partition(b";")[0] + b"\n", lied=self._lied)
        self.router = HAProxyRouter({self.service: HAProxy(
            kind="haproxy", socket=front, backend="flights", servers=SERVERS)}, timeout_s=0.5)

    async def in_force(self) -> dict[str, float]:
        return self._real.percents()

    async def set_directly(self, weights: dict[str, float]) -> None:
        self._real.tell(";".join(f"set server flights/{name} state ready;set weight flights/{name} {weight}"
                                 for name, weight in zip(SERVERS.values(), whole_weights(
                                     weights, MOST).values(), strict=True)))

    async def make(self, trouble: Trouble, *, reads: bool = False) -> None:
        """A refusal is HAProxy's own: that of a socket which may only look."""
        self.meddler.back = self._real.user if trouble == "refuse" else self._real.admin
        await super().make("none" if trouble == "refuse" else trouble, reads=reads)

    def _lied(self, request: bytes) -> bytes:
        return b"\n\n" + self._real.tell("show servers state flights;show stat flights 4 -1").encode()


class TestHAProxy(SteppedContract):
    @pytest.fixture
    async def part(self, haproxy: RealHAProxy) -> AsyncIterator[Part]:
        part = HAProxyPart(haproxy)
        await part.set_directly(ALL)
        await part.meddler.start()
        yield part
        await part.meddler.stop()

    async def test_a_yes_after_which_the_weights_are_as_they_were_is_a_failure(self, part: Part) -> None:
        await part.make("lie")
        with pytest.raises(ActionFailed, match="it said yes, but the weights are as they were"):
            await part.router.shift(part.service, CANARY)
