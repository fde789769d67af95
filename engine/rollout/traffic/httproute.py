"""What an HTTPRoute of the Kubernetes Gateway API says of a split, and the patch that changes it. Pure.

    spec.rules[].backendRefs[]  {"name", "weight": 0 to 1,000,000, 1 where it is not said, …}
    status.parents[]            {"parentRef", "conditions": [{"type", "status", "observedGeneration"}]}

Source: gateway.networking.k8s.io/v1, HTTPRouteRule and RouteParentStatus. Routes are plain JSON values.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Literal

from engine.config_routers import GatewayApi
from engine.errors import ActionFailed

MOST = 10_000  # of the 1,000,000 that are allowed: hundredths of a percent can be said
CONDITIONS = ("Accepted", "ResolvedRefs")


def weights_of(route: Mapping[str, Any], place: GatewayApi) -> dict[str, int]:
    """The weight of each variant's backend. Raises ActionFailed where one is not there, or twice."""
    found = {}
    refs = _refs(route, place)
    for variant, name in place.services.items():
        own = [ref for ref in refs if ref["name"] == name]
        if len(own) != 1:
            known = ", ".join(str(ref["name"]) for ref in refs) or "none"
            how = "twice the backend" if own else "no backend"
            raise ActionFailed(
                f"Rule {place.rule} of the HTTPRoute {place.route} has {how} {name}, the one of {variant}.",
                hint=f"It has: {known}. Correct opsdeck.yaml or the route.")
        found[variant] = _weight(own[0])
    return found


def strangers(route: Mapping[str, Any], place: GatewayApi) -> list[str]:
    """The backends that get requests by this rule and are no variants."""
    return [str(ref["name"]) for ref in _refs(route, place)
            if ref["name"] not in place.services.values() and _weight(ref) > 0]


def patch(route: Mapping[str, Any], place: GatewayApi, wanted: Mapping[str, int]) -> dict[str, Any]:
    """The merge patch that sets the weights of `wanted`, by variant, and nothing else.

    A merge patch replaces lists as a whole, so it holds all rules; its resourceVersion makes the API
    refuse it (409) if anything of the route has changed since it was read.
    """
    rules = copy.deepcopy(route["spec"]["rules"])
    by_name = {place.services[variant]: weight for variant, weight in wanted.items()}
    for ref in rules[place.rule]["backendRefs"]:
        if ref["name"] in by_name:
            ref["weight"] = by_name[ref["name"]]
    return {"metadata": {"resourceVersion": route["metadata"]["resourceVersion"]}, "spec": {"rules": rules}}


def generation(route: Mapping[str, Any]) -> int:
    """What changes with each change of the spec, and with nothing else."""
    return int(route["metadata"]["generation"])


def taken_up(route: Mapping[str, Any]) -> tuple[Literal["yes", "no", "not yet"], str]:
    """Whether every gateway has taken up this generation of the route, and in words why not."""
    parents = (route.get("status") or {}).get("parents") or []
    if not parents:
        return "not yet", "no gateway has said anything about this route"
    for parent in parents:
        gateway = parent.get("parentRef", {}).get("name", "?")
        conditions = {one.get("type"): one for one in parent.get("conditions") or []}
        for kind in CONDITIONS:
            one = conditions.get(kind)
            if one is None or int(one.get("observedGeneration") or 0) < generation(route):
                return "not yet", f"the gateway {gateway} has not said {kind} for it"
            if one.get("status") != "True":
                words = ": ".join(str(one[key]) for key in ("reason", "message") if one.get(key))
                return "no", f"the gateway {gateway} does not take it up ({kind} is not so: {words})"
    return "yes", ""


def _refs(route: Mapping[str, Any], place: GatewayApi) -> list[Mapping[str, Any]]:
    rules = (route.get("spec") or {}).get("rules") or []
    if place.rule >= len(rules):
        raise ActionFailed(f"The HTTPRoute {place.route} has {len(rules)} rules and no rule {place.rule}.",
                           hint="Rules are counted from 0. Correct router.rule in opsdeck.yaml.")
    return list(rules[place.rule].get("backendRefs") or [])


def _weight(ref: Mapping[str, Any]) -> int:
    weight = ref.get("weight")
    return 1 if weight is None else int(weight)
