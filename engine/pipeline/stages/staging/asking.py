"""Requests to one model server on this machine, as a product would send them, and as nobody should."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"
TIMEOUT_S = 30.0
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Answer:
    """`status` None: there was no answer, and `error` says why."""

    status: int | None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    def words(self) -> str:
        """`400: The column …`, short enough for a report."""
        if self.status is None:
            return self.error
        said = "" if self.status == 200 else short(_message(self.body))
        return f"{self.status}{': ' + said if said else ''}"


def short(text: str, most: int = 160) -> str:
    """One line of whole words, with … where more was said."""
    flat = " ".join(text.split())
    if len(flat) <= most:
        return flat
    cut = flat[:most - 1]
    return f"{cut.rpartition(' ')[0] if ' ' in cut[most // 2:] else cut} …"


def _message(body: bytes) -> str:
    """What a refusal says: the message of MLflow's form, else all of it."""
    text = body.decode(errors="replace").strip()
    try:
        said = json.loads(text)
    except ValueError:
        return text
    message = said.get("message") if isinstance(said, dict) else None
    return message if isinstance(message, str) and message.strip() else text


class Asker:
    """A connection that is kept between requests, made anew when it has gone."""

    def __init__(self, port: int, timeout: float = TIMEOUT_S) -> None:
        self._port = port
        self._timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/invocations",
            method: str = "POST") -> Answer:
        begun = time.perf_counter()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(HOST, self._port, timeout=self._timeout)
        try:
            self._connection.request(method, path, body, {**JSON, **(headers or {})})
            got = self._connection.getresponse()
            content = got.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            return Answer(None, seconds=time.perf_counter() - begun,
                          error=f"no answer: {str(error) or type(error).__name__}")
        if got.will_close:
            self.close()
        return Answer(got.status, content, {name.lower(): value for name, value in got.getheaders()},
                      time.perf_counter() - begun)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def asker(port: int, timeout: float = TIMEOUT_S) -> Iterator[Asker]:
    made = Asker(port, timeout)
    try:
        yield made
    finally:
        made.close()


def once(port: int, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
    with asker(port) as made:
        return made.ask(body, headers)


def announced(port: int, length: int) -> Answer:
    """Only announce a body so large, and read what the server says to that."""
    with socket.create_connection((HOST, port), timeout=TIMEOUT_S) as raw:
        raw.sendall(_head(length))
        return _read(raw)


class Slow:
    """A client that has sent half of its request and takes its time with the rest."""

    def __init__(self, port: int, body: bytes) -> None:
        self._raw = socket.create_connection((HOST, port), timeout=TIMEOUT_S)
        self._rest = body[len(body) // 2:]
        self._raw.sendall(_head(len(body)) + body[:len(body) // 2])

    def finish(self) -> Answer:
        with self._raw:
            try:
                self._raw.sendall(self._rest)
            except OSError as error:
                return Answer(None, error=f"the connection was closed: {error}")
            return _read(self._raw)


def rows_body(columns: list[str], rows: list[list[Any]]) -> bytes:
    """MLflow's dataframe_split."""
    return json.dumps({"dataframe_split": {"columns": columns, "data": rows}}).encode()


def strict(body: bytes) -> Any:
    """The JSON of an answer. Raises ValueError for NaN and infinities too, which JSON does not have."""
    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is not JSON")
    return json.loads(body, parse_constant=refuse)


def _head(length: int) -> bytes:
    return (f"POST /invocations HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
            f"content-length: {length}\r\n\r\n").encode()


def _read(raw: socket.socket) -> Answer:
    got = http.client.HTTPResponse(raw)
    try:
        got.begin()
        return Answer(got.status, got.read(), {name.lower(): value for name, value in got.getheaders()})
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, error=f"no answer: {str(error) or type(error).__name__}")
    finally:
        got.close()
