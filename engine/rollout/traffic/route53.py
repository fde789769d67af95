"""Weighted records of Route 53 as a router.

What is read and set are the records: all name servers answer by them once the change is INSYNC, within
about a minute. Clients and resolvers go on with what they have cached for as long as the TTL says, so the
traffic follows later; that it did must be seen in the traffic itself. Where records have health checks,
Route 53 turns to those of weight 0 when all others are unhealthy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from engine.config_routers import Route53
from engine.errors import ActionFailed
from engine.rollout.traffic.aws_router import Asked, AwsRouter, Found
from engine.rollout.traffic.weights import shares, whole_weights

MOST = 255
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")


class Route53Router(AwsRouter[Route53]):
    """Satisfies DetailedRouter. All records change in one batch, or none."""

    api = "route53"
    title = "Route 53"

    def _names(self, config: Route53) -> Mapping[str, str]:
        return config.identifiers

    def _where(self, config: Route53) -> str:
        return f"{config.type} records of {config.name} in zone {config.zone}"

    def _find(self, client: Any, config: Route53) -> Found:
        records = self._records(client, config)
        weights = {name: float(record["Weight"]) for name, record in records.items()}
        # Route 53 takes all records alike where no weight is above 0.
        return Found(weights if any(weights.values()) else dict.fromkeys(weights, 1.0), records)

    async def _set(self, service: str, config: Route53, found: Found,
                   split: Mapping[str, float]) -> Asked:
        weights = whole_weights(split, MOST)
        changes = [{"Action": "UPSERT", "ResourceRecordSet": {**found.raw[name], "Weight": weights[variant]}}
                   for variant, name in config.identifiers.items()]
        change = await self._call(service, config, writing=True,
                                  ask=lambda client: client.change_resource_record_sets(
                                      HostedZoneId=config.zone,
                                      ChangeBatch={"Changes": changes})["ChangeInfo"]["Id"])
        return Asked(shares(weights) or {}, str(change))

    async def _settled(self, service: str, config: Route53, asked: Asked, deadline: float) -> None:
        while True:
            status = await self._call(service, config, lambda client: client.get_change(
                Id=asked.change)["ChangeInfo"]["Status"])
            if status == "INSYNC":
                return
            if self._now() >= deadline:
                raise ActionFailed(f"the change is still {status}.", where=self._where(config))
            await asyncio.sleep(self._poll)

    def _records(self, client: Any, config: Route53) -> dict[str, dict[str, Any]]:
        """The records of this name and type by set identifier, as Route 53 keeps them. Blocks."""
        name, found = _listed(config.name), {}
        pages = client.get_paginator("list_resource_record_sets").paginate(
            HostedZoneId=config.zone, StartRecordName=name, StartRecordType=config.type)
        for record in (record for page in pages for record in page["ResourceRecordSets"]):
            if (_listed(record["Name"]), record["Type"]) != (name, config.type):
                break  # they come sorted, and from here on are others'
            if "Weight" not in record:
                raise ActionFailed(f"The {self._where(config)} are not weighted.",
                                   where=self._where(config),
                                   hint="Make them weighted records, each with a set identifier.")
            found[str(record["SetIdentifier"])] = record
        missing = [identifier for identifier in config.identifiers.values() if identifier not in found]
        if missing:
            raise ActionFailed(
                f"Route 53 has no record {', '.join(missing)} among the {self._where(config)}.",
                where=self._where(config),
                hint=f"It has: {', '.join(found) or 'none'}. Correct the router in opsdeck.yaml.")
        return found


def _listed(name: str) -> str:
    """A domain name as Route 53 lists it: lower case, a dot at the end, other characters as \\ooo."""
    lower = name.lower().rstrip(".").replace("\\052", "*") + "."
    return "".join(c if c in PLAIN else f"\\{ord(c):03o}" for c in lower)
