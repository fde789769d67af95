"""An Application Load Balancer's weighted target groups as a router.

The forward action of one rule, or of a listener's default, changes in one request; its other actions,
their order and the stickiness stay as they are. Where target groups are sticky, clients that have a
cookie stay with their target group whatever the weights say, until it expires: a rollback does not
reach them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.config_routers import Alb
from engine.errors import ActionFailed
from engine.rollout.traffic.aws_router import Asked, AwsRouter, Found
from engine.rollout.traffic.weights import shares, whole_weights

MOST = 999


class AlbRouter(AwsRouter[Alb]):
    """Satisfies DetailedRouter. A target group that the action does not name has the weight 0, and is
    added to it by a shift."""

    api = "elbv2"
    title = "ALB"

    def _names(self, config: Alb) -> Mapping[str, str]:
        return config.target_groups

    def _where(self, config: Alb) -> str:
        return config.rule or config.listener or "no rule or listener"

    def _find(self, client: Any, config: Alb) -> Found:
        actions = self._actions(client, config)
        groups = _groups(self._forward(actions, config))
        return Found({group["TargetGroupArn"]: float(group.get("Weight", 1)) for group in groups}, actions)

    async def _set(self, service: str, config: Alb, found: Found, split: Mapping[str, float]) -> Asked:
        weights = whole_weights(split, MOST)
        by_group = {config.target_groups[variant]: weight for variant, weight in weights.items()}
        forward = self._forward(found.raw, config)
        actions = [_weighted(action, by_group) if action is forward else _resent(action)
                   for action in found.raw]

        def modify(client: Any) -> Any:
            if config.rule is not None:
                return client.modify_rule(RuleArn=config.rule, Actions=actions)["Rules"]
            return client.modify_listener(ListenerArn=config.listener, DefaultActions=actions)["Listeners"]

        await self._call(service, config, modify, writing=True)
        return Asked(shares(weights) or {})

    def _actions(self, client: Any, config: Alb) -> list[dict[str, Any]]:
        if config.rule is not None:
            found = client.describe_rules(RuleArns=[config.rule])["Rules"]
            key = "Actions"
        else:
            found = client.describe_listeners(ListenerArns=[config.listener])["Listeners"]
            key = "DefaultActions"
        if not found:
            raise ActionFailed(f"There is no {self._where(config)}; nothing was changed.",
                               where=self._where(config), hint="Correct the router in opsdeck.yaml.")
        if config.rule is not None and found[0].get("IsDefault"):
            raise ActionFailed("This is the default rule of a listener, which cannot be changed by itself.",
                               where=config.rule, hint="Name its listener in opsdeck.yaml, not the rule.")
        actions: list[dict[str, Any]] = found[0].get(key, [])
        return actions

    def _forward(self, actions: list[dict[str, Any]], config: Alb) -> dict[str, Any]:
        for action in actions:
            if action.get("Type") == "forward":
                return action
        raise ActionFailed(f"{self._where(config)} forwards to no target group.", where=self._where(config),
                           hint="Give it a forward action first.")


def _groups(forward: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The target groups of a forward action. One alone may be named without a configuration."""
    groups: list[dict[str, Any]] = forward.get("ForwardConfig", {}).get("TargetGroups", [])
    if not groups and "TargetGroupArn" in forward:
        return [{"TargetGroupArn": forward["TargetGroupArn"], "Weight": 1}]
    return groups


def _weighted(forward: Mapping[str, Any], weights: Mapping[str, int]) -> dict[str, Any]:
    """The action with `weights` by target group; groups that are not named stay, in their order."""
    there = {group["TargetGroupArn"]: group for group in _groups(forward)}
    groups = [{**group, "Weight": weights.get(arn, group.get("Weight", 1))} for arn, group in there.items()]
    groups += [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()
               if arn not in there]
    # TargetGroupArn beside several groups is refused.
    rest = {key: value for key, value in forward.items() if key != "TargetGroupArn"}
    return {**rest, "ForwardConfig": {**forward.get("ForwardConfig", {}), "TargetGroups": groups}}


def _resent(action: Mapping[str, Any]) -> dict[str, Any]:
    """An action as it may be sent again. The secret of an OIDC login is never told, so it is kept."""
    oidc = action.get("AuthenticateOidcConfig")
    if oidc is None or "ClientSecret" in oidc:
        return dict(action)
    return {**action, "AuthenticateOidcConfig": {**oidc, "UseExistingClientSecret": True}}
