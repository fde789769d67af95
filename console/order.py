"""In which order services stand, and when that may change. Pure.

Worst first: a page, then data that is not there, then a ticket, then over a limit, then well; within
one of these by name, so that moving numbers move no row. The order changes only when a service's
class changes or services come and go, and then only when no key was pressed for `HOLD_S` seconds:
rows do not jump under the hand.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import wire

HOLD_S = 2.0
PAGE, STALE, TICKET, OVER, WELL = range(5)


def over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value > limit


def severity(service: wire.Service) -> int:
    """The class a service stands in, 0 worst."""
    if any(alert.level == "page" for alert in service.alerts):
        return PAGE
    if not service.variants or all(variant.stale for variant in service.variants):
        return STALE
    if service.alerts:
        return TICKET
    signals = {"p50_ms": service.p50_ms, "p95_ms": service.p95_ms, "p99_ms": service.p99_ms,
               "error_ratio": service.error_ratio}
    if any(over(value, service.limits.get(key)) for key, value in signals.items()):
        return OVER
    return WELL


class Order:
    """Remembers the order shown, and changes it only for a reason."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._classes: dict[str, int] = {}

    def sort(self, services: Sequence[wire.Service], *, idle_s: float) -> list[wire.Service]:
        """The services in the order to show; `idle_s` is the time since the last key."""
        by_name = {service.name: service for service in services}
        classes = {service.name: severity(service) for service in services}
        if classes != self._classes and (idle_s >= HOLD_S or set(classes) != set(self._classes)):
            self._classes = classes
            self._names = sorted(by_name, key=lambda name: (classes[name], name))
        return [by_name[name] for name in self._names]
