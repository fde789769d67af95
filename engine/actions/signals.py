"""A service's live signals as expressions may use them: every number a float, never null.

An expression on null is an error, and a run should not end because a percentile is not known yet.
So a number that is not known is -1.0 here, and `known` says whether those that matter are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.actions.web import config
from engine.errors import ActionFailed, NotFound
from engine.procedures.actions import Context
from engine.rollout.traffic.router import read_traffic

NUMBERS = ("rps", "p50_ms", "p95_ms", "p99_ms", "error_ratio", "in_flight", "weight", "age_s")
ERRORS = ("timeout", "out_of_memory", "invalid_input", "model_error", "unavailable")
UNKNOWN = -1.0


def settled(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` as the collector gives it → rps, p50_ms, p95_ms, p99_ms, error_ratio, in_flight,
    weight, age_s (floats, -1.0 where not known), errors (per second by type, every type of the
    gateway is there), stale, and known: whether rate, percentiles and error ratio are known and
    fresh, which needs requests in the window."""
    result: dict[str, Any] = {name: _number(raw.get(name)) for name in NUMBERS}
    result["errors"] = {kind: _number(rate) for kind, rate in errors(raw).items()}
    result["stale"] = bool(raw.get("stale", True))
    wanted = ("rps", "p50_ms", "p95_ms", "p99_ms", "error_ratio")
    result["known"] = not result["stale"] and all(result[name] >= 0 for name in wanted)
    return result


def errors(raw: Mapping[str, Any]) -> dict[str, float | None]:
    """Errors per second, with every type of the gateway: None while the rate is not known."""
    missing = None if raw.get("rps") is None else 0.0
    found: dict[str, float | None] = dict.fromkeys(ERRORS, missing)
    return found | dict(raw.get("errors") or {})


def _number(value: Any) -> float:
    return UNKNOWN if value is None else float(value)


async def variants(ctx: Context, service: str, raw: Mapping[str, Any]) -> list[str]:
    """The names of a service's variants: as the signals tell, else as the router does, else as the
    config does. The router may be the very thing that is down."""
    if told := raw.get("variants"):
        return list(told)
    try:
        return list((await read_traffic(ctx.router, service)).weights)
    except (ActionFailed, NotFound):
        entry = config(ctx).services.get(service)
        return [] if entry is None else sorted({entry.champion, *entry.versions})


def worst(variants: Mapping[str, Mapping[str, Any]], signal: str) -> str:
    """The variant with the highest `signal` among those with traffic; "" if none is known."""
    known = {name: entry[signal] for name, entry in variants.items()
             if entry["rps"] > 0 and entry[signal] > 0 and not entry["stale"]}
    return max(sorted(known), key=lambda name: known[name], default="")


def main_error(variants: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """The type with the most errors a second over all variants, and the variant that has most of
    them; "" and "" if there are no errors."""
    total: dict[str, float] = {}
    for entry in variants.values():
        for kind, rate in entry["errors"].items():
            total[kind] = total.get(kind, 0.0) + max(0.0, rate)
    kind = max(sorted(total), key=lambda kind: total[kind], default="")
    if total.get(kind, 0.0) <= 0:
        return "", ""
    return kind, max(sorted(variants), key=lambda name: variants[name]["errors"].get(kind, 0.0))
