"""HAProxy as a router: weights of a backend's servers, by the runtime API on its stats socket.

HAProxy sets one server's weight at a time. Both are sent in one go, so that they are in force within
the same millisecond, in an order in which no half-way split exposes more (`ordering`), and what stands
is read in the same breath. If only a part came into force that is OutcomeUnknown, with what stands.
There is no revision: `shift_from` compares the weights right before it sets them, so that somebody who
changes them within that millisecond is not noticed before the read-back.

A reload of HAProxy starts again from the weights in its file. Leases are kept by a watchdog (`leases`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from engine.config_routers import HAProxy
from engine.errors import ActionFailed, NotFound, OutcomeUnknown
from engine.rollout.traffic.haproxy_answers import MOST, Refused, Server, ask, complaints, servers, weigh
from engine.rollout.traffic.ordering import in_order
from engine.rollout.traffic.router import Traffic
from engine.rollout.traffic.weights import same, shares, whole_split, whole_weights

TIMEOUT = 5.0
_LIMIT = 4 << 20  # bytes of an answer
_HINT = "Read the weights before you go on."


class HAProxyRouter:
    """Satisfies DetailedRouter and ObservedRouter. `services`: the router of each service's config."""

    def __init__(self, services: Mapping[str, HAProxy], timeout_s: float = TIMEOUT) -> None:
        self._services = services
        self._timeout = timeout_s

    async def read(self, service: str) -> dict[str, float]:
        """Percents of new requests. A server in maintenance or draining has 0, whatever its weight.

        Raises ActionFailed also where they would not be the whole truth: all weights are 0, or a server
        that is no variant takes requests too.
        """
        place = self._place(service)
        return _truth(service, place, await self._read(service, place))

    async def traffic(self, service: str) -> Traffic:
        return Traffic(weights=await self.read(service))

    async def served(self, service: str) -> dict[str, float]:
        """Requests sent to each variant since HAProxy started (in mode tcp: connections)."""
        place = self._place(service)
        found = await self._read(service, place)
        return {variant: float(found[name].sent) for variant, name in place.servers.items()}

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split; variants not named get nothing. Returns the percents as read back.

        Shares of servers that are no variants are not looked at, so that the way back is always open.
        """
        place = self._place(service)
        split = whole_split(service, place.servers, weights)
        found = await self._read(service, place)
        return await self._set(service, place, found, split)

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split if the percents are still those that were `seen`."""
        place = self._place(service)
        split = whole_split(service, place.servers, weights)
        found = await self._read(service, place)
        now = _truth(service, place, found)
        if not same(now, seen.weights):
            raise ActionFailed(
                f"The split of {service} is no longer the one that was seen: it is now {_words(now)}; "
                "nothing was changed.", where=str(place.socket), hint="Look who changed it, then try again.")
        return await self._set(service, place, found, split)

    async def _set(self, service: str, place: HAProxy, found: Mapping[str, Server],
                   split: Mapping[str, float]) -> dict[str, float]:
        before = {variant: found[name].weight for variant, name in place.servers.items()}
        wanted = whole_weights(split, MOST)
        for variant, name in place.servers.items():
            _check_can_take(place, variant, found[name], wanted[variant])
        order = [(place.servers[variant], wanted[variant]) for variant in in_order(before, wanted)]
        try:
            text = await self._say(service, place, weigh(place.backend, order))
            after = _servers(place, text)
        except (OutcomeUnknown, Refused, ValueError) as error:
            said = error.message if isinstance(error, OutcomeUnknown) else f"HAProxy said: {error}."
            raise OutcomeUnknown(
                f"HAProxy was asked to change the split of {service}, and nobody can say whether it did. "
                f"{said} {await self._standing(service, place)}",
                where=str(place.socket), hint=_HINT) from error
        stands = {variant: after[name].weight for variant, name in place.servers.items()}
        said = complaints(text)
        if stands == wanted and not said:
            return _split(service, place, after)
        if stands == before:
            raise ActionFailed(
                f"HAProxy did not change the split of {service}: "
                f"{said or 'it said yes, but the weights are as they were.'}",
                where=str(place.socket), hint=_advice(said))
        raise OutcomeUnknown(
            f"HAProxy changed the split of {service} only in part, or somebody else changed it too"
            f"{': ' + said if said else '.'} {_stands(stands)}", where=str(place.socket), hint=_HINT)

    async def _standing(self, service: str, place: HAProxy) -> str:
        try:
            found = await self._read(service, place)
        except ActionFailed as error:
            return f"It cannot be read back either: {error.message}"
        return _stands({variant: found[name].weight for variant, name in place.servers.items()})

    async def _read(self, service: str, place: HAProxy) -> dict[str, Server]:
        """Every server of the backend, each variant's among them. Raises ActionFailed."""
        try:
            found = _servers(place, await self._say(service, place, ask(place.backend)))
        except OutcomeUnknown as error:
            raise ActionFailed(f"HAProxy broke off while the split of {service} was read: {error.message}",
                               where=error.where) from error
        except Refused as error:
            raise ActionFailed(f"HAProxy does not show its backend {place.backend}: {error}",
                               where=str(place.socket), hint=_advice(str(error))) from error
        except ValueError as error:
            raise ActionFailed(f"HAProxy's answer about {service} cannot be read: {error}.",
                               where=str(place.socket),
                               hint="Is this the stats socket of an HAProxy of 1.8 or later?") from error
        return found

    async def _say(self, service: str, place: HAProxy, commands: str) -> str:
        """One connection: the commands, then all that is answered until HAProxy closes it."""
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_unix_connection(str(place.socket), limit=_LIMIT)
        except (OSError, TimeoutError) as error:
            raise ActionFailed(
                f"HAProxy does not answer for {service} ({_why(error)}); nothing was changed.",
                where=str(place.socket), hint=_socket_advice(error)) from error
        try:
            async with asyncio.timeout(self._timeout):
                writer.write(commands.encode() + b"\n")
                await writer.drain()
                answer = await _everything(reader)
        except (OSError, TimeoutError) as error:
            raise OutcomeUnknown(f"It did not answer ({_why(error)}).", where=str(place.socket)) from error
        finally:
            writer.close()
        if not answer:
            raise OutcomeUnknown("It closed the connection without an answer.", where=str(place.socket))
        return answer.decode(errors="replace")

    def _place(self, service: str) -> HAProxy:
        place = self._services.get(service)
        if place is None:
            raise NotFound(f"{service} has no HAProxy in the config.",
                           hint="Give it a router of kind haproxy under services in opsdeck.yaml.")
        return place


async def _everything(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while piece := await reader.read(65536):
        answer += piece
        if len(answer) > _LIMIT:
            raise OSError(f"its answer is over {_LIMIT >> 20} MiB")
    return answer


def _servers(place: HAProxy, text: str) -> dict[str, Server]:
    found = servers(text)
    for variant, name in place.servers.items():
        if name not in found:
            known = ", ".join(found) or "none"
            raise Refused(f"it has no server {name} (the one of {variant}); its servers are: {known}")
    return found


def _truth(service: str, place: HAProxy, found: Mapping[str, Server]) -> dict[str, float]:
    strangers = [name for name, server in found.items()
                 if server.takes > 0 and name not in place.servers.values()]
    if strangers:
        raise ActionFailed(
            f"In HAProxy's backend {place.backend}, {_named(strangers)} gets requests too and is no variant "
            f"of {service}.", where=str(place.socket),
            hint="Name it under router.servers in opsdeck.yaml, or take it out of the backend.")
    return _split(service, place, found)


def _split(service: str, place: HAProxy, found: Mapping[str, Server]) -> dict[str, float]:
    split = shares({variant: found[name].takes for variant, name in place.servers.items()})
    if split is None:
        raise ActionFailed(
            f"No variant of {service} gets requests: the weights of all are 0, or they are in maintenance.",
            where=str(place.socket), hint="See `show servers state` on HAProxy's socket.")
    return split


def _check_can_take(place: HAProxy, variant: str, server: Server, weight: int) -> None:
    """Raises ActionFailed where a weight would do nothing."""
    if weight == 0:
        return
    at = f"{place.backend}/{server.name}"
    if server.backup:
        raise ActionFailed(f"{variant} ({at}) is a backup server in HAProxy, which gets requests only when "
                           "no other can; nothing was changed.", where=str(place.socket),
                           hint="Take `backup` off that server in HAProxy's file.")
    if server.maintenance or server.draining:
        state = "in maintenance" if server.maintenance else "draining"
        raise ActionFailed(f"{variant} ({at}) is {state} in HAProxy, so that a weight would do nothing; "
                           "nothing was changed.", where=str(place.socket),
                           hint=f"Tell HAProxy's socket: set server {at} state ready")


def _stands(weights: Mapping[str, int]) -> str:
    split = shares({variant: float(weight) for variant, weight in weights.items()})
    return "All weights are 0 now." if split is None else f"It stands at {_words(split)}."


def _words(split: Mapping[str, float]) -> str:
    return ", ".join(f"{variant} {weight:.3g} %" for variant, weight in split.items())


def _named(names: list[str]) -> str:
    return ("server " if len(names) == 1 else "each of the servers ") + ", ".join(names)


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _socket_advice(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return "Let the engine's user use it: `stats socket … user … mode 660 level admin` in HAProxy's file."
    return "Is HAProxy running, and is this the path of its `stats socket`?"


def _advice(said: str) -> str | None:
    if "ermission denied" in said:
        return "Give the socket `level admin` in HAProxy's file."
    if "static LB algorithm" in said:
        return "Take `balance roundrobin` or `leastconn`, or a hash with `hash-type consistent`."
    if "backend" in said.lower() or "server" in said.lower():
        return "Correct the router's backend and servers in opsdeck.yaml."
    return None
