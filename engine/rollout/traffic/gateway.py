"""The embedded gateway as a router: its admin API over a Unix socket that only the engine's uid
may use.

    GET  /weights                                          200 the split, see `_traffic`
    PUT  /weights  {"weights", "lease_s", "fallback", "if_revision"}
                                                           200 the new split
    POST /lease    {"lease_s"}                             200 the split with its lease renewed
    PUT  /mirror   {"variant", "percent", "lease_s"}       200 the mirror, see `_check_mirror`
    DELETE /mirror                                         200 no mirror

A refusal is 4xx or 500 with {"error", "code", "hint"}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ActionFailed, NotFound, OutcomeUnknown
from engine.rollout.traffic.router import Traffic
from engine.rollout.traffic.sending import Sending

if TYPE_CHECKING:
    import httpx

TIMEOUT = 5.0


class GatewayRouter:
    """Satisfies LeasedRouter. `sockets`: the admin socket of each service's gateway."""

    def __init__(self, sockets: Mapping[str, Path], timeout_s: float = TIMEOUT) -> None:
        self._sockets = sockets
        self._timeout = timeout_s

    async def read(self, service: str) -> dict[str, float]:
        return (await self.traffic(service)).weights

    async def traffic(self, service: str) -> Traffic:
        body = await self._call(service, "GET", "/weights", None)
        try:
            return self._split(service, body)
        except OutcomeUnknown as error:
            raise ActionFailed(error.message, where=error.where) from error

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split. Variants not named get nothing."""
        return await self._put(service, {"weights": dict(weights), "lease_s": lease_s})

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split if it is still the one that was `seen`, by its revision."""
        return await self._put(service, {"weights": dict(weights), "lease_s": lease_s,
                                         "if_revision": seen.revision})

    async def shift_leased(self, seen: Traffic, service: str, weights: Mapping[str, float],
                           lease_s: float, fallback: Mapping[str, float]) -> dict[str, float]:
        """As `shift_from`, with a lease that ends in the `fallback` weights (percent, whole split).
        The gateway itself sees to it, also when the lease runs out while it is down."""
        return await self._put(service, {"weights": dict(weights), "lease_s": lease_s,
                                         "fallback": dict(fallback), "if_revision": seen.revision})

    async def renew(self, service: str, lease_s: float) -> Traffic:
        """Let the lease run for `lease_s` seconds from now, with the fallback it has. ActionFailed
        where none runs any more."""
        return self._split(service, await self._call(service, "POST", "/lease",
                                                     {"lease_s": lease_s}))

    async def mirror(self, service: str, variant: str, percent: float, lease_s: float) -> None:
        """Send `percent` of the requests a second time, to `variant`, for `lease_s` seconds from now, in
        place of any mirror before. Their answers are thrown away; what they show is counted under the
        variant's name with "+mirror" behind it."""
        self._check_mirror(service, variant, await self._call(service, "PUT", "/mirror", {
            "variant": variant, "percent": percent, "lease_s": lease_s}))

    async def unmirror(self, service: str) -> None:
        """Mirror no more; nothing happens where there is no mirror."""
        self._check_mirror(service, None, await self._call(service, "DELETE", "/mirror", None))

    def _check_mirror(self, service: str, variant: str | None, body: Any) -> None:
        try:
            owner, mirror = body["service"], body["mirror"]
            mirrored = None if mirror is None else mirror["variant"]
        except (KeyError, TypeError) as error:
            raise OutcomeUnknown(f"The gateway of {service} gave an answer that is not a mirror.",
                                 where=str(self._sockets[service])) from error
        self._check_owner(service, owner)
        if mirrored != variant:
            raise ActionFailed(f"The gateway of {service} was asked to mirror to {variant or 'none'} "
                               f"and mirrors to {mirrored or 'none'}.",
                               where=str(self._sockets[service]))

    def _check_owner(self, service: str, owner: str) -> None:
        if owner != service:
            raise ActionFailed(f"This admin socket belongs to {owner}, not to {service}.",
                               where=str(self._sockets[service]),
                               hint="Correct the gateway's socket in opsdeck.yaml.")

    async def _put(self, service: str, body: dict[str, Any]) -> dict[str, float]:
        return self._split(service, await self._call(service, "PUT", "/weights", body)).weights

    async def _call(self, service: str, method: str, path: str, body: Any) -> Any:
        import httpx

        socket = self._sockets.get(service)
        if socket is None:
            raise NotFound(f"{service} has no gateway in the config.",
                           hint="Give it one under services in opsdeck.yaml.")
        transport = httpx.AsyncHTTPTransport(uds=str(socket), verify=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway",
                                     timeout=self._timeout) as client:
            sending = Sending()
            try:
                answer = await client.request(method, path, json=body,
                                              extensions={"trace": sending.trace})
            except httpx.TransportError as error:
                if not sending.begun:
                    raise ActionFailed(
                        f"The gateway of {service} does not answer ({_kind(error)}); nothing was "
                        "changed.", where=str(socket),
                        hint="If it is down, the runbook gateway-down brings it back.") from error
                if method == "GET":
                    raise ActionFailed(
                        f"The gateway of {service} broke off while it was being read "
                        f"({_kind(error)}).", where=str(socket)) from error
                raise OutcomeUnknown(
                    f"The gateway of {service} was asked to change its traffic and did not say "
                    f"whether it did ({_kind(error)}).", where=str(socket),
                    hint="Read the weights before you go on.") from error
        return _content(service, method, answer)

    def _split(self, service: str, body: Any) -> Traffic:
        try:
            traffic, owner = _traffic(body), body["service"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutcomeUnknown(f"The gateway of {service} gave an answer that is not a split.",
                                 where=str(self._sockets[service])) from error
        self._check_owner(service, owner)
        return traffic


def _content(service: str, method: str, answer: httpx.Response) -> Any:
    """The JSON of a good answer. A refusal becomes ActionFailed with the gateway's own words; an
    error after which nobody can say what is in force becomes OutcomeUnknown."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if answer.is_success:
        return body
    said = body if isinstance(body, dict) else {}
    message = f"{said.get('error') or 'It did not say why.'} ({answer.status_code})"
    refused = answer.is_client_error or said.get("code") == ActionFailed.code
    if method == "GET" or refused:
        raise ActionFailed(f"The gateway of {service} refused: {message}", hint=said.get("hint"))
    raise OutcomeUnknown(f"The gateway of {service} failed while it changed its traffic: {message}",
                         hint="Read the weights before you go on.")


def _traffic(body: Any) -> Traffic:
    lease = body["lease"]
    return Traffic(weights={str(name): float(weight) for name, weight in body["weights"].items()},
                   champion=str(body["champion"]), revision=int(body["revision"]),
                   lease_s=None if lease is None else float(lease["expires_in_s"]))


def _kind(error: Exception) -> str:
    return str(error) or type(error).__name__
