"""The embedded gateway keeps the contract of the port."""

import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.rollout.traffic.gateway import GatewayRouter
from tests.rollout.traffic.contract import ALL, Contract, Part
from tests.rollout.traffic.meddler import Meddler, http_answer
from tests.serving.harness import Gateway, call

REFUSAL = b'{"error": "The state cannot be written.", "code": "action_failed"}'


class GatewayPart(Part):
    refusal = "The state cannot be written."

    def __init__(self, admin: Path, front: Path) -> None:
        self._admin = admin
        self.meddler = Meddler(back=admin, front=front, garbage=http_answer("200 OK", b"<html>"),
                               refusal=http_answer("500 Error", REFUSAL), lied=self._lied)
        self.router = GatewayRouter({self.service: front}, timeout_s=0.5)

    async def in_force(self) -> dict[str, float]:
        return dict(call(self._admin, "GET", "/weights").json["weights"])

    async def set_directly(self, weights: dict[str, float]) -> None:
        assert call(self._admin, "PUT", "/weights", {"weights": weights}).status == 200

    def _lied(self, request: bytes) -> bytes:
        asked = json.loads(request.partition(b"\r\n\r\n")[2])
        body = call(self._admin, "GET", "/weights").json | {"weights": asked["weights"]}
        return http_answer("200 OK", json.dumps(body).encode())


@pytest.fixture(scope="module")
def admin() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        gateway = Gateway(Path(folder), dict.fromkeys(ALL, 9))
        yield gateway.admin
        gateway.kill()


class TestGateway(Contract):
    @pytest.fixture
    async def part(self, admin: Path) -> AsyncIterator[Part]:
        part = GatewayPart(admin, admin.with_name("front.sock"))
        await part.set_directly(ALL)
        await part.meddler.start()
        yield part
        await part.meddler.stop()
