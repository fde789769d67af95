"""One request through the gateway: choose, pass on, time, classify, answer, log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Set
from typing import NamedTuple

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from engine.serving.correlation import CORRELATION_HEADER, Trace, correlation_id, trace
from engine.serving.gateway_config import VERSION, GatewayConfig
from engine.serving.instruments import MIRROR, ErrorType, Instruments
from engine.serving.mirror import Mirror
from engine.serving.outcome import STATUS, Failure, error_body, judge
from engine.serving.prediction_log import Entry, PredictionLog
from engine.serving.records import CONTENT_LIMIT, predictions_of
from engine.serving.split import KeyHash
from engine.serving.units import UnitKeys
from engine.serving.weights import Traffic

ERROR_HEADER = "x-opsdeck-error-type"
VARIANT_HEADER = "x-opsdeck-variant"
VERSION_HEADER = "x-opsdeck-model-version"
# So that a model with effects of its own can tell what nobody waits for.
MIRROR_HEADER = "x-opsdeck-mirror"

# What a proxy must not pass on (RFC 9110, 7.6.1), what it sets itself, and what would let the
# variant encode its answer so that nobody could log it.
_NOT_PASSED = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection",
    "te", "trailer", "transfer-encoding", "upgrade", "host", "content-length", "expect",
    "content-encoding", "accept-encoding", "traceparent", "tracestate", CORRELATION_HEADER,
    ERROR_HEADER, VARIANT_HEADER, VERSION_HEADER, MIRROR_HEADER})
_NOT_RETURNED = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "content-length", "date", "server", "set-cookie",
    CORRELATION_HEADER, ERROR_HEADER, VARIANT_HEADER})
# Servers commonly close idle connections after five seconds; being first avoids a lost request.
_IDLE_CONNECTION_S = 4.0
_CONNECT_S = 2.0
_BODY_WITHIN_S = 15.0


class Seen(NamedTuple):
    """What is known of a request before its body is read."""

    correlation: str
    trace: Trace
    key_hash: int
    variant: str
    unit: int


class Reply(NamedTuple):
    """What the caller gets. `error_type` is "" for a success."""

    status: int
    headers: CIMultiDict[str]
    content: bytes
    error_type: ErrorType


class _Refused(Exception):
    """The request ends here; `status` where it is not the one of the failure's type."""

    def __init__(self, error_type: ErrorType, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(error_type, message)
        self.status = status


class Proxy:
    """POST /invocations. One instance a gateway; all its state belongs to the event loop."""

    def __init__(self, config: GatewayConfig, traffic: Traffic, instruments: Instruments,
                 log: PredictionLog | None, mirror: Mirror,
                 clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._mirror = mirror
        self._traffic = traffic
        self._instruments = instruments
        self._variants = instruments.variants
        self._urls = {name: URL(v.invocations) for name, v in config.variants.items()}
        self._log = log
        self._clock = clock
        self._hash = KeyHash(config.service)
        self._unit_key = UnitKeys(config.session_header)
        # No cookie jar: one caller's cookies must never reach another's request.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_CONNECTION_S),
            cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=config.timeout_s,
                                          sock_connect=min(_CONNECT_S, config.timeout_s),
                                          ceil_threshold=60.0),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"))

    async def close(self) -> None:
        await self._session.close()

    async def __call__(self, request: web.BaseRequest) -> web.Response:
        started = time.perf_counter()
        seen = self._identify(request.headers)
        variant = self._variants[seen.variant]
        body, asked = b"", False
        variant.active += 1
        try:
            body = await self._body(request)
            if variant.active > self._config.max_in_flight:
                raise _Refused("unavailable", f"Variant {seen.variant} already has "
                               f"{self._config.max_in_flight} requests in flight.")
            asked = True
            reply = await self._ask(seen, _passed_on(request.headers), body)
        except _Refused as refusal:
            reply = self._failed(seen, refusal.failure, refusal.status)
        finally:
            variant.active -= 1
        latency = time.perf_counter() - started
        variant.observe(latency, reply.error_type)
        variant.units.answered(seen.unit, started, reply.error_type)
        reply.headers[CORRELATION_HEADER] = seen.correlation
        reply.headers[VARIANT_HEADER] = seen.variant
        reply.headers["server"] = "opsdeck"
        if self._log is not None:
            self._log.append(Entry(
                self._clock(), seen.correlation, seen.trace.trace_id, seen.variant,
                variant.version, seen.key_hash, latency, reply.status, reply.error_type,
                request.headers.get("content-type", ""), body, reply.content))
        elif not reply.error_type:
            self._count(seen.variant, reply.content)
        if asked and self._mirror.takes(seen.key_hash, seen.variant):
            self._send_again(seen, request.headers, body)
        return web.Response(body=reply.content, status=reply.status, headers=reply.headers)

    def _send_again(self, seen: Seen, headers: CIMultiDictProxy[str], body: bytes) -> None:
        name = self._mirror.variant
        assert name is not None
        instruments = self._instruments.mirror(name)

        async def again() -> None:
            started = time.perf_counter()
            passed_on = _passed_on(headers)
            passed_on[MIRROR_HEADER] = "true"
            content, error_type = b"", ""
            try:
                reply = await self._ask(seen._replace(variant=name), passed_on, body)
            except _Refused as refusal:
                error_type = refusal.failure.error_type
            else:
                content, error_type = reply.content, reply.error_type
            instruments.observe(time.perf_counter() - started, error_type)
            instruments.units.answered(seen.unit, started, error_type)
            if not error_type:
                self._count(name + MIRROR, content)

        if not self._mirror.start(again):
            self._instruments.mirror_dropped[name + MIRROR] += 1

    def _count(self, variant: str, content: bytes) -> None:
        """Count the predictions of an answer that the log does not read. The log's limit holds here too:
        a large answer would keep all other requests waiting."""
        if self._instruments.bins is not None and len(content) <= CONTENT_LIMIT:
            self._instruments.predicted(variant, predictions_of(content))

    def _identify(self, headers: Mapping[str, str]) -> Seen:
        correlation = correlation_id(headers.get(CORRELATION_HEADER))
        key_hash = self._hash(headers.get(self._config.key_header) or correlation)
        return Seen(correlation, trace(headers.get("traceparent"), headers.get("tracestate")),
                    key_hash, self._traffic.split.variant(key_hash),
                    self._unit_key(headers, correlation))

    async def _body(self, request: web.BaseRequest) -> bytes:
        limit = self._config.max_body_bytes
        length = request.content_length
        try:
            if length is not None and length > limit:
                raise web.HTTPRequestEntityTooLarge(limit, length)
            if request.content.is_eof():
                return await request.read()
            async with asyncio.timeout(_BODY_WITHIN_S):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _Refused("invalid_input", f"The body has more than {limit} bytes.",
                           413) from None
        except TimeoutError:
            raise _Refused("invalid_input", f"The body did not arrive within {_BODY_WITHIN_S:g} s.",
                           408) from None
        except web.RequestPayloadError:
            raise _Refused("invalid_input", "The body is not what its headers say.") from None

    async def _ask(self, seen: Seen, headers: CIMultiDict[str], body: bytes) -> Reply:
        """The variant's answer, or the error that it stands for. `headers` are those that go to it."""
        name = seen.variant
        # A body without a type is bytes (RFC 9110, 8.3). MLflow's server refuses those as the
        # caller's fault, but breaks where there is no type at all.
        headers.setdefault("content-type", "application/octet-stream")
        headers[CORRELATION_HEADER] = seen.correlation
        headers["traceparent"] = seen.trace.traceparent
        if seen.trace.tracestate is not None:
            headers["tracestate"] = seen.trace.tracestate
        try:
            async with self._session.post(self._urls[name], data=body, headers=headers,
                                          allow_redirects=False) as response:
                content = await self._content(name, response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise _Refused("unavailable", f"Variant {name} cannot be connected to.") from None
        except TimeoutError:
            raise _Refused("timeout", f"Variant {name} did not answer within "
                           f"{self._config.timeout_s:g} s.") from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, OSError):
            raise _Refused("unavailable", f"Variant {name} dropped the connection.") from None
        except aiohttp.ClientError:
            raise _Refused("model_error", f"Variant {name} did not answer in HTTP.") from None
        version = response.headers.get(VERSION_HEADER)
        if version is not None and VERSION.fullmatch(version):
            self._variants[name].version = version
        failure = judge(response.status, content)
        if failure is not None:
            return self._failed(seen, failure)
        returned = _returned(response.headers)
        if version is None and (known := self._variants[name].version) is not None:
            returned[VERSION_HEADER] = known
        return Reply(response.status, returned, content, "")

    async def _content(self, name: str, response: aiohttp.ClientResponse) -> bytes:
        limit = self._config.max_response_bytes
        too_large = f"Variant {name} answered with more than {limit} bytes."
        if response.content_length is not None:
            if response.content_length > limit:
                raise _Refused("model_error", too_large)
            return await response.read()
        content = bytearray()
        async for chunk in response.content.iter_any():
            content += chunk
            if len(content) > limit:
                raise _Refused("model_error", too_large)
        return bytes(content)

    def _failed(self, seen: Seen, failure: Failure, status: int | None = None) -> Reply:
        headers = CIMultiDict({"content-type": "application/json",
                               ERROR_HEADER: failure.error_type})
        version = self._variants[seen.variant].version
        if version is not None:
            headers[VERSION_HEADER] = version
        return Reply(status or STATUS[failure.error_type], headers,
                     error_body(failure, seen.variant, seen.correlation), failure.error_type)


def _passed_on(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The caller's headers that go to the variant."""
    dropped: Set[str] = _NOT_PASSED
    if (connection := headers.get("connection")) is not None:
        dropped = _NOT_PASSED | {name.strip().lower() for name in connection.split(",")}
    return CIMultiDict([pair for pair in headers.items() if pair[0].lower() not in dropped])


def _returned(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The variant's headers that go to the caller."""
    return CIMultiDict([pair for pair in headers.items() if pair[0].lower() not in _NOT_RETURNED])
