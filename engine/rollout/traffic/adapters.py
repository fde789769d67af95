"""The adapter of each kind of router that a config may name. Its module is imported when it is made."""

from __future__ import annotations

from engine.config_routers import GatewayApi, HAProxy, Route53, Router, SageMaker
from engine.rollout.traffic.router import DetailedRouter


def make(service: str, router: Router) -> DetailedRouter:
    """The adapter for one service's router."""
    if isinstance(router, HAProxy):
        from engine.rollout.traffic.haproxy import HAProxyRouter
        return HAProxyRouter({service: router})
    if isinstance(router, GatewayApi):
        from engine.rollout.traffic.gateway_api import GatewayApiRouter
        return GatewayApiRouter({service: router})
    if isinstance(router, SageMaker):
        from engine.rollout.traffic.sagemaker import SageMakerRouter
        return SageMakerRouter({service: router})
    if isinstance(router, Route53):
        from engine.rollout.traffic.route53 import Route53Router
        return Route53Router({service: router})
    from engine.rollout.traffic.alb import AlbRouter
    return AlbRouter({service: router})
