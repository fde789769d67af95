"""An outside witness of the split: what the gateway itself says, many times a second."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

COUNT = re.compile(r'http_server_request_duration_seconds_count\{error_type="(\w*)",'
                   r'.*variant="(\w+)"\} (\S+)')
ACTIVE = re.compile(r'http_server_active_requests\{.*variant="(\w+)"\} (\S+)')


@dataclass(frozen=True)
class Seen:
    """One answer: `asked` and `at` (monotonic seconds) lie before and after it, `wall` is UTC seconds."""

    asked: float
    at: float
    wall: float
    weights: dict[str, float]
    revision: int
    cause: str
    lease_s: float | None


class _Admin(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("gateway", timeout=5.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Gateway:
    """The gateway of the demo in `home`."""

    def __init__(self, home: Path) -> None:
        config = json.loads((home / "demo" / "gateway.json").read_text())
        self._socket: str = config["admin_socket"]
        self._url = f"http://{config['host']}:{config['port']}"

    def seen(self) -> Seen:
        asked = time.monotonic()
        admin = _Admin(self._socket)
        try:
            admin.request("GET", "/weights")
            told: dict[str, Any] = json.loads(admin.getresponse().read())
        finally:
            admin.close()
        lease = told["lease"]
        return Seen(asked, time.monotonic(), time.time(), told["weights"], told["revision"], told["cause"],
                    lease["expires_in_s"] if lease else None)

    def put(self, weights: dict[str, float]) -> None:
        """Set weights without a lease."""
        admin = _Admin(self._socket)
        try:
            admin.request("PUT", "/weights", json.dumps({"weights": weights, "lease_s": None}))
            answer = admin.getresponse()
            assert answer.status == 200, answer.read()
        finally:
            admin.close()

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=5.0) as answer:
            told: str = answer.read().decode()
        return told

    def under_way(self, variant: str) -> int:
        """Requests that a variant has not answered yet."""
        return sum(round(float(n)) for name, n in ACTIVE.findall(self.metrics()) if name == variant)

    def served(self, variant: str) -> tuple[int, int]:
        """Requests that a variant was asked since the gateway started, and how many of them failed."""
        rows = COUNT.findall(self.metrics())
        mine = [(kind, round(float(n))) for kind, name, n in rows if name == variant]
        return sum(n for _, n in mine), sum(n for kind, n in mine if kind)


class Witness:
    """Polls a gateway each `every_s` seconds while it is open; one `Seen` is kept per answer."""

    def __init__(self, gateway: Gateway, every_s: float = 0.05) -> None:
        self._gateway = gateway
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.history: list[Seen] = []
        self.away = 0  # polls that the gateway did not answer

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(self._every_s):
            try:
                self.history.append(self._gateway.seen())
            except (OSError, http.client.HTTPException):
                self.away += 1

    def first(self, holds: Callable[[Seen], bool], since: float, within: float = 30.0) -> Seen:
        """The first answer at or after `since` (monotonic) for which `holds`, waited for if need be."""
        end = time.monotonic() + within
        at = 0
        while True:
            while at < len(self.history):
                one = self.history[at]
                at += 1
                if one.asked >= since and holds(one):
                    return one
            if time.monotonic() > end:
                raise AssertionError(f"not seen within {within} s: last {self.history[-1:]}")
            self._stop.wait(self._every_s / 2)

    def most(self, variant: str, since: float) -> float:
        """The highest weight that a variant was seen with since then."""
        return max((one.weights[variant] for one in list(self.history) if one.asked >= since), default=0.0)
