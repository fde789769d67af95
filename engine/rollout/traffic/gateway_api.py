"""The Kubernetes Gateway API as a router: the weights of an HTTPRoute's backends.

The route is read, a patch is rendered (`httproute.patch`) and sent with the version that was read, so
that whoever changed the route in between makes the API refuse it. Then the gateways' word is waited
for: the API keeps what it is told, and whether a gateway acts on it is another matter.

The tests speak to an API server of their own, that does what the documents say; a cluster cannot be had
there. The official client is needed: `pip install opsdeck[kubernetes]`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any

from engine.config_routers import GatewayApi
from engine.errors import ActionFailed, NotFound, OpsdeckError, OutcomeUnknown
from engine.rollout.traffic.httproute import MOST, generation, patch, strangers, taken_up, weights_of
from engine.rollout.traffic.router import Traffic
from engine.rollout.traffic.weights import same, shares, whole_split, whole_weights

TIMEOUT = 5.0
SETTLE = 15.0
_ATTEMPTS = 4  # a status that a gateway writes in between makes a patch stale too
_POLL = 0.25
_GROUP = {"group": "gateway.networking.k8s.io", "version": "v1", "plural": "httproutes"}
_HINT = "Read the weights before you go on."


class GatewayApiRouter:
    """Satisfies DetailedRouter; a revision is the route's generation.

    `services`: the router of each service's config. `settle_s`: how long gateways may take to say that
    they have taken up a change.
    """

    def __init__(self, services: Mapping[str, GatewayApi], timeout_s: float = TIMEOUT,
                 settle_s: float = SETTLE) -> None:
        self._services = services
        self._timeout = timeout_s
        self._settle = settle_s
        self._clients: dict[str, Any] = {}

    async def read(self, service: str) -> dict[str, float]:
        return (await self.traffic(service)).weights

    async def traffic(self, service: str) -> Traffic:
        """Raises ActionFailed also where the percents would not be the whole truth: all weights are 0,
        or a backend that is no variant gets requests too."""
        place = self._place(service)
        return self._truth(service, place, await self._route(service, place))

    async def shift(self, service: str, weights: Mapping[str, float],
                    lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split; variants not named get nothing. Returns the percents now in force.

        Shares of backends that are no variants are not looked at, so that the way back is always open.
        """
        place = self._place(service)
        return await self._set(service, place, whole_split(service, place.services, weights), None)

    async def shift_from(self, seen: Traffic, service: str, weights: Mapping[str, float],
                         lease_s: float | None = None) -> dict[str, float]:
        """Set the whole split if the route's spec is still the one that was `seen`."""
        place = self._place(service)
        return await self._set(service, place, whole_split(service, place.services, weights), seen)

    async def _set(self, service: str, place: GatewayApi, split: Mapping[str, float],
                   seen: Traffic | None) -> dict[str, float]:
        wanted = whole_weights(split, MOST)
        for _ in range(_ATTEMPTS):
            route = await self._route(service, place)
            if seen is not None:
                self._check_unchanged(service, seen, self._truth(service, place, route))
            if weights_of(route, place) != wanted:
                changed = await self._patch(service, place, patch(route, place, wanted))
                if changed is None:
                    continue
                route = changed
                if weights_of(route, place) != wanted:
                    raise ActionFailed(
                        f"Kubernetes said yes, but the split of {service} is as it was.", where=_at(place),
                        hint="An admission webhook, or a controller that owns the route, sets it back.")
            return await self._wait_until_taken_up(service, place, route, wanted)
        raise ActionFailed(f"The HTTPRoute of {service} changes all the time, so that no change came "
                           "through; nothing was changed.", where=_at(place),
                           hint="Look which controller writes it, then try again.")

    async def _wait_until_taken_up(self, service: str, place: GatewayApi, route: Mapping[str, Any],
                                   wanted: Mapping[str, int]) -> dict[str, float]:
        """The split in force, once every gateway says so. Raises OutcomeUnknown where one does not."""
        deadline = time.monotonic() + self._settle
        while True:
            state, words = taken_up(route)
            if state == "yes":
                return _split(service, place, weights_of(route, place))
            if state == "no" or time.monotonic() >= deadline:
                raise OutcomeUnknown(f"The HTTPRoute of {service} has the new split, but {words}.",
                                     where=_at(place), hint=f"kubectl describe httproute {place.route} "
                                     f"-n {place.namespace} says more.")
            await asyncio.sleep(_POLL)
            try:
                route = await self._route(service, place)
                stands = weights_of(route, place)
            except ActionFailed as error:
                raise OutcomeUnknown(f"The split of {service} was set, but cannot be read back: "
                                     f"{error.message}", where=error.where, hint=_HINT) from error
            if stands != wanted:
                raise OutcomeUnknown(f"The split of {service} was set, and somebody set it anew: it is "
                                     f"{_words(stands)}.", where=_at(place), hint=_HINT)

    def _check_unchanged(self, service: str, seen: Traffic, now: Traffic) -> None:
        moved = seen.revision is not None and seen.revision != now.revision
        if moved or not same(now.weights, seen.weights):
            raise ActionFailed(
                f"The HTTPRoute of {service} is no longer the one that was seen: it is at generation "
                f"{now.revision}; nothing was changed.", where=_at(self._place(service)),
                hint="Look who changed it, then try again.")

    def _truth(self, service: str, place: GatewayApi, route: Mapping[str, Any]) -> Traffic:
        if others := strangers(route, place):
            raise ActionFailed(
                f"Rule {place.rule} of the HTTPRoute {place.route} also sends requests to "
                f"{', '.join(others)}, no variant of {service}.", where=_at(place),
                hint="Name it under router.services in opsdeck.yaml, or give it the weight 0.")
        return Traffic(weights=_split(service, place, weights_of(route, place)), revision=generation(route))

    async def _route(self, service: str, place: GatewayApi) -> Mapping[str, Any]:
        """The route as the API has it now. Raises ActionFailed."""
        try:
            route = await self._call(service, place, "get_namespaced_custom_object")
        except OutcomeUnknown as error:
            raise ActionFailed(f"The HTTPRoute of {service} cannot be read: {error.message}",
                               where=error.where) from error
        if not _is_route(route):
            raise ActionFailed(f"Kubernetes gave an answer about {service} that is not an HTTPRoute.",
                               where=_at(place), hint="Is the kubeconfig's address that of an API server?")
        return dict(route)

    async def _patch(self, service: str, place: GatewayApi, body: Mapping[str, Any]
                     ) -> Mapping[str, Any] | None:
        """The changed route, None where it has changed since it was read."""
        try:
            route = await self._call(service, place, "patch_namespaced_custom_object", body=dict(body),
                                     field_manager="opsdeck", _content_type="application/merge-patch+json")
        except _Stale:
            return None
        if not _is_route(route):
            raise OutcomeUnknown(f"Kubernetes was asked to change the split of {service} and gave an answer "
                                 "that is not an HTTPRoute.", where=_at(place), hint=_HINT)
        return dict(route)

    async def _call(self, service: str, place: GatewayApi, verb: str, **more: Any) -> Any:
        """One request by the official client, in a thread of its own."""
        return await asyncio.to_thread(self._ask, service, place, verb, more)

    def _ask(self, service: str, place: GatewayApi, verb: str, more: Mapping[str, Any]) -> Any:
        api = self._clients.get(service) or self._clients.setdefault(service, _connect(place))
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

        try:
            return getattr(api, verb)(**_GROUP, namespace=place.namespace, name=place.route,
                                      _request_timeout=(self._timeout, self._timeout), **more)
        except ApiException as error:
            if error.status == 401:
                self._clients.pop(service, None)  # the next call reads the credentials again
            raise _refusal(service, place, error, changing="body" in more) from error
        except (NewConnectionError, ConnectTimeoutError) as error:
            raise ActionFailed(f"Kubernetes does not answer for {service} ({_kind(error)}); nothing was "
                               "changed.", where=_at(place),
                               hint="Is the kubeconfig's address right, and its API server up?") from error
        except (HTTPError, OSError, ValueError) as error:
            raise OutcomeUnknown(f"Kubernetes was asked about {service} and did not answer "
                                 f"({_kind(error)}).", where=_at(place), hint=_HINT) from error

    def _place(self, service: str) -> GatewayApi:
        place = self._services.get(service)
        if place is None:
            raise NotFound(f"{service} has no HTTPRoute in the config.",
                           hint="Give it a router of kind gateway-api under services in opsdeck.yaml.")
        return place


class _Stale(Exception):
    """409: the route has changed since it was read."""


def _connect(place: GatewayApi) -> Any:
    """A client with the credentials that the config names; within a cluster, those of the pod."""
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise ActionFailed("The Kubernetes client is not installed, so that no HTTPRoute can be read.",
                           hint="pip install opsdeck[kubernetes]") from error
    settings = client.Configuration()
    try:
        if place.kubeconfig is None and place.context is None and _in_cluster():
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(
                config_file=None if place.kubeconfig is None else str(place.kubeconfig),
                context=place.context, client_configuration=settings, persist_config=False)
    except (config.ConfigException, OSError, ValueError) as error:
        raise ActionFailed(f"There are no credentials for Kubernetes: {error}", where=_at(place),
                           hint="Name a kubeconfig and a context under router in opsdeck.yaml.") from error
    settings.retries = False  # whether to ask again is decided by who knows whether that is safe
    return client.CustomObjectsApi(client.ApiClient(settings))


def _in_cluster() -> bool:
    import os

    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def _refusal(service: str, place: GatewayApi, error: Any, changing: bool) -> Exception:
    status, words = int(error.status or 0), _said(error)
    if changing and status == 409:
        return _Stale(words)
    if changing and status >= 500:
        return OutcomeUnknown(f"Kubernetes failed while it changed the split of {service}: {words} "
                              f"({status})", where=_at(place), hint=_HINT)
    hint = {401: "Its credentials are not valid any more; see the kubeconfig.",
            403: "Let this account get and patch httproutes.gateway.networking.k8s.io.",
            404: "Correct router.route and router.namespace in opsdeck.yaml.",
            429: "It is asked too much at the moment; try again."}.get(status)
    return ActionFailed(f"Kubernetes refused for {service}: {words} ({status})", where=_at(place), hint=hint)


def _said(error: Any) -> str:
    """The API's own words: the message of its Status, if it is one."""
    try:
        status = json.loads(error.body)
    except (TypeError, ValueError):
        status = None
    message = status.get("message") if isinstance(status, dict) else None
    return str(message or error.reason or "it did not say why")


def _is_route(value: Any) -> bool:
    """Whether this is a route with all that is needed of one."""
    try:
        return bool(value["metadata"]["resourceVersion"]) and generation(value) >= 0 and isinstance(
            value["spec"]["rules"], list)
    except (KeyError, TypeError, ValueError):
        return False


def _split(service: str, place: GatewayApi, found: Mapping[str, int]) -> dict[str, float]:
    split = shares(found)
    if split is None:
        raise ActionFailed(f"No variant of {service} gets requests: the weights of all are 0.",
                           where=_at(place), hint="Requests get the status 500 until one has a weight.")
    return split


def _words(found: Mapping[str, int]) -> str:
    return ", ".join(f"{variant} {weight}" for variant, weight in found.items())


def _at(place: GatewayApi) -> str:
    return f"HTTPRoute {place.namespace}/{place.route}"


def _kind(error: Exception) -> str:
    return error.message if isinstance(error, OpsdeckError) else type(error).__name__
