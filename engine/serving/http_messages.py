"""HTTP/1.1 messages as the model server speaks them: heads read strictly, responses written. Pure.

All that two parsers could read in two ways is refused: both framings at once, folded headers, bare line
feeds, a length that is given twice or is not plain digits.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import NamedTuple

MAX_BODY_BYTES = 64 << 20  # the most that a model server takes in one request

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.([01])")
_HEADER = re.compile(rb"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class Request(NamedTuple):
    """One request. Header names are in lower case; a repeated one is joined by commas."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Response(NamedTuple):
    """One response; `headers` are sent as they are and must hold no line breaks."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


class Bad(Exception):
    """A request that is refused with this status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Head(NamedTuple):
    """A request without its body. `length` is in bytes, None for a chunked body; `keep` the connection."""

    method: str
    path: str
    headers: dict[str, str]
    length: int | None
    keep: bool


def encoded(response: Response, *, keep: bool, body: bool = True) -> bytes:
    """As it goes over the line; without `body` its head alone."""
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, '')}",
             f"content-type: {response.content_type}", f"content-length: {len(response.body)}",
             *(f"{name}: {value}" for name, value in response.headers)]
    if not keep:
        lines.append("connection: close")
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + response.body if body else head


def plain(status: int, text: str) -> Response:
    """A sentence as a response."""
    return Response(status, text.encode() + b"\n", "text/plain; charset=utf-8")


def parse_head(head: bytes) -> Head:
    """The request line and headers. Raises Bad on anything that is not plain RFC 9112."""
    first, *rest = head.lstrip(b"\r\n").split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise Bad(400, "The request line is not valid HTTP/1.1.")
    headers: dict[str, str] = {}
    for raw in rest:
        match = _HEADER.fullmatch(raw)
        if match is None:
            raise Bad(400, "A header is not valid.")
        name, value = match[1].decode().lower(), match[2].decode("latin-1")
        if name in headers:
            if name in ("content-length", "transfer-encoding", "host", "content-type"):
                raise Bad(400, f"The header {name} is given twice.")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    modern = line[3] == b"1"
    if modern and "host" not in headers:
        raise Bad(400, "The header host is missing.")
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    keep = "close" not in connection and (modern or "keep-alive" in connection)
    path = line[2].decode().partition("?")[0]
    return Head(line[1].decode(), path, headers, _body_length(headers, modern), keep)


def _body_length(headers: dict[str, str], modern: bool) -> int | None:
    """Bytes of the body, None when it is chunked."""
    length, encoding = headers.get("content-length"), headers.get("transfer-encoding")
    if encoding is not None:
        if length is not None or not modern:
            raise Bad(400, "The body's length is given in two ways.")
        if encoding.lower() != "chunked":
            raise Bad(501, "Only the transfer encoding chunked is understood.")
        return None
    if length is None:
        return 0
    if not length.isascii() or not length.isdigit() or len(length) > 15:
        raise Bad(400, "The header content-length is not a number.")
    return int(length)
