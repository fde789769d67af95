"""What the AWS routers share: clients, calls in threads, errors as ours, and a shift that is checked.

A change is sent once, never again by itself: a repetition that lands late could undo what was asked
after it. For the same reason a change on its way is waited for even when its caller is cancelled, at
most for the timeouts. Readings are tried twice.
"""

from __future__ import annotations

import abc
import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from engine.config_routers import Aws
from engine.errors import ActionFailed, NotFound, OpsdeckError, OutcomeUnknown
from engine.rollout.traffic.router import Traffic
from engine.rollout.traffic.weights import same, shares, whole_split

TIMEOUT = 10.0
CONNECT = 3.0
SETTLE = 300.0
POLL = 1.0
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


@dataclass(frozen=True)
class Found:
    """Weights in force by AWS's names, all of them, and `raw`, from which a change is made."""

    weights: dict[str, float]
    raw: Any = None


@dataclass(frozen=True)
class Asked:
    """A change that AWS took: the percents after rounding, and its name for the change if it has one."""

    split: dict[str, float]
    change: str | None = None


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
                self._made[key] = self._sessions[whose].client(api, endpoint_url=place.endpoint_url,
                                                               config=config)
            return self._made[key]


class AwsRouter(abc.ABC, Generic[C]):
    """Reads and shifts one AWS thing that splits traffic. Satisfies DetailedRouter.

    `lease_s` has no meaning to AWS: a watchdog keeps the leases of such routers. AWS knows no
    compare-and-set for weights either: `shift_from` compares just before it writes, and a change by
    another engine between the two would be overwritten.

    settle_s: until a change that was taken must be in force, and before it until one may be asked for;
    poll_s: between two looks.
    """

    api: str
    title: str

    def __init__(self, services: Mapping[str, C], clients: Clients | None = None, *,
                 settle_s: float = SETTLE, poll_s: float = POLL) -> None:
        self._services = services
        self._settle = settle_s
        self._poll = poll_s
        self._clients = clients or Clients()
        self._writing: dict[str, asyncio.Lock] = {}

    async def read(self, service: str) -> dict[str, float]:
        return (await self.traffic(service)).weights

    async def traffic(self, service: str) -> Traffic:
        config = self._config(service)
        return Traffic(weights=self._percents(service, config, await self._look(service, config)))

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split, wait until it is in force and return it as read back.

        Raises ActionFailed where nothing was changed, OutcomeUnknown where that cannot be said or where
        the change was taken and is not in force after `settle_s`.
        """
        return await self._shift(service, weights, None)

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        """As `shift`, refused with ActionFailed if the weights are no longer those that were `seen`."""
        return await self._shift(service, weights, seen)

    @abc.abstractmethod
    def _names(self, config: C) -> Mapping[str, str]:
        """What AWS calls each variant."""

    @abc.abstractmethod
    def _where(self, config: C) -> str:
        """What splits the traffic, for a person."""

    @abc.abstractmethod
    def _find(self, client: Any, config: C) -> Found:
        """What is in force. Blocks, in a thread."""

    @abc.abstractmethod
    async def _set(self, service: str, config: C, found: Found, split: Mapping[str, float]) -> Asked:
        """Ask once for `split` (percent by variant, whole)."""

    async def _ready(self, service: str, config: C) -> None:
        """Return when a change may be asked for. Raises ActionFailed when it may not."""
        return

    async def _settled(self, service: str, config: C, asked: Asked, deadline: float) -> None:
        """Return when AWS says that it has carried out the change. Raises ActionFailed when it says that
        it will not, or not by `deadline` (the loop's clock)."""
        return

    async def _shift(self, service: str, weights: Mapping[str, float],
                     seen: Traffic | None) -> dict[str, float]:
        config = self._config(service)
        split = whole_split(service, self._names(config), weights)
        async with self._writing.setdefault(service, asyncio.Lock()):
            await self._ready(service, config)
            found = await self._look(service, config)
            self._all_named(service, config, found)
            if seen is not None and not same(now := self._percents(service, config, found), seen.weights):
                raise ActionFailed(
                    f"{service} has {_words(now)} and no longer {_words(seen.weights)}: somebody "
                    "changed it in the meantime. Nothing was changed.", where=self._where(config),
                    hint="Look again and decide on what is there now.")
            asked = await self._set(service, config, found, split)
        # Outside the lock: what is asked next, an abort for instance, must not wait for this to settle.
        deadline = self._now() + self._settle
        try:
            await self._settled(service, config, asked, deadline)
            return await self._in_force(service, config, asked, deadline)
        except ActionFailed as error:
            raise OutcomeUnknown(f"{self.title} took {_words(asked.split)} for {service}; after that: "
                                 f"{error.message}", where=error.where, hint=READ_FIRST) from error

    async def _in_force(self, service: str, config: C, asked: Asked, deadline: float) -> dict[str, float]:
        while True:
            found = self._percents(service, config, await self._look(service, config))
            if same(found, asked.split):
                return found
            if self._now() >= deadline:
                raise OutcomeUnknown(
                    f"{self.title} took {_words(asked.split)} for {service}, but has {_words(found)}.",
                    where=self._where(config), hint=READ_FIRST)
            await asyncio.sleep(self._poll)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _look(self, service: str, config: C) -> Found:
        return await self._call(service, config, lambda client: self._find(client, config))

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

    def _percents(self, service: str, config: C, found: Found) -> dict[str, float]:
        """Percents by variant of the service. Raises ActionFailed where they would not be the whole."""
        self._all_named(service, config, found)
        split = shares({variant: found.weights.get(name, 0.0)
                        for variant, name in self._names(config).items()})
        if split is None:
            raise ActionFailed(f"{self.title} has no weight above 0 for {service}.",
                               where=self._where(config), hint="A shift to a whole split sets them.")
        return split

    def _all_named(self, service: str, config: C, found: Found) -> None:
        known = set(self._names(config).values())
        strange = [name for name, weight in found.weights.items()
                   if weight > 0 and name not in known]
        if strange:
            raise ActionFailed(
                f"{self.title} sends traffic of {service} to what is not among its variants: "
                f"{', '.join(strange)}.", where=self._where(config),
                hint="Name it in the router of opsdeck.yaml, or take its weight away there.")


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


def _words(split: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:.3g} %" for name, weight in split.items())
