"""A real AWS API over HTTP for the tests: moto's server, asked by real boto3 with made-up credentials."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import boto3
import pytest
from moto.server import ThreadedMotoServer

from engine.rollout.traffic.aws import Clients
from tests.rollout.traffic.meddler import Meddler

REGION = "eu-west-1"
T = TypeVar("T")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Moto:
    """A running server. `client` asks it directly, past any meddler; a meddler is to listen at `front`;
    `clients`, quick to give up, are for the adapters: to make new ones for each test takes long."""

    def __init__(self, host: str, port: int) -> None:
        self.address = (host, port)
        self.url = f"http://{host}:{port}"
        self.front = ("127.0.0.1", free_port())
        self.clients = Clients(timeout_s=0.5)
        self._session = boto3.Session(region_name=REGION)
        self._made: dict[str, Any] = {}

    def client(self, api: str) -> Any:
        if api not in self._made:
            self._made[api] = self._session.client(api, endpoint_url=self.url)
        return self._made[api]


@contextlib.contextmanager
def serving() -> Iterator[Moto]:
    """Moto's server, with credentials in the environment for as long as it runs."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as env:
        env.setenv("AWS_ACCESS_KEY_ID", "testing")
        env.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        env.setenv("AWS_EC2_METADATA_DISABLED", "true")
        env.setenv("AWS_CONFIG_FILE", "/dev/null")
        env.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            env.delenv(name, raising=False)
        server.start()
        try:
            yield Moto(*server.get_host_and_port())
        finally:
            _forget(server)
            server.stop()


def _forget(server: ThreadedMotoServer) -> None:
    """What it holds is the process's, and the next server would have it too."""
    host, port = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, port, timeout=10)
    with contextlib.closing(connection):
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()


def url(meddler: Meddler) -> str:
    host, port = meddler.front  # type: ignore[misc]
    return f"http://{host}:{port}"


async def aside(call: Callable[[], T]) -> T:
    """Blocking calls in a thread, so that the meddler can go on answering."""
    return await asyncio.to_thread(call)
