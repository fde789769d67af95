"""What all that asks AWS shares: clients, calls in threads, and botocore's errors as ours.

A change is sent once, never again by itself: a repetition that lands late could undo what was asked
after it. For the same reason a change on its way is waited for even when its caller is cancelled, at
most for the timeouts. Readings are tried twice.
"""

from __future__ import annotations

import abc
import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from engine.config_routers import Aws
from engine.errors import ActionFailed, NotFound, OpsdeckError, OutcomeUnknown

TIMEOUT = 10.0
CONNECT = 3.0
THROTTLED = frozenset({
    "LimitExceededException", "PriorRequestNotComplete", "RequestLimitExceeded", "RequestThrottled",
    "RequestThrottledException", "SlowDown", "Throttling", "ThrottlingException", "ThrottledException",
    "TooManyRequestsException"})
IDENTITY = frozenset({
    "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "InvalidSignatureException",
    "SignatureDoesNotMatch", "UnrecognizedClientException"})
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthFailure"})
READ_FIRST = "Read the weights before you go on."

T = TypeVar("T")
C = TypeVar("C", bound=Aws)


class Clients:
    """boto3 clients by place and purpose, each made once (0.1 to 0.5 s). Routers may share one.

    timeout_s: for each answer.
    """

    def __init__(self, timeout_s: float = TIMEOUT) -> None:
        self._timeout = timeout_s
        self._sessions: dict[tuple[str | None, str | None], Any] = {}
        self._made: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def get(self, api: str, place: Aws, *, writing: bool = False) -> Any:
        """A client of `api`, such as route53. Blocks. Raises botocore's errors, see `failure`."""
        key = (api, place.region, place.profile, place.endpoint_url, writing)
        with self._lock:
            if key not in self._made:
                import boto3
                from botocore.config import Config

                config = Config(connect_timeout=min(CONNECT, self._timeout), read_timeout=self._timeout,
                                retries={"mode": "standard", "total_max_attempts": 1 if writing else 2})
                whose = (place.region, place.profile)
                if whose not in self._sessions:
                    self._sessions[whose] = boto3.Session(region_name=place.region,
                                                          profile_name=place.profile)
                try:
                    self._made[key] = self._sessions[whose].client(api, endpoint_url=place.endpoint_url,
                                                                   config=config)
                except ValueError as error:  # the one that is none of botocore's own
                    raise ActionFailed(
                        f"{place.endpoint_url} is no address to ask AWS at; nothing was changed.",
                        hint="Correct endpoint_url in opsdeck.yaml.") from error
            return self._made[key]


class Asking(abc.ABC, Generic[C]):
    """Asks one API of AWS about services, in threads, and says in our words what went wrong."""

    api: str
    title: str

    def __init__(self, services: Mapping[str, C], clients: Clients | None = None) -> None:
        self._services = services
        self._clients = clients or Clients()

    @abc.abstractmethod
    def _where(self, config: C) -> str:
        """What splits the traffic, for a person."""

    async def _call(self, service: str, config: C, ask: Callable[[Any], T], *, writing: bool = False,
                    api: str | None = None) -> T:
        """`ask` with a client, in a thread. Raises ActionFailed or OutcomeUnknown, see `failure`."""
        def call() -> T:
            return ask(self._clients.get(api or self.api, config, writing=writing))

        try:
            return await (_to_its_end(call) if writing else asyncio.to_thread(call))
        except OpsdeckError:
            raise
        except Exception as error:
            ours = failure(error, self.title, service, self._where(config), writing=writing)
            if ours is None:
                raise
            raise ours from error

    def _config(self, service: str) -> C:
        config = self._services.get(service)
        if config is None:
            raise NotFound(f"{service} is not routed by {self.title} in the config.",
                           hint="Give it a router under services in opsdeck.yaml.")
        return config


def failure(error: Exception, title: str, service: str, where: str, *,
            writing: bool) -> OpsdeckError | None:
    """botocore's error, or the KeyError of what an answer lacks, as ours; None for any other.

    A change that was certainly not carried out is ActionFailed: never sent, refused (4xx) or throttled.
    Sent and not answered, or answered with 5xx or with what is no answer, it is OutcomeUnknown.
    """
    from botocore import exceptions as aws
    from botocore.parsers import ResponseParserError

    unchanged = "; nothing was changed" if writing else ""
    said = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, aws.ClientError):
        return _answered(error.response, title, service, where, writing)
    if isinstance(error, aws.HTTPClientError | aws.IncompleteReadError | ResponseParserError | KeyError):
        # botocore takes any JSON for an answer, so that one which is none shows by what it lacks.
        garbled = isinstance(error, ResponseParserError | KeyError)
        broke = "what it answered cannot be understood" if garbled else said
        return _unknown(title, service, where, broke) if writing else ActionFailed(
            f"{title} broke off while the traffic of {service} was read ({broke}).", where=where)
    if isinstance(error, aws.SSLError) and "certificate" not in said.lower() and writing:
        return _unknown(title, service, where, said)
    if isinstance(error, aws.ConnectionError):
        return ActionFailed(f"{title} does not answer ({said}){unchanged}.", where=where,
                            hint="Check the network from the engine's host, the region and the endpoint.")
    if isinstance(error, aws.BotoCoreError):
        return ActionFailed(
            f"{title} cannot be asked about {service} ({said}){unchanged}.", where=where,
            hint="Check region and profile in opsdeck.yaml and the credentials of the engine's user.")
    return None


def _answered(response: Mapping[str, Any], title: str, service: str, where: str,
              writing: bool) -> OpsdeckError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    message = str(response.get("Error", {}).get("Message") or "it did not say why").rstrip(".")
    if code in THROTTLED or status == 429:
        return ActionFailed(f"{title} has too many requests just now ({code})"
                            f"{'; nothing was changed' if writing else ''}.", where=where,
                            hint="Try again in a moment.")
    if writing and not 400 <= status < 500:
        return _unknown(title, service, where, f"{message}, {code or status}")
    if code in IDENTITY:
        hint = "Renew the credentials of the engine's user."
    elif code in DENIED:
        hint = "Allow it to the engine's user or role in IAM."
    else:
        hint = "Compare the names in opsdeck.yaml with what is there."
    return ActionFailed(f"{title} refused for {service}: {message} ({code or status}).", where=where,
                        hint=hint)


def _unknown(title: str, service: str, where: str, said: str) -> OutcomeUnknown:
    return OutcomeUnknown(f"{title} was asked to change the traffic of {service} and did not say whether it "
                          f"did ({said}).", where=where, hint=READ_FIRST)


async def _to_its_end(call: Callable[[], T]) -> T:
    """`call` in a thread, waited for even when cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # taken, so that asyncio does not report it as forgotten
        raise
