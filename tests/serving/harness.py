"""What the serving tests share: real processes on free ports, callers, and a scripted variant."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

JSON = {"content-type": "application/json"}
ROW = {"dataframe_split": {"columns": ["distance", "temp", "hour"], "data": [[1400.0, 39.0, 7]]}}
SCORED = b'{"predictions": [{"score": 12.300000190734863, "late": 1}]}'


def wait_for(condition: Callable[[], Any], what: str, within_s: float = 10.0) -> Any:
    """The first true value of `condition`; fails by name when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s:g} s"
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("gateway", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


def call(where: int | Path, method: str, path: str, body: Any = None,
         headers: dict[str, str] | None = None) -> Answer:
    """One request to a port or a Unix socket; a body that is not bytes is sent as JSON."""
    connection = (_UnixConnection(where) if isinstance(where, Path)
                  else http.client.HTTPConnection("127.0.0.1", where, timeout=15))
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, content, JSON if headers is None else headers)
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()},
                      response.read())
    finally:
        connection.close()


def raw(port: int, data: bytes, within_s: float = 5.0) -> bytes:
    """All that comes back for these bytes until the server closes or falls silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as connection:
        connection.sendall(data)
        received = b""
        try:
            while chunk := connection.recv(65536):
                received += chunk
                connection.settimeout(0.3)
        except (TimeoutError, ConnectionResetError):
            return received
        return received


class Running:
    """One process of `engine.serving`, with what it says on standard error."""

    def __init__(self, module: str, *arguments: str, log: Path) -> None:
        self._log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen([sys.executable, "-m", f"engine.serving.{module}",
                                             *arguments], stdout=out, stderr=out)

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_ready(self, port: int) -> None:
        def answers() -> bool:
            assert self.process.poll() is None, self.said
            try:
                return call(port, "GET", "/ping").status == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_for(answers, "readiness")

    def ends(self, within_s: float = 15.0) -> int:
        return self.process.wait(within_s)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.ends()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Gateway(Running):
    """A gateway whose files live in `home`; its config may be changed before it starts again."""

    def __init__(self, home: Path, variants: dict[str, Any], start: bool = True,
                 **config: Any) -> None:
        self.home = home
        self.port = free_port()
        self.admin = home / "admin.sock"
        self.predictions = home / "log" / "predictions.jsonl"
        self.config = {
            "service": "flights", "host": "127.0.0.1", "port": self.port,
            "admin_socket": str(self.admin), "state_file": str(home / "state.json"),
            "champion": "champion",
            "variants": {name: variant if isinstance(variant, dict) else
                         {"url": f"http://127.0.0.1:{variant}"}
                         for name, variant in variants.items()}} | config
        if start:
            self.start()

    def launch(self) -> None:
        path = self.home / "gateway.json"
        path.write_text(json.dumps(self.config))
        super().__init__("gateway", "--config", str(path), log=self.home / "gateway.log")

    def start(self) -> None:
        self.launch()
        self.wait_ready(self.port)

    def post(self, body: Any = ROW, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(self.port, "POST", "/invocations", body, JSON | named)

    def weights(self) -> Any:
        return call(self.admin, "GET", "/weights").json

    def put(self, champion: float, **more: Any) -> Answer:
        weights = {"champion": champion, "challenger": 100 - champion}
        return call(self.admin, "PUT", "/weights", {"weights": weights, **more})

    def metrics(self) -> dict[str, float]:
        """Every sample by its name with labels."""
        text = call(self.port, "GET", "/metrics").body.decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def count(self, variant: str, error_type: str = "") -> float:
        return self.metrics().get(
            f'http_server_request_duration_seconds_count{{error_type="{error_type}",'
            f'service="flights",variant="{variant}"}}', 0.0)

    def records(self, at_least: int = 1) -> list[Any]:
        """The prediction log, once it has that many lines."""
        def lines() -> list[str]:
            if not self.predictions.exists():
                return []
            found = self.predictions.read_text().splitlines()
            return found if len(found) >= at_least else []

        return [json.loads(line) for line in wait_for(lines, f"{at_least} logged predictions")]


class ScriptedVariant:
    """A variant that says exactly the bytes it is told to, for what no real server would say.

    `script` gets the raw request and returns the raw response; None closes the connection, and
    HANG leaves it open without a word.
    """

    HANG = b"\0hang"

    def __init__(self, script: Callable[[bytes], bytes | None]) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        # Closing alone leaves the thread in accept(2) with the number of a descriptor that is soon another's:
        # a signal restarts the call, and it takes the connections of whichever server has the number now.
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._accepting.join(10)
            self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while request := _whole_request(connection):
                self.requests.append(request)
                answer = self.script(request)
                if answer == self.HANG:
                    return
                if answer is None:
                    connection.close()
                    return
                connection.sendall(answer)
        except OSError:
            connection.close()


def _whole_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            return b""
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n")
                   if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def response(status: int, body: bytes | str, *headers: str) -> bytes:
    """The raw bytes of a response for a ScriptedVariant."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json",
             f"content-length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def is_root() -> bool:
    return os.getuid() == 0
