"""What `services.NAME.router` may say: whatever splits a service's traffic, where it is not our gateway.

Each maps the variants of the service to what the router calls them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from engine.fields import Model


def _different(names: dict[str, str]) -> dict[str, str]:
    if not names:
        raise ValueError("it names no variant")
    if len(set(names.values())) < len(names):
        raise ValueError("two variants have the same name there")
    return names


def _haproxys(name: str) -> str:
    """A name that HAProxy allows; any other would end one of its commands and begin another."""
    if not re.fullmatch(r"[A-Za-z0-9_.:-]+", name):
        raise ValueError("names in HAProxy have letters, digits and _ . : - only")
    return name


def _kubernetes(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise ValueError("names in Kubernetes have lower-case letters, digits, . and - only")
    return name


HAProxyName = Annotated[str, AfterValidator(_haproxys)]
KubernetesName = Annotated[str, AfterValidator(_kubernetes)]
Names = Annotated[dict[str, str], AfterValidator(_different)]


class HAProxy(Model):
    """HAProxy by its runtime API: `socket` is its stats socket (`level admin`), `servers` are those of
    `backend` by variant."""

    kind: Literal["haproxy"]
    socket: Path
    backend: HAProxyName
    servers: Annotated[dict[str, HAProxyName], AfterValidator(_different)]


class Aws(Model):
    """What the AWS adapters share; credentials come from where boto3 looks for them."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None


class SageMaker(Aws):
    """An endpoint's production variants, by variant of the service."""

    kind: Literal["sagemaker"]
    endpoint: str
    variants: Names


class Route53(Aws):
    """Weighted records of one name: `identifiers` are their set identifiers by variant."""

    kind: Literal["route53"]
    zone: str
    name: str
    type: Literal["A", "AAAA", "CNAME"] = "CNAME"
    identifiers: Names


class Alb(Aws):
    """A load balancer's rule (or a listener's default action) that forwards to target groups by weight.
    All of them are ARNs."""

    kind: Literal["alb"]
    rule: str | None = None
    listener: str | None = None
    target_groups: Names

    @model_validator(mode="after")
    def _one_place(self) -> Alb:
        if (self.rule is None) == (self.listener is None):
            raise ValueError("give either the ARN of a rule or that of a listener")
        return self


class GatewayApi(Model):
    """An HTTPRoute of the Kubernetes Gateway API: `services` are the backends of its `rule` by variant."""

    kind: Literal["gateway-api"]
    namespace: KubernetesName = "default"
    route: KubernetesName
    rule: int = Field(default=0, ge=0)
    services: Annotated[dict[str, KubernetesName], AfterValidator(_different)]
    context: str | None = None
    kubeconfig: Path | None = None


Router = Annotated[HAProxy | SageMaker | Route53 | Alb | GatewayApi, Field(discriminator="kind")]


def variants(router: Router) -> dict[str, str]:
    """What a router calls each variant of its service."""
    if isinstance(router, HAProxy):
        return router.servers
    if isinstance(router, GatewayApi):
        return router.services
    if isinstance(router, SageMaker):
        return router.variants
    if isinstance(router, Route53):
        return router.identifiers
    return router.target_groups
