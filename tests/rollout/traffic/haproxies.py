"""A real HAProxy with two real HTTP servers behind it."""

from __future__ import annotations

import collections
import contextlib
import http.client
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.serving.harness import free_port, wait_for

FILE = """
global
  stats socket {folder}/admin.sock mode 600 level admin
  stats socket {folder}/user.sock mode 600 level user
defaults
  mode http
  retries 1
  timeout connect 2s
  timeout client 5s
  timeout server 5s
frontend public
  bind 127.0.0.1:{port}
  default_backend flights
backend flights
  balance {balance}
  server s1 127.0.0.1:{champion} weight 100
  server s2 127.0.0.1:{challenger} weight 0
{more}
"""
SERVERS = {"champion": "s1", "challenger": "s2"}


class Answers(BaseHTTPRequestHandler):
    """Answers with the name of the variant, and counts."""

    variant = ""
    served: collections.Counter[str]

    def do_GET(self) -> None:
        self.served[self.variant] += 1
        body = self.variant.encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests count."""


class RealHAProxy:
    """HAProxy in `folder`, its stats sockets `admin` and `user` (which may only look)."""

    def __init__(self, folder: Path, servers: dict[str, ThreadingHTTPServer], balance: str, more: str
                 ) -> None:
        self.port = free_port()
        self.admin, self.user = folder / "admin.sock", folder / "user.sock"
        file, log = folder / "haproxy.cfg", folder / "haproxy.log"
        file.write_text(FILE.format(
            folder=folder, port=self.port, balance=balance, more=more,
            **{variant: server.server_port for variant, server in servers.items()}))
        with log.open("ab") as out:
            self.process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=out, stderr=out)
        wait_for(lambda: self._listens(log), "HAProxy's socket")

    def _listens(self, log: Path) -> bool:
        assert self.process.poll() is None, log.read_text()
        try:
            return "HAProxy" in self.tell("show info")
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def tell(self, commands: str) -> str:
        """What it answers on its socket, asked without any code of ours."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.admin))
            connection.sendall(commands.encode() + b"\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def weights(self) -> dict[str, int]:
        """The weight of each variant's server, by `get weight`."""
        return {variant: int(re.findall(r"^\d+", self.tell(f"get weight flights/{name}"))[0])
                for variant, name in SERVERS.items()}

    def percents(self) -> dict[str, float]:
        weights = self.weights()
        return {variant: 100.0 * weight / sum(weights.values()) for variant, weight in weights.items()}

    def ask(self, times: int) -> collections.Counter[str]:
        """Real requests; which variant answered how many."""
        return collections.Counter(self._ask() for _ in range(times))

    def _ask(self) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            answer = connection.getresponse()
            return answer.read().decode() if answer.status == 200 else str(answer.status)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def running(balance: str = "roundrobin", more: str = "") -> Iterator[RealHAProxy]:
    """A started HAProxy; champion has all the traffic. Its sockets' paths are short."""
    served: collections.Counter[str] = collections.Counter()
    servers = {}
    for variant in SERVERS:
        handler = type(variant, (Answers,), {"variant": variant, "served": served})
        servers[variant] = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=servers[variant].serve_forever, args=(0.05,), daemon=True).start()
    with tempfile.TemporaryDirectory(prefix="ha") as folder:
        try:
            proxy = RealHAProxy(Path(folder), servers, balance, more)
            try:
                yield proxy
            finally:
                proxy.stop()
        finally:
            for server in servers.values():
                server.shutdown()
                server.server_close()


@pytest.fixture(scope="module")
def haproxy() -> Iterator[RealHAProxy]:
    """One for all tests of a file; each begins by setting its weights."""
    with running() as proxy:
        yield proxy
