"""Signals as the messages and mappings that clients and actions read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.api import wire
from engine.config import Limit, Signal
from engine.monitoring.signals import Signals


def service(name: str, whole: Signals, variants: Mapping[str, Signals], *,
            alerts: list[wire.Alert], limits: dict[str, float], trend: list[float | None],
            lease_s: float | None) -> wire.Service:
    """A row of the fleet; drift, rollout and waiting are left for others to fill."""
    return wire.Service(
        name=name, age_s=_rounded(whole.age_s, 1), alerts=alerts, drift=None, rollout=None,
        waiting=0, variants=[_variant(one, signals) for one, signals in variants.items()],
        limits=limits, rps=_rounded(whole.rps), p50_ms=_rounded(whole.p50_ms),
        p95_ms=_rounded(whole.p95_ms), p99_ms=_rounded(whole.p99_ms),
        error_ratio=_rounded(whole.error_ratio, 6), trend_p99_ms=trend,
        lease_s=_rounded(lease_s, 1))


def _variant(name: str, signals: Signals) -> wire.Variant:
    return wire.Variant(
        name=name, version=signals.version, weight=signals.weight, rps=_rounded(signals.rps),
        p50_ms=_rounded(signals.p50_ms), p95_ms=_rounded(signals.p95_ms),
        p99_ms=_rounded(signals.p99_ms),
        errors={type_: round(rate, 4) for type_, rate in signals.errors.items()},
        stale=signals.stale, in_flight=signals.in_flight, age_s=_rounded(signals.age_s, 1))


def mapping(signals: Signals) -> dict[str, Any]:
    """What `Signals.read` of engine.procedures.actions promises, unrounded, and the version."""
    return {"rps": signals.rps, "p50_ms": signals.p50_ms, "p95_ms": signals.p95_ms,
            "p99_ms": signals.p99_ms, "error_ratio": signals.error_ratio,
            "errors": dict(signals.errors), "in_flight": signals.in_flight,
            "weight": signals.weight, "version": signals.version, "stale": signals.stale,
            "age_s": signals.age_s}


def limits(configured: Mapping[Signal, Limit]) -> dict[str, float]:
    """What is too much by signal, and what is too little under `<signal>.below`."""
    shown: dict[str, float] = {}
    for signal, limit in configured.items():
        if limit.above is not None:
            shown[signal] = limit.above
        if limit.below is not None:
            shown[f"{signal}.below"] = limit.below
    return shown


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
